"""Studies: one experiment repeated over settings and seeds, on one machine or many."""

from reluflow.experiments.engine import WorkersLostError
from reluflow.experiments.registry import Cost, Experiment, Record, Setting
from reluflow.experiments.spec import SpecError, Study, read_study, shipped_studies
from reluflow.experiments.store import Store, StoreError, export, read_store
from reluflow.experiments.sweep import Plan, plan, sweep

__all__ = [
    "Cost",
    "Experiment",
    "Plan",
    "Record",
    "Setting",
    "SpecError",
    "Store",
    "StoreError",
    "Study",
    "WorkersLostError",
    "export",
    "plan",
    "read_store",
    "read_study",
    "shipped_studies",
    "sweep",
]

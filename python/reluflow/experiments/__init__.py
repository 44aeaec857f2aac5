"""Whole experiments: one problem end to end, and studies over settings and seeds."""

from reluflow.experiments.comparison import Comparison
from reluflow.experiments.double_edge import DoubleEdge, double_edge
from reluflow.experiments.engine import WorkersLostError
from reluflow.experiments.frontier import Frontier, FrontierPoint, frontier
from reluflow.experiments.registry import Cost, Experiment, Record, Setting
from reluflow.experiments.spec import SpecError, Study, read_study, shipped_studies
from reluflow.experiments.store import Store, StoreError, export, read_store
from reluflow.experiments.sweep import Plan, plan, sweep

__all__ = [
    "Comparison",
    "Cost",
    "DoubleEdge",
    "Experiment",
    "Frontier",
    "FrontierPoint",
    "Plan",
    "Record",
    "Setting",
    "SpecError",
    "Store",
    "StoreError",
    "Study",
    "WorkersLostError",
    "double_edge",
    "export",
    "frontier",
    "plan",
    "read_store",
    "read_study",
    "shipped_studies",
    "sweep",
]

"""An experiment: settings in, named scalars and arrays out.

The engine and the store know experiments through this module alone; they know nothing of networks.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reluflow._validation import FloatArray, as_number, as_positive_int, one_of

Settings = Mapping[str, Any]
Scalar = float | int | str | bool | None

SEED = "seed"
# Columns of a study's table that are neither settings nor scalars: where the numbers come from.
# The volatile ones may differ between two runs of the same study.
VOLATILE = ("seconds", "started", "finished", "host", "executor", "threads")
PROVENANCE = ("key", "experiment", "numerics", "version", "instruction_set", *VOLATILE)
STATE = ("status", "reason")
_KINDS = ("integer", "number", "flag", "text")


@dataclass(frozen=True)
class Setting:
    """One setting of an experiment, and which values it takes.

    Attributes
    ----------
    name : str
    kind : {"integer", "number", "flag", "text"}
    default : scalar or None
        None where a study has to give it, unless ``optional``.
    optional : bool
        Whether None is a value.
    minimum : float or None
        Smallest value.
    above : float or None
        Bound that the value must exceed.
    choices : tuple of str
        The values of a text, all if empty.
    text : str
        What it is, with its unit.
    """

    name: str
    kind: str
    text: str
    default: Scalar = None
    optional: bool = False
    minimum: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        one_of("kind", self.kind, _KINDS)

    @property
    def required(self) -> bool:
        """Whether a study has to give it."""
        return self.default is None and not self.optional

    def value(self, given: Any) -> Scalar:
        """``given`` as a value of this setting.

        Raises
        ------
        ValueError, TypeError
            If it is none.
        """
        if given is None and self.optional:
            return None
        if self.kind == "integer":
            minimum = 0 if self.minimum is None else int(self.minimum)
            return as_positive_int(self.name, given, minimum=minimum)
        if self.kind == "number":
            return as_number(self.name, given, above=self.above, at_least=self.minimum)
        if self.kind == "flag":
            if not isinstance(given, bool):
                raise TypeError(f"{self.name} must be true or false; got {given!r}")
            return given
        if not isinstance(given, str):
            raise TypeError(f"{self.name} must be a text; got {given!r}")
        return one_of(self.name, given, self.choices) if self.choices else given


@dataclass(frozen=True)
class Record:
    """What a run of an experiment found.

    Attributes
    ----------
    scalars : dict
        Numbers, texts and flags by name, each a column of the study's table.
    arrays : dict
        Arrays by name.
    """

    scalars: Mapping[str, Scalar] = field(default_factory=dict)
    arrays: Mapping[str, FloatArray] = field(default_factory=dict)

    @classmethod
    def joined(cls, records: Iterable[Record]) -> Record:
        """All of them as one; of scalars and arrays of one name the last."""
        scalars: dict[str, Scalar] = {}
        arrays: dict[str, FloatArray] = {}
        for record in records:
            scalars.update(record.scalars)
            arrays.update(record.arrays)
        return cls(scalars, arrays)

    def require_free_names(self, settings: Settings) -> None:
        """Refuses scalars that another column of the table has the name of."""
        taken = {*settings, *STATE, *PROVENANCE}
        hidden = next((name for name in self.scalars if name in taken), None)
        if hidden is not None:
            raise ValueError(f"scalar {hidden!r} has the name of a setting or of a column")


@dataclass(frozen=True)
class Cost:
    """What a run is expected to take on one core.

    Attributes
    ----------
    seconds : float
    bytes : float
        Largest memory in use, beyond that of the interpreter.
    """

    seconds: float
    bytes: float = 0.0


Runner = Callable[[Settings, Sequence[str]], Record]
Together = Callable[[Sequence[Settings], Sequence[str]], Sequence[Callable[[], Record]]]


def no_conflict(settings: Settings, outputs: Sequence[str]) -> tuple[str, str] | None:
    """For experiments in which every combination of settings is possible."""
    return None


def unknown_cost(settings: Settings, outputs: Sequence[str]) -> Cost:
    """For experiments that do not tell what a run takes."""
    return Cost(1.0)


@dataclass(frozen=True)
class Experiment:
    """What a study repeats.

    Attributes
    ----------
    name : str
    run : callable
        From (settings, outputs) to a `Record`. It has to be importable where the runs happen, and
        its record may depend on its arguments alone.
    settings : tuple of Setting
        All of them but ``seed``, which every experiment has.
    outputs : tuple of str
        What can be asked for.
    numerics : int
        Version of the numbers: raised when the same settings give other numbers, so that stored
        runs of earlier versions are not taken for those of this one.
    conflict : callable
        From (settings, outputs) to the name of a setting and a line that says why the combination
        is impossible, or to None.
    cost : callable
        From (settings, outputs) to a `Cost`.
    together : callable or None
        From (list of settings, outputs) to as many callables without arguments, each of which makes
        the record of its settings, the same that ``run`` makes. What is faster together, such as
        many small flows, is done before they are called. Short runs are then made in batches.
    """

    name: str
    run: Runner
    settings: tuple[Setting, ...]
    outputs: tuple[str, ...] = ()
    numerics: int = 1
    conflict: Callable[[Settings, Sequence[str]], tuple[str, str] | None] = no_conflict
    cost: Callable[[Settings, Sequence[str]], Cost] = unknown_cost
    together: Together | None = None

    def setting(self, name: str) -> Setting | None:
        """The setting of that name, or None."""
        return next((one for one in self.settings if one.name == name), None)

    def complete(self, given: Settings) -> dict[str, Scalar]:
        """All settings in the experiment's order, defaults filled in, ``seed`` last."""
        values = {
            one.name: one.value(given[one.name]) if one.name in given else one.default
            for one in self.settings
        }
        return {**values, SEED: given.get(SEED, 0)}


def run_key(experiment: Experiment, settings: Settings, outputs: Sequence[str]) -> str:
    """Hash of everything that a run's numbers depend on.

    Equal for equal configurations in any process, and whatever the order of settings and outputs.
    """
    configuration = {
        "experiment": experiment.name,
        "numerics": experiment.numerics,
        "settings": dict(settings),
        "outputs": sorted(outputs),
    }
    text = json.dumps(configuration, sort_keys=True, separators=(",", ":"), allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# Where the experiments that come with the package live; a study may name its own in the same way.
BUILT_IN = {
    "double-edge": "reluflow.experiments.built_in:DOUBLE_EDGE",
    "digits": "reluflow.experiments.built_in:ON_DIGITS",
    "deep": "reluflow.experiments.deep:DEEP",
    "adversarial": "reluflow.experiments.adversarial:ADVERSARIAL",
    "frontier": "reluflow.experiments.frontier:FRONTIER",
}


def find_experiment(name: str | Experiment) -> Experiment:
    """The experiment of a name: one that comes with the package, or ``"module:object"``.

    Raises
    ------
    ValueError
        If there is none.
    """
    if isinstance(name, Experiment):
        return name
    module, _, attribute = BUILT_IN.get(name, name).partition(":")
    if not attribute:
        known = ", ".join(BUILT_IN)
        raise ValueError(
            f"experiment={name!r} is unknown; use {known}, or module:object for one of your own"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"experiment={name!r} cannot be imported: {error}") from None
    if not isinstance(found, Experiment):
        raise ValueError(f"experiment={name!r} is a {type(found).__name__}, not an Experiment")
    return found

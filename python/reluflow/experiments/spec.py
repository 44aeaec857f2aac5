"""What a study is: fixed settings, axes, replicates, outputs; read from TOML or a dictionary.

Everything that can be wrong is found here, before anything runs.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from reluflow.experiments._toml import TOMLDecodeError, last_statement, line_of, parse
from reluflow.experiments.registry import (
    SEED,
    Experiment,
    Scalar,
    find_experiment,
    run_key,
)

KeyPath = tuple[str | int, ...]
Values = tuple[Scalar, ...]

_TOP = (
    "name",
    "title",
    "question",
    "text",
    "experiment",
    "outputs",
    "replicates",
    "seed",
    "max_run_seconds",
    "fixed",
    "axes",
    "zipped",
    "random",
    "figures",
    "quick",
)
_QUICK = ("replicates", "outputs", "fixed", "axes", "zipped", "random")
_RANGES = ("linear", "log")
_DRAWS = ("uniform", "log_uniform", "choice")
_FIGURE_KINDS = ("lines", "map")
_SCALES = ("linear", "log", "symlog")


class SpecError(ValueError):
    """A study that cannot be run as it is written; the message names the place."""


@dataclass(frozen=True)
class Figure:
    """A figure of a study's page.

    Attributes
    ----------
    name : str
        Of its files.
    title, caption : str
    kind : {"lines", "map"}
        Means over the seeds with intervals against ``x``; or the mean of the first of ``y`` in the
        plane of ``x`` and ``by``.
    x : str
        Column of the horizontal axis.
    y : tuple of str
        Measured columns.
    by : str or None
        Column of which every value gets a line of its own; the vertical axis of a map.
    theory : tuple of str
        Columns drawn as lines of theory.
    x_label, y_label : str
        With units.
    x_scale, y_scale : {"linear", "log", "symlog"}
    y_limits : tuple of float
        Ends of the vertical axis; empty lets the data decide.
    bound : str or None
        Column with an upper bound, shown where the measured mean is 0.
    slope : bool
        Whether a power law is fitted to each of ``y``.
    labels : mapping
        Words for columns.
    """

    name: str
    x: str
    y: tuple[str, ...]
    title: str = ""
    caption: str = ""
    kind: str = "lines"
    by: str | None = None
    theory: tuple[str, ...] = ()
    x_label: str = ""
    y_label: str = ""
    x_scale: str = "linear"
    y_scale: str = "linear"
    y_limits: tuple[float, ...] = ()
    bound: str | None = None
    slope: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One run of a study: its place, its key in the store, and its settings."""

    position: int
    key: str
    settings: dict[str, Scalar]


@dataclass(frozen=True)
class Study:
    """A study that can be run.

    Attributes
    ----------
    name : str
    title, question, text : str
        What it is about, for people.
    experiment : Experiment
    outputs : tuple of str
        What is measured in every run.
    fixed : dict
        Settings that are the same in every run.
    factors : tuple of dict
        Settings that vary: the runs are the product over the factors; within a factor the values
        of several settings go together.
    replicates : int
        Runs a combination, with seeds ``seed``, ``seed`` + 1, ...
    seed : int
    max_run_seconds : float
        Runs that are predicted to take longer on one core are made only when asked for.
    figures : tuple of Figure
    document : dict
        The study as it was written, JSON-ready.
    source : str
        The text of its file, or ``document`` as JSON.
    origin : str
        Where it was read from.
    quick : bool
        Whether this is the quick size.
    """

    name: str
    title: str
    question: str
    text: str
    experiment: Experiment
    outputs: tuple[str, ...]
    fixed: Mapping[str, Scalar]
    factors: tuple[Mapping[str, Values], ...]
    replicates: int
    seed: int
    max_run_seconds: float
    figures: tuple[Figure, ...]
    document: Mapping[str, Any]
    source: str
    origin: str
    quick: bool

    @property
    def varied(self) -> tuple[str, ...]:
        """Names of the settings that vary, ``seed`` aside."""
        return tuple(name for factor in self.factors for name in factor)

    def __len__(self) -> int:
        lengths = (len(next(iter(factor.values()))) for factor in self.factors)
        return self.replicates * math.prod(lengths)

    def combinations(self) -> Iterator[dict[str, Scalar]]:
        """Given settings of every combination, without seeds."""
        tables = [
            [
                dict(zip(factor, values, strict=True))
                for values in zip(*factor.values(), strict=True)
            ]
            for factor in self.factors
        ]
        for parts in itertools.product(*tables):
            merged = dict(self.fixed)
            for part in parts:
                merged.update(part)
            yield merged

    def runs(self) -> Iterator[Run]:
        """All runs, in the order of the study's table."""
        position = 0
        for given in self.combinations():
            for replicate in range(self.replicates):
                settings = self.experiment.complete({**given, SEED: self.seed + replicate})
                key = run_key(self.experiment, settings, self.outputs)
                yield Run(position, key, settings)
                position += 1


def shipped_studies() -> tuple[str, ...]:
    """Names of the studies that come with the package."""
    folder = resources.files("reluflow.experiments") / "studies"
    names = (entry.name for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return tuple(sorted(name.removesuffix(".toml") for name in names))


def read_study(source: str | Path | Mapping[str, Any] | Study, *, quick: bool = False) -> Study:
    """The study of a file, of a name that comes with the package, or of a dictionary.

    Parameters
    ----------
    source : path, str, mapping or Study
        A TOML file; the name of a study that comes with the package; or what such a file holds,
        as nested dictionaries, where ``experiment`` may be an `Experiment`. A `Study` is returned
        as it is.
    quick : bool
        The quick size: what the table ``quick`` says replaces the rest.

    Raises
    ------
    SpecError
        If anything is unknown, empty or impossible; names the file and the line.
    OSError
        If the file cannot be read.
    """
    if isinstance(source, Study):
        return source
    if isinstance(source, Mapping):
        return _Reader("study", dict(source), None).study(quick)
    text, origin = _text_of(source)
    try:
        document = parse(text)
    except TOMLDecodeError as error:
        place = "" if "line" in str(error) else f", line {last_statement(text)}"
        raise SpecError(f"{origin}{place}: {error}") from None
    return _Reader(origin, document, text).study(quick)


def _text_of(source: str | Path) -> tuple[str, str]:
    if str(source) in shipped_studies():
        file = resources.files("reluflow.experiments") / "studies" / f"{source}.toml"
        return file.read_text(encoding="utf-8"), f"{source}.toml"
    path = Path(source)
    if path.suffix != ".toml":
        known = ", ".join(shipped_studies())
        raise SpecError(f"study {str(source)!r} is unknown; use a .toml file, or one of {known}")
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except OSError as error:
        raise type(error)(f"study {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SpecError(f"study {path} is not a text in UTF-8") from None


class _Reader:
    """Turns one document into a study, and knows where in it everything stands."""

    def __init__(self, origin: str, document: dict[str, Any], text: str | None) -> None:
        self.origin = origin
        self.document = document
        self.text = text
        # Where each setting was given.
        self.places: dict[str, KeyPath] = {}

    def refuse(self, path: KeyPath, message: str) -> NoReturn:
        shown = ".".join(str(part) for part in path)
        if self.text is None:
            raise SpecError(f"{self.origin}: {shown}: {message}" if path else message)
        line = line_of(self.text, path)
        raise SpecError(f"{self.origin}, line {line}: {shown}: {message}")

    def study(self, quick: bool) -> Study:
        self._require_keys((), self.document, _TOP)
        self._require_keys(("quick",), self._table(("quick",)), _QUICK)
        experiment = self._experiment()
        outputs = self._outputs(experiment, quick)
        fixed = self._fixed(experiment, quick)
        factors = self._factors(experiment, quick)
        name = self._string("name", Path(self.origin).stem)
        study = Study(
            name=name,
            title=self._string("title", name),
            question=self._string("question", ""),
            text=self._string("text", ""),
            experiment=experiment,
            outputs=outputs,
            fixed=fixed,
            factors=factors,
            replicates=self._count("replicates", 1, 1, quick),
            seed=self._count("seed", 0, 0, False),
            max_run_seconds=self._number("max_run_seconds", math.inf),
            figures=self._figures(experiment),
            document={**self.document, "experiment": experiment.name},
            source=self.text or json.dumps(self.document, indent=2, default=str),
            origin=self.origin,
            quick=quick,
        )
        self._require_complete(study)
        self._require_possible(study)
        return study

    # -- parts -------------------------------------------------------------------------------

    def _experiment(self) -> Experiment:
        name = self.document.get("experiment", "double-edge")
        if not isinstance(name, str | Experiment):
            self.refuse(("experiment",), f"must be a text; got {name!r}")
        try:
            return find_experiment(name)
        except ValueError as error:
            self.refuse(("experiment",), str(error))

    def _outputs(self, experiment: Experiment, quick: bool) -> tuple[str, ...]:
        path = self._place("outputs", quick)
        asked = self._at(path)
        if asked is None:
            return experiment.outputs
        if not isinstance(asked, list | tuple) or (experiment.outputs and not asked):
            self.refuse(path, f"must list some of {', '.join(experiment.outputs)}")
        for output in asked:
            if output not in experiment.outputs:
                known = ", ".join(experiment.outputs) or "none"
                self.refuse(path, f"output {output!r} is unknown; this experiment has {known}")
        # The experiment's own order, so that equal requests have equal tables.
        return tuple(output for output in experiment.outputs if output in asked)

    def _fixed(self, experiment: Experiment, quick: bool) -> dict[str, Scalar]:
        fixed: dict[str, Scalar] = {}
        for section in self._sections("fixed", quick):
            for name, value in self._table(section).items():
                path = (*section, name)
                fixed[name] = self._value(experiment, path, name, value)
                self.places[name] = path
        return fixed

    def _factors(self, experiment: Experiment, quick: bool) -> tuple[Mapping[str, Values], ...]:
        factors: list[dict[str, Values]] = []
        axes: dict[str, KeyPath] = {}
        for section in self._sections("axes", quick):
            axes.update({name: (*section, name) for name in self._table(section)})
        for name, path in axes.items():
            self._claim(name, path)
            factors.append({name: self._axis(experiment, path, name, self._at(path))})
        factors.extend(self._zipped(experiment, self._place("zipped", quick)))
        factors.extend(self._random(experiment, self._place("random", quick)))
        return tuple(factors)

    def _axis(self, experiment: Experiment, path: KeyPath, name: str, given: Any) -> Values:
        if isinstance(given, Mapping):
            given = self._range(experiment, path, name, given)
        if not isinstance(given, list | tuple):
            self.refuse(
                path,
                "must be a list, or {linear = [a, b], count = n}, or {log = [a, b], count = n}",
            )
        if not given:
            self.refuse(path, "has no values; an axis needs at least one")
        values = tuple(self._value(experiment, path, name, value) for value in given)
        repeated = next((value for i, value in enumerate(values) if value in values[:i]), None)
        if repeated is not None:
            self.refuse(path, f"has the value {repeated!r} twice")
        return values

    def _range(
        self, experiment: Experiment, path: KeyPath, name: str, given: Mapping[str, Any]
    ) -> list[Any]:
        kind = self._one_kind(path, given, _RANGES, extra=("count",))
        low, high = self._bounds(path, given[kind], positive=kind == "log")
        count = self._whole((*path, "count"), given.get("count"), 1)
        space = np.geomspace if kind == "log" else np.linspace
        points = space(low, high, count)
        return self._rounded(experiment, name, points)

    def _zipped(self, experiment: Experiment, path: KeyPath) -> Iterator[dict[str, Values]]:
        groups = self._at(path)
        if groups is None:
            return
        if isinstance(groups, Mapping):
            groups = [groups]
            paths = [path]
        else:
            if not isinstance(groups, list | tuple):
                self.refuse(path, "must be tables: [[zipped]]")
            paths = [(*path, index) for index in range(len(groups))]
        for place, group in zip(paths, groups, strict=True):
            if not isinstance(group, Mapping) or not group:
                self.refuse(place, "must be a table of lists of the same length")
            factor: dict[str, Values] = {}
            for name, values in group.items():
                self._claim(name, (*place, name))
                if not isinstance(values, list | tuple) or not values:
                    self.refuse((*place, name), "must be a list of at least one value")
                factor[name] = tuple(
                    self._value(experiment, (*place, name), name, value) for value in values
                )
            lengths = {name: len(values) for name, values in factor.items()}
            if len(set(lengths.values())) > 1:
                shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
                self.refuse(place, f"zipped lists must be of one length; they have {shown}")
            yield factor

    def _random(self, experiment: Experiment, path: KeyPath) -> Iterator[dict[str, Values]]:
        table = self._table(path)
        if not table:
            return
        count = self._whole((*path, "count"), table.get("count"), 1)
        seed = self._whole((*path, "seed"), table.get("seed", 0), 0)
        factor: dict[str, Values] = {}
        names = [name for name in table if name not in ("count", "seed")]
        if not names:
            self.refuse(path, "draws no setting; give some as {uniform = [a, b]}")
        for index, name in enumerate(names):
            place = (*path, name)
            self._claim(name, place)
            rng = np.random.default_rng([seed, index])
            drawn = self._drawn(experiment, place, name, table[name], count, rng)
            factor[name] = tuple(self._value(experiment, place, name, value) for value in drawn)
        yield factor

    def _drawn(
        self,
        experiment: Experiment,
        path: KeyPath,
        name: str,
        given: Any,
        count: int,
        rng: np.random.Generator,
    ) -> list[Any]:
        if not isinstance(given, Mapping):
            self.refuse(path, "must be {uniform = [a, b]}, {log_uniform = [a, b]} or {choice = []}")
        kind = self._one_kind(path, given, _DRAWS)
        if kind == "choice":
            values = given[kind]
            if not isinstance(values, list | tuple) or not values:
                self.refuse(path, "has no values to choose from")
            return [values[i] for i in rng.integers(len(values), size=count)]
        low, high = self._bounds(path, given[kind], positive=kind == "log_uniform")
        shares = rng.random(count)
        if kind == "log_uniform":
            points = np.exp(np.log(low) + shares * np.log(high / low))
        else:
            points = low + shares * (high - low)
        one = experiment.setting(name)
        if one is not None and one.kind == "integer":
            return [int(value) for value in np.rint(points)]
        return [float(value) for value in points]

    def _figures(self, experiment: Experiment) -> tuple[Figure, ...]:
        tables = self.document.get("figures", ())
        if not isinstance(tables, list | tuple):
            self.refuse(("figures",), "must be tables: [[figures]]")
        try:
            return tuple(figure(table) for table in tables)
        except SpecError as error:
            self.refuse(("figures",), str(error))

    # -- checks ------------------------------------------------------------------------------

    def _require_complete(self, study: Study) -> None:
        for one in study.experiment.settings:
            if one.required and one.name not in self.places:
                section: KeyPath = ("fixed",) if "fixed" in self.document else ()
                self.refuse(
                    section, f"{one.name} is missing ({one.text}); give it in fixed or axes"
                )

    def _require_possible(self, study: Study) -> None:
        for given in study.combinations():
            settings = study.experiment.complete(given)
            found = study.experiment.conflict(settings, study.outputs)
            if found is not None:
                name, message = found
                self.refuse(self.places.get(name, ()), f"impossible combination: {message}")

    def _claim(self, name: str, path: KeyPath) -> None:
        if name in self.places:
            earlier = ".".join(str(part) for part in self.places[name])
            self.refuse(path, f"{name} is given twice, also by {earlier}")
        self.places[name] = path

    def _value(self, experiment: Experiment, path: KeyPath, name: str, given: Any) -> Scalar:
        if name == SEED:
            self.refuse(path, "seeds are given by the study's own seed and replicates")
        one = experiment.setting(name)
        if one is None:
            known = ", ".join(setting.name for setting in experiment.settings)
            self.refuse(path, f"setting {name!r} is unknown; {experiment.name} has {known}")
        try:
            return one.value(given)
        except (ValueError, TypeError) as error:
            self.refuse(path, str(error))

    def _require_keys(self, path: KeyPath, table: Mapping[str, Any], known: Sequence[str]) -> None:
        for key in table:
            if key not in known:
                self.refuse((*path, key), f"unknown key; use {', '.join(known)}")

    def _one_kind(
        self,
        path: KeyPath,
        given: Mapping[str, Any],
        kinds: Sequence[str],
        extra: Sequence[str] = (),
    ) -> str:
        self._require_keys(path, given, (*kinds, *extra))
        found = [kind for kind in kinds if kind in given]
        if len(found) != 1:
            self.refuse(path, f"must have exactly one of {', '.join(kinds)}")
        return found[0]

    def _bounds(self, path: KeyPath, given: Any, *, positive: bool) -> tuple[float, float]:
        numbers = isinstance(given, list | tuple) and all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in given
        )
        if not numbers or len(given) != 2:
            self.refuse(path, f"must go from one number to another: [a, b]; got {given!r}")
        low, high = float(given[0]), float(given[1])
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            self.refuse(path, f"must go up: [a, b] with a < b; got [{low:g}, {high:g}]")
        if positive and low <= 0:
            self.refuse(path, f"a logarithmic range must start above 0; got {low:g}")
        return low, high

    @staticmethod
    def _rounded(experiment: Experiment, name: str, points: Any) -> list[Any]:
        """The points; for an integer setting the nearest integers, each once."""
        one = experiment.setting(name)
        if one is not None and one.kind == "integer":
            return list(dict.fromkeys(int(value) for value in np.rint(points)))
        return [float(value) for value in points]

    # -- access ------------------------------------------------------------------------------

    def _at(self, path: KeyPath) -> Any:
        value: Any = self.document
        for part in path:
            if isinstance(value, Mapping) and part not in value:
                return None
            value = value[part]
        return value

    def _table(self, path: KeyPath) -> Mapping[str, Any]:
        value = self._at(path)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.refuse(path, f"must be a table; got {value!r}")
        return value

    def _place(self, key: str, quick: bool) -> KeyPath:
        """Where ``key`` is read from: the quick table where it has it, else the top."""
        return ("quick", key) if quick and key in self._table(("quick",)) else (key,)

    @staticmethod
    def _sections(key: str, quick: bool) -> tuple[KeyPath, ...]:
        return ((key,), ("quick", key)) if quick else ((key,),)

    def _string(self, key: str, default: str) -> str:
        value = self.document.get(key, default)
        if not isinstance(value, str) or (key == "name" and not value.strip()):
            self.refuse((key,), f"must be a text; got {value!r}")
        return value.strip()

    def _count(self, key: str, default: int, minimum: int, quick: bool) -> int:
        path = self._place(key, quick)
        value = self._at(path)
        return default if value is None else self._whole(path, value, minimum)

    def _number(self, key: str, default: float) -> float:
        value = self.document.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            self.refuse((key,), f"must be a number above 0; got {value!r}")
        return float(value)

    def _whole(self, path: KeyPath, value: Any, minimum: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            self.refuse(path, f"must be a whole number of at least {minimum}; got {value!r}")
        return value


def figure(table: Any) -> Figure:
    """The figure that a table describes.

    Raises
    ------
    SpecError
        If a key is unknown or missing, or a value is none of those allowed.
    """
    known = tuple(Figure.__dataclass_fields__)
    if not isinstance(table, Mapping):
        raise SpecError(f"a figure must be a table; got {table!r}")
    unknown = next((key for key in table if key not in known), None)
    if unknown is not None:
        raise SpecError(f"a figure has no {unknown!r}; use {', '.join(known)}")
    missing = next((key for key in ("name", "x", "y") if key not in table), None)
    if missing is not None:
        raise SpecError(f"a figure needs {missing!r}")
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in table.items()
    }
    for key in ("y", "theory"):
        if isinstance(fields.get(key), str):
            fields[key] = (fields[key],)
    made = Figure(**fields)
    if made.kind == "map" and made.by is None:
        raise SpecError(f"figure {made.name}: a map needs 'by', its vertical axis")
    if made.kind not in _FIGURE_KINDS:
        raise SpecError(f"figure {made.name}: kind={made.kind!r}; use {', '.join(_FIGURE_KINDS)}")
    if len(made.y_limits) not in (0, 2):
        raise SpecError(f"figure {made.name}: y_limits must be [low, high]")
    for scale in (made.x_scale, made.y_scale):
        if scale not in _SCALES:
            raise SpecError(f"figure {made.name}: scale {scale!r}; use {', '.join(_SCALES)}")
    return made

"""The checker of radii: NumPy alone, every rounding error counted, nothing of the solver.

It follows each proof step by step in the network itself, and evaluates each perturbation there:
docs/theory.md, section 7.10.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from reluflow._results import Result, Status, plain
from reluflow._validation import BoolArray, FloatArray
from reluflow.certificates.archive import CertificateError
from reluflow.certificates.ball import Ball, up
from reluflow.certificates.exact import sign_of_output
from reluflow.certificates.lower_bounds import Network, Point, Region
from reluflow.certificates.radii import OVERSHOOT, ProofSteps, RadiusCertificates

PLANE, BOUND, ELLIPSOID, BRANCH = range(4)
# By this factor a perturbation may be longer than (1 + OVERSHOOT) radius, for their roundings.
_LENGTH = 1 + 1e-8
# The bound of a point without perturbation is stated as so much less than its steps show.
_SHORTER = 1 - 1e-6
# Above what norms are overestimated by where numbers are so small that they vanish.
_NOTHING = 1e-100


@dataclass(frozen=True, eq=False)
class RadiusVerification(Result):
    """What a check of `RadiusCertificates` found.

    Attributes
    ----------
    status : Status
        ``verified``, or ``refused`` where a statement does not stand.
    lower : ndarray of bool, shape (n,)
        Whether nothing shorter than the stated lower bound flips the point.
    upper : ndarray of bool, shape (n,)
        Whether the stated perturbation flips it, or that was not stated.
    exact : ndarray of bool, shape (n,)
        Whether, by both, the radius is the smallest perturbation up to rtol.
    problems : tuple of str
        One line for each statement that does not stand.
    certificates : RadiusCertificates
    """

    status: Status
    lower: BoolArray
    upper: BoolArray
    exact: BoolArray
    problems: tuple[str, ...]
    certificates: RadiusCertificates

    @property
    def verified(self) -> bool:
        """Whether everything that is stated stands."""
        return self.status == Status.VERIFIED

    def to_dict(self) -> dict[str, Any]:
        """What was found, and the stated radii and bounds, JSON-ready."""
        stated = self.certificates
        return {
            **{name: plain(getattr(self, name)) for name in _FOUND},
            "certificates": plain(
                {
                    "network": stated.network_digest,
                    "definition": stated.definition,
                    "rtol": stated.rtol,
                    "radius": stated.radius,
                    "lower_bound": stated.lower_bound,
                }
            ),
        }

    def __str__(self) -> str:
        c = self.certificates
        n, stated = len(c), int(c.flips.sum())
        lines = [
            f"Certificates of the smallest perturbations of {n} points",
            f"  network             {len(c.v)} neurons, {c.W.shape[1]} inputs, "
            f"sha256 {c.network_digest[:16]}",
            f"  definition          {c.definition}: y N {_SIGNS[c.definition]} 0 is flipped",
            f"  lower bounds        {int(self.lower.sum())} of {n} proved anew",
            f"  perturbations       {int((self.upper & c.flips).sum())} of {stated} flip at "
            f"(1 + {OVERSHOOT:g}) times themselves",
            f"  exact               {int(self.exact.sum())} of {n} radii, to {c.rtol:g}",
            f"  proof steps         {len(c.steps)}",
        ]
        if n:
            lines.insert(
                3, f"  radius              from {c.radius.min():.6g} to {c.radius.max():.6g}"
            )
        lines += [f"  {problem}" for problem in self.problems] + [f"  {self.status}"]
        return "\n".join(lines)

    def point_lines(self) -> list[str]:
        """One line a point."""
        c = self.certificates
        return [
            f"{i:>7}  {c.lower_bound[i]:>24.17g} <= radius <= {c.radius[i]:<24.17g}"
            f"  lower bound {_WORD[bool(self.lower[i])]}, flip "
            + (_WORD[bool(self.upper[i])] if c.flips[i] else "not stated")
            for i in range(len(c))
        ]


_FOUND = ("status", "lower", "upper", "exact", "problems")
_SIGNS = {"nonstrict": "<=", "strict": "<"}
_WORD = {True: "verified", False: "REFUSED"}


def check_radii(
    certificates: RadiusCertificates, *, advance: Callable[[int], None] = lambda done: None
) -> RadiusVerification:
    """Checks every statement.

    Parameters
    ----------
    certificates : RadiusCertificates
    advance : callable
        Called with the number of points that are done.

    Raises
    ------
    CertificateError
        If the certificate is malformed.
    """
    _require_shape(certificates)
    n = len(certificates)
    lower, upper = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    network = Network(certificates.W, certificates.b, certificates.v)
    begin = np.searchsorted(certificates.steps.point, np.arange(n + 1))
    problems = []
    for i in range(n):
        point = Point(network, certificates.X[i], float(certificates.y[i]))
        stated = float(certificates.lower_bound[i])
        try:
            lower[i] = stated <= 0 or (
                stated <= certificates.radius[i]
                and (
                    point.survives(stated)
                    or _Tree(point, certificates, begin[i], begin[i + 1]).holds(stated)
                )
            )
            reason = f"that nothing shorter than {stated:.17g} flips it is not proved"
        except CertificateError as error:
            reason = str(error)
        if not lower[i]:
            problems.append(f"point {i}: {reason}")
        problem = _flip_problem(certificates, point, i) if certificates.flips[i] else ""
        upper[i] = not problem
        if problem:
            problems.append(f"point {i}: {problem}")
        advance(i + 1)
    radius = certificates.radius
    close = certificates.lower_bound >= (1 - certificates.rtol) * (1 - 1e-15) * radius
    exact = np.where(
        np.isinf(radius), np.isinf(certificates.lower_bound), close & certificates.flips
    )
    return RadiusVerification(
        status=Status.REFUSED if problems else Status.VERIFIED,
        lower=lower,
        upper=upper,
        exact=exact & lower & upper,
        problems=tuple(problems),
        certificates=certificates,
    )


def shown_to_flip(certificates: RadiusCertificates) -> BoolArray:
    """Whose perturbation flips it, shape (n,)."""
    network = Network(certificates.W, certificates.b, certificates.v)
    points = (
        Point(network, x, float(y)) for x, y in zip(certificates.X, certificates.y, strict=True)
    )
    return np.array(
        [not _flip_problem(certificates, point, i) for i, point in enumerate(points)],
        dtype=np.bool_,
    )


def provable_bound(certificates: RadiusCertificates, i: int) -> float:
    """What the steps of one point show, a little less; 0 where that is nothing."""
    network = Network(certificates.W, certificates.b, certificates.v)
    begin, end = np.searchsorted(certificates.steps.point, (i, i + 1))
    point = Point(network, certificates.X[i], float(certificates.y[i]))
    return _SHORTER * _Tree(point, certificates, int(begin), int(end)).bound(np.inf)


class _Tree:
    """The proof of one point."""

    def __init__(
        self, point: Point, certificates: RadiusCertificates, begin: int, end: int
    ) -> None:
        self.point, self.strict = point, certificates.definition == "strict"
        self.steps: ProofSteps = certificates.steps
        self.range = range(begin, end)

    def holds(self, stated: float) -> bool:
        return self.bound(stated) >= stated

    def bound(self, enough: float) -> float:
        """A radius below which nothing flips; not more than needed is looked at."""
        steps = self.steps
        if not len(self.range):
            return 0.0
        radii = steps.radius[self.range.start : self.range.stop]
        own = steps.node[self.range.start : self.range.stop] == 0
        if not (radii > 0).all() or not own.any():
            raise CertificateError("the proof has no root")
        regions = {0: self.point.ball_region(float(radii[own].min()))}
        bounds, children = {0: 0.0}, {}
        for step in self.range:
            node = int(steps.node[step])
            if node not in regions:
                raise CertificateError(f"the proof has no way to its node {node}")
            if bounds[node] >= enough:
                self._abandon(step, regions, bounds)
                continue
            if steps.kind[step] == BRANCH:
                if node in children:
                    raise CertificateError(f"the proof branches twice at its node {node}")
                children[node] = self._branch(step, regions, bounds)
            else:
                bounds[node] = max(bounds[node], self._bound_step(step, regions[node]))
        for node in sorted(regions, reverse=True):
            if node in regions and self._nothing_there(regions[node]):
                bounds[node] = np.inf
            elif node in children:
                child = children[node]
                bounds[node] = max(bounds[node], min(bounds[child], bounds[child + 1]))
        return min(bounds[0], float(radii.min()))

    def _nothing_there(self, region: Region) -> bool:
        return region.empty or (self.strict and self.point.never_opposed(region))

    def _bound_step(self, step: int, region: Region) -> float:
        steps = self.steps
        if region.empty:
            return np.inf
        multipliers = steps.multipliers(step, len(self.point.output))
        radius = float(steps.radius[step])
        if steps.kind[step] == PLANE:
            return self.point.plane(region, multipliers, radius)
        cuts = bool(steps.kind[step] == ELLIPSOID)
        slopes = steps.slopes(step, len(multipliers))
        eta = float(steps.eta[step])
        return self.point.quadratic(region, eta, multipliers, slopes, radius, cuts)

    def _branch(self, step: int, regions: dict[int, Region], bounds: dict[int, float]) -> int:
        """Opens two nodes, of which the first is returned."""
        node, child = int(self.steps.node[step]), int(self.steps.child[step])
        neuron = int(self.steps.neuron[step])
        if child <= node or child in regions or child + 1 in regions:
            raise CertificateError(f"the proof's node {node} has impossible children")
        inactive, active = regions[node].copy(), regions[node].copy()
        inactive.high[neuron] = min(inactive.high[neuron], 0.0)
        active.low[neuron] = max(active.low[neuron], 0.0)
        regions[child], regions[child + 1] = inactive, active
        bounds[child] = bounds[child + 1] = bounds[node]
        return child

    def _abandon(self, step: int, regions: dict[int, Region], bounds: dict[int, float]) -> None:
        """What follows at a node that is bounded enough does not matter."""
        if self.steps.kind[step] == BRANCH:
            child = int(self.steps.child[step])
            for node in (child, child + 1):
                regions.setdefault(node, regions[int(self.steps.node[step])])
                bounds.setdefault(node, np.inf)


def _flip_problem(certificates: RadiusCertificates, point: Point, i: int) -> str:
    """Why the stated perturbation does not show what is stated; empty where it does."""
    c, radius = certificates, float(certificates.radius[i])
    x, y = c.X[i], float(c.y[i])
    moved = x + (1 + OVERSHOOT) * c.perturbation[i]
    length = (Ball(moved) - x).norm_upper()
    # Coordinates of x round the sum: what matters is the point that is evaluated.
    room = up(radius * (1 + OVERSHOOT) * _LENGTH) + 2.0**-52 * (Ball(x).norm_upper() + radius)
    if not length <= room + _NOTHING:
        return f"its perturbation has length {length:.17g}, not {radius:.17g}"
    margin = Point(point.network, moved, y).value
    strict = c.definition == "strict"
    if margin.upper < 0 or (margin.upper <= 0 and not strict):
        return ""
    if margin.lower <= 0:
        sign = y * sign_of_output(c.W, c.b, c.v, moved)
        if sign < 0 or (sign == 0 and not strict):
            return ""
    return "its perturbation does not flip it"


def _require_shape(c: RadiusCertificates) -> None:
    """Refuses what no certificate can look like."""
    m, d, n = len(c.v), c.X.shape[-1], len(c.radius)
    shapes = {
        "W": (m, d),
        "b": (m,),
        "X": (n, d),
        "y": (n,),
        "lower_bound": (n,),
        "perturbation": (n, d),
        "flips": (n,),
    }
    for name, shape in shapes.items():
        if getattr(c, name).shape != shape:
            raise CertificateError(f"{name} has shape {getattr(c, name).shape}, not {shape}")
    for name in ("W", "b", "v", "X", "y", "radius", "lower_bound", "perturbation"):
        if getattr(c, name).dtype != np.float64:
            raise CertificateError(f"{name} has dtype {getattr(c, name).dtype}, not float64")
    for name in ("W", "b", "v", "X", "perturbation"):
        if not np.isfinite(getattr(c, name)).all():
            raise CertificateError(f"{name} has entries that are not finite")
    if not np.isin(c.y, (-1, 1)).all() or c.definition not in _SIGNS or not 0 < c.rtol < 1:
        raise CertificateError("labels, definition or rtol are impossible")
    if not (c.radius >= 0).all() or np.isnan(c.lower_bound).any():
        raise CertificateError("a radius or lower bound is impossible")
    _require_steps(c.steps, n, m)


def _require_steps(steps: ProofSteps, n: int, m: int) -> None:
    size = len(steps.point)
    whole: list[FloatArray] = []
    for field in fields(steps):
        values = getattr(steps, field.name)
        length = {
            "first": size + 1,
            "multiplier": None,
            "multiplier_neuron": None,
            "slope": None,
        }.get(field.name, size)
        if values.ndim != 1 or (length is not None and len(values) != length):
            raise CertificateError(f"the proof steps' {field.name} has shape {values.shape}")
        whole.append(values)
    total = len(steps.multiplier)
    valid = (
        len(steps.multiplier_neuron) == len(steps.slope) == total
        and bool((np.diff(steps.first) >= 0).all())
        and steps.first[0] == 0
        and steps.first[-1] == total
        and _within(steps.multiplier_neuron, 0, m)
        and _within(steps.point, 0, n)
        and bool((np.diff(steps.point) >= 0).all())
        and _within(steps.kind, PLANE, BRANCH + 1)
        and _within(steps.neuron[steps.kind == BRANCH], 0, m)
        and bool(np.isfinite(steps.multiplier).all())
        and bool(np.isfinite(steps.slope).all())
    )
    if not valid:
        raise CertificateError("the proof steps are malformed")


def _within(values: np.ndarray, low: int, high: int) -> bool:
    return values.dtype == np.int64 and bool(((values >= low) & (values < high)).all())

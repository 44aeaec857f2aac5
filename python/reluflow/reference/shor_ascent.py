"""Better multipliers for a minorant, by Newton's iteration. docs/theory.md, section 7.6."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reluflow._validation import FloatArray
from reluflow.reference.convex_pieces import PointProblem
from reluflow.reference.minorant import ShorMultipliers
from reluflow.reference.parabola import Parabolas
from reluflow.reference.perturbation_bounds import Intervals

_FIRST_EIGENVALUE = 0.9
_SHRINKINGS, _SHRINKAGE = 20, 0.7
_INSIDE = 0.02
_BOUNDARY_SHARE, _ARMIJO, _HALVINGS = 0.95, 0.05, 12
_WORTHWHILE_GAIN = 0.02


@dataclass(frozen=True)
class _Evaluation:
    """The bound, the barrier, and where the minorant is smallest."""

    value: float
    barrier: float
    u: FloatArray
    factor: FloatArray


class ShorAscent:
    """Maximises the bound over eta, the s of supporting neurons near their kinks, and k.

    The variables are one vector (eta, free s, k); the barrier is that of their ranges and of the
    convexity of the minorant.
    """

    def __init__(
        self,
        problem: PointProblem,
        intervals: Intervals,
        start: ShorMultipliers,
        z: FloatArray,
    ) -> None:
        self.problem, self.intervals = problem, intervals
        self.curved = np.flatnonzero(problem.opposing & intervals.undecided)
        active = problem.opposing & ~intervals.undecided & (intervals.high > 0)
        self.now: _Evaluation | None = None
        if len(self.curved) == 0 or not start.eta > 0:
            return
        top = start.eta * problem.v
        low, high = start.s <= 1e-9 * top, start.s >= (1 - 1e-9) * top
        misplaced = (~low & ~high) | (low & (z > 0)) | (high & (z < 0))
        free = problem.supporting & intervals.undecided & misplaced
        self.free = np.flatnonzero(free)
        self.moving = active | (problem.supporting & ~free & ~low)  # with eta
        s = np.clip(start.s, _INSIDE * top, (1 - _INSIDE) * top)[free]
        self.at = np.concatenate([[start.eta], s, start.k[self.curved]])
        self._find_start()

    def _find_start(self) -> None:
        self.now = self._evaluate(self.at)
        if self.now is not None:
            return
        _, _, k = self._split(self.at)
        rows = self.problem.rows[self.curved] * np.sqrt(k)[:, None]
        k *= _FIRST_EIGENVALUE / np.linalg.norm(rows, 2) ** 2
        for _ in range(_SHRINKINGS):
            self.now = self._evaluate(self.at)
            if self.now is not None:
                return
            k *= _SHRINKAGE

    @property
    def value(self) -> float:
        """The squared radius that is bounded; -inf when the start failed."""
        return -np.inf if self.now is None else self.now.value

    @property
    def multipliers(self) -> ShorMultipliers:
        """Of all neurons."""
        eta, free, curvature = self._split(self.at)
        supporting = self.problem.supporting & self.moving
        s = np.where(supporting, eta * self.problem.v, 0.0)
        k = np.zeros_like(s)
        s[self.free], k[self.curved] = free, curvature
        return ShorMultipliers(float(eta), s, k)

    @property
    def centre(self) -> FloatArray:
        """Where the minorant is smallest."""
        return np.zeros(self.problem.rows.shape[1]) if self.now is None else self.now.u

    def climb(self, level: float, ceiling: float, enough: float, steps: int) -> None:
        """Newton's iteration; the barrier costs about ``level`` times what lacks to ``ceiling``."""
        for _ in range(steps):
            now = self.now
            if now is None or now.value >= enough:
                return
            lacking = max(ceiling - now.value, 0.0)
            weight = level * lacking / (2 * (len(self.curved) + len(self.free)))
            gradient, hessian = self._slope(now, weight)
            step = _newton_step(gradient, hessian)
            if step is None:
                return
            promised = float(gradient @ step)
            if not promised > _WORTHWHILE_GAIN * lacking:
                return
            share, merit = self._longest(step), now.value + weight * now.barrier
            for _ in range(_HALVINGS):
                there = self._evaluate(self.at + share * step)
                if there is not None:
                    gain = there.value + weight * there.barrier - merit
                    if gain >= _ARMIJO * share * promised:
                        break
                share /= 2
            else:
                return
            self.at, self.now = self.at + share * step, there

    def _split(self, at: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        f = len(self.free)
        return at[0], at[1 : 1 + f], at[1 + f :]

    def _parabolas(self, at: FloatArray) -> Parabolas:
        eta, _, k = self._split(at)
        j = self.curved
        return Parabolas(k, -eta * self.problem.v[j], self.intervals.low[j], self.intervals.high[j])

    def _evaluate(self, at: FloatArray) -> _Evaluation | None:
        problem, j = self.problem, self.curved
        (eta, free, k), q, a = self._split(at), self._parabolas(at), self.problem.a
        rows = problem.rows[j]
        try:
            factor = np.linalg.cholesky(np.eye(rows.shape[1]) - (rows.T * k) @ rows)
        except np.linalg.LinAlgError:
            return None
        weights = np.where(self.moving, eta * problem.v, 0.0)
        weights[self.free] = free
        value = eta * problem.constant + weights @ a
        value -= (k * a[j] ** 2 + q.linear * a[j] + q.fixed).sum()
        weights[j] = -(2 * k * a[j] + q.linear)
        solved = np.linalg.solve(factor, problem.rows.T @ weights)
        barrier = 2 * np.log(np.diag(factor)).sum() + np.log(k).sum() + np.log(free).sum()
        barrier += np.log(eta * problem.v[self.free] - free).sum()
        u = -np.linalg.solve(factor.T, solved) / 2
        return _Evaluation(float(value - solved @ solved / 4), float(barrier), u, factor)

    def _slope(self, now: _Evaluation, weight: float) -> tuple[FloatArray, FloatArray]:
        """Gradient and Hessian of value + weight * barrier: the value is a minimum over u."""
        problem, j, f = self.problem, self.curved, len(self.free)
        eta, free, k = self._split(self.at)
        z, w = problem.a + problem.rows @ now.u, -problem.v[j]
        q = self._parabolas(self.at).derivatives(z[j])
        of_eta = problem.v * self.moving
        gradient = np.concatenate(
            [[problem.constant + of_eta @ z - w @ q["w"]], z[self.free], -q["k"]]
        )
        rows = np.vstack(
            [
                of_eta @ problem.rows - (w * q["zw"]) @ problem.rows[j],
                problem.rows[self.free],
                -q["zk"][:, None] * problem.rows[j],
            ]
        )
        solved = np.linalg.solve(now.factor, rows.T)
        hessian = -solved.T @ solved / 2
        last = np.arange(1 + f, len(gradient))
        hessian[last, last] -= q["kk"]
        hessian[0, last] -= w * q["kw"]
        hessian[last, 0] -= w * q["kw"]
        hessian[0, 0] -= (w**2 * q["ww"]).sum()
        across = np.linalg.solve(now.factor, problem.rows[j].T)
        across = across.T @ across
        gradient[last] += weight * (1 / k - np.diag(across))
        hessian[np.ix_(last, last)] -= weight * across**2
        hessian[last, last] -= weight / k**2
        top, inner = problem.v[self.free], np.arange(1, 1 + f)
        above = 1 / (eta * top - free)
        gradient[0] += weight * (top * above).sum()
        gradient[inner] += weight * (1 / free - above)
        hessian[0, 0] -= weight * (top**2 * above**2).sum()
        hessian[0, inner] += weight * top * above**2
        hessian[inner, 0] += weight * top * above**2
        hessian[inner, inner] -= weight * (1 / free**2 + above**2)
        return gradient, hessian

    def _longest(self, step: FloatArray) -> float:
        """Up to 1, and a little less than what leads out of the variables' ranges."""
        top, f = self.problem.v[self.free], len(self.free)
        values = np.concatenate([self.at, self.at[0] * top - self.at[1 : 1 + f]])
        changes = np.concatenate([step, step[0] * top - step[1 : 1 + f]])
        falling = changes < 0
        return float(
            min(1.0, (-_BOUNDARY_SHARE * values[falling] / changes[falling]).min(initial=1.0))
        )


def _newton_step(gradient: FloatArray, hessian: FloatArray) -> FloatArray | None:
    """None where the matrix is too far from negative definite."""
    diagonal = np.abs(np.diag(hessian))
    if not (diagonal > 0).all() or not np.isfinite(diagonal).all():
        return None
    scale = 1 / np.sqrt(diagonal)
    for shift in (1e-13, 1e-6, 1e-3, 1e-1):
        scaled = shift * np.eye(len(scale)) - hessian * scale[:, None] * scale
        try:
            factor = np.linalg.cholesky(scaled)
        except np.linalg.LinAlgError:
            continue
        solved = np.linalg.solve(factor.T, np.linalg.solve(factor, scale * gradient))
        return np.asarray(scale * solved)
    return None

"""The solution of a network's group program: a start, Newton's iteration, corrected patterns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from reluflow._results import Status
from reluflow._validation import BoolArray, FloatArray
from reluflow.kkt.cone import solve_cone_program
from reluflow.kkt.groups import NeuronGroups
from reluflow.kkt.newton import NewtonResult, newton, unfinished
from reluflow.kkt.program import ActiveSet, GroupProgram, Solution, variables
from reluflow.kkt.quadratic import QuadraticProgram, solve
from reluflow.kkt.shortest import climb
from reluflow.kkt.start import linear_start
from reluflow.network import TwoLayerNet

# Pre-activations within this share of the largest are zero when a pattern is checked.
_ZERO = 1e-10
_MAX_PRICING = 20
_MAX_CORRECTIONS = 12
# Groups that would grow past 1 by more than this, at directions accurate to as much, are not dead.
_GROWING = 1e-6


class Solved(NamedTuple):
    """Groups, their program, and its solution.

    Attributes
    ----------
    given : NeuronGroups
        The groups before their patterns were corrected.
    corrections : int
        How often patterns were replaced by those of the solution.
    status : Status
        Without a look at the residuals: ``converged``, ``degenerate``, ``inconsistent_pattern``,
        or ``not_solved`` where the solution has the digits of the interior-point method alone.
    """

    given: NeuronGroups
    groups: NeuronGroups
    program: GroupProgram
    found: NewtonResult
    corrections: int
    status: Status


def solve_groups(
    net: TwoLayerNet,
    groups: NeuronGroups,
    K: FloatArray,
    y: FloatArray,
    *,
    train_output: bool,
    correct: bool,
    near: Solved | None = None,
) -> Solved | None:
    """Solves the program of groups that reach every example; None where no method does.

    Parameters
    ----------
    correct : bool
        Whether patterns are corrected. A solution that is active on other helpful examples than its
        neurons are replaces their patterns by its own; a dying group whose direction, followed
        uphill, would grow faster than the live ones takes the pattern that it arrives at.
    near : Solved or None
        The solution of similar groups.
    """
    if near is not None and groups.same_as(near.given):
        return near
    given, first, seen = groups, None, [groups]
    for corrections in range(_MAX_CORRECTIONS + 1):
        solved = _solve_once(net, groups, K, y, train_output, near)
        if solved is None:
            break
        solved = solved._replace(given=given, corrections=corrections)
        if first is None:
            first = solved
        if not correct:
            break
        corrected = groups.with_patterns(_corrected(solved))
        if corrected.same_as(groups):
            return solved
        if len(corrected.unreached()) or any(corrected.same_as(other) for other in seen):
            break
        seen.append(corrected)
        groups, near = corrected, solved
    return first


def _solve_once(
    net: TwoLayerNet,
    groups: NeuronGroups,
    K: FloatArray,
    y: FloatArray,
    train_output: bool,
    near: Solved | None,
) -> Solved | None:
    masses = groups.masses(net)
    fixed = None if train_output else masses
    program = GroupProgram(K, y, groups.sign, groups.pattern, fixed)
    found = _trained_output(program, masses, near) if train_output else _fixed_output(program)
    if found is None:
        return None
    return Solved(groups, groups, program, found, 0, _status(program, found))


def _status(program: GroupProgram, found: NewtonResult) -> Status:
    if not found.finished:
        return Status.NOT_SOLVED
    if not _consistent(program, found):
        return Status.INCONSISTENT_PATTERN
    return Status.DEGENERATE if found.singular else Status.CONVERGED


def _consistent(program: GroupProgram, found: NewtonResult) -> bool:
    """Whether live groups are active on the support vectors of their pattern, and no others.

    Examples with multiplier zero do not act on any group, whichever side they are on.
    """
    live, support = found.active.live, found.active.support
    z = program.preactivations(found.solution.lam, found.solution.force)[np.ix_(live, support)]
    flat = _ZERO * np.abs(z).max()
    pattern = program.pattern[np.ix_(live, support)]
    harmful = program.harmful[np.ix_(live, support)]
    return bool((z[pattern] > -flat).all() and (z[~pattern & ~harmful] < flat).all())


def _corrected(solved: Solved) -> BoolArray:
    """Patterns after one correction; those of the program where there is nothing to correct."""
    if solved.status == Status.INCONSISTENT_PATTERN:
        return _own_patterns(solved)
    if solved.status == Status.NOT_SOLVED or solved.program.fixed_mass is not None:
        return solved.program.pattern
    return _grown_patterns(solved)


def _own_patterns(solved: Solved) -> BoolArray:
    """The helpful examples that each direction of the solution is active on; dead ones keep P."""
    program, found = solved.program, solved.found
    z = program.preactivations(found.solution.lam, found.solution.force)
    flat = _ZERO * np.abs(z).max()
    own = ~program.harmful & ((z > flat) | (program.pattern & (z > -flat)))
    twin = found.twin_of
    patterns = program.pattern.copy()
    patterns[twin >= 0] = own[twin[twin >= 0]]
    return patterns


def _grown_patterns(solved: Solved) -> BoolArray:
    """Dying groups that climb past 1 take the pattern of where they arrive."""
    program, lam = solved.program, solved.found.solution.lam
    patterns = program.pattern.copy()
    dying = np.flatnonzero(solved.found.twin_of < 0)
    if len(dying):
        value, direction = climb(
            program.K,
            lam,
            program.y,
            program.sign[dying],
            program.pattern[dying],
            closed=_GROWING,
        )
        growing = value > 1 + _GROWING
        z = direction[growing] @ program.K
        patterns[dying[growing]] = ~program.harmful[dying[growing]] & (z > 0)
    return patterns


# --- output weights trained -----------------------------------------------------------------------


def _trained_output(
    program: GroupProgram, weight: FloatArray, near: Solved | None
) -> NewtonResult | None:
    """From a solution nearby or from linear solves where that works, else the cone program."""
    for start in (_carried_over(program, weight, near), linear_start(program, weight)):
        found = None if start is None else newton(program, *start, weight)
        if found is not None:
            return found
    approximate = solve_cone_program(program)
    if approximate is None:
        return None
    return newton(program, *approximate, weight) or unfinished(program, *approximate)


def _carried_over(
    program: GroupProgram, weight: FloatArray, near: Solved | None
) -> tuple[Solution, ActiveSet] | None:
    """A solution of similar groups, if each of its live groups has its like here."""
    if near is None or not near.found.finished:
        return None
    old, active = near.found.solution, near.found.active
    shape = program.pattern.shape
    force, mass = np.zeros(shape), np.zeros(shape[0])
    kink, full = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    here = program.pattern[:, active.support]
    for g in np.flatnonzero(active.live):
        like = (here == near.program.pattern[g, active.support]).all(axis=1)
        like &= program.sign == near.program.sign[g]
        if not like.any():
            return None
        at = np.flatnonzero(like)[weight[like].argmax()]
        force[at], mass[at] = old.force[g], old.mass[g]
        kink[at], full[at] = active.kink[g], active.full[g]
    return Solution(old.lam, force, mass), ActiveSet(active.support, kink, full, mass > 0)


# --- output weights fixed -------------------------------------------------------------------------


def _fixed_output(program: GroupProgram) -> NewtonResult | None:
    """The convex quadratic program, kink forces priced in, and finished by Newton's method."""
    assert program.fixed_mass is not None
    n, live = len(program.y), np.ones(len(program.sign), dtype=bool)
    working = np.zeros_like(program.pattern)
    support = np.ones(n, dtype=bool)
    for _ in range(_MAX_PRICING):
        lam, force = _solve_quadratic(program, working, support)
        z = program.preactivations(lam, force)
        support = lam > 0
        # Without its forces an example seems to have the margin of its helpful groups alone.
        short = program.margins(program.fixed_mass, z) < 1 - _ZERO
        joining = program.harmful & (support | short) & ~working & (z > _ZERO * np.abs(z).max())
        if not joining.any():
            break
        working |= joining
    small = _ZERO * lam.max()
    carried = working & support
    full = carried & (force >= lam - small)
    active = ActiveSet(support, carried & (force > small) & ~full, full, live)
    return newton(program, Solution(lam, force, program.fixed_mass), active, program.fixed_mass)


def _solve_quadratic(
    program: GroupProgram, working: BoolArray, support: BoolArray
) -> tuple[FloatArray, FloatArray]:
    n, live = len(program.y), np.ones(len(program.sign), dtype=bool)
    everything = ActiveSet(np.ones(n, dtype=bool), working, np.zeros_like(working), live)
    layout = variables(program, everything)
    assert program.fixed_mass is not None
    H = (layout.pull * program.fixed_mass) @ layout.pull.T
    H *= program.K[np.ix_(layout.example, layout.example)]
    h = np.concatenate([np.ones(n), np.zeros(len(layout.example) - n)])
    x = solve(QuadraticProgram(H, h, layout.example[n:]), support)
    force = np.zeros(working.shape)
    force[working] = x[n:]
    return x[:n], force

"""How the cost of a gradient step grows with n, m and d, and what that means beside torch.

Time a step against d = 1e2 to 1e6 at n = 300, m = 100, one thread, float64, for reluflow's Gram and
primal forms and torch, all on the same arrays; and the slopes of log time against log n, log m and
log d between the largest sizes, with those that the operation counts 4 n d m and 2 n^2 m predict.

    python -m bench.step_growth [--repeats 5] [--quick] [--json FILE]
"""

from __future__ import annotations

import math
import statistics

from bench import topic
from bench.gradient_step import flow_steps, problem, reluflow_flow, torch_step
from bench.timing import interleaved

PACKAGES = ["numpy", "torch==2.13.0"]
N, M, D = 300, 100, 1000
DIMENSIONS = [100, 1000, 10_000, 100_000, 1_000_000]
# Times of torch over the Gram form at d.
AIMS = {1000: 10.0, 10_000: 80.0, 100_000: 800.0}
EXAMPLES = [400, 800, 1600, 3200]
WIDTHS = [200, 400, 800, 1600]
# Exponents of n, m and d in the operations of a step.
THEORY = {"primal": {"n": 1, "m": 1, "d": 1}, "gram": {"n": 2, "m": 1, "d": 0}}
# Gradients of the primal flow's long run are bounded by so many operations.
PRIMAL_OPERATIONS = 1.5e11
# Numbers in the examples up to which a primal flow is measured: it keeps them twice more.
LARGEST_PRIMAL = 1e8


def gradients(form, n, d, m):
    """How many gradients are timed: many for steps that are short beside their preparation."""
    if form == "primal":
        return 1 + max(4, min(200, int(PRIMAL_OPERATIONS / (4 * n * d * m))))
    # The Gram matrix costs n^2 d once, a gradient 2 n^2 m at most: longer than the preparation.
    return 1 + max(200 if n * m <= N * 10 * M else 20, min(20_000, 10 * d // m))


def step_times(shape, repeats, forms, with_torch):
    """Samples of one step, by contender."""
    drawn = problem(*shape)
    counts = {form: gradients(form, *shape) for form in forms}
    # The first flow after the others pays for memory that they gave back: it is not counted.
    calls = {
        (form, 1, count): reluflow_flow(*drawn, form, 1, max(1, count))
        for form in forms
        for count in (0, 1, counts[form])
    }
    if with_torch:
        calls["torch"] = torch_step(*drawn, 1)
    times = interleaved(calls, repeats=repeats)
    found = {form: flow_steps(times, (form, 1), counts[form]) for form in forms}
    if with_torch:
        found["torch"] = times["torch"]
    return found


def against_dimension(found, dimensions, repeats):
    """Comparisons at every d, and the curves."""
    for name in ("gram", "primal", "torch"):
        found.series[name] = [[], []]
    for d in dimensions:
        forms = ("gram", "primal") if N * d <= LARGEST_PRIMAL else ("gram",)
        times = step_times((N, d, M), repeats, forms, with_torch=True)
        for name, samples in times.items():
            found.series[name][0].append(d)
            found.series[name][1].append(statistics.median(samples.cpu))
        for form in forms:
            aim = AIMS.get(d) if form == "gram" else None
            others = {"torch": times["torch"]}
            found.compare(f"d = {d:,}, {form}", times[form], others, aim=aim)
        print(f"d = {d} done", flush=True)


def slope(x, y):
    """Of log y against log x, by least squares."""
    u, v = [math.log(a) for a in x], [math.log(b) for b in y]
    mean = statistics.fmean(u)
    return sum((a - mean) * b for a, b in zip(u, v, strict=True)) / sum((a - mean) ** 2 for a in u)


def slopes(found, examples, widths, dimensions, repeats):
    """Measured exponents with the predicted ones beside them."""
    grids = {
        "n": [(n, D, M) for n in examples],
        "m": [(N, D, m) for m in widths],
        "d": [(N, d, M) for d in dimensions],
    }
    for name, shapes in grids.items():
        sizes = [shape["ndm".index(name)] for shape in shapes]
        all_times = [step_times(s, repeats, ("gram", "primal"), with_torch=False) for s in shapes]
        for form, theory in THEORY.items():
            measured = slope(sizes, [statistics.median(t[form].cpu) for t in all_times])
            found.facts.append(
                topic.Fact(
                    f"{form}: exponent of {name}, {sizes[0]:,} to {sizes[-1]:,}",
                    measured,
                    note=f"theory: {theory[name]}",
                )
            )
        print(f"exponents of {name} done", flush=True)


def measure(options):
    """Both parts."""
    found = topic.Findings()
    if options.quick:
        against_dimension(found, DIMENSIONS[:3], options.repeats)
        slopes(found, EXAMPLES[:2], WIDTHS[:2], [1000, 4000], options.repeats)
    else:
        against_dimension(found, DIMENSIONS, options.repeats)
        slopes(found, EXAMPLES, WIDTHS, [2000, 4000, 8000, 16_000], options.repeats)
    return found


if __name__ == "__main__":
    topic.main("bench.step_growth", __doc__, measure, PACKAGES, repeats=5)

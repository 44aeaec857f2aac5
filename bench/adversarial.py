"""Adversarial training beside theory: prices of robust margins, radii, and what attacks overstate.

- Prices of noise-free problems without biases, k clusters, one example each, three starts, over
  the closed form or the linear program: every start of k = 2, 4 and 8, wide enough for a neuron of
  each label to be active on all its clusters, must be within 5 %. For k = 16, which would take
  some thousand neurons, the price is shown.
- Radii of fresh examples at k = 8, d = 2000, 10 examples a cluster, 50 neurons, sigma = 0.2 and 1,
  beside those of networks trained on the examples of ten steps of projected gradient descent. What
  must be reached is for sigma = 0.2.

    python -m bench.adversarial [--quick] [--seeds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import time

from reluflow import theory
from reluflow.experiments.adversarial import ADVERSARIAL

DIM = 2000
# k, t, neurons.
PRICES = [
    *((2, t, 50) for t in (0.25,)),
    *((4, t, 50) for t in (0.25, 0.45, 0.75)),
    *((8, t, 200) for t in (0.25, 0.45, 0.5, 1.0)),
    *((16, t, 200) for t in (0.25, 0.42, 0.5)),
]
QUICK_PRICES = [(2, 0.25, 50), (4, 0.75, 50), (8, 0.25, 200)]
MUST_CLUSTERS, STARTS, PRICE = 8, 3, 0.05
NOISES = (0.2, 1.0)
LARGEST = 0.6 * math.sqrt(8)
SHARES = [0.0, 0.25, 0.4, 0.5, 0.6, 0.75, 1.0, 1.5, LARGEST]
QUICK_SHARES = [0.0, 1.0, 1.5]
# What must be reached, of sigma = 0.2.
MUST_NOISE, AT_ONE, BEYOND = 0.2, (0.61, 0.65), 0.68


def price_of(k, t, width, seed):
    """Price of a trained network over that of theory."""
    given = {"n_clusters": k, "dim": DIM, "noise": 0.0, "t": t, "per_cluster": 1, "bias": False}
    given |= {"width": width, "log_inverse_loss": 1e3, "rtol": 2e-2, "seed": seed}
    start = time.process_time()
    found = ADVERSARIAL.run(ADVERSARIAL.complete(given), ("flow",)).scalars
    return {
        "k": k,
        "t": t,
        "width": width,
        "start": seed,
        "price": found["price"],
        "theory": found["theory_price"],
        "ratio": found["price_over_theory"],
        "clusters a neuron": found["clusters_a_neuron"],
        "neurons a label": found["neurons_a_label"],
        "cpu": time.process_time() - start,
    }


def radius_of(t, noise, inner, seed):
    """Radius, accuracy and what projected gradient descent says, of one network."""
    given = {"n_clusters": 8, "dim": DIM, "noise": noise, "t": t, "inner": inner, "seed": seed}
    start = time.process_time()
    found = ADVERSARIAL.run(ADVERSARIAL.complete(given), ADVERSARIAL.outputs).scalars
    return {
        "noise": noise,
        "inner": inner,
        "t": t,
        "seed": seed,
        "radius": found["radius_over_root_d"],
        "proved": found["radius_proved"],
        "accuracy": found["robust_train_accuracy"],
        "clusters a neuron": found["clusters_a_neuron"],
        "overstated": found["descent_overstates"],
        "search worse": found["search_worse_than_descent"],
        "cpu": time.process_time() - start,
    }


def table(title, rows):
    """Prints rows as they come."""
    print(f"\n{title}")
    found = []
    for row in rows:
        widths = [max(9, len(name)) for name in row]
        if not found:
            print("  ".join(f"{name:>{w}}" for name, w in zip(row, widths, strict=True)))
        cells = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values())
        print("  ".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True)), flush=True)
        found.append(row)
    return found


def checks_of(prices, radii):
    """Sentences, and whether they hold."""
    must = [row["ratio"] for row in prices if row["k"] <= MUST_CLUSTERS]
    searched = [r for r in radii if r["noise"] == MUST_NOISE and r["inner"] == "search"]
    at_one = [row["radius"] for row in searched if row["t"] == 1.0]
    beyond = [row["radius"] for row in searched if row["t"] == 1.5]
    return {
        f"prices of k <= {MUST_CLUSTERS} are {min(must):.3f} to {max(must):.3f} of theory's": (
            max(abs(ratio - 1) for ratio in must) <= PRICE
        ),
        f"sigma = {MUST_NOISE}: radius {min(at_one):.3f} to {max(at_one):.3f} sqrt(d) at t = 1": (
            AT_ONE[0] <= min(at_one) and max(at_one) <= AT_ONE[1]
        ),
        f"and {min(beyond):.3f} to {max(beyond):.3f} at 1.5": min(beyond) >= BEYOND,
        "robust training accuracy is 1 up to .6 sqrt(d)": all(
            row["accuracy"] == 1 for row in searched
        ),
        "the search was at no example of no recorded step worse than 100 steps of descent": all(
            row["search worse"] == 0 for row in radii
        ),
        "all radii are proved": all(row["proved"] == 1 for row in searched),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few radii, one seed")
    parser.add_argument("--seeds", type=int, default=3, help="of the radii")
    parser.add_argument("--json", help="file to write the results to")
    arguments = parser.parse_args()
    thresholds = {k: theory.averaging_threshold(k) for k in (4, 8, 16, 64)}
    print("t*: " + ", ".join(f"{t:.4f} (k = {k})" for k, t in thresholds.items()))
    prices = table(
        "Prices of robust margins, without noise",
        (
            price_of(*case, seed)
            for case in (QUICK_PRICES if arguments.quick else PRICES)
            for seed in range(STARTS)
        ),
    )
    radii = table(
        "Median exact radii over sqrt(d), trained for t sqrt(d/k), k = 8",
        (
            radius_of(t, noise, inner, seed)
            for noise in NOISES
            for inner in ("search", "pgd")
            for t in (QUICK_SHARES if arguments.quick else SHARES)
            for seed in range(1 if arguments.quick else arguments.seeds)
        ),
    )
    print(
        "overstated: robust accuracy that 100 steps of descent report at 1.05 median radii, less "
        "the exact one\nsearch worse: examples at which the search was worse than descent, at any "
        "recorded step\n"
    )
    checks = checks_of(prices, radii)
    for sentence, holds in checks.items():
        print(f"{'reached' if holds else 'MISSED '}  {sentence}")
    if arguments.json:
        found = {"thresholds": thresholds, "prices": prices, "radii": radii, "checks": checks}
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)
    if not all(checks.values()):
        raise SystemExit("not everything that must be reached is")


if __name__ == "__main__":
    main()

"""Experiments that cost nothing, for the tests of studies; workers import them from here."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from functools import partial

import numpy as np

from reluflow.experiments import Cost, Experiment, Record, Setting


def run(settings, outputs):
    time.sleep(settings["sleep"])
    if settings["x"] == settings["fails_at"]:
        raise ArithmeticError(f"x is {settings['x']:g}\nand that is that")
    if settings["x"] == settings["dies_at"]:
        os._exit(9)
    rng = np.random.default_rng([settings["seed"], settings["k"]])
    noise = rng.standard_normal((3, 4))
    matrix = rng.standard_normal((60, 60))
    scalars = {
        "value": settings["x"] ** settings["k"] + 1e-3 * noise[0, 0],
        "eigenvalue": float(np.linalg.eigvalsh(matrix @ matrix.T)[-1]),
        "infinite": float("-inf"),
        "positive": bool(noise[0, 0] > 0),
        "written": f"k{settings['k']}",
    }
    if settings["x"] == settings["shadows_at"]:
        scalars["k"] = 3
    return Record(scalars, {"noise": noise} if "noise" in outputs else {})


def conflict(settings, outputs):
    if settings["k"] > 8 and settings["x"] > 100:
        return "k", f"k={settings['k']} is too much for x={settings['x']:g}"
    return None


def cost(settings, outputs):
    return Cost(1e-3 * (1 + settings["k"]), 1e3)


ARITHMETIC = Experiment(
    name="sweep_experiments:ARITHMETIC",
    run=run,
    settings=(
        Setting("x", "number", "the base"),
        Setting("k", "integer", "the power", 2, minimum=0),
        Setting("word", "text", "a text", "a", choices=("a", "b")),
        Setting("flag", "flag", "a flag", False),
        Setting("sleep", "number", "seconds to wait", 0.0, minimum=0),
        Setting("fails_at", "number", "x at which it raises", -1.0),
        Setting("dies_at", "number", "x at which its process ends", -1.0),
        Setting("shadows_at", "number", "x at which a scalar has the name of a setting", -1.0),
    ),
    outputs=("value", "noise"),
    conflict=conflict,
    cost=cost,
)


def together(many, outputs):
    if any(settings["x"] == settings["fails_at"] for settings in many):
        raise ArithmeticError("one of many fails")
    return [partial(run, settings, outputs) for settings in many]


IN_BATCHES = replace(ARITHMETIC, name="sweep_experiments:IN_BATCHES", together=together)

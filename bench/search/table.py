"""A table of real fine-tunings, to replay: the curves of each configuration."""

import csv
from collections.abc import Iterator
from functools import cache
from itertools import product
from math import log
from pathlib import Path
from statistics import mean

from problem import Params, Problem

from tunelab.search.space import build_space

EPOCHS = 9  # validations of a whole run
SEEDS = 3  # runs of each configuration
TABLE = Path(__file__).with_name("table.csv")
Value = float | int | str
Point = dict[str, Value]

RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
ALWAYS: dict[str, tuple[Value, ...]] = {
    "lr": RATES,
    "batch_size": (8, 32),
    "scheduler.warmup": (0.0, 0.2),
    "regularization.dropout": (0.0, 0.2),
    "optimizer": ("adamw", "sgd"),
}
WHEN: dict[str, dict[str, tuple[Value, ...]]] = {
    "adamw": {"regularization.weight_decay": (0.01, 0.3)},
    "sgd": {"optimizer.momentum": (0.5, 0.9)},
}
NAMES = [*ALWAYS, *(name for settings in WHEN.values() for name in settings)]


def lattice() -> Iterator[Point]:
    """Every configuration."""
    for values in product(*ALWAYS.values()):
        point: Point = dict(zip(ALWAYS, values, strict=True))
        extra = WHEN[str(point["optimizer"])]
        for more in product(*extra.values()):
            yield point | dict(zip(extra, more, strict=True))


def key_of(params: Params) -> tuple[str, ...]:
    """The row that a configuration falls into: its learning rate is rounded, on a log scale, to a measured one."""
    nearest = min(RATES, key=lambda rate: abs(log(rate / float(params["lr"]))))
    return tuple(str(nearest if name == "lr" else params.get(name, "")) for name in NAMES)


@cache
def load_curves() -> dict[tuple[str, ...], list[list[float]]]:
    """The curves of every configuration, one for each seed."""
    curves: dict[tuple[str, ...], list[list[float]]] = {}
    with TABLE.open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            losses = [line[f"loss_{epoch}"] for epoch in range(1, EPOCHS + 1)]
            curves.setdefault(tuple(line[name] for name in NAMES), []).append([float(loss) for loss in losses if loss])
    return curves


def curve(params: Params, seed: int) -> list[float]:
    """The losses of one of the runs of a configuration."""
    key = key_of(params)
    curves = load_curves()[key]
    return curves[stable_hash(key, seed) % len(curves)]


def stable_hash(key: tuple[str, ...], seed: int) -> int:
    """A number that looks random and is the same in every process."""
    return sum((place + 1) * ord(letter) for place, letter in enumerate(f"{seed} {key}"))


def final(params: Params) -> float:
    """The true value of a configuration: the mean over its seeds of the best epoch; infinite if one diverges."""
    return mean_best_epoch(load_curves()[key_of(params)])


def mean_best_epoch(curves: list[list[float]]) -> float:
    """The mean over seeds of the best epoch."""
    return mean(min(losses) if losses else float("inf") for losses in curves)


def problem() -> Problem:
    """The table as a search: the rate is a range, all else is a choice, and each optimizer has a setting of its own."""
    half = (RATES[1] / RATES[0]) ** 0.5  # of a step, so that the rates at the ends are met as often as the others
    params = {name: list(values) for name, values in ALWAYS.items()} | {
        "lr": f"interval({RATES[0] / half:.3g},{RATES[-1] * half:.3g})"
    }
    when = {f"optimizer={name}": {key: list(values) for key, values in more.items()} for name, more in WHEN.items()}
    space = build_space(params, when, {})
    return Problem(space, EPOCHS, 30, curve, final, min(map(mean_best_epoch, load_curves().values())))

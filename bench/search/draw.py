"""The drawings of the tuning guide that rest on the table of real trainings: search methods, shares of the settings.

    python bench/search/draw.py          # a few seconds; writes docs/figures/search_methods.svg and setting_shares.svg

Search methods are drawn from `results_table.csv`, with twelve grids of 24 runs replayed beside them.  The share of a
setting alone is the variance of the mean loss at its values over the variance of all losses; in all, it is what the
other settings leave unexplained (first-order and total index of Sobol).  Both are exact, as every combination was
trained.
"""

import csv
from collections.abc import Callable, Iterator
from itertools import product
from math import isfinite
from pathlib import Path
from statistics import mean, median, pvariance, quantiles

import table

from tunelab.report.charts.bars import Bars, bar_chart

HERE = Path(__file__).resolve().parent
FIGURES = HERE.parents[1] / "docs" / "figures"
METHODS = {
    "grid": "grid, 24 runs",
    "random": "random",
    "gp": "bayes (Gaussian process)",
    "tpe": "bayes (TPE)",
    "evolution": "evolution",
    "random, twice the budget": "random, twice the budget",
    "auto": "auto (TPE, ends runs early)",
}
Point = table.Point


def grids() -> Iterator[list[Point]]:
    """Twelve grids of 24 runs: three rates a decade apart, and all else but warm-up at both of its values."""
    fixed = product(range(3), table.ALWAYS["scheduler.warmup"], range(2))
    for first, warmup, place in fixed:
        values = {**table.ALWAYS, "lr": table.RATES[first : first + 5 : 2], "scheduler.warmup": (warmup,)}
        points = [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]
        for point in points:
            point |= {name: both[place] for name, both in table.WHEN[str(point["optimizer"])].items()}
        yield points


def grid_regrets(seeds: int) -> list[float]:
    """The distance from the best configuration of what each grid picks, for each seed."""
    lowest = table.problem().lowest

    def seen(point: Point, seed: int) -> float:
        return min(table.curve(point, seed), default=float("inf"))

    picks = [min(points, key=lambda one: seen(one, seed)) for points in grids() for seed in range(seeds)]
    return [table.final(pick) - lowest for pick in picks]


def regrets_by_method() -> dict[str, list[float]]:
    """The distances from the best configuration of every method that is drawn."""
    found: dict[str, list[float]] = {name: [] for name in METHODS}
    with (HERE / "results_table.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            if line["method"] in found:
                found[line["method"]].append(float(line["regret"]))
    found["grid"] = grid_regrets(len(found["random"]))
    return found


def methods_drawing(regrets: dict[str, list[float]]) -> str:
    """A bar for each method: the median over seeds, with the range of the middle eighty per cent."""
    tenths = [quantiles(values, n=10, method="inclusive") for values in regrets.values()]
    bars = Bars(
        "median of 20 searches",
        [median(values) for values in regrets.values()],
        [cuts[0] for cuts in tenths],
        [cuts[-1] for cuts in tenths],
    )
    names = [METHODS[name] for name in regrets]
    title = "What a search loses against the best of 224 configurations"
    return bar_chart(names, [bars], title=title, value_label="loss above the best, 270 epochs each", level=True)


def variance_shares() -> dict[str, tuple[float, float]]:
    """The shares of the variance of each setting, alone and in all; diverged runs at the worst loss of the others."""
    losses = {tuple(point.items()): table.final(point) for point in table.lattice()}
    worst = max(loss for loss in losses.values() if isfinite(loss))
    values = {point: min(loss, worst) for point, loss in losses.items()}
    whole = pvariance(values.values())

    def share(named: Callable[[str], bool]) -> float:
        """The variance of the mean loss over configurations that agree in these settings."""
        groups: dict[object, list[float]] = {}
        for point, loss in values.items():
            groups.setdefault(tuple(pair for pair in point if named(pair[0])), []).append(loss)
        return pvariance([mean(group) for group in groups.values() for _ in group]) / whole

    names = {"optimizer": ("optimizer", *(name for more in table.WHEN.values() for name in more))}
    shares = {}
    for name in table.ALWAYS:
        own = names.get(name, (name,))
        shares[name] = share(lambda one, name=name: one == name), 1 - share(lambda one, own=own: one not in own)
    return dict(sorted(shares.items(), key=lambda pair: -pair[1][1]))


def shares_drawing(shares: dict[str, tuple[float, float]]) -> str:
    """Two bars for each setting."""
    alone, total = zip(*shares.values(), strict=True)
    title = "Share of the variance of the loss"
    bars = [Bars("alone", alone), Bars("with all it acts together with", total)]
    return bar_chart(list(shares), bars, title=title, value_label="share", level=True)


def main() -> None:
    """Draw both and print their numbers."""
    regrets, shares = regrets_by_method(), variance_shares()
    (FIGURES / "search_methods.svg").write_text(methods_drawing(regrets).rstrip() + "\n", encoding="utf-8")
    (FIGURES / "setting_shares.svg").write_text(shares_drawing(shares).rstrip() + "\n", encoding="utf-8")
    for name, values in regrets.items():
        print(f"{METHODS[name]}: median {median(values):.4f}, 90 % quantile {quantiles(values, n=10)[-1]:.4f}")
    for name, (alone, total) in shares.items():
        print(f"{name}: {alone:.3f} alone, {total:.3f} in all")


if __name__ == "__main__":
    main()

"""Which search finds the best configuration for the same number of epochs?

    python bench/search/run.py --fast              # without Gaussian processes: about a minute
    python bench/search/run.py --write             # all of it, 20 seeds; Gaussian processes take most of the time
    python bench/search/run.py --on table --only auto "random, twice the budget" --seeds 5

Each sampler and pruner replays the same curves under the same budget of epochs; its pick is judged by the true value of
the configuration that it returns, against the best there is.  `--write` keeps `results_PROBLEM.csv` (a line a
search) and `results_PROBLEM.md` (median and 90 % quantile of the regret).
"""

import argparse
import csv
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median, quantiles

import heldout
import optuna
import surface
import table
from optuna.exceptions import ExperimentalWarning
from problem import Problem
from replay import Method, replay_search

HERE = Path(__file__).resolve().parent
PROBLEMS: Mapping[str, Callable[[], Problem]] = {
    "surface": surface.problem,
    "table": table.problem,
    "heldout": heldout.problem,
}
METHODS: Mapping[str, Method] = {
    "random": Method("random"),
    "random, twice the budget": Method("random", share=2.0),
    "qmc": Method("qmc"),
    "tpe": Method("tpe"),
    "cmaes": Method("cmaes"),
    "evolution": Method("evolution"),
    "random + median": Method("random", "median"),
    "random + asha": Method("random", "asha"),
    "random + hyperband": Method("random", "hyperband"),
    "tpe + median": Method("tpe", "median"),
    "tpe + asha": Method("tpe", "asha"),
    "tpe + hyperband": Method("tpe", "hyperband"),
    "tpe + hyperband, half the budget": Method("tpe", "hyperband", share=0.5),
    "gp": Method("gp"),
    "auto": Method("auto", "auto"),
}
SLOW = ("gp", "auto")  # samplers that take more than a hundredth of a second for each trial
Line = dict[str, str]


def measure(name: str, problem: Problem, method: str, seeds: int) -> list[Line]:
    """One line for each search: method, seed, regret, true value, trials and epochs."""
    lines: list[Line] = []
    began = time.monotonic()
    for seed in range(seeds):
        result = replay_search(METHODS[method], problem, seed)
        numbers = {"regret": f"{result.value - problem.lowest:.5f}", "value": f"{result.value:.5f}"}
        counts = {"trials": str(result.trials), "epochs": str(result.epochs)}
        lines.append({"method": method, "seed": str(seed)} | numbers | counts)
    regret = median(float(line["regret"]) for line in lines)
    print(f"{name}, {method}: median regret {regret:.4f}, {time.monotonic() - began:.0f} s", flush=True)
    return lines


def save_results(name: str, lines: Sequence[Line]) -> None:
    """Replace the earlier lines of a method, and update the summary."""
    path = HERE / f"results_{name}.csv"
    others: list[Line] = []
    if path.exists():
        with path.open(encoding="utf-8") as file:
            others = [line for line in csv.DictReader(file) if line["method"] != lines[0]["method"]]
    order = list(METHODS)
    every = sorted([*others, *lines], key=lambda line: order.index(line["method"]))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, lines[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(every)
    (HERE / f"results_{name}.md").write_text(summary(every), encoding="utf-8")


def summary(lines: Sequence[Line]) -> str:
    """Median, mean and 90 % quantile of the regret by method, as Markdown."""
    rows = ["| method | median | mean | q90 | trials | epochs |", "|---|---|---|---|---|---|"]
    for method in dict.fromkeys(line["method"] for line in lines):
        mine = [line for line in lines if line["method"] == method]
        regrets = [float(line["regret"]) for line in mine]
        trials, epochs = (mean(float(line[name]) for line in mine) for name in ("trials", "epochs"))
        cells = f"{median(regrets):.4f} | {mean(regrets):.4f} | {quantile90(regrets):.4f}"
        rows.append(f"| {method} | {cells} | {trials:.0f} | {epochs:.0f} |")
    return "\n".join(rows) + "\n"


def quantile90(values: Sequence[float]) -> float:
    """The value that nine tenths stay below."""
    return quantiles(values, n=10, method="inclusive")[-1] if len(values) > 1 else values[0]


def main() -> None:
    """Measure and write."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", ExperimentalWarning)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", nargs="+", choices=PROBLEMS, default=list(PROBLEMS), metavar="PROBLEM")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--fast", action="store_true", help="leave out Gaussian processes")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--write", action="store_true", help="keep the results beside this file")
    arguments = parser.parse_args()
    methods = [name for name in arguments.only if not (arguments.fast and METHODS[name].sampler in SLOW)]
    for name in arguments.on:
        problem, lines = PROBLEMS[name](), list[Line]()
        for method in methods:
            results = measure(name, problem, method, arguments.seeds)
            lines += results
            if arguments.write:
                save_results(name, results)
        print(f"\n{name}\n{summary(lines)}")


if __name__ == "__main__":
    main()

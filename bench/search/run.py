"""Which search finds the best configuration for the same number of epochs?

    python bench/search/run.py                  # the made-up surface, about ten minutes on one core
    python bench/search/run.py --seeds 3        # a quick look
    python bench/search/run.py --only auto random

Each sampler and pruner replays the same curves under the same budget of epochs; its pick is judged by the noiseless
value of the configuration it would hand over, against the best there is.  Writes `surface.csv` (a line a study) and
`surface.md` (median and 90 % quantile of the regret).
"""

import argparse
import csv
from collections.abc import Sequence
from math import exp, log
from pathlib import Path
from statistics import mean, median, quantiles

import optuna
from optuna.trial import TrialState
from scipy.optimize import differential_evolution
from surface import EPOCHS, SPACE, curve, final

from tunelab.search.budget import budgeted
from tunelab.search.dimension import Span
from tunelab.search.proposals import Proposals
from tunelab.search.pruners import make_pruner
from tunelab.search.samplers import make_samplers, resolve
from tunelab.search.space import Space, build_space

HERE = Path(__file__).resolve().parent
TRIALS = 30  # whole runs that the budget pays for
METHODS = {  # name: sampler, pruner, share of the budget
    "random": ("random", "none", 1.0),
    "random, twice the budget": ("random", "none", 2.0),
    "qmc": ("qmc", "none", 1.0),
    "tpe": ("tpe", "none", 1.0),
    "gp": ("gp", "none", 1.0),
    "cmaes": ("cmaes", "none", 1.0),
    "evolution": ("evolution", "none", 1.0),
    "random + median": ("random", "median", 1.0),
    "random + asha": ("random", "asha", 1.0),
    "tpe + hyperband": ("tpe", "hyperband", 1.0),
    "tpe + hyperband, half the budget": ("tpe", "hyperband", 0.5),
    "gp + hyperband": ("gp", "hyperband", 1.0),
    "auto": ("auto", "auto", 1.0),
}


def study(sampler: str, pruner: str, budget: int, seed: int, space: Space) -> tuple[float, int, int]:
    """Search once.

    Returns:
        The true value of the pick, the trials and the epochs it took.
    """
    trials = budget // EPOCHS
    samplers = make_samplers(sampler, space, seed=seed, trials=trials, options={})
    made = optuna.create_study(
        sampler=samplers.direct, pruner=make_pruner(budgeted(pruner, resolve(sampler, space, trials), trials), {})
    )
    proposals = Proposals(made, space, samplers, seed=seed)
    spent = 0
    while spent < budget:
        found = proposals.next(made.get_trials(deepcopy=False))
        assert found is not None  # a space of ranges has no end
        trial, params = found
        losses, state = curve(params, seed), TrialState.COMPLETE
        for epoch in range(1, EPOCHS + 1):
            spent += 1
            if epoch > len(losses):
                state = TrialState.FAIL
                break
            trial.report(losses[epoch - 1], epoch)
            if trial.should_prune():
                state = TrialState.PRUNED
                break
            if spent >= budget and epoch < EPOCHS:
                state = TrialState.FAIL  # the budget is over in the middle of a run: no result
                break
        made.tell(trial, min(losses) if state is TrialState.COMPLETE else None, state=state)
    whole = [trial for trial in made.trials if trial.state is TrialState.COMPLETE]
    return (final(made.best_params) if whole else float("inf")), len(made.trials), spent


def best_there_is(space: Space) -> float:
    """The lowest true value of all configurations, by differential evolution."""
    names = list(space.always)
    spans = [space.always[name] for name in names]
    assert all(isinstance(span, Span) for span in spans)
    ends = [(log(s.low), log(s.high)) if s.log else (s.low, s.high) for s in spans if isinstance(s, Span)]

    def value(point: Sequence[float]) -> float:
        params = {n: exp(x) if s.log else x for n, s, x in zip(names, spans, point, strict=True) if isinstance(s, Span)}
        return min(final(params), 1e9)

    return float(differential_evolution(value, ends, seed=0, tol=1e-10, maxiter=400).fun)


def measure(methods: Sequence[str], seeds: int) -> list[dict[str, object]]:
    """One line for each study: method, seed, regret, trials and epochs."""
    space = build_space(SPACE, {}, {})
    lowest = best_there_is(space)
    lines: list[dict[str, object]] = []
    for method in methods:
        sampler, pruner, share = METHODS[method]
        for seed in range(seeds):
            value, trials, epochs = study(sampler, pruner, round(TRIALS * EPOCHS * share), seed, space)
            lines.append({"method": method, "seed": seed, "regret": value - lowest, "trials": trials, "epochs": epochs})
        print(f"{method}: median regret {median(float(str(x['regret'])) for x in lines[-seeds:]):.4f}", flush=True)
    return lines


def table(lines: Sequence[dict[str, object]]) -> str:
    """Median, mean and 90 % quantile of the regret by method, as Markdown."""
    rows = ["| method | median | mean | q90 | trials | epochs |", "|---|---|---|---|---|---|"]
    for method in dict.fromkeys(str(line["method"]) for line in lines):
        mine = [line for line in lines if line["method"] == method]
        regrets = sorted(float(str(line["regret"])) for line in mine)
        q90 = quantiles(regrets, n=10, method="inclusive")[-1] if len(regrets) > 1 else regrets[0]
        trials, epochs = (mean(float(str(line[name])) for line in mine) for name in ("trials", "epochs"))
        rows.append(
            f"| {method} | {median(regrets):.4f} | {mean(regrets):.4f} | {q90:.4f} | {trials:.0f} | {epochs:.0f} |"
        )
    return "\n".join(rows) + "\n"


def main() -> None:
    """Measure and write."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    given = parser.parse_args()
    lines = measure(given.only, given.seeds)
    print(table(lines))
    if given.only == list(METHODS):
        with (HERE / "surface.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, lines[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
        (HERE / "surface.md").write_text(table(lines))


if __name__ == "__main__":
    main()

"""One search, replay_search with the project's own samplers, pruners and proposals."""

from dataclasses import dataclass

import optuna
from optuna.trial import TrialState
from problem import Problem

from tunelab.search.pruners import make_pruner
from tunelab.search.samplers import make_samplers, resolve_sampler
from tunelab.search.search_config import resolve_pruner
from tunelab.search.suggest import SamplerProposer


@dataclass(frozen=True)
class Method:
    """A sampler and a pruner, with a share of the budget.

    Attributes:
        sampler: As in `search.sampler`.
        pruner: As in `search.pruner`.
        share: Of the budget; 2 is twice as many epochs.
    """

    sampler: str
    pruner: str = "none"
    share: float = 1.0


@dataclass(frozen=True)
class ReplayResult:
    """The result of a replayed search.

    Attributes:
        value: The true value of the configuration that it returns; infinite if no run ended.
        trials: Runs that were started.
        epochs: Epochs that were trained.
    """

    value: float
    trials: int
    epochs: int


def replay_search(method: Method, problem: Problem, seed: int) -> ReplayResult:
    """Search until the budget of epochs is spent.  A run that the end of the budget interrupts has no result."""
    budget = round(problem.trials * problem.epochs * method.share)
    trials, spent = budget // problem.epochs, 0
    samplers = make_samplers(method.sampler, problem.space, seed=seed, trials=trials, options={})
    pruner = resolve_pruner(method.pruner, resolve_sampler(method.sampler, problem.space, trials), trials)
    # Hyperband takes a trial's bracket from the name of the study, which is drawn at random where it is not given
    study = optuna.create_study(study_name=f"{seed}", sampler=samplers.initial, pruner=make_pruner(pruner, {}))
    proposer = SamplerProposer(study, problem.space, samplers, seed=seed)
    while spent < budget:
        suggestion = proposer.next(study.get_trials(deepcopy=False))
        if suggestion is None:
            break  # everything was tried
        trial, params = suggestion
        losses, state = problem.curve(params, seed), TrialState.COMPLETE
        for epoch in range(1, problem.epochs + 1):
            spent += 1
            if epoch > len(losses):
                state = TrialState.FAIL  # it diverged
                break
            trial.report(losses[epoch - 1], epoch)
            if epoch < problem.epochs and trial.should_prune():
                state = TrialState.PRUNED
                break
            if spent >= budget and epoch < problem.epochs:
                state = TrialState.FAIL
                break
        study.tell(trial, min(losses) if state is TrialState.COMPLETE else None, state=state)
    ended = any(trial.state is TrialState.COMPLETE for trial in study.trials)
    return ReplayResult(problem.final(study.best_params) if ended else float("inf"), len(study.trials), spent)

"""Who ends a trial early, by name."""

from collections.abc import Mapping
from typing import Any

from optuna import pruners
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class Hyperband(BasePruner):
    """Hyperband (Li et al. 2018) by Optuna, without the bracket that ends no trial.

    A rung at the last validation ends nothing: its bracket is a search without pruning, which on short runs takes a
    third of the budget or more.  Optuna takes the length of a run from the last step as well, but counts steps from 0.

    Args:
        options: Arguments of optuna.pruners.HyperbandPruner; `max_resource` replaces the length of a run, in
            validations, that the first whole trial tells.
    """

    def __init__(self, **options: Any) -> None:
        self.options = {"max_resource": "auto", **options}
        told = pruners.HyperbandPruner(**self.options)  # also where it is of no use yet: it refuses wrong options
        self.made: BasePruner | None = None if self.options["max_resource"] == "auto" else told

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial ends here; never before another one came to its end."""
        if self.made is None:
            whole = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            steps = [other.last_step for other in whole if other.last_step is not None]
            if not steps:
                return False
            longest = max(steps) - 1  # in validations, counted from 1: the last one is no place to end a trial
            self.made = pruners.HyperbandPruner(**self.options | {"max_resource": max(1, longest)})
        return self.made.prune(study, trial)


def make_pruner(name: str, options: Mapping[str, Any]) -> BasePruner:
    """A pruner of Optuna.  It sees one score per validation, counted from 1.

    Args:
        name: As in `search.pruner`.
        options: More arguments of the pruner; a wrong one raises TypeError.
    """
    given = dict(options)
    if name == "median":  # the first trials and the first validation tell too little
        return pruners.MedianPruner(**{"n_startup_trials": 4, "n_warmup_steps": 1, **given})
    if name in ("hyperband", "auto"):
        return Hyperband(**{"min_resource": 1, "reduction_factor": 3, **given})
    if name == "asha":  # asynchronous successive halving, Li et al. 2020
        return pruners.SuccessiveHalvingPruner(**{"min_resource": 1, "reduction_factor": 3, **given})
    return pruners.NopPruner()

"""Pruners by name (median, Hyperband, ASHA), and the trial's side: it reports scores and asks whether to stop."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna import pruners
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tunelab.errors import ConfigError
from tunelab.search.study_config import STORAGE_VARIABLE
from tunelab.search.study_folder import StudyFolder
from tunelab.search.study_storage import open_storage, running_trial


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


class TrialReporter:
    """Speaks for one trial.

    Args:
        study: Folder of the study.
        number: Of the trial.

    Raises:
        ConfigError: If there is no such study.
    """

    def __init__(self, study: Path, number: int) -> None:
        folder = StudyFolder(study)
        try:
            request = folder.read_request()
        except (OSError, ValueError) as fault:
            raise ConfigError(f"trial.study={study} holds no search ({fault}); only a search sets trial.*") from fault
        self.single = len(request["objectives"]) == 1
        storage, _ = open_storage(request["storage"] or os.environ.get(STORAGE_VARIABLE), folder)
        pruner = make_pruner(request["pruner"], request["pruner_options"])
        self.trial = running_trial(storage, request["name"], number, pruner)
        self.storage, self.identifier = storage, self.trial._trial_id

    def report(self, value: float, step: int) -> bool:
        """Send the score of one validation, counted from 1; whether the search wants this trial to stop."""
        if not self.single or self.storage.get_trial(self.identifier).state.is_finished():
            return False  # several scores have no order; a finished trial is only run again
        self.trial.report(value, step)
        return bool(self.trial.should_prune())

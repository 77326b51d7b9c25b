"""Pruners by name (median, Hyperband, ASHA), and the reporter with which a running trial uses one."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna import pruners
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.runs.study_folder import StudyFolder
from tunelab.search.study_config import STORAGE_VARIABLE
from tunelab.search.study_storage import open_storage, running_trial


class Hyperband(BasePruner):
    """Optuna's Hyperband (Li et al. 2018) without the bracket that prunes no trial.

    A rung at the last validation prunes nothing: its bracket is a search without pruning, which on short runs takes a
    third of the budget or more.  Optuna takes the length of a run from the last step as well, but counts steps from 0.

    Args:
        options: Arguments of optuna.pruners.HyperbandPruner; without `max_resource`, the length of a run in
            validations is taken from the first complete trial.
    """

    def __init__(self, **options: Any) -> None:
        self.options = {"max_resource": "auto", **options}
        pruner = pruners.HyperbandPruner(**self.options)  # made in any case: it refuses wrong options
        self.pruner: BasePruner | None = None if self.options["max_resource"] == "auto" else pruner

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial is pruned now; never before another one is complete."""
        if self.pruner is None:
            complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            steps = [other.last_step for other in complete if other.last_step is not None]
            if not steps:
                return False
            longest = max(steps) - 1  # in validations, counted from 1: pruning at the last one saves nothing
            self.pruner = pruners.HyperbandPruner(**self.options | {"max_resource": max(1, longest)})
        return self.pruner.prune(study, trial)


def make_pruner(name: str, options: Mapping[str, Any]) -> BasePruner:
    """A pruner of Optuna, which gets one score per validation, counted from 1.

    Args:
        name: `search.pruner`.
        options: More arguments of the pruner; a wrong one raises TypeError.
    """
    if name == "median":  # the first trials and the first validation say too little
        return pruners.MedianPruner(**{"n_startup_trials": 4, "n_warmup_steps": 1, **options})
    if name in ("hyperband", "auto"):
        return Hyperband(**{"min_resource": 1, "reduction_factor": 3, **options})
    if name == "asha":  # asynchronous successive halving, Li et al. 2020
        return pruners.SuccessiveHalvingPruner(**{"min_resource": 1, "reduction_factor": 3, **options})
    return pruners.NopPruner()


class TrialReporter:
    """Reports the scores of one running trial to its study, from the process of the trial.

    Args:
        study: Folder of the study.
        number: Number of the trial.

    Raises:
        ConfigError: If there is no such study.
    """

    def __init__(self, study: Path, number: int) -> None:
        folder = StudyFolder(study)
        try:
            recorded = folder.read_study_config()
        except (OSError, ValueError) as fault:
            raise ConfigError(
                translate(
                    "trial.study={study} holds no search ({fault}); only a search sets trial.*",
                    study=study,
                    fault=fault,
                )
            ) from fault
        self.has_one_objective = len(recorded["objectives"]) == 1
        storage, _ = open_storage(recorded["storage"] or os.environ.get(STORAGE_VARIABLE), folder)
        pruner = make_pruner(recorded["pruner"], recorded["pruner_options"])
        self.trial = running_trial(storage, recorded["name"], number, pruner)
        self.storage, self.trial_id = storage, self.trial._trial_id

    def report(self, value: float, step: int) -> bool:
        """Report the score of one validation, counted from 1; True if the trial is to be pruned."""
        if not self.has_one_objective or self.storage.get_trial(self.trial_id).state.is_finished():
            return False  # several objectives have no order; a finished trial is only rerun
        self.trial.report(value, step)
        return bool(self.trial.should_prune())

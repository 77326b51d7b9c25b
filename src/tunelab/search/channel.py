"""The line from a training to the search that started it: scores go out, an order to stop may come back."""

import os
from pathlib import Path

from tunelab.errors import ConfigError
from tunelab.search.folder import StudyFolder
from tunelab.search.pruners import make_pruner
from tunelab.search.study import live_trial, open_storage
from tunelab.search.terms import ADDRESS


class Channel:
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
        storage, _ = open_storage(request["storage"] or os.environ.get(ADDRESS), folder)
        pruner = make_pruner(request["pruner"], request["pruner_options"])
        self.trial = live_trial(storage, request["name"], number, pruner)
        self.storage, self.identifier = storage, self.trial._trial_id

    def report(self, value: float, step: int) -> bool:
        """Send the score of one validation, counted from 1; whether the search wants this trial to stop."""
        if not self.single or self.storage.get_trial(self.identifier).state.is_finished():
            return False  # several scores have no order; a finished trial is only run again
        self.trial.report(value, step)
        return bool(self.trial.should_prune())

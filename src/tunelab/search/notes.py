"""What an engine writes down about trials, in the study itself, so that any other engine can go on from it."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from tunelab.search.journal import SafeStorage
from tunelab.search.outcome import Outcome

STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass(frozen=True)
class Notes:
    """The record of one study, by trial number.

    Attributes:
        study: Optuna's view of it.
        storage: Where it is kept.
    """

    study: optuna.Study
    storage: BaseStorage

    def trials(self) -> list[FrozenTrial]:
        """Every trial of the study, as it stands now."""
        return self.study.get_trials(deepcopy=False)

    def at_once(self) -> AbstractContextManager[None]:
        """Within it, what is noted of one event waits for the disk once, at the end."""
        return self.storage.journal.at_once() if isinstance(self.storage, SafeStorage) else nullcontext()

    def settle(self) -> None:
        """Wait for the disk now, also within `at_once`."""
        if isinstance(self.storage, SafeStorage):
            self.storage.journal.settle()

    def write(self, number: int, **facts: Any) -> None:
        """Note facts of a trial, plain values; does nothing where another engine has ended it meanwhile."""
        identifier = self._identifier(number)
        with suppress(UpdateFinishedTrialError):
            for name, value in facts.items():
                self.storage.set_trial_user_attr(identifier, name, value)

    def facts(self, number: int) -> dict[str, Any]:
        """What has been noted of a trial."""
        return dict(self.storage.get_trial(self._identifier(number)).user_attrs)

    def end(self, number: int, ended: Outcome, excess: Mapping[str, float]) -> None:
        """Note how a trial ended, and end it; does nothing where another engine has done so.

        Args:
            number: Of the trial.
            ended: How it ended.
            excess: By constraint, how far it lies above the limit; samplers learn from it too.
        """
        identifier = self._identifier(number)
        if self.storage.get_trial(identifier).state.is_finished():
            return
        self.write(number, seconds=ended.seconds, kind=ended.kind, reason=ended.reason, scores=dict(ended.scores))
        if excess:
            self.write(number, excess=list(excess.values()))
            trial = Trial(self.study, identifier)
            for name, value in excess.items():
                trial.set_constraint(name, value)
        values = list(ended.values) if ended.state == "complete" else None
        self.study.tell(number, values, state=STATES[ended.state], skip_if_finished=True)

    def _identifier(self, number: int) -> int:
        study = self.storage.get_study_id_from_name(self.study.study_name)
        return self.storage.get_trial_id_from_study_id_trial_number(study, number)

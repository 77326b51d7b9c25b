"""When a search is given up: what went wrong would go wrong in every other trial too."""

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from tunelab.errors import ConfigError, TuneLabError
from tunelab.search.folder import StudyFolder
from tunelab.search.outcome import UNSCORED
from tunelab.search.proposals import counted

FIRST_FAILURES = 3  # trials in a row that may fail by their settings


def hopeless(trials: Sequence[FrozenTrial], folder: StudyFolder) -> TuneLabError | None:
    """Why the search has no prospect; None where it has.

    Args:
        trials: Every trial of the study.
        folder: Its files.
    """
    ended = [trial for trial in counted(trials) if trial.state.is_finished()]
    whole = any(trial.state is TrialState.COMPLETE for trial in ended)
    unscored = [trial for trial in ended if trial.user_attrs.get("kind") == UNSCORED]
    if unscored and not whole:
        last = unscored[-1]
        return ConfigError(
            f"trial {last.number} ran to its end and {last.user_attrs.get('reason')}\nNo other trial would leave it "
            "either; search.objectives and search.constraints take these names only"
        )
    first = ended[:FIRST_FAILURES]
    if len(ended) == FIRST_FAILURES and all(trial.user_attrs.get("kind") == "config" for trial in first):
        last = first[-1]
        return TuneLabError(
            f"the first {FIRST_FAILURES} trials could not start, so no other will; the last one said: "
            f"{last.user_attrs.get('reason')}\nIts output is in {folder.trial(last.number)}/trial.log"
        )
    return None

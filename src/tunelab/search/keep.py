"""Disk space: only the best trials keep their checkpoints."""

from collections.abc import Sequence

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from tunelab.search.folder import StudyFolder
from tunelab.search.ledger import ranked
from tunelab.search.population import GENERATION


def drop_checkpoints(
    folder: StudyFolder, trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection], keep: int | None
) -> None:
    """Delete the checkpoints of finished trials that are not among the best.

    Args:
        folder: The study's files.
        trials: Every trial of the study.
        directions: Of the objectives.
        keep: How many trials keep theirs; None keeps all.
    """
    if keep is None:
        return
    kept = {trial.number for trial in ranked(trials, directions)[:keep]}
    newest = max((trial.user_attrs.get(GENERATION, 0) for trial in trials), default=0)
    kept |= {
        t.number for t in trials if t.user_attrs.get(GENERATION, -2) >= newest - 1
    }  # a next stage begins with them
    for trial in trials:
        if trial.state.is_finished() and trial.number not in kept:
            for file in (folder.trial(trial.number) / "checkpoints").glob("*.ckpt"):
                file.unlink(missing_ok=True)

"""Which checkpoints a search deletes: never those of its best trials, nor what a next stage begins with."""

from pathlib import Path

import pytest
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from tunelab.runs.study_folder import StudyFolder
from tunelab.search.pbt import GENERATION
from tunelab.search.study_results import drop_checkpoints


def trials(folder: StudyFolder, values: list[float | None], generations: list[int] | None = None) -> list[FrozenTrial]:
    """Trials with a checkpoint each; one without a value is still running."""
    found = []
    for number, value in enumerate(values):
        facts = {} if generations is None else {GENERATION: generations[number]}
        state = TrialState.RUNNING if value is None else TrialState.COMPLETE
        trial = create_trial(state=state, value=value, user_attrs=facts)
        trial.number = number
        place = folder.trial_folder(number) / "checkpoints"
        place.mkdir(parents=True)
        (place / "best.ckpt").touch()
        found.append(trial)
    return found


def left(folder: StudyFolder, count: int) -> list[int]:
    return [number for number in range(count) if (folder.trial_folder(number) / "checkpoints" / "best.ckpt").exists()]


@pytest.mark.parametrize(
    ("direction", "keep", "kept"),
    [
        (StudyDirection.MINIMIZE, 2, [1, 3, 4]),
        (StudyDirection.MAXIMIZE, 1, [0, 3]),
        (StudyDirection.MINIMIZE, 0, [3]),
        (StudyDirection.MINIMIZE, None, [0, 1, 2, 3, 4]),
    ],
)
def test_the_best_trials_and_those_at_work_keep_their_checkpoints(
    direction: StudyDirection, keep: int | None, kept: list[int], tmp_path: Path
) -> None:
    folder = StudyFolder(tmp_path)
    found = trials(folder, [0.9, 0.1, 0.5, None, 0.2])

    drop_checkpoints(folder, found, [direction], keep)

    assert left(folder, 5) == kept


def test_a_population_keeps_the_stage_that_the_next_one_begins_with(tmp_path: Path) -> None:
    # Given two members at their third stage, of which one has not come to its end
    folder = StudyFolder(tmp_path)
    found = trials(folder, [0.1, 0.2, 0.3, 0.4, 0.5, None], [0, 0, 1, 1, 2, 2])

    drop_checkpoints(folder, found, [StudyDirection.MINIMIZE], 1)

    assert left(folder, 6) == [0, 2, 3, 4, 5]

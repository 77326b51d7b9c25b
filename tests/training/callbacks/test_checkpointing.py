"""The weights that are kept are those of the best validation, and a score that is no number is never best."""

from math import inf, nan
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tunelab.training.callbacks.checkpointing import BestCheckpoint


def kept(scores: list[float], mode: str) -> tuple[list[int], BestCheckpoint]:
    """The steps at which weights were saved when validations gave these scores, one step apart."""
    saved: list[int] = []
    best = BestCheckpoint(Path("best.ckpt"), monitor="val/pearson", mode=mode)
    trainer: Any = SimpleNamespace(sanity_checking=False, state=SimpleNamespace(fn="fit"))
    trainer.save_checkpoint = lambda path, weights_only: saved.append(trainer.global_step)
    for trainer.global_step, score in enumerate(scores, 1):
        trainer.callback_metrics = {"val/pearson": torch.tensor(score), "train/loss": torch.tensor(1.0)}
        best.on_validation_end(trainer, SimpleNamespace())  # type: ignore[arg-type]
    return saved, best


@pytest.mark.parametrize(
    ("mode", "scores", "steps"),
    [
        ("max", [0.1, 0.3, 0.3, 0.2, 0.4], [1, 2, 5]),  # a tie keeps the earlier weights
        ("min", [0.3, 0.1, 0.1, 0.2], [1, 2]),
        ("max", [nan, 0.1, nan, inf, 0.2], [2, 5]),
        ("min", [nan, -inf, 0.2, 0.1], [3, 4]),
        ("max", [nan, nan], []),
    ],
)
def test_weights_are_kept_where_a_finite_score_is_better_than_all_before(
    mode: str, scores: list[float], steps: list[int]
) -> None:
    saved, best = kept(scores, mode)

    assert saved == steps
    assert best.score == (pytest.approx(scores[steps[-1] - 1]) if steps else None)
    assert best.step == (steps[-1] if steps else 0)
    assert set(best.scores) == ({"val/pearson"} if steps else set())


def test_a_resumed_run_remembers_what_it_must_beat_as_long_as_it_has_the_weights(tmp_path: Path) -> None:
    _, before = kept([0.5], "max")
    after = BestCheckpoint(tmp_path / "best.ckpt", monitor="val/pearson", mode="max")
    after.load_state_dict(before.state_dict())
    assert after.score is None

    (tmp_path / "best.ckpt").touch()
    after.load_state_dict(before.state_dict())

    assert (after.score, after.step, after.scores) == (0.5, 1, {"val/pearson": 0.5})
    assert after.state_key == before.state_key

"""Patience counts validations without improvement, whatever they are, and comes from the settings."""

from math import nan
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tunelab.training.callbacks.early_stopping import EarlyStopping


def looked_at(stopper: EarlyStopping, scores: list[float]) -> int | None:
    """The validation at which training stops; None if it never is."""
    decide = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)
    trainer: Any = SimpleNamespace(should_stop=False, fast_dev_run=False, current_epoch=0, strategy=decide)
    trainer.sanity_checking, trainer.state = False, SimpleNamespace(fn="fit")
    for place, score in enumerate(scores, 1):
        trainer.callback_metrics = {"val/pearson": torch.tensor(score)}
        stopper.on_validation_end(trainer, SimpleNamespace())  # type: ignore[arg-type]
        if trainer.should_stop:
            return place
    return None


def stopper(patience: int, mode: str = "max", min_delta: float = 0.0) -> EarlyStopping:
    return EarlyStopping("val/pearson", mode=mode, patience=patience, min_delta=min_delta)


@pytest.mark.parametrize(
    ("mode", "min_delta", "scores", "ends"),
    [
        ("max", 0.0, [0.1, 0.2, 0.2, 0.1], 4),
        ("max", 0.0, [0.1, 0.2, 0.1, 0.3, 0.4], None),
        ("min", 0.0, [0.1, 0.2, 0.3], 3),
        ("max", 0.05, [0.1, 0.14, 0.14], 3),
        ("max", 0.0, [nan, 0.1, 0.2, 0.3], None),  # no correlation yet
        ("max", 0.0, [nan, nan, 0.3], 2),
    ],
)
def test_training_ends_once_patience_is_used_up(
    mode: str, min_delta: float, scores: list[float], ends: int | None
) -> None:
    found = stopper(2, mode, min_delta)

    assert looked_at(found, scores) == ends
    assert found.patience_exhausted == (ends is not None)  # also within the first epoch


def test_a_resumed_run_keeps_its_count_and_takes_its_patience_from_the_settings() -> None:
    before = stopper(2)
    assert looked_at(before, [0.3, 0.2, 0.1]) == 3

    same, more = stopper(2), stopper(4)
    for after in (same, more):
        after.load_state_dict(before.state_dict())

    assert same.state_key == before.state_key
    assert same.patience_exhausted and not more.patience_exhausted
    assert looked_at(more, [0.2, 0.2]) == 2

"""A schedule that follows validation gets the score that is monitored, and its answer reaches the optimizer at once."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from tunelab.optim.schedules import Plateau
from tunelab.training.callbacks.reduce_on_plateau import ReduceOnPlateau


def trainer(plateau: Plateau, **more: Any) -> Any:
    """As much of Lightning's trainer as is asked, over groups with the peak rates 1 and 0.1."""
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": rate} for rate in (1.0, 0.1)]
    scheduler = LambdaLR(torch.optim.SGD(groups, lr=1.0), plateau)
    usual = {"sanity_checking": False, "global_step": 5, "state": SimpleNamespace(fn="fit")}
    return SimpleNamespace(lr_scheduler_configs=[SimpleNamespace(scheduler=scheduler)], **{**usual, **more})


def validated(at: Any, scores: list[float], mode: str = "max") -> list[float]:
    """The rates after validations with these scores; the loss says the opposite."""
    for score in scores:
        at.callback_metrics = {"val/f1": torch.tensor(score), "val/loss": torch.tensor(-score)}
        ReduceOnPlateau("val/f1", mode).on_validation_end(at, None)  # type: ignore[arg-type]
    return [group["lr"] for group in at.lr_scheduler_configs[0].scheduler.optimizer.param_groups]


def test_each_rate_falls_as_soon_as_the_score_stands_still() -> None:
    at = trainer(Plateau(total=10, patience=0))
    assert validated(at, [0.5, 0.6]) == [1.0, 0.1]
    assert validated(at, [0.6]) == pytest.approx([0.5, 0.05])
    assert at.lr_scheduler_configs[0].scheduler.get_last_lr() == pytest.approx([0.5, 0.05])


def test_the_way_the_score_is_better_is_minded() -> None:
    assert validated(trainer(Plateau(total=10, patience=0)), [0.5, 0.6], "min") == pytest.approx([0.5, 0.05])


def test_a_score_that_is_not_there_is_no_improvement() -> None:
    at = trainer(Plateau(total=10, patience=0))
    validated(at, [0.5])
    at.callback_metrics = {"val/loss": torch.tensor(0.1)}
    ReduceOnPlateau("val/f1", "max").on_validation_end(at, None)  # type: ignore[arg-type]
    assert at.lr_scheduler_configs[0].scheduler.optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    "more", [{"sanity_checking": True}, {"global_step": 0}, {"state": SimpleNamespace(fn="validate")}]
)
def test_a_validation_outside_training_lowers_nothing(more: dict[str, Any]) -> None:
    assert validated(trainer(Plateau(total=10, patience=0), **more), [0.5, 0.5, 0.5]) == [1.0, 0.1]

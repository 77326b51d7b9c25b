"""Schedules hit their marks, and are transformers' own."""

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from tunelab.optim.schedules import constant, cosine, linear, warmup_steps


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 0.1), (9, 1.0), (10, 1.0), (60, 0.55), (110, 0.1), (10_000, 0.1)],
    ids=["first step trains", "peak", "peak holds", "half way", "floor", "floor holds"],
)
def test_cosine_hits_its_marks(step: int, factor: float) -> None:
    assert cosine(step, total=110, warmup=10, min_lr_ratio=0.1) == pytest.approx(factor)


@pytest.mark.parametrize(("step", "factor"), [(0, 0.5), (2, 1.0), (52, 0.6), (102, 0.2), (103, 0.2)])
def test_linear_hits_its_marks(step: int, factor: float) -> None:
    assert linear(step, total=102, warmup=2, min_lr_ratio=0.2) == pytest.approx(factor)


def test_constant_stays_at_the_peak() -> None:
    assert [constant(step, total=10, warmup=2) for step in (0, 1, 5, 99)] == [0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("ours", "theirs"), [(cosine, get_cosine_schedule_with_warmup), (linear, get_linear_schedule_with_warmup)]
)
def test_the_decay_is_that_of_transformers(ours, theirs) -> None:  # type: ignore[no-untyped-def]
    def rates(schedule: LambdaLR) -> list[float]:
        found = []
        for _ in range(50):
            found.append(schedule.get_last_lr()[0])
            schedule.optimizer.step()
            schedule.step()
        return found

    def optimizer() -> torch.optim.Optimizer:
        return torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)

    mine = rates(LambdaLR(optimizer(), lambda step: ours(step, total=50, warmup=0.1)))

    # theirs starts at zero, so its first step trains nothing; from the peak on both are the same curve
    assert mine[5:] == pytest.approx(rates(theirs(optimizer(), 5, 50))[5:])


def test_warm_up_is_a_count_from_one_on_and_a_share_below() -> None:
    assert warmup_steps(0.1, 200) == 20
    assert warmup_steps(7, 200) == 7
    assert warmup_steps(0, 200) == 0

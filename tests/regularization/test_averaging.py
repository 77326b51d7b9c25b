"""Averages of weights: as torch.optim.swa_utils computes them, shown and taken back bit by bit."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tunelab.regularization.averaging import WeightAverage, ema_share, swa_share


def wandering(model: nn.Module, steps: int, each: list[object]) -> None:
    """Random steps; after each, every average takes the weights in."""
    draw = torch.Generator().manual_seed(0)
    for _ in range(steps):
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn(weight.shape, generator=draw))
        for average in each:
            average.update() if isinstance(average, WeightAverage) else average.update_parameters(model)  # type: ignore[attr-defined]


def agrees(ours: WeightAverage, theirs: AveragedModel) -> None:
    wanted = dict(theirs.module.named_parameters())
    for (name, _), (_, value) in zip(ours.named.items(), ours.averages(), strict=True):
        torch.testing.assert_close(value, wanted[name].detach())


def test_a_moving_average_is_that_of_torch_with_a_warmed_up_decay() -> None:
    model = nn.Linear(3, 2)
    ours = WeightAverage(dict(model.named_parameters()), ema_share(0.9))

    def warm(average: torch.Tensor, weight: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
        decay = min(0.9, (1 + int(counted)) / (10 + int(counted)))
        return decay * average + (1 - decay) * weight

    theirs = AveragedModel(model, avg_fn=warm)
    wandering(model, 200, [ours, theirs])

    agrees(ours, theirs)


def test_after_the_warm_up_the_decay_is_the_one_that_was_asked_for() -> None:
    model = nn.Linear(3, 2)
    ours = WeightAverage(dict(model.named_parameters()), lambda seen, counted: 1 - 0.9)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    wandering(model, 50, [ours, theirs])

    agrees(ours, theirs)
    assert ema_share(0.9)(1000, 1000) == pytest.approx(0.1)
    assert ema_share(0.9)(1, 0) == pytest.approx(0.9)


def test_a_plain_mean_is_that_of_torch_from_its_first_step_on() -> None:
    model = nn.Linear(3, 2)
    ours = WeightAverage(dict(model.named_parameters()), swa_share(30))
    wandering(model, 30, [ours])
    assert not list(ours.averages())

    theirs = AveragedModel(model)
    wandering(model, 20, [ours, theirs])

    agrees(ours, theirs)


def test_what_is_shown_is_taken_back_bit_by_bit() -> None:
    model = nn.Linear(3, 2)
    ours = WeightAverage(dict(model.named_parameters()), ema_share(0.9))
    wandering(model, 5, [ours])
    trained = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    average = [value.clone() for _, value in ours.averages()]

    for _ in range(2):  # twice, since Lightning may ask twice
        ours.swap_in_averages()
    assert all(torch.equal(weight, value) for (weight, _), value in zip(ours.averages(), average, strict=True))
    assert all(torch.equal(w, v) for (_, w), v in zip(ours.trained_weights(), trained.values(), strict=True))
    assert all(torch.equal(value, kept) for value, kept in zip(ours.state()["values"].values(), average, strict=True))
    for _ in range(2):
        ours.swap_in_trained()

    assert all(torch.equal(weight, trained[name]) for name, weight in model.named_parameters())
    assert not list(ours.trained_weights())


def test_an_average_that_goes_on_from_its_state_ends_as_one_that_never_stopped() -> None:
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    whole = WeightAverage(dict(one.named_parameters()), ema_share(0.9))
    wandering(one, 4, [whole])
    part = WeightAverage(dict(other.named_parameters()), ema_share(0.9))
    part.load({name: value if name != "values" else {k: v.clone() for k, v in value.items()}
               for name, value in whole.state().items()})  # fmt: skip
    other.load_state_dict(one.state_dict())

    wandering(one, 3, [whole])
    wandering(other, 3, [part])

    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(whole.averages(), part.averages(), strict=True))

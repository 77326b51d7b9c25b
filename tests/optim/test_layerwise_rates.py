"""Rates fall from the head down, and the head may have its own."""

import pytest
import torch
from torch.nn import Parameter

from tunelab.optim.param_groups import layer_lr_factor, layerwise_lr_groups, weight_decay_groups

DEPTH = {"embed": 0, "layer1": 1, "layer1.bias": 1, "layer2": 2, "norm": 3, "head": 4}


def named() -> dict[str, Parameter]:
    return {name: Parameter(torch.ones(2) if name in ("layer1.bias", "norm") else torch.ones(2, 2)) for name in DEPTH}


def rates(**more: float) -> dict[str, tuple[float, float]]:
    """Rate and decay of each name."""
    parameters = named()
    groups = layerwise_lr_groups(parameters, 0.1, lr=1.0, depth=DEPTH, layers=2, **more)
    names = {id(weight): name for name, weight in parameters.items()}
    return {names[id(p)]: (group.get("lr", 1.0), group["weight_decay"]) for group in groups for p in group["params"]}


def test_without_rates_of_their_own_the_groups_are_those_of_weight_decay() -> None:
    parameters = named()
    groups = layerwise_lr_groups(parameters, 0.1, lr=0.3, depth=DEPTH, layers=2)
    assert groups == weight_decay_groups(parameters.values(), 0.1)
    assert not any("lr" in group for group in groups)


def test_each_layer_learns_slower_than_the_one_above() -> None:
    assert rates(layer_decay=0.5) == {
        "norm": (1.0, 0.0),
        "layer2": (0.5, 0.1),
        "layer1": (0.25, 0.1),
        "layer1.bias": (0.25, 0.0),
        "embed": (0.125, 0.1),
        "head": (1.0, 0.1),
    }
    assert [layer_lr_factor(depth, 2, 0.5) for depth in range(5)] == [0.125, 0.25, 0.5, 1, 1]


def test_the_head_has_its_own_rate_and_stands_last() -> None:
    found = rates(head_lr=7.0)
    assert found["head"] == (7.0, 0.1)
    assert {rate for name, (rate, _) in found.items() if name != "head"} == {1.0}
    assert list(found)[-1] == "head"
    assert rates(head_lr=7.0, layer_decay=0.5)["layer1"] == (0.25, 0.1)


def test_frozen_parameters_get_no_rate() -> None:
    parameters = named()
    parameters["embed"].requires_grad_(False)
    groups = layerwise_lr_groups(parameters, 0.1, lr=1.0, depth=DEPTH, layers=2, layer_decay=0.5)
    assert not any(p is parameters["embed"] for group in groups for p in group["params"])


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_a_schedule_scales_every_rate_alike(optimizer: type[torch.optim.Optimizer]) -> None:
    groups = layerwise_lr_groups(named(), 0.1, lr=1.0, depth=DEPTH, layers=2, layer_decay=0.5, head_lr=8.0)
    made = optimizer(groups, lr=1.0)  # type: ignore[call-arg]
    before = [group["lr"] for group in made.param_groups]
    torch.optim.lr_scheduler.LambdaLR(made, lambda step: 0.25)
    assert [group["lr"] for group in made.param_groups] == [rate / 4 for rate in before]
    assert before[0] == 1.0 and before[-1] == 8.0

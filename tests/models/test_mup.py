"""muP: who learns at which share of the rate, and what that does to activations as the width grows."""

from math import log2
from statistics import mean

import pytest
import torch
from torch.nn import Parameter

from support.tiny_runs import settings
from tunelab.config.cross_checks import ADAM_LIKE, has_decoupled_decay
from tunelab.config.schema import RunConfig, TargetConfig
from tunelab.models.load_model import load_tokenizer
from tunelab.models.mup import (
    hidden_matrices,
    mup_attention_scale,
    mup_hidden_std,
    mup_lr_ratio,
    mup_param_groups,
)
from tunelab.optim.factory import optimizer_builder
from tunelab.optim.lion import Lion
from tunelab.optim.param_groups import build_param_groups, layerwise_lr_groups
from tunelab.training.components import build_model, build_task

DEPTH = {"embed": 0, "layer1": 1, "layer1.norm": 1, "layer2": 2, "norm": 3, "head": 4}
WIDTHS = (32, 64, 128, 256)


def named() -> dict[str, Parameter]:
    return {name: Parameter(torch.ones(2) if "norm" in name else torch.ones(2, 2)) for name in DEPTH}


def rates(share: float, **more: float) -> dict[str, tuple[float, float]]:
    """Rate and decay of each name."""
    own = named()
    groups = layerwise_lr_groups(own, 0.1, lr=1.0, depth=DEPTH, layers=2, **more)
    scaled = mup_param_groups(groups, hidden_matrices(own, DEPTH, 2), share=share, lr=1.0)
    names = {id(weight): name for name, weight in own.items()}
    assert sum(len(group["params"]) for group in scaled) == len(own)
    return {
        names[id(p)]: (group["lr"] if share != 1 else 1.0, group["weight_decay"])
        for group in scaled
        for p in group["params"]
    }


def test_only_matrices_inside_the_layers_learn_slower() -> None:
    found = rates(0.25)
    assert {name: rate for name, (rate, _) in found.items()} == {
        "embed": 1, "head": 1, "layer1.norm": 1, "norm": 1, "layer1": 0.25, "layer2": 0.25,
    }  # fmt: skip


def test_what_decay_takes_off_in_a_step_is_the_same_at_every_width() -> None:
    for share in (1, 0.5, 0.125):
        found = rates(share)
        assert found["layer1"][0] * found["layer1"][1] == pytest.approx(0.1)
        assert found["embed"] == (1.0, 0.1)
        assert found["norm"] == (1.0, 0.0)


@pytest.mark.parametrize("name", ADAM_LIKE)
def test_decay_counts_as_decoupled_where_it_shrinks_a_weight_by_rate_times_decay(name: str) -> None:
    kind = Lion if name == "Lion" else getattr(torch.optim, name)
    for more in ({}, {"decoupled_weight_decay": True})[: 2 if name in ("Adam", "NAdam") else 1]:
        weight = Parameter(torch.full((2, 2), 3.0))
        weight.grad = torch.zeros_like(weight)
        kind([weight], lr=0.1, weight_decay=0.2, **more).step()

        shrunk = torch.allclose(weight.detach(), torch.tensor(3 * (1 - 0.1 * 0.2)))
        assert has_decoupled_decay(TargetConfig(target=f"torch.optim.{name}", arguments=more)) is shrunk


def test_the_first_group_tells_the_rate_of_the_run() -> None:
    own = named()
    groups = mup_param_groups(
        layerwise_lr_groups(own, 0.1, lr=1.0, depth=DEPTH, layers=2), hidden_matrices(own, DEPTH, 2), share=0.5, lr=1.0
    )
    assert groups[0].get("lr", 1.0) == 1.0


def test_shares_multiply_with_rates_that_fall_with_depth() -> None:
    found = rates(0.5, layer_decay=0.5)
    assert found["layer2"][0] == 0.25
    assert found["layer1"][0] == 0.125
    assert found["layer1.norm"][0] == 0.25


def test_a_model_of_the_base_width_is_left_as_it_is() -> None:
    own = named()
    groups = layerwise_lr_groups(own, 0.1, lr=1.0, depth=DEPTH, layers=2)
    assert mup_param_groups(groups, hidden_matrices(own, DEPTH, 2), share=mup_lr_ratio(64, 64), lr=1.0) == groups
    assert mup_hidden_std(0.1, 64, 64) == 0.1
    assert mup_attention_scale(16, 16) == pytest.approx(16**-0.5)


def test_frozen_matrices_are_in_no_group() -> None:
    own = named()
    own["layer1"].requires_grad_(False)
    groups = mup_param_groups(
        layerwise_lr_groups(own, 0.1, lr=1.0, depth=DEPTH, layers=2), hidden_matrices(own, DEPTH, 2), share=0.5, lr=1.0
    )
    assert not any(p is own["layer1"] for group in groups for p in group["params"])


def run_of(width: int, *, mup: bool) -> RunConfig:
    sizes = ["model=scratch", f"model.width={width}", "model.depth=2", "model.heads=2", "regularization=none"]
    base = [f"model.mup={str(mup).lower()}", "model.base_width=32", "model.base_head=16", "lr=0.01"]
    return settings(*sizes, *base)


def moved(width: int, *, mup: bool, optimizer: str = "AdamW") -> dict[str, float]:
    """How far four steps move what the first layer puts out, and the lead of the right token over the mean logit."""
    run = run_of(width, mup=mup)
    model = build_model(run, build_task(run), load_tokenizer(run.model))
    kind = Lion if optimizer == "Lion" else getattr(torch.optim, optimizer)
    optim = kind(build_param_groups(model, run), lr=run.lr)
    ids = torch.arange(3, 11)[None]

    def read() -> list[torch.Tensor]:
        with torch.no_grad():
            found = model(input_ids=ids, output_hidden_states=True)
        logits = found.logits[0, :-1]
        right = logits.gather(1, ids[0, 1:, None])[:, 0]
        # a lead, not the logits: most of those move by chance alone, which is less the wider the model
        return [found.hidden_states[1], right - logits.mean(1)]

    before = read()
    for _ in range(4):
        optim.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optim.step()
    pairs = zip(("layer", "lead"), before, read(), strict=True)
    return {name: float((new - old).square().mean().sqrt()) for name, old, new in pairs}


def test_a_run_hands_its_optimizer_the_scaled_rates() -> None:
    run = run_of(64, mup=True)
    model = build_model(run, build_task(run), load_tokenizer(run.model))

    groups = optimizer_builder(model, run)(list(model.parameters())).param_groups

    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    found = {name: rate[id(weight)] for name, weight in model.named_parameters()}
    halved = {name for name, lr in found.items() if lr == 0.005}
    assert halved == {name for name in found if "_proj" in name}
    assert all(lr == 0.01 for name, lr in found.items() if name not in halved)


def growth(where: str, found: dict[int, dict[str, float]]) -> float:
    """The power of the width with which something grows: least squares over the logarithms."""
    xs, ys = [log2(width) for width in found], [log2(moves[where]) for moves in found.values()]
    middle = mean(xs)
    return sum((x - middle) * y for x, y in zip(xs, ys, strict=True)) / sum((x - middle) ** 2 for x in xs)


def test_activations_move_alike_at_every_width_and_without_mup_they_do_not() -> None:
    # The coordinate check of Yang et al. 2022, section D.1: same rate, growing width
    mup, plain = ({width: moved(width, mup=on) for width in WIDTHS} for on in (True, False))

    for where in ("layer", "lead"):
        assert abs(growth(where, mup)) < 0.2, (where, mup)
        assert growth(where, plain) > 0.4, (where, plain)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ADAM_LIKE)
def test_the_rule_holds_for_every_optimizer_it_is_allowed_for(optimizer: str) -> None:
    mup = {width: moved(width, mup=True, optimizer=optimizer) for width in WIDTHS}

    for where in ("layer", "lead"):
        assert abs(growth(where, mup)) < 0.25, (where, mup)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["SGD", "RAdam"])
def test_optimizers_whose_steps_follow_the_gradient_break_the_rule(optimizer: str) -> None:
    # RAdam takes plain momentum steps until it trusts its estimate of the variance
    mup = {width: moved(width, mup=True, optimizer=optimizer) for width in WIDTHS}

    assert optimizer not in ADAM_LIKE
    assert max(abs(growth(where, mup)) for where in ("layer", "lead")) > 0.4, mup

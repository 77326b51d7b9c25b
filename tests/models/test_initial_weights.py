"""First weights: each scheme against its closed form and against torch's own."""

from math import prod, sqrt
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from support.tiny_runs import settings
from tunelab.models.freezing import parameter_depths
from tunelab.models.load_model import load_model, load_tokenizer

SCHEMES = ("normal", "xavier", "kaiming", "depth_scaled")
SHAPE = ["model=scratch", "model.depth=3", "model.width=96", "model.heads=4"]


def made(*overrides: str, seed: int = 0) -> PreTrainedModel:
    run = settings(*SHAPE, *overrides)
    torch.manual_seed(seed)
    return load_model(run.model, load_tokenizer(run.model), head="causal", options={})


def spread(name: str, scheme: str, shape: torch.Size, std: float) -> float:
    """The closed form of a matrix's standard deviation."""
    outputs, inputs = shape
    if "layers" not in name:
        return std
    adds = name.endswith(("o_proj.weight", "down_proj.weight"))
    return {
        "normal": std,
        "xavier": sqrt(2 / (inputs + outputs)),
        "kaiming": sqrt(2 / inputs),
        "depth_scaled": std / sqrt(2 * 3) if adds else std,
    }[scheme]


@pytest.mark.parametrize("norm", ["rmsnorm", "layernorm"])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("std", [None, 0.05])
def test_every_matrix_is_spread_as_the_scheme_says(scheme: str, norm: str, std: float | None) -> None:
    model = made(f"model.init={scheme}", f"model.normalisation={norm}", f"model.initial_std={std or 'null'}")

    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            expected = spread(name, scheme, weight.shape, std or 96**-0.5)
            error = 5 / sqrt(2 * prod(weight.shape))  # five standard errors of a standard deviation
            assert float(weight.detach().std()) == pytest.approx(expected, rel=error), name
            assert abs(float(weight.detach().mean())) < 5 * expected / sqrt(prod(weight.shape)), name
        else:
            assert torch.equal(weight.detach(), torch.full_like(weight, float(name.endswith("weight")))), name


@pytest.mark.parametrize(
    ("scheme", "draw", "options"),
    [
        ("xavier", nn.init.xavier_normal_, {}),
        ("kaiming", nn.init.kaiming_normal_, {"nonlinearity": "relu", "mode": "fan_in"}),
    ],
)
def test_the_schemes_draw_what_torch_draws(scheme: str, draw: Any, options: dict[str, Any]) -> None:
    # Given a model of the plain scheme, whose layers torch draws again right after
    reference = made("model.init=normal", seed=3)
    depths = parameter_depths(reference)
    for name, weight in reference.named_parameters():
        if weight.ndim == 2 and 1 <= depths.by_name[name] <= depths.layers:
            draw(weight, **options)

    ours = made(f"model.init={scheme}", seed=3)

    for one, other in zip(ours.parameters(), reference.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_same_seed_draws_the_same_weights(scheme: str) -> None:
    one, same, other = (made(f"model.init={scheme}", seed=seed) for seed in (0, 0, 1))

    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True) if a.ndim == 2)


def test_the_schemes_differ_inside_the_layers_only() -> None:
    models = [made(f"model.init={scheme}") for scheme in SCHEMES]

    for name, weight in models[0].named_parameters():
        others = [dict(model.named_parameters())[name] for model in models[1:]]
        assert all(torch.equal(weight, other) for other in others) == ("layers" not in name or weight.ndim == 1)


def test_under_mup_hidden_matrices_shrink_with_the_width_and_embeddings_do_not() -> None:
    mup = ["model.mup=true", "model.base_width=24"]
    for scheme, expected in [("normal", 24**-0.5 / 2), ("depth_scaled", 24**-0.5 / 2 / sqrt(6)), ("xavier", 96**-0.5)]:
        model = made(*mup, f"model.init={scheme}")
        matrix = model.get_parameter("model.layers.1.self_attn.o_proj.weight")
        assert float(matrix.detach().std()) == pytest.approx(expected, rel=0.04), scheme
        embedding = model.get_parameter("model.embed_tokens.weight")
        assert float(embedding.detach().std()) == pytest.approx(24**-0.5, rel=0.02), scheme

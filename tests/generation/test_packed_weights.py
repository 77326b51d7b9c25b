"""Packed copies of weights: the same products, only where they are of use, and gone afterwards."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from transformers.pytorch_utils import Conv1D

from tunelab.generation import packed_weights as packing
from tunelab.generation.packed_weights import can_pack, packed_weights

pytestmark = pytest.mark.skipif(not can_pack(), reason="this PyTorch has no packed products")


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40), nn.Linear(40, 16, bias=False), Conv1D(33, 16))


@pytest.mark.parametrize("rows", [1, 7, 64, 300])
def test_products_are_the_same_and_the_layers_are_as_before_afterwards(rows: int) -> None:
    model, states = layers(), torch.randn(rows, 3, 24)
    with torch.no_grad():
        expected = model(states)

        with packed_weights(model):
            assert all("forward" in vars(layer) for layer in model)
            product = model(states)

    torch.testing.assert_close(product, expected, atol=1e-5, rtol=0)
    assert not any("forward" in vars(layer) for layer in model)


def test_layers_are_as_before_after_an_error_too() -> None:
    model = layers()
    with pytest.raises(RuntimeError), packed_weights(model):
        raise RuntimeError
    assert not any("forward" in vars(layer) for layer in model)


def test_weights_that_are_computed_or_in_half_precision_or_beyond_the_budget_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computed = parametrizations.weight_norm(nn.Linear(8, 8))
    model = nn.Sequential(computed, nn.Linear(8, 8).bfloat16(), nn.Linear(8, 8), nn.Linear(64, 64))
    monkeypatch.setattr(packing, "MAX_PACKED_BYTES", 8 * 8 * 4)

    with packed_weights(model):
        assert ["forward" in vars(layer) for layer in model] == [False, False, True, False]
    with torch.autocast("cpu", dtype=torch.bfloat16), packed_weights(model):
        assert not any("forward" in vars(layer) for layer in model)

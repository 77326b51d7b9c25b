"""Penalties after an optimizer step: exact zeros by the proximal step of L1, bounded rows by max-norm."""

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from support.tiny_models import decoder
from tunelab.regularization.penalties import LinearWeight, apply_l1_proximal, apply_max_norm, trainable_linear_weights


def moved(*weights: Tensor) -> list[nn.Parameter]:
    """Parameters that an optimizer has just stepped."""
    found = [nn.Parameter(weight.clone()) for weight in weights]
    for weight in found:
        weight.grad = torch.ones_like(weight)
    return found


def test_the_proximal_step_minimises_distance_and_penalty_together() -> None:
    # Given the problem whose solution the proximal step is: argmin (x - w)^2 / 2 + rate strength |x|
    before = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).double()
    [weight] = moved(before)
    grid = torch.linspace(-4, 4, 80001, dtype=torch.double)

    apply_l1_proximal([{"params": [weight], "lr": 0.5}], 0.8)

    price = (grid[:, None] - before.flatten()).square() / 2 + 0.5 * 0.8 * grid.abs()[:, None]
    torch.testing.assert_close(weight.detach().flatten(), grid[price.argmin(0)], atol=1e-4, rtol=0)


def test_zeros_are_exact_and_counted_over_matrices_that_moved() -> None:
    matrix, vector, still = moved(torch.tensor([[0.01, -0.02], [3.0, -4.0]]), torch.tensor([0.01]), torch.zeros(9, 9))
    still.grad = None

    share = apply_l1_proximal([{"params": [matrix], "lr": 0.1}, {"params": [vector, still], "lr": 0.1}], 1.0)

    assert matrix.tolist() == [[0.0, 0.0], [pytest.approx(2.9), pytest.approx(-3.9)]]
    assert vector.item() == pytest.approx(0.01)
    assert float(share) == 0.5


def test_the_threshold_follows_the_rate_of_each_group() -> None:
    slow, fast = moved(torch.ones(2, 2), torch.ones(2, 2))

    apply_l1_proximal([{"params": [slow], "lr": 0.1}, {"params": [fast], "lr": 0.4}], 1.0)

    assert slow[0, 0].item() == pytest.approx(0.9) and fast[0, 0].item() == pytest.approx(0.6)


def test_no_unit_takes_in_more_than_the_bound_whichever_way_its_matrix_lies() -> None:
    # Given the same layer as torch and as GPT-2 write it
    plain, turned = nn.Linear(6, 4), Conv1D(4, 6)
    with torch.no_grad():
        plain.weight.copy_(torch.randn(4, 6) * torch.tensor([0.01, 1.0, 5.0, 9.0])[:, None])
        turned.weight.copy_(plain.weight.T)
    before = plain.weight.detach().clone()
    for layer in (plain, turned):
        layer.weight.grad = torch.ones_like(layer.weight)

    apply_max_norm([LinearWeight("a", plain.weight, 0), LinearWeight("b", turned.weight, 1)], 2.0)

    lengths = before.norm(dim=1)
    wanted = before * (2.0 / lengths).clamp(max=1)[:, None]
    torch.testing.assert_close(plain.weight.detach(), wanted)
    torch.testing.assert_close(turned.weight.detach().T, wanted)
    assert torch.equal(plain.weight[0], before[0]), "a short row must stay bit by bit"


def test_embeddings_and_a_tied_head_are_no_linear_layers() -> None:
    for family, units in (("gpt2", 1), ("llama", 0)):
        model = decoder(family, tie_word_embeddings=True)
        found = list(trainable_linear_weights(model))

        assert found and {layer.units for layer in found} == {units}
        assert all(layer.weight is not model.get_input_embeddings().weight for layer in found)
        assert {layer.name for layer in found} <= {name for name, _ in model.named_parameters()}


def test_what_is_frozen_is_not_among_the_linear_layers() -> None:
    model = decoder("llama")
    model.requires_grad_(False)
    model.lm_head.weight.requires_grad_(True)

    assert [layer.name for layer in trainable_linear_weights(model)] == ["lm_head.weight"]

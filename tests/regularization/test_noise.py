"""Noise in the forward pass: as its authors define it, and gone when the pass is over."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.integrations.neftune import neftune_post_forward_hook

from support.micro_batches import LENGTHS, instruction, micro
from support.tiny_models import DECODERS, ENCODERS, config_of, decoder
from tunelab.models.packing_support import supports_packing
from tunelab.models.unpadded_attention import DOCUMENT_KERNEL
from tunelab.regularization.model_support import mixout_weights
from tunelab.regularization.noise import Mixout, mix_weights, noisy_embeddings, skipped_layers, stacked_layers
from tunelab.regularization.penalties import trainable_linear_weights


def embedded(model: PreTrainedModel, ids: Tensor) -> Tensor:
    found: Tensor = model.get_input_embeddings()(ids)
    return found.detach()


def test_neftune_adds_what_transformers_adds() -> None:
    # Given rows of one length, where transformers' own noise does not depend on padding
    model, rows = decoder("llama").train(), micro(lengths=(8, 8, 8))
    with noisy_embeddings(model, 5.0, rows):
        torch.manual_seed(3)
        ours = embedded(model, rows.ids)

    plain = embedded(model, rows.ids)
    torch.manual_seed(3)
    theirs = neftune_post_forward_hook(SimpleNamespace(training=True, neftune_noise_alpha=5.0), (), plain.clone())

    torch.testing.assert_close(ours, theirs)
    assert not torch.equal(ours, plain)
    with noisy_embeddings(model.eval(), 5.0, rows):
        assert torch.equal(embedded(model, rows.ids), plain)


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_neftune_counts_the_tokens_of_each_sequence_and_no_pads(packed: bool) -> None:
    model, rows = decoder("llama").train(), micro(packed=packed)
    plain, width = embedded(model, rows.ids), model.config.hidden_size
    with noisy_embeddings(model, 5.0, rows):
        noise = torch.stack([embedded(model, rows.ids) for _ in range(200)]) - plain

    parts = noise[:, 0].split(LENGTHS, 1) if packed else [noise[:, i, :n] for i, n in enumerate(LENGTHS)]
    for length, part in zip(LENGTHS, parts, strict=True):
        bound = 5.0 / (length * width) ** 0.5
        assert 0.99 * bound < part.abs().max() <= bound * (1 + 1e-5)


def test_stochastic_depth_drops_layers_with_rising_probability_and_keeps_their_mean() -> None:
    # Given layers that add one each
    model, rows = decoder("llama", num_hidden_layers=4).train(), micro(lengths=(1,) * 4000)
    for layer in stacked_layers(model):
        layer.forward = lambda hidden_states, **_: hidden_states + 1  # type: ignore[method-assign]
    hidden = torch.zeros(4000, 1, 1)
    torch.manual_seed(0)

    with skipped_layers(model, 0.4, rows):
        steps = [layer(hidden)[:, 0, 0] for layer in stacked_layers(model)]

    # Then layer l of L is skipped with probability 0.4 l / L, and gives on average what it gives undisturbed
    for height, step in enumerate(steps, 1):
        gone = 0.4 * height / 4
        assert (step == 0).float().mean() == pytest.approx(gone, abs=0.03)
        assert step.max() == pytest.approx(1 / (1 - gone))
        assert step.mean() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "opt", "gpt_neox"])
def test_a_sequence_whose_every_layer_is_skipped_is_its_own_embedding(family: str) -> None:
    # Given a model of which some sequences lose all layers and others none
    model, rows = decoder(family).train(), micro(lengths=(3,) * 40)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    task = instruction()
    task.logits(model, rows)
    torch.manual_seed(0)
    with torch.no_grad(), skipped_layers(model, 0.98, rows):
        noisy = task.logits(model, rows).view(40, 2, -1)
    plain = task.logits(model, rows).view(40, 2, -1)
    for layer in stacked_layers(model):
        layer.register_forward_hook(lambda module, args, output: args[0] if torch.is_tensor(output) else (args[0],))
    bare = task.logits(model, rows).view(40, 2, -1)

    same = torch.isclose(noisy, bare, atol=1e-5).all(2).all(1)
    assert 8 < int(same.sum()) < 40  # 0.51 x 0.98 of 40
    assert not torch.isclose(plain, bare, atol=1e-3).all()


@pytest.mark.parametrize("family", sorted(ENCODERS))
def test_stochastic_depth_and_neftune_work_inside_encoders(family: str) -> None:
    model = AutoModelForSequenceClassification.from_config(config_of(family, {**ENCODERS[family]}, 300)).train()
    rows = micro()
    mask = (torch.arange(rows.ids.shape[1]) < rows.lengths[:, None]).long()
    with skipped_layers(model, 0.5, rows), noisy_embeddings(model, 5.0, rows):
        model(input_ids=rows.ids, attention_mask=mask).logits.sum().backward()

    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_the_documents_of_a_flat_row_are_skipped_one_by_one(packed: bool) -> None:
    model = decoder("llama").train()
    if packed:
        assert supports_packing(model, DOCUMENT_KERNEL)
    rows, task = micro(packed=packed), instruction(packed=packed)
    plain = task.logits(model, rows).detach()
    torch.manual_seed(5)
    with skipped_layers(model, 0.6, rows):
        noisy = task.logits(model, rows).detach()

    changed = [bool((one != other).any()) for one, other in
               zip(*(x.split([n - 1 for n in LENGTHS]) for x in (plain, noisy)), strict=True)]  # fmt: skip
    assert any(changed)
    torch.manual_seed(5)
    with skipped_layers(model, 0.6, micro()):
        if packed:
            model.set_attn_implementation("sdpa")
        padded = instruction().logits(model, micro()).detach()
    torch.testing.assert_close(noisy, padded, rtol=1e-4, atol=1e-4)  # the same draws, whatever the layout


def test_mixout_swaps_entries_with_pretrained_ones_and_keeps_the_mean() -> None:
    draw = torch.Generator().manual_seed(0)
    weight, pretrained = torch.randn(30, 20, generator=draw), torch.randn(30, 20, generator=draw)
    torch.manual_seed(0)
    draws = torch.stack([mix_weights(weight, pretrained, 0.7) for _ in range(4000)])

    # Every entry is the pretrained one, or what makes the mean come out (Lee et al. 2020, equation 5)
    other = (weight - 0.7 * pretrained) / 0.3
    swapped = torch.isclose(draws, pretrained.expand_as(draws), atol=1e-6)
    assert torch.isclose(draws[~swapped], other.expand_as(draws)[~swapped], atol=1e-5).all()
    assert swapped.float().mean() == pytest.approx(0.7, abs=0.01)
    spread = (weight - pretrained).abs() * (0.7 / 0.3 / 4000) ** 0.5
    assert ((draws.mean(0) - weight).abs() < 5 * spread + 1e-6).all()


@pytest.mark.parametrize("family", sorted(DECODERS))
def test_mixout_at_the_pretrained_weights_changes_nothing(family: str) -> None:
    model, rows, task = decoder(family).eval(), micro(), instruction()  # no dropout, so that passes compare
    names = list(model.state_dict())
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    layers = mixout_weights(model, task.head)
    mixout = Mixout(task.logits, model, layers, 0.7)
    with torch.no_grad():
        torch.testing.assert_close(mixout.logits(rows), task.logits(model, rows), rtol=1e-4, atol=1e-4)
        for layer in layers:
            layer.weight.add_(0.05 * torch.randn_like(layer.weight))
        changed = mixout.logits(rows)

    assert not torch.allclose(changed, task.logits(model, rows), atol=1e-3)
    assert list(model.state_dict()) == names
    assert all(torch.equal(model.state_dict()[n], before[n]) for n in names if n not in {x.name for x in layers})


def test_the_gradient_through_mixout_reaches_the_entries_that_were_kept() -> None:
    model, rows, task = decoder("llama").train(), micro(), instruction()
    layers = list(trainable_linear_weights(model))
    mixout = Mixout(task.logits, model, layers, 0.7)
    with torch.no_grad():
        for layer in layers:
            layer.weight.add_(0.05)
    task.loss_sum(mixout.logits(rows), rows).backward()

    shares = [float((layer.weight.grad != 0).float().mean()) for layer in layers]
    assert all(share == pytest.approx(0.3, abs=0.05) for share in shares)

"""The settings of the block `regularization` reach the methods, in the order that makes sense."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import AutoModelForSequenceClassification

from support.micro_batches import micro
from support.tiny_models import ENCODERS, STARTER, decoder, saved
from support.tiny_runs import settings
from tunelab.config.schema import PretrainedModelConfig, RegularizationConfig
from tunelab.models.load_model import load_model, load_tokenizer
from tunelab.optim.lbfgs import LBFGS
from tunelab.regularization.model_support import mixout_weights
from tunelab.regularization.regularizer import Regularizer
from tunelab.training.components import build_task
from tunelab.training.loss import TrainingLoss


def regularizer(model: Any, **wanted: float) -> Regularizer:
    return Regularizer(model, RegularizationConfig(**wanted), total_steps=100)


def moved(model: Any) -> torch.optim.Optimizer:
    """An optimizer that has just stepped."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for weight in model.parameters():
        weight.grad = 0.01 * torch.ones_like(weight)
    optimizer.step()
    return optimizer


def test_a_plain_mean_begins_after_the_share_that_was_asked_for() -> None:
    [average] = regularizer(decoder("llama"), swa_start=0.7).averages
    assert [average.share(seen, 0) for seen in (70, 71)] == [None, 1.0]


def test_a_moving_average_has_the_memory_that_was_asked_for() -> None:
    [average] = regularizer(decoder("llama"), ema=0.98).averages
    assert average.share(5000, 5000) == pytest.approx(0.02)


def test_averages_take_in_weights_after_zeros_and_bounds() -> None:
    model = decoder("llama")
    ours = regularizer(model, ema=0.9, l1=0.2, max_norm=0.7)

    ours.after_optimizer_step(moved(model))

    for weight, average in ours.averages[0].averages():
        assert torch.equal(weight, average)
    matrix = dict(ours.averages[0].named)["model.layers.0.mlp.up_proj.weight"]
    assert (matrix == 0).any() and float(matrix.detach().norm(dim=1).max()) == pytest.approx(0.7, rel=1e-4)


@pytest.mark.parametrize("wanted", [{"l1": 0.1}, {"max_norm": 0.5}])
def test_a_line_search_forgets_its_curvature_where_something_else_moves_the_weights(wanted: dict[str, float]) -> None:
    model = decoder("llama")
    optimizer = LBFGS(model.parameters(), max_iter=2)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = model(input_ids=micro().ids, labels=micro().ids).loss
        loss.backward()
        return loss

    optimizer.step(closure)
    assert optimizer.state
    regularizer(model).after_optimizer_step(optimizer)
    assert optimizer.state, "nothing moved them"

    regularizer(model, **wanted).after_optimizer_step(optimizer)

    assert not optimizer.state


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_labels_are_smoothed_by_the_share_that_was_asked_for_and_as_torch_does(share: float) -> None:
    task = build_task(settings("regularization=none", f"regularization.label_smoothing={share}"))
    model, rows = decoder("llama"), micro()

    _, found = TrainingLoss(task, model)(rows)

    logits = model(input_ids=rows.ids).logits[:, :-1].flatten(0, 1)
    labels = rows.ids[:, 1:].masked_fill(torch.arange(1, rows.ids.shape[1]) >= rows.lengths[:, None], -100)
    wanted = functional.cross_entropy(logits, labels.flatten(), reduction="sum", label_smoothing=share)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("family", sorted(ENCODERS))
def test_every_dropout_of_a_network_has_the_rate_that_was_asked_for(family: str, tmp_path: Any) -> None:
    place = saved(family, tmp_path, AutoModelForSequenceClassification, ENCODERS[family])
    model = load_model(
        PretrainedModelConfig(path=str(place)), load_tokenizer(STARTER), head="sequence", options={}, dropout=0.37
    )

    found = {name: module.p for name, module in model.named_modules() if isinstance(module, nn.Dropout)}
    assert found and set(found.values()) == {0.37}, found


def test_a_llama_drops_attention_weights_where_dropout_is_asked_for() -> None:
    rows = micro()
    for rate in (0.0, 0.5):
        run = settings("model=scratch", "model.depth=1", f"regularization.dropout={rate}")
        model = load_model(run.model, load_tokenizer(run.model), head="causal", options={}, dropout=rate).train()
        one, other = (model(input_ids=rows.ids).logits for _ in range(2))
        assert torch.equal(one, other) is (rate == 0)


def test_a_new_head_has_no_pretrained_weights_to_be_swapped_with() -> None:
    labels = build_task(settings("data=classification", "data.train=x", "data.text=text", "data.label=label"))
    encoder = AutoModelForSequenceClassification.from_config(decoder("llama").config)

    assert not any("score" in layer.name for layer in mixout_weights(encoder, labels.head))
    assert len(mixout_weights(encoder, labels.head)) == 2 * 7
    assert any(
        "lm_head" in layer.name for layer in mixout_weights(decoder("llama", tie_word_embeddings=False), "causal")
    )

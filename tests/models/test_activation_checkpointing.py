"""Layers that are computed once more in the backward pass give the gradient of those whose activations were kept."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from support.micro_batches import instruction, micro
from support.sequence_models import DECODERS as SCORED_DECODERS
from support.sequence_models import ENCODERS, SIZE
from support.tiny_models import DECODERS, decoder
from tunelab.config.schema import RegularizationConfig
from tunelab.data.batching import pack_texts
from tunelab.data.examples import Example
from tunelab.errors import ConfigError
from tunelab.models.packing_support import supports_packing
from tunelab.models.pretrained_layers import checkpoint_activations
from tunelab.models.unpadded_attention import DOCUMENT_KERNEL
from tunelab.models.unpadded_texts import enable_unpadded_texts
from tunelab.training.loss import TrainingLoss

DROPPED = {"resid_pdrop": 0.2, "embd_pdrop": 0.2, "attn_pdrop": 0.2, "hidden_dropout": 0.2, "attention_dropout": 0.2}


def gradients(model: PreTrainedModel, loss: Callable[[], Tensor]) -> dict[str, Tensor]:
    model.train()
    model.zero_grad()
    torch.manual_seed(3)
    loss().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(model: PreTrainedModel, loss: Callable[[], Tensor], layer: str) -> None:
    """The same to the last bit, with each layer computed twice."""
    plain = gradients(model, loss)
    passes = list[int]()
    part = next(module for name, module in model.named_modules() if name.endswith(layer))
    part.register_forward_pre_hook(lambda *_: passes.append(1))
    checkpoint_activations(model)
    again = gradients(model, loss)
    assert len(passes) == 2
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        assert torch.equal(again[name], gradient), name


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "mistral", "gemma2", "opt"])
def test_decoders_give_the_same_gradient_with_dropout_in_it(family: str, packed: bool) -> None:
    options = {key: value for key, value in DROPPED.items() if key in AutoConfig.for_model(family).to_dict()}
    model = decoder(family, **{**DECODERS[family], **options})
    if packed and not supports_packing(model, DOCUMENT_KERNEL):
        pytest.skip("this family has no packed rows")
    task, rows = instruction(packed=packed), micro(packed=packed)
    layer = {"gpt2": "h.0.mlp", "opt": "layers.0.fc1"}.get(family, "layers.0.mlp")
    assert_same(model, lambda: task.logits_and_loss(model, rows)[1], layer)


def scored(family: str, **options: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    own = {**ENCODERS, **SCORED_DECODERS}[family]
    ids = {"pad_token_id": 1, "bos_token_id": None, "eos_token_id": 4, "num_labels": 3}
    config = AutoConfig.for_model(family, vocab_size=SIZE, **{**own, **ids, **options})
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    return model


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "llama", "gpt2"])
def test_texts_end_to_end_give_the_same_gradient_with_dropout_in_it(family: str) -> None:
    model = scored(family)
    texts = enable_unpadded_texts(model, packing=True, attention="auto", saves=True)
    assert texts is not None
    rows = pack_texts([Example(list(range(5, 5 + length)), 0, 1.0, 0) for length in (3, 9, 1, 6)])
    target = torch.tensor([0, 1, 2, 0])
    layer = {"distilbert": "layer.1.ffn", "llama": "layers.1.mlp", "gpt2": "h.1.mlp"}.get(family, "layer.1.output")
    assert_same(model, lambda: nn.functional.cross_entropy(texts.logits(model, rows), target), layer)


def test_layers_that_are_skipped_by_chance_are_the_same_ones() -> None:
    model, task, rows = decoder("llama"), instruction(), micro()
    loss = TrainingLoss(task, model, RegularizationConfig(stochastic_depth=0.5, neftune=5, rdrop=0.0))
    assert_same(model, lambda: loss(rows)[1], "layers.0.mlp")


def test_two_passes_that_are_compared_draw_the_same() -> None:
    model = decoder("gpt2", resid_pdrop=0.3)
    loss = TrainingLoss(instruction(), model, RegularizationConfig(rdrop=1.0))
    plain = gradients(model, lambda: loss(micro())[1])
    checkpoint_activations(model)
    again = gradients(model, lambda: loss(micro())[1])
    assert all(torch.equal(again[name], gradient) for name, gradient in plain.items())


def test_low_rank_layers_learn_the_same_and_nothing_below_them_is_computed_backward() -> None:
    from peft import LoraConfig, inject_adapter_in_model

    model, task, rows = decoder("llama"), instruction(), micro()
    torch.manual_seed(0)
    inject_adapter_in_model(
        LoraConfig(r=4, target_modules=["q_proj"], layers_to_transform=[1], lora_dropout=0.3, init_lora_weights=False),
        model,
    )
    plain = gradients(model, lambda: task.logits_and_loss(model, rows)[1])
    checkpoint_activations(model)
    passes = list[int]()
    model.get_submodule("model.layers.0.mlp").register_forward_pre_hook(lambda *_: passes.append(1))
    again = gradients(model, lambda: task.logits_and_loss(model, rows)[1])
    assert plain and all(torch.equal(again[name], gradient) for name, gradient in plain.items())
    assert len(passes) == 1


def test_evaluation_computes_each_layer_once() -> None:
    model, task, rows = decoder("llama").eval(), instruction(), micro()
    task.supervised_head(model)
    checkpoint_activations(model)
    passes = list[int]()
    model.get_submodule("model.layers.0.mlp").register_forward_pre_hook(lambda *_: passes.append(1))
    task.logits_and_loss(model, rows)[1].backward()
    assert len(passes) == 1


def test_a_model_without_layers_to_compute_again_is_refused_by_name() -> None:
    model = decoder("llama")
    model.supports_gradient_checkpointing = False
    with pytest.raises(ConfigError, match=r"memory.activation_checkpointing=true: llama .* micro_tokens"):
        checkpoint_activations(model)

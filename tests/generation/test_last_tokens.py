"""The last layer computes last tokens alone: where it can, with the same logits, and not afterwards."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from tunelab.ensemble.model_mixture import MixtureModel
from tunelab.generation.last_tokens import last_tokens_only

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def tiny(family: str = "llama", **more: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, vocab_size=40, **{**SIZES, **more})).eval()


def widths_of_feed_forward(model: Any, layer: nn.Module) -> list[int]:
    """Tokens that the feed-forward part of a layer reads in a pass over six."""
    widths: list[int] = []
    parts = [part for name, part in layer.named_modules() if name in ("mlp.down_proj", "mlp.dense_4h_to_h")]
    hook = parts[0].register_forward_pre_hook(lambda _, args: widths.append(args[0].shape[1]))
    with torch.no_grad():
        model(input_ids=torch.arange(12).view(2, 6), attention_mask=torch.ones(2, 6).long())
    hook.remove()
    return widths


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gpt_neox"])
def test_the_last_layer_reads_one_token_a_row_and_the_logits_are_the_same(family: str) -> None:
    model = tiny(family, head_dim=8, num_key_value_heads=2)
    layers = model.get_decoder().layers
    ids = torch.arange(12).view(2, 6)
    with torch.no_grad():
        expected = model(input_ids=ids).logits[:, -1]

        with last_tokens_only(model):
            logits = model(input_ids=ids).logits[:, -1]
            assert [widths_of_feed_forward(model, layer) for layer in layers] == [[6], [1]]

    torch.testing.assert_close(logits, expected)
    assert [widths_of_feed_forward(model, layer) for layer in layers] == [[6], [6]]


class MixesTokens(nn.Module):
    """A feed-forward part that reads other tokens too."""

    def forward(self, states: Tensor) -> Tensor:
        return states.cumsum(1)


class KnowsItsShape(nn.Module):
    """A feed-forward part that knows how many tokens there are."""

    def forward(self, states: Tensor) -> Tensor:
        return states * torch.ones(5, 1)[: states.shape[1]].view(1, 5, 1)


@pytest.mark.parametrize("part", [MixesTokens, KnowsItsShape])
def test_a_layer_whose_tokens_need_each_other_stays_as_it_is(part: type[nn.Module]) -> None:
    model = tiny()
    model.model.layers[-1].mlp = part()

    with torch.no_grad(), last_tokens_only(model):
        assert not model.model.layers[-1].mlp._forward_pre_hooks


def test_every_member_of_a_mixture_is_narrowed_and_as_before_after_an_error() -> None:
    members = [tiny(), tiny("gpt_neox")]
    model: Any = MixtureModel(members, [0.5, 0.5])
    parts = [member.get_decoder().layers[-1].mlp for member in members]

    with pytest.raises(RuntimeError), torch.no_grad(), last_tokens_only(model):
        assert all(part._forward_pre_hooks for part in parts)
        raise RuntimeError
    assert not any(part._forward_pre_hooks for part in parts)

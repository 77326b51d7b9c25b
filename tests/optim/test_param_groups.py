"""Decay follows shape, never names."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tunelab.optim.param_groups import weight_decay_groups

SMALL = {"vocab_size": 64}


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
def test_no_norm_or_bias_decays(family: str) -> None:
    sizes = {"gpt2": {"n_layer": 2, "n_embd": 32, "n_head": 2}}.get(
        family, {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    )
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SMALL, **sizes))

    decayed, spared = weight_decay_groups(model.parameters(), weight_decay=0.01)

    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert not [names[id(p)] for p in decayed["params"] if "norm" in names[id(p)] or names[id(p)].endswith("bias")]
    assert spared["weight_decay"] == 0.0
    assert len(decayed["params"]) + len(spared["params"]) == len(list(model.parameters()))


def test_frozen_parameters_are_left_out() -> None:
    free, frozen = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2, 2), requires_grad=False)

    assert [p for group in weight_decay_groups([free, frozen], 0.1) for p in group["params"]] == [free]

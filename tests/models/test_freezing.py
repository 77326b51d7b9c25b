"""Who stands how high in a network, and who is kept from learning."""

from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from support.tiny_runs import settings
from tunelab.errors import ConfigError
from tunelab.models.adapters import attach_adapter
from tunelab.models.freezing import freeze_parameters, parameter_depths

SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 2},
    "opt": {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 3, "num_attention_heads": 2},
    "distilbert": {"dim": 32, "hidden_dim": 48, "n_layers": 3, "n_heads": 2},
}
FAMILIES = ["gpt2", "opt", "llama", "qwen3", "gpt_neox", "bert", "roberta", "distilbert", "modernbert"]


def build(family: str, auto: Any = AutoModelForSequenceClassification) -> PreTrainedModel:
    marks = {"vocab_size": 60, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(family, **{**marks, **SIZES.get(family, SIZE)})
    model: PreTrainedModel = auto.from_config(config)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_stands_where_the_network_has_it(family: str) -> None:
    model = build(family)
    depths = parameter_depths(model)

    assert depths.layers == 3
    assert set(depths.by_name.values()) >= {0, 1, 2, 3, 5}
    for name, depth in depths.by_name.items():
        numbers = [int(part) for part in name.split(".") if part.isdigit()]
        if numbers:
            assert depth == numbers[0] + 1, name
        elif "embed" in name or "wte" in name or "wpe" in name:
            assert depth == 0, name
        elif "score" in name or "classifier" in name or "pooler" in name:
            assert depth == 5, name
    assert depths.name(5) == "head" and depths.name(2) == "layer 2"


def test_low_rank_layers_stand_where_their_layer_stands() -> None:
    model = build("llama")
    attach_adapter(model, settings("adapter=lora").adapter)
    depths = parameter_depths(model)
    assert {depth for name, depth in depths.by_name.items() if "lora" in name} == {1, 2, 3}
    assert {depth for name, depth in depths.by_name.items() if name.startswith("score")} == {5}


def test_frozen_names_do_not_learn_and_others_are_left_alone() -> None:
    model = build("llama", AutoModelForCausalLM)
    freeze_parameters(model, ["embed_tokens", "layers.0."])
    still = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    assert still == {name for name, depth in parameter_depths(model).by_name.items() if depth in (0, 1)}
    freeze_parameters(model, [])
    assert still == {name for name, weight in model.named_parameters() if not weight.requires_grad}


def test_a_name_that_meets_nothing_is_told() -> None:
    with pytest.raises(ConfigError, match=r"adapter.freeze=\['embbed'\]: no trained parameter has that in its name"):
        freeze_parameters(build("llama"), ["embbed", "norm"])


def test_freezing_everything_is_refused() -> None:
    with pytest.raises(ConfigError, match="leaves nothing to train"):
        freeze_parameters(build("llama"), ["model", "score"])


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_top_layers_are_the_highest_ones_and_all_above(family: str, count: int) -> None:
    model = build(family)
    attach_adapter(model, settings("adapter=top_layers", f"adapter.layers={count}").adapter)
    depths = parameter_depths(model)
    assert all(weight.requires_grad == (depths.by_name[name] > 3 - count) for name, weight in model.named_parameters())


def test_more_top_layers_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match="adapter.layers=4: this llama model has 3 layers"):
        attach_adapter(build("llama"), settings("adapter=top_layers", "adapter.layers=4").adapter)


@pytest.mark.parametrize("family", FAMILIES)
def test_layernorm_trains_norms_and_the_head_alone(family: str) -> None:
    model = build(family)
    attach_adapter(model, settings("adapter=layernorm").adapter)
    depths = parameter_depths(model)
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert all("ln_tuning" in name or depths.by_name[name] == depths.head_depth for name in trained)
    assert {depths.by_name[name] for name in trained} >= {1, 2, 3, 5}

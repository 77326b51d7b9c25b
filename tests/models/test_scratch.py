"""Networks of your own size: what the settings say is what is built, trained, and reloaded by plain transformers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from support.tiny_runs import QUIET, instructions, labelled, settings
from tunelab.errors import ConfigError
from tunelab.models.load_model import load_model, load_tokenizer
from tunelab.models.scratch import scratch_config
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.run import fine_tune

PRESETS = {"scratch_deep_narrow": (16, 80), "scratch_balanced": (6, 128), "scratch_wide_shallow": (2, 208)}
SMALL = ["model=scratch", "model.depth=2", "model.width=32", "model.heads=2", "model.context=128"]
OPTIONS = [
    ["model.normalisation=layernorm"],
    ["model.normalisation=layernorm", "model.activation=gelu", "model.tied=false"],
    *(
        [f"model.activation={name}"]
        for name in ("gelu", "gelu_pytorch_tanh", "relu", "relu2", "sigmoid", "tanh", "linear")
    ),
    *([f"model.init={name}"] for name in ("xavier", "kaiming", "depth_scaled")),
    ["model.mup=true", "model.base_width=16", "model.base_head=8"],
    ["model.mup=true", "model.base_width=16", "model.base_head=8", "model.tied=false", "model.init=xavier"],
]


def made(*overrides: str) -> PreTrainedModel:
    run = settings(*overrides)
    torch.manual_seed(0)
    return load_model(run.model, load_tokenizer(run.model), head="causal", options={})


def parameters(model: PreTrainedModel) -> int:
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("overrides", OPTIONS, ids=" ".join)
def test_every_option_trains_and_its_export_reloads(overrides: list[str], tmp_path: Path) -> None:
    given = ["data=instruction", f"data.train={instructions(tmp_path)}", *SMALL, *overrides]
    steps = ["batch_size=8", "max_steps=2", "data.split.validation=0.2", "data.split.test=0.1"]
    fine_tune(settings(*given, *steps, *QUIET), tmp_path / "run")  # it compares the export's logits with its own

    exported = AutoModelForCausalLM.from_pretrained(RunDirectory(tmp_path / "run").export, trust_remote_code=False)

    first = made(*SMALL, *overrides)
    assert parameters(exported) == parameters(first)
    assert exported.config.hidden_act == settings(*SMALL, *overrides).model.activation


def test_a_network_with_layer_norms_labels_texts(tmp_path: Path) -> None:
    data = ["data=classification", f"data.train={labelled(tmp_path)}", "data.text=text", "data.label=label"]
    options = [*SMALL, "model.normalisation=layernorm", "batch_size=8", "max_steps=2"]

    fine_tune(settings(*data, *options, *QUIET), tmp_path / "run")

    assert RunDirectory(tmp_path / "run").export.is_dir()


def test_the_presets_have_as_many_parameters_as_each_other() -> None:
    sizes = {}
    for name, shape in PRESETS.items():
        model = made(f"model={name}")
        assert (model.config.num_hidden_layers, model.config.hidden_size) == shape
        sizes[name] = parameters(model)

    assert max(sizes.values()) <= 1.02 * min(sizes.values()), sizes


def test_each_normalisation_is_of_its_kind() -> None:
    rms, layer = made(*SMALL), made(*SMALL, "model.normalisation=layernorm")

    assert not any(isinstance(module, nn.LayerNorm) for module in rms.modules())
    norms = [module for module in layer.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 2 * 2 + 1
    assert parameters(layer) == parameters(rms) + len(norms) * 32  # a bias each, and nothing else is different
    assert layer.config.rope_parameters["partial_rotary_factor"] == 1


@pytest.mark.parametrize("activation", ["silu", "relu", "sigmoid", "linear"])
@torch.no_grad()
def test_the_activation_gates_the_feed_forward_block(activation: str) -> None:
    block = made(*SMALL, f"model.activation={activation}").get_submodule("model.layers.0.mlp")
    x = torch.randn(5, 32)
    gate = {"silu": nn.functional.silu, "relu": torch.relu, "sigmoid": torch.sigmoid, "linear": lambda x: x}[activation]

    expected = block.down_proj(gate(block.gate_proj(x)) * block.up_proj(x))

    torch.testing.assert_close(block(x), expected)


@torch.no_grad()
def test_at_the_base_width_mup_is_the_ordinary_model() -> None:
    plain = made(*SMALL).eval()
    mup = made(*SMALL, "model.mup=true", "model.base_width=32", "model.base_head=16").eval()
    mup.load_state_dict(plain.state_dict())
    ids = torch.arange(3, 40)[None]

    torch.testing.assert_close(mup(input_ids=ids).logits, plain(input_ids=ids).logits)


@torch.no_grad()
def test_beyond_the_base_width_mup_scales_scores_and_logits() -> None:
    plain = made(*SMALL).eval()
    mup = made(*SMALL, "model.mup=true", "model.base_width=8", "model.base_head=4").eval()
    mup.load_state_dict(plain.state_dict())
    for layer in plain.model.layers:
        layer.self_attn.scaling = 4**0.5 / 16  # one over the units of a head, not over their root
    ids = torch.arange(3, 40)[None]

    torch.testing.assert_close(mup(input_ids=ids).logits, plain(input_ids=ids).logits / (32 / 8))


def test_sizes_that_do_not_fit_are_told_when_code_asks_too() -> None:
    run = settings(*SMALL)

    with pytest.raises(ConfigError, match="model.width=33 must be a multiple"):
        scratch_config(replace(run.model, width=33), load_tokenizer(run.model))

"""The top layers start anew, and nothing else does."""

from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from support.tiny_models import DECODERS, ENCODERS, STARTER, saved
from tunelab.config.schema import PretrainedModelConfig
from tunelab.errors import ConfigError
from tunelab.models.freezing import parameter_depths
from tunelab.models.load_model import load_model, load_tokenizer
from tunelab.models.pretrained_layers import reinitialize_top_layers

FAMILIES = ["gpt2", "llama", "qwen3", "gpt_neox", "opt", "gemma", "bert", "roberta", "distilbert", "modernbert"]
LAYERS = {"modernbert": 3}


def kept(family: str, folder: Path) -> tuple[Path, str]:
    """A folder with a model whose every weight is far from where it starts, norms and biases too."""
    auto: Any = AutoModelForSequenceClassification if family in ENCODERS else AutoModelForCausalLM
    place = saved(family, folder, auto, {**DECODERS, **ENCODERS}[family])
    model = auto.from_pretrained(place)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(3.0)
    model.save_pretrained(place)
    return place, "sequence" if family in ENCODERS else "causal"


def load(place: Path, head: str, seed: int = 0, **wanted: Any) -> PreTrainedModel:
    torch.manual_seed(seed)
    return load_model(PretrainedModelConfig(path=str(place), **wanted), load_tokenizer(STARTER), head=head, options={})


@pytest.mark.parametrize("family", FAMILIES)
def test_the_top_layer_and_the_pooler_are_new_and_all_else_is_kept(family: str, tmp_path: Path) -> None:
    place, head = kept(family, tmp_path)
    before = load(place, head)

    after = load(place, head, reinit_top=1)

    depths = parameter_depths(after)
    assert depths.layers == LAYERS.get(family, 2)
    for (name, new), old in zip(after.named_parameters(), before.parameters(), strict=True):
        fresh = depths.by_name[name] == depths.layers or "pooler" in name.split(".")
        assert torch.equal(new, old) != fresh, name
        if fresh:
            assert new.mean() < 2, name  # no longer around 3; a norm's gain is 1 again, a bias 0
    assert ("pooler" in " ".join(depths.by_name)) == (family == "bert")


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_new_layers_are_spread_as_the_family_spreads_them(family: str, tmp_path: Path) -> None:
    # Given the same architecture with no weights at all
    place, head = kept(family, tmp_path)
    auto: Any = AutoModelForSequenceClassification if family in ENCODERS else AutoModelForCausalLM
    reference = auto.from_config(auto.from_pretrained(place).config)

    after = load(place, head, reinit_top=2)

    depths = parameter_depths(after)
    for (name, new), own in zip(after.named_parameters(), reference.parameters(), strict=True):
        if not 1 <= depths.by_name[name] <= depths.layers:
            continue
        if new.ndim == 2:
            assert float(new.detach().std() / own.detach().std()) == pytest.approx(1, abs=0.12), name
        else:
            assert torch.equal(new, own), name


def test_the_same_seed_draws_the_same_layers_and_another_seed_others(tmp_path: Path) -> None:
    place, head = kept("llama", tmp_path)

    def top(seed: int) -> Tensor:
        return load(place, head, seed, reinit_top=1).get_submodule("model.layers.1.mlp.up_proj").weight  # type: ignore[return-value]

    assert torch.equal(top(0), top(0))
    assert not torch.equal(top(0), top(1))


def test_the_top_of_what_is_left_starts_anew_after_a_cut(tmp_path: Path) -> None:
    place, head = kept("modernbert", tmp_path)

    after = load(place, head, depth=2, keep="bottom", reinit_top=1)

    means = [float(after.get_submodule(f"model.layers.{layer}.mlp.Wi").weight.detach().mean()) for layer in (0, 1)]
    assert means == pytest.approx([3, 0], abs=0.1)
    assert mean(means) > 1


def test_more_layers_than_can_be_told_apart_are_refused(tmp_path: Path) -> None:
    place, head = kept("gpt2", tmp_path)

    with pytest.raises(ConfigError, match="model.reinit_top=3: this gpt2 model has 2 layers"):
        reinitialize_top_layers(load(place, head), 3)

"""Names of exported weights against those of a new model of the same config, and adapters beside a model."""

import shutil
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from support.paths import ROOT
from tunelab.config.schema import PretrainedModelConfig
from tunelab.errors import ConfigError, TuneLabError
from tunelab.export.transformers_export import check_weight_names, export_model
from tunelab.models.load_model import load_model, load_tokenizer

STARTER = PretrainedModelConfig(path=str(ROOT / "src" / "tunelab" / "starter" / "model"))


def test_weights_under_other_names_are_found_before_they_load_as_random_ones(tmp_path: Path) -> None:
    model = load_model(STARTER, load_tokenizer(STARTER), head="causal", options={})
    model.save_pretrained(tmp_path)
    check_weight_names(tmp_path, type(model))
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {f"base_model.model.{name}": w for name, w in weights.items()}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(TuneLabError, match=r"missing: .*left over: base_model\.model\."):
        check_weight_names(tmp_path, type(model))


def test_a_weight_of_another_shape_is_found(tmp_path: Path) -> None:
    model = load_model(STARTER, load_tokenizer(STARTER), head="causal", options={})
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"][:-1].clone()
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(TuneLabError, match=r"missing: model\.norm\.weight"):
        check_weight_names(tmp_path, type(model))


def test_a_model_with_an_adapter_still_in_it_is_not_exported(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(STARTER)
    model = load_model(STARTER, tokenizer, head="causal", options={})
    get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(TuneLabError, match="the export is not written"):
        export_model(model, tokenizer, tmp_path / "export", card="")
    assert not list(tmp_path.iterdir())


def test_adapter_files_beside_a_model_are_refused_in_words(tmp_path: Path) -> None:
    base = Path(shutil.copytree(STARTER.path, tmp_path / "both"))
    plain = AutoModelForCausalLM.from_pretrained(base)
    assert isinstance(plain, LlamaForCausalLM)
    get_peft_model(plain, LoraConfig(target_modules=["q_proj"])).save_pretrained(base)
    settings = PretrainedModelConfig(path=str(base))
    with pytest.raises(ConfigError, match="holds a model and an adapter"):
        load_model(settings, load_tokenizer(settings), head="causal", options={})
    (base / "config.json").unlink()
    with pytest.raises(ConfigError, match="is an adapter .* and no model"):
        load_model(settings, load_tokenizer(settings), head="causal", options={})

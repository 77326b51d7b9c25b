"""Generation settings that a base ships: those that contradict each other are set aside, and said."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig

from support.paths import ROOT
from tunelab.config.schema import PretrainedModelConfig
from tunelab.models.load_model import load_model, load_tokenizer

STARTER = ROOT / "src" / "tunelab" / "starter" / "model"
ODD: list[tuple[dict[str, Any], dict[str, Any]]] = [  # as shipped, and what of it goes together
    ({"do_sample": False, "temperature": 0.9, "top_p": 0.6}, {"do_sample": False}),
    ({"temperature": 0.7, "top_k": 20, "repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
    ({"length_penalty": 2.0, "early_stopping": True}, {}),
    ({"num_return_sequences": 3}, {}),
    ({"max_new_tokens": 0, "eos_token_id": 2}, {"eos_token_id": 2}),
    ({"cache_implementation": "telepathy"}, {}),
    ({"pad_token_id": -1}, {}),
    ({"output_scores": True}, {}),
    ({"logits_processor": [1]}, {}),
    ({"do_sample": "yes", "temperature": 0.5}, {}),
    ({"watermarking_config": {"colour": "red"}}, {}),
]
SOUND: list[dict[str, Any]] = [
    {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "eos_token_id": [2, 3]},
    {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True},
]


def loaded(folder: Path, flags: Any) -> tuple[GenerationConfig, str]:
    """The generation settings of a base that ships these, and the notes on it."""
    shutil.copytree(STARTER, folder / "base")
    (folder / "base" / "generation_config.json").write_text(json.dumps(flags), encoding="utf-8")
    settings, notes = PretrainedModelConfig(path=str(folder / "base")), list[str]()
    model = load_model(settings, load_tokenizer(settings), head="causal", options={}, notes=notes)
    return model.generation_config, "\n".join(notes)


@pytest.mark.parametrize(("flags", "kept"), ODD)
def test_what_contradicts_the_rest_is_set_aside_and_named(
    flags: dict[str, Any], kept: dict[str, Any], tmp_path: Path
) -> None:
    config, note = loaded(tmp_path, flags)
    config.suppress_tokens = [5]  # what an export of a soft prompt adds; transformers then checks it as a new one
    config.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    assert {name: saved[name] for name in flags if name in saved} == kept
    assert all(f"{name}=" in note for name in set(flags) - set(kept)), note


@pytest.mark.parametrize("flags", SOUND)
def test_what_goes_together_is_kept_without_a_word(flags: dict[str, Any], tmp_path: Path) -> None:
    config, note = loaded(tmp_path, flags)
    assert note == "" and {name: getattr(config, name) for name in flags} == flags


def test_a_file_that_holds_no_object_is_left_out(tmp_path: Path) -> None:
    _, note = loaded(tmp_path, [1])
    assert "no JSON object" in note

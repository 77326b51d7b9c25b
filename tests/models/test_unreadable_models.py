"""A model's folder that cannot be read: what it lacks is reported, and nothing starts at random in silence."""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import tunelab.starter
from tunelab.config.schema import PretrainedModelConfig
from tunelab.errors import ConfigError
from tunelab.models.architecture import not_loadable_message
from tunelab.models.load_model import load_model, load_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the built-in model."""
    return Path(shutil.copytree(Path(tunelab.starter.__file__).parent / "model", tmp_path / "model"))


def load(folder: Path, head: str = "causal") -> None:
    load_model(
        PretrainedModelConfig(path=str(folder)),
        load_tokenizer(PretrainedModelConfig(path=str(folder))),
        head=head,
        options={},
    )


@pytest.mark.parametrize("head", ["causal", "sequence"])
def test_weights_of_another_shape_than_the_config_says_are_refused_instead_of_drawn(head: str, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 200}))

    with pytest.raises(ConfigError, match=r"12 weights have another shape .*mlp.*\(128, 352\) instead of \(128, 200\)"):
        load(folder, head)


def test_half_a_file_of_weights_is_told_in_one_message(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(ConfigError, match="no model could be loaded from .*not fully covered"):
        load(folder)


def test_a_folder_without_weights_or_tokenizer_says_which_is_missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"the folder has no weights \(\*\.safetensors\)"):
        load(folder)

    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"the folder has no tokenizer \(tokenizer\.json\)"):
        load(folder)


def test_a_misspelt_folder_is_told_with_the_one_beside_it_and_a_file_with_its_folder(folder: Path) -> None:
    assert f"did you mean '{folder}'?" in not_loadable_message("model", f"{folder}l", OSError("no connection"))
    assert f"it lies in, {folder}." in not_loadable_message("model", str(folder / "config.json"), OSError("not JSON"))


class Payload:
    """Makes a folder where it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_a_model_folder_runs_no_code_and_opens_no_pickle(folder: Path, tmp_path: Path) -> None:
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    own = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil", "AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    for name in ("config.json", "tokenizer_config.json"):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(values | {"auto_map": own, "tokenizer_class": "Evil"}))
    with suppress(ConfigError):
        load(folder)
    assert not (tmp_path / "ran").exists()

    (folder / "model.safetensors").unlink()
    torch.save({"weight": Payload(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(ConfigError):
        load(folder)
    assert not (tmp_path / "ran").exists()

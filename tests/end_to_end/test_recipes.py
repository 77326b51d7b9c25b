"""Every recipe composes as its head says, and trains some steps on a tiny model of the same family."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, BertTokenizerFast

from support.paths import ROOT
from support.tiny_runs import QUIET, write
from tunelab.cli.compose_config import compose_settings
from tunelab.config.schema import PretrainedModelConfig
from tunelab.models.load_model import load_tokenizer
from tunelab.training.run import fine_tune

RECIPES = sorted((ROOT / "conf" / "experiment" / "recipes").glob("*.yaml"))
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
FAMILIES = {  # of the model that the recipe names
    "qwen3_lora_sft": "qwen3",
    "smollm2_full_sft": "llama",
    "llama3_2_qlora": "llama",
    "dpo_smollm2": "llama",
    "continue_pretraining": "llama",
    "bert_chinese_labels": "bert",
    "minilm_labels": "bert",
    "sts_regression": "bert",
}
CHARACTERS = list("好坏电影很太看不这个部的是")
FILES: dict[str, list[dict[str, Any]]] = {
    "my.jsonl": [{"instruction": f"say {i}", "input": "", "output": f"it is {i}"} for i in range(60)],
    "pairs.jsonl": [{"prompt": f"say {i}", "chosen": f"it is {i}", "rejected": "no"} for i in range(60)],
    "texts.jsonl": [{"text": f"number {i} comes after number {i - 1}"} for i in range(60)],
}
TABLES = {
    "reviews.csv": [
        "review,stars,label",
        *(f"这部电影很{'好' if i % 2 else '坏'}{i},{i % 2},{i % 2}" for i in range(60)),
    ],
    "pairs.csv": ["a,b,score", *(f"a film {i},a movie {i % 7},{i % 5 / 5}" for i in range(60))],
}


def head_command(recipe: Path) -> list[str]:
    """The command in the head of a recipe, as words."""
    match = re.search(r"^#   python train\.py (.+)$", recipe.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert match is not None, "a recipe says in its head how it is run"
    return shlex.split(match[1])


def stand_in(name: str, folder: Path) -> Path:
    """A tiny model with random weights, of the family that a recipe is for."""
    if FAMILIES[name] == "bert":
        vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CHARACTERS, *"0123456789", *"abcdefgilmov"]
        (folder / "vocab.txt").write_text("\n".join(dict.fromkeys([*vocabulary, *(f"##{c}" for c in "abcdefgilmov")])))
        tokenizer: Any = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
        AutoModel.from_config(AutoConfig.for_model("bert", vocab_size=len(tokenizer), **SIZES)).save_pretrained(folder)
    else:
        tokenizer = load_tokenizer(PretrainedModelConfig(path="package:tunelab.starter/model"))
        config = AutoConfig.for_model(FAMILIES[name], vocab_size=len(tokenizer), **SIZES, num_key_value_heads=1)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_every_recipe_has_a_family() -> None:
    assert {path.stem for path in RECIPES} == set(FAMILIES)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_command_in_the_head_of_a_recipe_composes(recipe: Path) -> None:
    words = head_command(recipe)
    text = recipe.read_text(encoding="utf-8")

    chosen = compose_settings(words)

    assert words[0] == f"experiment=recipes/{recipe.stem}"
    assert chosen.name == recipe.stem
    assert all(part in text for part in ("Hardware:", "Rate:"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_trains_on_a_tiny_model_of_its_family(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if recipe.stem == "llama3_2_qlora":
        pytest.skip("4-bit weights need a CUDA GPU; tests/gpu trains with adapter=qlora")
    for name, rows in FILES.items():
        write(tmp_path / name, rows)
    for name, lines in TABLES.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "model").mkdir()
    model = stand_in(recipe.stem, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    words = [word for word in head_command(recipe) if not word.startswith("model.path=")]

    short = [f"model.path={model}", "max_steps=2", "save=false", "data.on_bad=error", *QUIET]
    fine_tune(compose_settings([*words, *short]), tmp_path / "run")

    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").is_file()


@pytest.mark.slow
def test_a_recipe_is_typed_as_its_head_says(tmp_path: Path) -> None:
    write(tmp_path / "my.jsonl", FILES["my.jsonl"])
    (tmp_path / "model").mkdir()
    words = [
        "experiment=recipes/qwen3_lora_sft",
        "data.train=my.jsonl",
        "model.path=model",
        "max_steps=2",
        "logger=none",
    ]
    stand_in("qwen3_lora_sft", tmp_path / "model")

    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words, "max_steps=2", "logger=none"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )

    assert done.returncode == 0, done.stderr

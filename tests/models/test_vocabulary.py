"""Vocabularies with gaps between their ids: sizes and new tokens go by the largest id."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from support.paths import ROOT
from support.tiny_runs import MODEL
from support.tiny_runs import settings as run_settings
from tunelab.config.schema import PretrainedModelConfig, ScratchModelConfig
from tunelab.models.heads import ensure_pad_token
from tunelab.models.load_model import load_model, load_tokenizer
from tunelab.models.scratch import scratch_config
from tunelab.models.vocabulary import add_special_words, vocabulary_size

STARTER = ROOT / "src" / "tunelab" / "starter" / "model"


@pytest.fixture
def gap(tmp_path: Path) -> Path:
    """The starter model with a tokenizer of 1,536 tokens whose largest id is 1,700."""
    shutil.copytree(STARTER, tmp_path / "gap")
    file = tmp_path / "gap" / "tokenizer.json"
    table = json.loads(file.read_text(encoding="utf-8"))
    table["model"]["vocab"]["?"] = 1700
    file.write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
    return tmp_path / "gap"


def words(**more: int) -> PreTrainedTokenizerFast:
    """A tokenizer of words 0 to 4, an unknown token, and more words at ids of their own."""
    table = {**{f"w{index}": index for index in range(5)}, "[UNK]": 5, **more}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(table, unk_token="[UNK]")), unk_token="[UNK]"
    )


def test_the_size_is_the_largest_id_plus_one() -> None:
    assert vocabulary_size(words()) == 6
    tokenizer = words(x=9)
    assert len(tokenizer) == 7 and vocabulary_size(tokenizer) == 10


def test_a_model_has_a_row_for_the_largest_id(gap: Path) -> None:
    settings = PretrainedModelConfig(path=str(gap))
    tokenizer = load_tokenizer(settings)
    scratch = run_settings(*MODEL, f"model.tokenizer={gap}").model
    assert isinstance(scratch, ScratchModelConfig)
    assert scratch_config(scratch, load_tokenizer(scratch)).vocab_size == 1701
    model = load_model(settings, tokenizer, head="causal", options={})
    assert model.get_input_embeddings().weight.shape[0] == model.config.vocab_size == 1701


def test_a_new_token_takes_no_id_that_is_taken(tmp_path: Path) -> None:
    tokenizer = words(x=9)  # counting tokens, the third new one would be 9
    add_special_words(tokenizer, {"additional_special_tokens": ["<a>", "<b>", "<c>"]})
    add_special_words(tokenizer, {"additional_special_tokens": ["<d>"]})
    tokenizer.save_pretrained(tmp_path)
    for one in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        assert one.convert_tokens_to_ids(["x", "<a>", "<b>", "<c>", "<d>"]) == [9, 10, 11, 12, 13]
        assert one("<b>")["input_ids"] == [11] and one.convert_ids_to_tokens(9) == "x"


def test_a_padding_token_is_put_behind_the_largest_id(gap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunelab.models.heads.PAD_TOKEN", "<|padding|>")  # the starter has the usual one
    settings = PretrainedModelConfig(path=str(gap))
    tokenizer: Any = load_tokenizer(settings)
    tokenizer.pad_token = tokenizer.eos_token
    options = {"num_labels": 2, "id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}}
    model = load_model(settings, tokenizer, head="sequence", options=options)
    assert ensure_pad_token(tokenizer, model)
    assert tokenizer.convert_tokens_to_ids("<|padding|>") == 1701 and tokenizer.convert_tokens_to_ids("?") == 1700
    assert model.get_input_embeddings().weight.shape[0] == 1702

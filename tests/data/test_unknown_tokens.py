"""Text that a tokenizer does not know is counted, said from 5 % on, refused from 50 % on, with the model to take."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from support.tiny_runs import settings, write
from tunelab.data.examples import IGNORE, Example
from tunelab.data.unknown_tokens import (
    UnknownShare,
    count_lost,
    count_unknown,
    input_ids,
    unknown_script,
    unknown_token_messages,
)
from tunelab.errors import DataError
from tunelab.training.components import build_data_report, encode_data

WORDS = "the map from lorn was fine good bad and or not".split()
SCRIPTS = {"CJK": "北京", "HANGUL": "안녕", "CYRILLIC": "привет", "ARABIC": "سلام", "ETHIOPIC": "ሰላም", "THAI": "สวัสดี"}


def tokenizer() -> PreTrainedTokenizerFast:
    """Knows a few English words, and no other."""
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    marks = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **marks)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tokenizer().save_pretrained(folder)
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=15, intermediate_size=16, max_position_embeddings=64, **sizes)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def run_on(base: Path, folder: Path, texts: list[str], *words: str) -> Any:
    records = [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(texts)]
    file = write(folder / "texts.jsonl", records)
    return settings(
        "data=classification", f"data.train={file}", f"data.validation={file}", "data.text=text", "data.label=label",
        "data.split.test=0", f"model.path={base}", *words,
    )  # fmt: skip


def test_control_tokens_do_not_thin_out_the_share() -> None:
    words = tokenizer()
    examples = [Example(words("good 北京 bad 上海")["input_ids"], 0, 1.0, 0)]

    assert count_unknown(examples, words) == UnknownShare(2, 4)


def test_what_is_learned_is_counted_by_itself() -> None:
    # Given a translation: an English question, an answer of which nothing is known
    example = Example([2, 4, 5, 6, 7, 1, 1, 3], [IGNORE] * 5 + [1, 1, 3], 3.0, 0)

    counted = count_unknown([example], tokenizer())

    assert counted == UnknownShare(2, 6, 2, 2)
    assert counted.share == 1.0


def test_letters_that_a_tokenizer_drops_without_a_token_are_counted() -> None:
    backend = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    words = PreTrainedTokenizerFast(tokenizer_object=backend)

    counted = count_lost(["ab 北京", "ab b"], words)

    assert counted == UnknownShare(2, 7)
    _, warnings = unknown_token_messages({"train": counted}, {"train": ["ab 北京"]}, words, 1)
    assert "does not know 29% of the text of train (mostly CJK letters): no token stands for any of it" in warnings[0]
    assert count_lost(["ab"], tokenizer()) is None  # it has a token for the unknown


def test_an_end_token_that_doubles_as_unknown_is_not_counted() -> None:
    words = tokenizer()
    words.eos_token = "[UNK]"

    assert count_unknown([Example([1, 1], 0, 1.0, 0)], words) is None


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_script_that_is_not_known_names_the_model_to_take(script: str) -> None:
    words = tokenizer()
    shares = {"train": UnknownShare(60, 100), "test": UnknownShare(1, 100)}

    assert unknown_script([f"good {SCRIPTS[script]} bad"], words) == script
    faults, warnings = unknown_token_messages(shares, {"train": [SCRIPTS[script]]}, words, 0.5)

    assert not warnings
    assert (
        f"does not know 60% of the text of train (mostly {script if script == 'CJK' else script.capitalize()}"
        in faults[0]
    )
    assert "multilingual model, or one whose tokens are bytes" in faults[0]
    assert "test" not in faults[0]
    assert "data.max_unknown=1" in faults[0]
    assert unknown_token_messages(shares, {"train": []}, words, 1)[0] == []
    assert unknown_token_messages({"train": UnknownShare(4, 100)}, {"train": []}, words, 0.5) == ([], [])
    assert len(unknown_token_messages({"train": UnknownShare(5, 100)}, {"train": []}, words, 0.5)[1]) == 1


def test_data_that_the_tokenizer_does_not_know_are_refused_unless_asked_for(base: Path, tmp_path: Path) -> None:
    texts = [f"{a} {b}" for a in SCRIPTS.values() for b in ("ሰላም", "ዛሬ", "ቀን")]
    with pytest.raises(DataError, match=r"does not know 100% of the text of train, 100% of the text of validation"):
        encode_data(run_on(base, tmp_path, texts))

    encoded = encode_data(run_on(base, tmp_path, texts, "data.max_unknown=1"))
    report = build_data_report(encoded)

    # Then it is said, and that all rows are the same to the model
    assert report["unknown_tokens"] == {"train": 1.0, "validation": 1.0}
    assert any("does not know 100%" in note for note in report["notes"])
    assert report["token_duplicates"]["rows"] == 36
    assert report["token_duplicates"]["across_splits"] == 36


def test_a_known_text_is_not_warned_of_and_case_is_no_unknown(base: Path, tmp_path: Path) -> None:
    texts = [f"{a} {b} {c}" for a in WORDS[:4] for b in WORDS[4:8] for c in ("and", "or")]

    report = build_data_report(encode_data(run_on(base, tmp_path, texts)))

    assert report["unknown_tokens"] == {"train": 0.0, "validation": 0.0}
    assert not any("does not know" in note for note in report["notes"])
    assert report["token_duplicates"]["rows"] == 0


def test_a_text_without_a_letter_is_said_with_its_place(base: Path, tmp_path: Path) -> None:
    report = build_data_report(encode_data(run_on(base, tmp_path, ["good map", "...", "bad map", "👍 good", "?!"])))

    assert report["near_empty"]["train"]["rows"] == 2
    assert report["near_empty"]["train"]["examples"][0] == {"text": "text '...'", "places": ["texts.jsonl line 2"]}


def test_the_input_of_an_example_ends_before_what_it_learns_last() -> None:
    assert input_ids(Example([5, 6, 7, 8, 9], [IGNORE, 6, IGNORE, 8, 9], 3, 0)) == [5, 6, 7]
    assert input_ids(Example([5, 6, 7], [5, 6, 7], 2, 0)) == [5, 6, 7]
    assert input_ids(Example([5, 6], 1, 1.0, 0)) == [5, 6]
    pair = Example([5, 6, 5, 7], [IGNORE, 6, IGNORE, 7], 1, 0, second_start=2)
    assert input_ids(pair) == [5]

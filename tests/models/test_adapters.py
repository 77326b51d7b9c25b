"""Every adapter on every family: trains, counts, merges, exports, and loads back through PEFT."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)

from support.tiny_runs import CONF, settings
from tunelab.config.schema import PretrainedModelConfig
from tunelab.data.batching import pack_examples, pad_examples
from tunelab.data.examples import IGNORE, Example
from tunelab.errors import ConfigError
from tunelab.export.transformers_export import export_model
from tunelab.models.adapter_export import merge_adapter_weights, write_peft_adapter
from tunelab.models.adapters import (
    TARGETS,
    AdaptedModel,
    attach_adapter,
    check_adapter_requirements,
    linear_layer_names,
    matches_suffix,
    resolve_lora_targets,
)
from tunelab.models.freezing import layer_stack
from tunelab.models.heads import SupervisedHead
from tunelab.models.load_model import load_tokenizer
from tunelab.models.soft_prompt import prepend_soft_prompt, soft_prompt_ids
from tunelab.models.unpadded_attention import DOCUMENT_KERNEL, causal_inputs

STARTER = PretrainedModelConfig(path="package:tunelab.starter/model")
SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
MARKS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
OPT = {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "word_embed_proj_dim": 32}
DECODERS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128},
    "llama": {**SIZE, "num_key_value_heads": 1},
    "gpt_neox": {**SIZE, "is_decoder": True},
    "opt": OPT,
    "qwen3": {**SIZE, "num_key_value_heads": 2, "head_dim": 16},
    "gemma3_text": {**SIZE, "num_key_value_heads": 2, "head_dim": 16},
}
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": SIZE,
    "roberta": {**SIZE, "max_position_embeddings": 130},
    "distilbert": {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 2},
}
LOW_RANK = ["lora", "dora", "rslora"]
KINDS = sorted(path.stem for path in (CONF / "adapter").glob("*.yaml") if path.stem != "qlora")


def build(family: str, *, labels: int = 0, **more: Any) -> PreTrainedModel:
    """A random model, the same at every call."""
    torch.manual_seed(0)
    sizes = {**DECODERS, **ENCODERS}.get(family, SIZE)
    given: dict[str, Any] = {"vocab_size": 96, **MARKS, **sizes, **({"num_labels": labels} if labels else {}), **more}
    config = AutoConfig.for_model(family, **given)
    auto: Any = AutoModelForSequenceClassification if labels else AutoModelForCausalLM
    model: PreTrainedModel = auto.from_config(config, dtype=torch.float32)
    return model


def adapted(family: str, kind: str, *overrides: str, labels: int = 0, **more: Any) -> AdaptedModel:
    """A random model with an adapter, its weights drawn after the seed."""
    model = build(family, labels=labels, **more)
    torch.manual_seed(1)
    return attach_adapter(model, settings(f"adapter={kind}", "adapter.freeze=[]", *overrides).adapter)


def learn(model: PreTrainedModel, steps: int = 3) -> None:
    """A few real steps on random tokens."""
    draw = torch.Generator().manual_seed(2)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    model.train()
    for _ in range(steps):
        ids = torch.cat([lead(model).expand(4, -1), torch.randint(3, 90, (4, 9), generator=draw)], 1)
        if model.can_generate():
            logits = model(input_ids=ids).logits
            loss = torch.nn.functional.cross_entropy(logits[:, -5:-1].flatten(0, 1), ids[:, -4:].flatten())
        else:
            loss = model(input_ids=ids, labels=torch.tensor([0, 1, 2, 1])).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()


def lead(model: PreTrainedModel) -> Tensor:
    """The ids of a soft prompt, (1, P)."""
    return torch.tensor([soft_prompt_ids(model)], dtype=torch.long)


def logits_of(model: Any, ids: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval()(input_ids=ids).logits
    return found


def texts() -> Tensor:
    return torch.randint(3, 90, (3, 11), generator=torch.Generator().manual_seed(5))  # (B, T)


def through_disk(found: AdaptedModel, folder: Path, auto: Any) -> tuple[Tensor, Tensor | None]:
    """Logits of the export in plain transformers, and of the base model with the adapter folder in PEFT."""
    tokenizer = load_tokenizer(STARTER)
    ids = texts()
    plain = merge_adapter_weights(found, tokenizer)
    export_model(
        plain.model,
        plain.tokenizer,
        folder,
        card="",
        extra_files=lambda part: write_peft_adapter(found, plain.model, part / "adapter", "base"),
    )
    exported = logits_of(auto.from_pretrained(folder), ids)
    if not (folder / "adapter").exists():
        return exported, None
    config = found.model.config
    more = {"labels": config.num_labels} if auto is AutoModelForSequenceClassification else {}
    base = build(config.model_type, **more, tie_word_embeddings=config.tie_word_embeddings)
    return exported, logits_of(PeftModel.from_pretrained(base, str(folder / "adapter")), ids)


@pytest.mark.parametrize("kind", ["lora", "dora", "rslora", "layernorm", "head", "top_layers"])
@pytest.mark.parametrize("family", DECODERS)
def test_merged_export_and_peft_folder_give_the_adapters_own_logits(family: str, kind: str, tmp_path: Path) -> None:
    found = adapted(family, kind)
    before = logits_of(found.model, texts())
    torch.testing.assert_close(before, logits_of(build(family), texts()), atol=1e-5, rtol=0)

    learn(found.model)
    own = logits_of(found.model, texts())
    exported, peft = through_disk(found, tmp_path / "export", AutoModelForCausalLM)

    assert (own - before).abs().max() > 1e-3, "nothing was learned, so nothing is compared"
    torch.testing.assert_close(exported, own, atol=1e-5, rtol=0)
    assert (peft is None) == (kind in ("head", "top_layers"))
    if peft is not None:
        torch.testing.assert_close(peft, own, atol=1e-5, rtol=0)
    torch.testing.assert_close(logits_of(found.model, texts()), own, atol=0, rtol=0)


@pytest.mark.parametrize("kind", [*LOW_RANK, "layernorm", "head", "top_layers"])
@pytest.mark.parametrize("family", [*ENCODERS, "gpt2", "llama"])
def test_a_head_for_labels_learns_whole_and_travels_with_the_adapter(family: str, kind: str, tmp_path: Path) -> None:
    found = adapted(family, kind, labels=3)
    learn(found.model)
    own = logits_of(found.model, texts())

    exported, peft = through_disk(found, tmp_path / "export", AutoModelForSequenceClassification)

    torch.testing.assert_close(exported, own, atol=1e-5, rtol=0)
    if peft is not None:
        torch.testing.assert_close(peft, own, atol=1e-5, rtol=0)
    heads = {"bert": {"classifier", "pooler"}, "distilbert": {"classifier", "pre_classifier"}}
    trained = [name for name, weight in found.model.named_parameters() if weight.requires_grad]
    assert {part for name in trained for part in name.split(".")} >= heads.get(
        family, {"score"} if family in DECODERS else {"classifier"}
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_is_trained_is_in_32_bit_and_moves(family: str, kind: str) -> None:
    found = adapted(family, kind)
    before = {name: weight.detach().clone() for name, weight in found.model.named_parameters()}
    learn(found.model, steps=2)  # the first step moves B alone: A's gradient is zero while B is

    trained = {name: weight for name, weight in found.model.named_parameters() if weight.requires_grad}
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
    moved = sum(int((weight != before[name]).sum()) for name, weight in trained.items() if weight.grad is not None)
    seen = sum(weight.numel() for weight in trained.values() if weight.grad is not None)
    assert moved / seen > (0.9 if kind in ("head", "full") else 0.99)  # of a tied table, unseen rows just decay
    for name, weight in found.model.named_parameters():
        assert weight.requires_grad or torch.equal(weight, before[name]), name


def test_the_size_of_a_step_is_trained_apart_by_dora() -> None:
    found = adapted("llama", "dora")
    magnitudes = [name for name, w in found.model.named_parameters() if "magnitude" in name and w.requires_grad]
    assert len(magnitudes) == 14


@pytest.mark.parametrize("kind", ["lora", "dora", "prompt"])
def test_new_weights_follow_the_seed(kind: str) -> None:
    one, same = adapted("llama", kind), adapted("llama", kind)
    model = build("llama")
    torch.manual_seed(2)
    other = attach_adapter(model, settings(f"adapter={kind}").adapter)

    pairs = [list(found.model.parameters()) for found in (one, same, other)]
    assert all(torch.equal(a, b) for a, b in zip(pairs[0], pairs[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(pairs[0], pairs[2], strict=True))


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_supervised_positions_and_flat_rows_see_the_adapter(family: str) -> None:
    found = adapted(family, "lora")
    learn(found.model)
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randint(3, 90, (n,), generator=draw).tolist() for n in (7, 12, 3)]
    examples = [Example(ids, [IGNORE, *ids[1:]], len(ids) - 1, row) for row, ids in enumerate(rows)]
    alone = torch.cat([logits_of(found.model, torch.tensor([ids]))[0, :-1] for ids in rows])

    padded = pad_examples(examples, pad=0)
    head = SupervisedHead(found.model)
    with torch.no_grad():
        short = head.logits(found.model, padded.targets != IGNORE, **causal_inputs(padded))

    assert head.exact
    torch.testing.assert_close(short, alone, atol=1e-5, rtol=1e-4)
    found.model.set_attn_implementation(DOCUMENT_KERNEL)
    packed = pack_examples(examples)
    with torch.no_grad():
        ended = head.logits(found.model, packed.targets != IGNORE, **causal_inputs(packed))
    torch.testing.assert_close(ended, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", TARGETS)
def test_the_targets_of_a_family_are_all_linear_layers_of_its_body(family: str) -> None:
    more = {"num_key_value_heads": 2} if "num_key_value_heads" in AutoConfig.for_model(family).to_dict() else {}
    encoder = family in {"xlm-roberta", "camembert", "electra", "modernbert", *ENCODERS}
    model = build(family, labels=3 if encoder else 0, **more)
    stack, _ = layer_stack(model)
    inside = [name for name in linear_layer_names(model) if name.startswith(stack)]
    targets = resolve_lora_targets(model, "auto")

    assert inside
    assert not [name for name in inside if not any(matches_suffix(name, suffix) for suffix in targets)]
    assert not [suffix for suffix in targets if not any(matches_suffix(name, suffix) for name in inside)]


def test_targets_can_be_named_and_a_wrong_one_is_refused() -> None:
    found = adapted("llama", "lora", "adapter.targets=[q_proj,v_proj]")
    names = [name for name, weight in found.model.named_parameters() if weight.requires_grad]
    assert len(names) == 8
    assert all("q_proj" in name or "v_proj" in name for name in names)
    with pytest.raises(ConfigError, match="no linear layer below the head ends like that; choose from q_proj"):
        adapted("llama", "lora", "adapter.targets=[lm_head]")
    with pytest.raises(ConfigError, match="a gptj model are not known by name.*its linear layers are"):
        adapted("gptj", "lora", n_embd=32, n_layer=1, n_head=2, rotary_dim=8)


def test_rank_and_alpha_are_what_they_say() -> None:
    found = adapted("llama", "lora", "adapter.rank=3", "adapter.alpha=12")
    layer = found.model.get_submodule("model.layers.0.self_attn.q_proj")
    assert layer.lora_A["default"].weight.shape[0] == 3
    assert layer.scaling["default"] == 4
    root = adapted("llama", "rslora", "adapter.rank=4", "adapter.alpha=12")
    assert root.model.get_submodule("model.layers.0.self_attn.q_proj").scaling["default"] == 6


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["lora", "layernorm", "top_layers"])
def test_tokens_that_the_base_has_never_seen_are_learned_and_saved(kind: str, tied: bool, tmp_path: Path) -> None:
    def grown() -> PreTrainedModel:
        torch.manual_seed(3)
        model = build("llama", tie_word_embeddings=tied)
        torch.manual_seed(3)
        model.resize_token_embeddings(98, mean_resizing=False)
        return model

    model = grown()
    found = attach_adapter(model, settings(f"adapter={kind}").adapter, new_tokens=[96, 97])
    ids = torch.cat([texts(), torch.tensor([[96, 97]] * 3)], 1)
    before = logits_of(model, ids)
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=1e-2)
    for _ in range(2):
        model.train()(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    own = logits_of(model, ids)
    assert (own - before).abs().max() > 1e-3

    plain = merge_adapter_weights(found, load_tokenizer(STARTER))
    assert not torch.equal(plain.model.get_input_embeddings().weight[96:], grown().get_input_embeddings().weight[96:])
    if kind == "lora":  # and no other row moves
        assert torch.equal(plain.model.get_input_embeddings().weight[:96], grown().get_input_embeddings().weight[:96])
    export_model(plain.model, plain.tokenizer, tmp_path / "export", card="")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "export")
    torch.testing.assert_close(logits_of(again, ids), own, atol=1e-5, rtol=0)
    if write_peft_adapter(found, plain.model, tmp_path / "adapter", "base"):
        peft = PeftModel.from_pretrained(grown(), str(tmp_path / "adapter"))
        torch.testing.assert_close(logits_of(peft, ids), own, atol=1e-5, rtol=0)


def test_4_bit_is_refused_before_anything_is_read_where_it_cannot_work() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match="adapter=qlora .*a CUDA GPU, which this machine does not have.*adapter=lora"):
        check_adapter_requirements(settings("adapter=qlora").adapter, "instruction")


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gpt_neox", "gemma3_text"])
def test_a_soft_prompt_is_pefts_prompt_tuning_and_exports_as_tokens(family: str, tmp_path: Path) -> None:
    found = adapted(family, "prompt", "adapter.length=5")
    learn(found.model)
    ids = texts()
    own = logits_of(found.model, torch.cat([lead(found.model).expand(3, -1), ids], 1))
    tokenizer = load_tokenizer(STARTER)
    known = len(tokenizer)

    plain = merge_adapter_weights(found, tokenizer)
    export_model(
        plain.model,
        plain.tokenizer,
        tmp_path / "export",
        card="",
        chat_template=plain.prefixed_template("{{ messages[0].content }}"),
        extra_files=lambda part: write_peft_adapter(found, plain.model, part / "adapter", "base"),
    )

    # PEFT puts the vectors before the text by itself
    peft = PeftModel.from_pretrained(build(family), str(tmp_path / "export" / "adapter"))
    torch.testing.assert_close(logits_of(peft, ids), own, atol=1e-5, rtol=0)
    # plain transformers reads them as tokens, which the chat template writes
    again = AutoTokenizer.from_pretrained(tmp_path / "export")
    words = again.apply_chat_template([{"role": "user", "content": "red"}], tokenize=True)["input_ids"]
    assert words[:5] == list(range(known, known + 5))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "export")
    there = logits_of(model, torch.cat([torch.tensor([words[:5]]).expand(3, -1), ids], 1))
    torch.testing.assert_close(there[..., :96], own, atol=1e-5, rtol=0)
    assert model.generation_config.suppress_tokens == words[:5]
    assert len(tokenizer) == known


def test_a_soft_prompt_is_not_learned_as_text_and_refuses_labels() -> None:
    example = Example([7, 8], [IGNORE, 8], 1, 0)
    assert prepend_soft_prompt([example], [96, 97]) == [Example([96, 97, 7, 8], [IGNORE, IGNORE, IGNORE, 8], 1, 0)]
    with pytest.raises(ConfigError, match="adapter=prompt works for instructions only, and the task is classification"):
        check_adapter_requirements(settings("adapter=prompt").adapter, "classification")


def test_merging_leaves_the_model_in_training_as_it_is() -> None:
    found = adapted("gpt2", "lora")
    learn(found.model)
    before = copy.deepcopy(found.model.state_dict())
    merge_adapter_weights(found, load_tokenizer(STARTER))
    after = found.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)

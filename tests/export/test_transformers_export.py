"""An export loads with plain transformers, in a process that knows nothing of this project."""

import errno
import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AttentionInterface,
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from tunelab.errors import TuneLabError
from tunelab.export.run_export import ExportProbe, check_export
from tunelab.export.transformers_export import export_model, strip_generation_tags

WORDS = ["<unk>", "<s>", "</s>", "<pad>", "<end>", "red", "green", "blue"]
SIZES: dict[str, Any] = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
TEMPLATE = (
    "{% for message in messages %}\n"
    "  {% if message.role == 'assistant' %}\n"
    "{%- generation -%}\n"
    "  {{ message.content }}{% generation %}{{ '</s>' }}{% endgeneration %}\n"
    "  {%- endgeneration %}\n"
    "  {% else %}\n"
    "{{ message.content }}\n"
    "  {% endif %}\n"
    "{% endfor %}"
)
CHAT = [
    {"role": "user", "content": "red"},
    {"role": "assistant", "content": "green"},
    {"role": "user", "content": "blue"},
]


def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=2, n_head=2, n_positions=32))


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SIZES, intermediate_size=32, num_key_value_heads=1))


def bert() -> PreTrainedModel:
    names = {0: "cold", 1: "warm", 2: "hot"}
    labels: dict[str, Any] = {"id2label": names, "label2id": {name: index for index, name in names.items()}}
    return BertForSequenceClassification(BertConfig(**SIZES, intermediate_size=32, **labels))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return torch.randint(0, len(WORDS), (2, 9), generator=torch.Generator().manual_seed(0))  # (B, T)


def logits_of(model: PreTrainedModel, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return logits


@dataclass
class Exported:
    """One export: the model it came from, its logits before, and what a clean process loaded."""

    model: PreTrainedModel
    folder: Path
    expected: Tensor
    loaded: dict[str, Any]


KINDS = {"gpt2": (gpt2, "causal"), "llama": (llama, "causal"), "bert": (bert, "sequence")}
CLEAN = """
    import json, sys
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    heads = {"causal": AutoModelForCausalLM, "sequence": AutoModelForSequenceClassification}
    folders, ids = json.loads(sys.argv[1]), torch.tensor(json.loads(sys.argv[2]))
    for folder, head in folders.items():
        model = heads[head].from_pretrained(folder).eval()
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        print(json.dumps({
            "logits": logits.double().tolist(),
            "words": AutoTokenizer.from_pretrained(folder)("red green")["input_ids"],
            "attention": model.config._attn_implementation,
            "dtype": str(model.dtype),
            "config": model.config.to_dict(),
        }))
    assert not [name for name in sys.modules if name.startswith(("tunelab", "lightning", "hydra"))]
"""


def in_a_clean_process(folders: dict[str, str], ids: Tensor) -> list[dict[str, Any]]:
    """Warnings and outputs of each export in a process that imports only transformers (one for all exports)."""
    clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [sys.executable, "-I", "-c", textwrap.dedent(CLEAN), json.dumps(folders), json.dumps(ids.tolist())]
    offline = clean | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=offline, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"logits"')]


@pytest.fixture(scope="module")
def exports(
    tokenizer: PreTrainedTokenizerFast, ids: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Exported]:
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("exports")
    AttentionInterface.register("of_training", sdpa_attention_forward)
    exports: dict[str, Exported] = {}
    for kind, (build, _) in KINDS.items():
        model = build()
        model.config.use_cache = False  # as training has it
        expected = logits_of(model, ids)
        model.set_attn_implementation("of_training")
        export_model(model, tokenizer, root / kind, card="# A model\n")
        exports[kind] = Exported(model, root / kind, expected, {})
    heads = {str(root / kind): head for kind, (_, head) in KINDS.items()}
    for kind, loaded in zip(exports, in_a_clean_process(heads, ids), strict=True):
        exports[kind].loaded = loaded
    return exports


@pytest.mark.parametrize("kind", KINDS)
def test_a_clean_process_gets_the_same_logits(exports: dict[str, Exported], ids: Tensor, kind: str) -> None:
    export = exports[kind]
    logits = torch.tensor(export.loaded["logits"], dtype=torch.float64)
    torch.testing.assert_close(logits, export.expected.double(), atol=1e-6, rtol=0)
    assert export.loaded["dtype"] == "torch.float32"
    assert export.loaded["words"] == [5, 6]
    assert (export.folder / "model.safetensors").is_file()
    assert (export.folder / "README.md").read_text() == "# A model\n"


@pytest.mark.parametrize("kind", KINDS)
def test_what_only_training_needs_does_not_leave_it(exports: dict[str, Exported], kind: str) -> None:
    export = exports[kind]
    assert export.loaded["attention"] in ("sdpa", "eager")
    assert "of_training" not in (export.folder / "config.json").read_text()
    if KINDS[kind][1] == "causal":
        assert export.loaded["config"]["use_cache"] is True
    assert export.model.config.use_cache is False, "the model in training goes on as it was"
    assert export.model.config._attn_implementation == "of_training"


def test_the_names_of_the_classes_travel_with_the_model(exports: dict[str, Exported]) -> None:
    assert exports["bert"].loaded["config"]["id2label"] == {"0": "cold", "1": "warm", "2": "hot"}


@pytest.mark.slow
def test_an_export_of_other_weights_or_of_another_shape_is_refused(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    # Given the outputs of a model, and an export whose weights were changed since
    model, words = llama(), torch.tensor([[5, 6]])
    request = {"head": "causal", "text": "red green", "messages": None, "scale": None, "labels": None}
    outputs = logits_of(model, words)
    with torch.no_grad():
        model.get_output_embeddings().weight[5] += 1.0
    export_model(model, tokenizer, tmp_path / "export", card="")

    # When it is loaded in a clean process, then it is refused; so are outputs of fewer positions
    with pytest.raises(TuneLabError, match="another model"):
        check_export(tmp_path / "export", ExportProbe([5, 6], 0, outputs, request))
    with pytest.raises(TuneLabError, match="another model"):
        check_export(tmp_path / "export", ExportProbe([5, 6], 0, outputs[:, :-1], request))


def test_generation_ends_where_the_tokenizer_and_the_template_say(
    tokenizer: PreTrainedTokenizerFast, ids: Tensor, tmp_path: Path
) -> None:
    model = gpt2()  # its config names end token 50256, which this vocabulary lacks
    assert model.generation_config.eos_token_id == 50256
    export_model(model, tokenizer, tmp_path / "one", card="")
    generation = GenerationConfig.from_pretrained(tmp_path / "one")
    assert (generation.bos_token_id, generation.eos_token_id, generation.pad_token_id) == (1, 2, 3)
    export_model(model, tokenizer, tmp_path / "two", card="", stop_ids=[4, 2])
    assert GenerationConfig.from_pretrained(tmp_path / "two").eos_token_id == [2, 4]

    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "two")
    with torch.no_grad():
        loaded.transformer.ln_f.bias.copy_(loaded.lm_head.weight[4] * 1e4)  # always says <end>
    answer = loaded.generate(ids[:1], max_new_tokens=5, do_sample=False)
    assert answer.shape[1] == ids.shape[1] + 1


def test_an_encoder_gets_no_generation_config(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    export_model(bert(), tokenizer, tmp_path / "export", card="")
    assert not (tmp_path / "export" / "generation_config.json").exists()


@pytest.mark.parametrize("given", [True, False])
def test_the_template_loses_its_generation_tags_and_renders_the_same(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    before = "{{ 'another' }}" if given else TEMPLATE
    monkeypatch.setattr(tokenizer, "chat_template", before)
    export_model(llama(), tokenizer, tmp_path / "export", card="", chat_template=TEMPLATE if given else None)
    assert tokenizer.chat_template == before

    loaded = AutoTokenizer.from_pretrained(tmp_path / "export")
    assert "generation" not in loaded.chat_template
    rendered = tokenizer.apply_chat_template(CHAT, chat_template=TEMPLATE, tokenize=False)
    assert "green</s>" in rendered
    assert loaded.apply_chat_template(CHAT, tokenize=False) == rendered


@pytest.mark.parametrize(
    "tag", ["{% generation %}", "{%- generation -%}", "{%-generation-%}", "{%+ endgeneration +%}", "{%endgeneration%}"]
)
def test_every_form_of_the_tag_is_removed_and_no_other(tag: str) -> None:
    prompt = "{% if add_generation_prompt %}x{% endif %}"
    assert "generation" not in strip_generation_tags(tag)
    assert strip_generation_tags(prompt) == prompt


def test_a_new_export_replaces_the_old_one_whole(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    export_model(llama(), tokenizer, tmp_path / "export", card="old", chat_template=TEMPLATE)
    export_model(llama(), tokenizer, tmp_path / "export", card="new")
    assert (tmp_path / "export" / "README.md").read_text() == "new"
    assert not (tmp_path / "export" / "chat_template.jinja").exists(), "nothing of the old export is left"
    assert [file.name for file in tmp_path.iterdir()] == ["export"]


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_leaves_the_old_export(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    model = llama()
    export_model(model, tokenizer, tmp_path / "export", card="old")

    def full(folder: Path, **_: object) -> None:
        Path(folder).mkdir()
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise fault

    monkeypatch.setattr(model, "save_pretrained", full)
    size = sum(weight.numel() for weight in model.parameters()) * 4
    with pytest.raises(TuneLabError, match=f"disk is full: .*export needs {size:,} bytes"):
        export_model(model, tokenizer, tmp_path / "export", card="new")
    assert (tmp_path / "export" / "README.md").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["export"]


def test_a_failed_move_brings_the_old_export_back(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model(llama(), tokenizer, tmp_path / "export", card="old")
    move = os.replace

    def refuse(source: Path, target: Path) -> None:
        if str(source).endswith(".part"):
            raise OSError(errno.EIO, "Input/output error")
        move(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(TuneLabError, match="Input/output error"):
        export_model(llama(), tokenizer, tmp_path / "export", card="new")
    assert (tmp_path / "export" / "README.md").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["export"]

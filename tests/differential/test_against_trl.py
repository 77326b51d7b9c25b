"""The same records, template and model through TRL's SFTTrainer: the same tokens are learned, at the same loss."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from tunelab.config.resource_paths import resolve_path
from tunelab.data.conversation import Conversation
from tunelab.data.examples import IGNORE, Example
from tunelab.data.formats import to_conversation
from tunelab.models.packing_support import supports_packing
from tunelab.models.unpadded_attention import DOCUMENT_KERNEL
from tunelab.tasks.instruction import Instruction

trl = pytest.importorskip("trl", reason="TRL is not installed: pip install -e '.[trl]'")
datasets = pytest.importorskip("datasets")

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"place": "Bern"}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Look", "parameters": {"type": "object"}}}
TALKS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "How many birds?"}, {"role": "assistant", "content": "Two birds  sit there."}],
    [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "Count"},
        {"role": "assistant", "content": "1\n2\n3"},
        {"role": "user", "content": "More"},
        {"role": "assistant", "content": "4 5"},
    ],
    [
        {"role": "user", "content": "\u5929\u6c14\u600e\u4e48\u6837\uff1f"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "sun"},
        {"role": "assistant", "content": "\u6674\u5929\u3002"},
    ],
    [{"role": "user", "content": "x = {}"}, {"role": "assistant", "content": "def f(x):\n    return {'a': 1}"}],
]
NAMES = ["plain", "chatml", "llama3", "alpaca"]


def tokenizer_with(markers: bool) -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(resolve_path("package:tunelab.starter/model"))
    if markers:
        tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>", "<|eot_id|>"]})
    return tokenizer


def tiny_model(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=2048, **size))


def task_with(tokenizer: PreTrainedTokenizerBase, template: str, **options: Any) -> Instruction:
    task = Instruction(template=template, **options)
    task.set_tokenizer(tokenizer, None)
    return task


def trainer_on(rows: list[dict[str, Any]], task: Instruction, folder: Path, **options: Any) -> Any:
    """TRL's trainer, given the template that we use; it prepares its data when it is made."""
    tokenizer = task.tokenizer
    tokenizer.chat_template = task.template.source
    config = trl.SFTConfig(
        output_dir=str(folder), max_length=None, report_to="none", use_cpu=True, bf16=False, fp16=False,
        activation_checkpointing=False, per_device_train_batch_size=len(rows), disable_tqdm=True, **options,
    )  # fmt: skip
    return trl.SFTTrainer(
        model=tiny_model(tokenizer),
        args=config,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
    )


def their_loss(trainer: Any) -> float:
    """Of all rows in one batch, as a training step computes it."""
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(trainer.train_dataset))])
    learned = int((batch["labels"][:, 1:] != IGNORE).sum())
    trainer.model.train()
    return float(trainer.compute_loss(trainer.model, batch, num_items_in_batch=torch.tensor(learned)).detach())


def our_loss(task: Instruction, examples: list[Example], *, packed: bool) -> float:
    model = tiny_model(task.tokenizer).train()
    task.packed = packed
    if packed:
        assert supports_packing(model, DOCUMENT_KERNEL)
    micro = task.collate(examples)
    return float(task.loss_sum(task.logits(model, micro), micro).detach()) / sum(
        example.loss_weight for example in examples
    )


def as_rows(talks: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    tools = json.dumps([TOOL])  # as text: a table column would fill the schemas with nulls
    return [{"messages": talk, "tools": tools if any("tool_calls" in t for t in talk) else None} for talk in talks]


@pytest.mark.parametrize("markers", [False, True], ids=["markers as text", "markers as tokens"])
@pytest.mark.parametrize("name", NAMES)
def test_every_assistant_turn_is_learned_as_trl_learns_it(name: str, markers: bool, tmp_path: Path) -> None:
    # Given one-turn, multi-turn, system, tool and Chinese records
    task = task_with(tokenizer_with(markers), name)
    rows = as_rows(TALKS[:2] + TALKS[3:])
    examples = [example for i, row in enumerate(rows) if (example := task.encode(row, i))]

    # When TRL masks by the same generation blocks
    trainer = trainer_on(rows, task, tmp_path, assistant_only_loss=True)

    # Then ids, labels and the loss of a batch agree
    assert [example.ids for example in examples] == list(trainer.train_dataset["input_ids"])
    assert [example.target for example in examples] == list(trainer.train_dataset["labels"])
    for packed in (False, True):
        assert our_loss(task, examples, packed=packed) == pytest.approx(their_loss(trainer), abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_calls_and_their_results_are_masked_as_trl_masks_them(name: str, tmp_path: Path) -> None:
    task = task_with(tokenizer_with(False), name)
    rows = as_rows(TALKS[2:3])

    trainer = trainer_on(rows, task, tmp_path, assistant_only_loss=True)
    example = task.encode(rows[0], 0)

    assert example is not None
    assert trainer.train_dataset["input_ids"][0] == example.ids
    assert trainer.train_dataset["labels"][0] == example.target


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_and_its_completion_are_cut_where_trl_cuts_them(name: str, tmp_path: Path) -> None:
    # Given the last answer as a completion of all that came before
    task = task_with(tokenizer_with(True), name, train_on="last_answer")
    talks = TALKS[:2] + TALKS[3:]
    rows = [{"prompt": talk[:-1], "completion": talk[-1:]} for talk in talks]

    trainer = trainer_on(rows, task, tmp_path, completion_only_loss=True)

    for row, talk in zip(trainer.train_dataset, talks, strict=True):
        example = task.encode({"messages": talk}, 0)
        assert example is not None and row["input_ids"] == example.ids
        # TRL learns all that follows the prompt; ChatML's line break after the end marker is not said by the model
        theirs = [*row["labels"][:-1], IGNORE] if name == "chatml" else row["labels"]
        assert theirs == example.target
        assert name != "chatml" or task.tokenizer.decode(row["labels"][-1:]) == "\n"


def test_plain_texts_are_the_same_tokens_and_all_are_learned(tmp_path: Path) -> None:
    task = task_with(tokenizer_with(False), "plain", format="text")
    rows = [{"text": "Once upon a time\nthere was a bird."}, {"text": "\u4f60\u597d\uff0c world"}]

    trainer = trainer_on(rows, task, tmp_path)
    examples = [example for i, row in enumerate(rows) if (example := task.encode(row, i))]

    assert [example.ids for example in examples] == list(trainer.train_dataset["input_ids"])
    assert [example.target for example in examples] == list(trainer.train_dataset["labels"])
    assert our_loss(task, examples, packed=True) == pytest.approx(their_loss(trainer), abs=1e-5)


@pytest.mark.parametrize(
    "file", ["oasst/messages.jsonl", "crosswoz/messages.jsonl", "toolcall/glaive_toolcall_zh.json"]
)
def test_real_conversations_are_learned_as_trl_learns_them(file: str, real: Path, tmp_path: Path) -> None:
    # Given the first rows of a real file, English and Chinese, with tools and without
    text = (real / "data" / file).read_text(encoding="utf-8")
    found = json.loads(text) if file.endswith(".json") else [json.loads(line) for line in text.split("\n")[:8]]
    task = task_with(tokenizer_with(True), "chatml")
    compared = 0
    for i, record in enumerate(found[:8]):
        talk = to_conversation(record, "sharegpt" if "conversations" in record else "messages")
        assert isinstance(talk, Conversation)
        turns = [
            {"role": m.role, "content": m.content} | ({"tool_calls": m.tool_calls} if m.tool_calls else {})
            for m in talk.messages
        ]
        row = {"messages": turns, "tools": json.dumps(talk.tools)}
        if calls_in(datasets.Dataset.from_list([row])[0]) != calls_in(row):
            continue  # the table of TRL made 1.0 of a 1 beside a 0.5, or gave each call the arguments of all others

        # When TRL encodes the row
        trainer = trainer_on([row], task, tmp_path, assistant_only_loss=True)
        example = task.encode(record, i)

        # Then its tokens and labels are ours
        assert example is not None
        assert trainer.train_dataset["labels"][0] == example.target
        assert trainer.train_dataset["input_ids"][0] == example.ids
        compared += 1
    assert compared >= 5
    assert their_loss(trainer) == pytest.approx(our_loss(task, [example], packed=False), abs=1e-5)


def calls_in(row: dict[str, Any]) -> str:
    return json.dumps([turn.get("tool_calls") for turn in row["messages"]])

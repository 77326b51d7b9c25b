"""Whatever a conversation says, it renders, masks and reads back; whatever else a file holds is refused in words."""

import json
from functools import cache
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tunelab.config.resource_paths import resolve_path
from tunelab.config.schema import InstructionDataConfig, SplitConfig
from tunelab.data.chat_template import ChatTemplate
from tunelab.data.conversation import Conversation
from tunelab.data.data_sources import encode_split, read_splits
from tunelab.data.examples import IGNORE, Example
from tunelab.data.formats import FORMATS, to_conversation
from tunelab.data.template_rendering import SHIPPED_TEMPLATES
from tunelab.errors import ConfigError, DataError
from tunelab.tasks.instruction import Instruction

MARKERS = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
OWN = ["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]  # control tokens of the built-in tokenizer


def tries(count: int) -> settings:
    return settings(
        deadline=None, max_examples=count, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
    )


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerBase:
    """The built-in tokenizer; "markers": the same with the control tokens of ChatML and Llama 3."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(resolve_path("package:tunelab.starter/model"))
    if kind == "markers":
        tokenizer.add_special_tokens({"extra_special_tokens": MARKERS})
    return tokenizer


@cache
def template_of(kind: str, name: str) -> ChatTemplate:
    return ChatTemplate(tokenizer_of(kind), name)


# Legal text: anything but half characters, with what templates and control tokens are made of more often than by chance
HEADINGS = [
    "user:\n",
    "\n\nassistant:\n",
    "### Response:\n",
    "<tool_call>",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "\ue000<|end|>\ue001",
]
ODD = ["\n", " ", "\t", "\u3000", "\u200b", "\u4f60\u597d", "\U0001f468\u200d\U0001f469", "e\u0301", "\u2028"]
fragments = st.sampled_from([*MARKERS, *OWN, *HEADINGS, *ODD])
texts = st.lists(fragments | st.text(max_size=6), max_size=5).map("".join)
said = texts.filter(lambda text: bool(text.strip()))
arguments = st.dictionaries(
    texts, st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | texts, lambda s: st.lists(s, max_size=2)),
    max_size=2,
)  # fmt: skip
functions = st.fixed_dictionaries({"name": said, "description": texts, "parameters": arguments})
calls = st.fixed_dictionaries({"name": said, "arguments": arguments})


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """A conversation in a legal order: perhaps a system turn, then exchanges, some with calls and their results."""
    turns: list[dict[str, Any]] = []
    if draw(st.booleans()):
        turns.append({"role": "system", "content": draw(texts)})
    for _ in range(draw(st.integers(1, 3))):
        turns.append({"role": "user", "content": draw(said)})
        if draw(st.integers(0, 3)) == 0:
            asked = draw(st.lists(calls, min_size=1, max_size=2))
            turns.append({"role": "assistant", "content": draw(st.none() | texts), "tool_calls": asked})
            turns.append({"role": "tool", "content": draw(texts)})
        turns.append({"role": "assistant", "content": draw(said)})
    return {"messages": turns, "tools": draw(st.none() | st.lists(functions, min_size=1, max_size=2))}


def answers_in(template: ChatTemplate, ids: list[int], labels: list[int]) -> list[str]:
    """The learned stretches as text, each without its end-of-turn token, which must be there."""
    found = []
    for learned, stretch in groupby(zip(ids, labels, strict=True), key=lambda pair: pair[1] != IGNORE):
        tokens = [token for token, _ in stretch]
        if learned:
            assert tokens[-1] in template.stop_ids and not set(tokens[:-1]) & set(template.stop_ids)
            found.append(str(template.tokenizer.decode(tokens[:-1])))
    return found


def written(turn: dict[str, Any]) -> str:
    """An assistant turn as every template of ours writes it."""
    content = (turn["content"] or "").strip()
    asked = [{"name": call["name"], "arguments": call["arguments"]} for call in turn.get("tool_calls", [])]
    parts = ["<tool_call>" + json.dumps(call, ensure_ascii=False) + "</tool_call>" for call in asked]
    return "\n".join([content, *parts] if content else parts)


@pytest.mark.parametrize("kind", ["built in", "markers"])
@pytest.mark.parametrize("name", SHIPPED_TEMPLATES)
@tries(25)
@given(record=records())
def test_any_conversation_renders_masks_and_reads_back(name: str, kind: str, record: dict[str, Any]) -> None:
    template = template_of(kind, name)
    conversation = to_conversation(record, "messages")
    assert isinstance(conversation, Conversation)

    ids, labels = template.encode(conversation)
    prompt = template.prompt_ids(conversation)

    # Then what is learned is exactly what the assistant said, turn by turn, each with its end
    assert answers_in(template, ids, labels) == [
        written(turn) for turn in record["messages"] if turn["role"] == "assistant"
    ]
    # And the whole reads back with every turn in its place, begun once, prompt first
    whole, place = str(template.tokenizer.decode(ids)), 0
    for message in conversation.messages:
        place = whole.index(message.content.strip(), place) + len(message.content.strip())
    assert ids.count(template.bos) == (template.bos is not None)
    assert ids[: len(prompt)] == prompt and len(prompt) < len(ids)


# Anything JSON can hold, and what Python values can besides
HARD = [10**30, "9" * 5000, "[" * 5000, "x" * 20_000, float("nan"), "", " \n", "user", "gpt", "assistant"]
KEYS = "role content from value train weight tool_calls name arguments function parameters".split()
junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.text(alphabet="x\ud800\0", max_size=3)
    | st.sampled_from(HARD),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=8,
)
turns = st.lists(
    junk
    | st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool"]), "content": junk}, optional={"tool_calls": junk}
    )
    | st.fixed_dictionaries({"from": st.sampled_from(["human", "gpt", "function_call"]), "value": junk}),
    max_size=4,
)  # fmt: skip
NAMES = "instruction input output response prompt completion messages conversations system tools text".split()
junk_records = st.dictionaries(st.sampled_from(NAMES), junk | turns, max_size=6)
RENAMED = {"prompt": "input.0", "completion": "messages.1.content", "text": "tools.name"}


@pytest.mark.parametrize("format", sorted(FORMATS))
@tries(50)
@given(record=junk_records, renamed=st.booleans())
@example(
    record={"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "9" * 5000}]},
    renamed=False,
)
@example(record={"messages": [{"role": "assistant", "content": "a"}], "tools": "[" * 100_000}, renamed=False)
@example(record={"messages": [{"role": ["user"], "content": "a"}], "conversations": 3}, renamed=False)
@example(record={"messages": 3, "conversations": [{"from": {}, "value": "a"}]}, renamed=False)
def test_a_junk_record_is_read_or_refused_in_words(format: str, record: dict[str, Any], renamed: bool) -> None:
    task = Instruction(format=format, template="plain", columns=RENAMED if renamed else {})
    task.set_tokenizer(tokenizer_of("built in"), 64)

    for read in (task.content, lambda record: task.encode(record, 0)):
        try:
            found = read(record)
        except DataError as fault:
            assert str(fault)
        else:
            assert found is None or isinstance(found, str) or learns(found)


def learns(example: Example) -> bool:
    """Whether an example has something to learn after its first token."""
    return example.loss_weight > 0 and any(label != IGNORE for label in example.target[1:])  # type: ignore[index]


def deep(depth: int) -> str:
    """A record whose tool is nested `depth` times."""
    tool = '{"name": "f", "parameters": ' + '{"a": ' * depth + "1" + "}" * depth + "}"
    return (
        '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "tools": ['
        + tool
        + "]}"
    )


lines = (
    st.binary(max_size=12)
    | (junk | junk_records | records()).map(lambda value: json.dumps(value).encode())
    | st.sampled_from([deep(90), deep(400), deep(900), deep(9000)]).map(str.encode)
)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv"])
@tries(30)
@given(content=st.lists(lines, max_size=6), format=st.sampled_from(["auto", *FORMATS]), skip=st.booleans())
@example(content=[deep(400).encode()] * 6, format="auto", skip=False)
@example(content=[b'{"text": "\\ud83d\\ude00 fine"}'] * 6, format="auto", skip=False)
def test_a_file_of_junk_is_read_or_refused_in_words(suffix: str, content: list[bytes], format: str, skip: bool) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"junk{suffix}"
        path.write_bytes(b"[" + b",".join(content) + b"]" if suffix == ".json" else b"\n".join(content))
        task = Instruction(format=format, template="plain", too_long="truncate_answer")
        block = InstructionDataConfig(
            train=str(path), on_bad="skip" if skip else "error", split=SplitConfig(validation=0.2, test=0.0)
        )
        try:
            sources = read_splits(block, task, seed=0)
            task.fit(sources.splits["train"].rows)
            task.set_tokenizer(tokenizer_of("built in"), 200)
            examples, counts = encode_split(sources.splits["train"], task)
        except (DataError, ConfigError) as fault:
            assert str(fault)
        else:
            assert counts["rows"] == len(examples) + counts["dropped"]
            assert all(learns(example) for example in examples)

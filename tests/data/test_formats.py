"""Every known layout reads as the same conversation, and a fault in a record is reported in words."""

import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.paths import ROOT
from support.tiny_runs import settings
from tunelab.config import plugins
from tunelab.data import formats
from tunelab.data.columns import ColumnView
from tunelab.data.conversation import Conversation, Message
from tunelab.data.formats import FORMATS, RecordFormat, detect_format, read_question, to_conversation
from tunelab.errors import ConfigError, DataError
from tunelab.training.components import build_task

DATA = ROOT / "../shared/data"
ANSWERED = {"role": "assistant", "content": "4"}
QUESTION, ANSWER = Message("user", "2+2?"), Message("assistant", "4")
SAME = {
    "alpaca": {"instruction": "2+2?", "input": "", "output": "4"},
    "messages": {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]},
    "prompt_completion": {"prompt": "2+2?", "completion": "4"},
}
REAL = [
    ("toolcall/glaive_toolcall_en.json", "sharegpt", {}, 300),
    ("toolcall/glaive_toolcall_zh.json", "sharegpt", {}, 300),
    ("oasst/messages.jsonl", "messages", {}, 100),
    ("crosswoz/messages.jsonl", "messages", {}, 500),
    ("identity/identity.json", "alpaca", {}, 91),
    ("identity/dummy_conversation.json", "sharegpt", {}, 500),
    ("seed_tasks/alpaca.json", "alpaca", {}, 175),
    ("gpteacher/roleplay.json", "alpaca", {}, 800),
    ("gsm8k/val.jsonl", "prompt_completion", {"prompt": "question", "completion": "answer"}, 300),
]


def rows_of(file: str) -> list[dict[str, Any]]:
    path = DATA / file
    if not path.exists():
        pytest.skip(f"{file} is not beside the checkout")
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if file.endswith(".json") else [json.loads(line) for line in text.split("\n") if line]


def read(record: dict[str, Any], format: str, columns: dict[str, str] | None = None) -> Conversation:
    conversation = to_conversation(record, format, columns or {})
    assert isinstance(conversation, Conversation)
    return conversation


@pytest.mark.parametrize("format", SAME)
def test_one_exchange_reads_the_same_in_every_format(format: str) -> None:
    assert detect_format(list(SAME[format])) == format
    assert read(SAME[format], format).messages == (QUESTION, ANSWER)


def test_text_stays_text() -> None:
    assert detect_format(["text"]) == "text"
    assert to_conversation({"text": " Once upon\n"}, "text") == " Once upon\n"


def test_an_input_follows_its_instruction_after_a_blank_line() -> None:
    record = {"instruction": "Add", "input": "2, 2", "output": "4"}

    assert read(record, "alpaca").messages[0].content == "Add\n\n2, 2"


@pytest.mark.parametrize("nothing", ["", None])
def test_an_empty_input_adds_nothing(nothing: str | None) -> None:
    assert read({"instruction": "Add", "input": nothing, "output": "4"}, "alpaca").messages[0].content == "Add"


def test_response_is_taken_for_output_unless_the_user_names_another() -> None:
    record = {"instruction": "Add", "response": "4", "gold": "four"}

    assert read(record, "alpaca").messages[1].content == "4"
    assert read(record, "alpaca", {"output": "gold"}).messages[1].content == "four"


@pytest.mark.parametrize("text", ["I am {{name}} by {{author}}", "${oc.env:HOME} {0} %s", "  kept\t\n", "{% raw %}"])
def test_texts_come_through_untouched(text: str) -> None:
    for message in read({"instruction": text, "input": "", "output": text}, "alpaca").messages:
        assert message.content == text


def test_every_sharegpt_speaker_has_a_role() -> None:
    said = ["system", "human", "function_call", "observation", "gpt", "user", "assistant", "tool", "gpt"]
    record = {"conversations": [{"from": speaker, "value": f"text {speaker}"} for speaker in said]}

    roles = [message.role for message in read(record, "sharegpt").messages]

    assert roles == ["system", "user", "assistant", "tool", "assistant", "user", "assistant", "tool", "assistant"]


def test_a_sharegpt_call_becomes_a_tool_call_and_tools_are_wrapped() -> None:
    record = {
        "conversations": [
            {"from": "human", "value": "Weather?"},
            {"from": "function_call", "value": '{"name": "weather", "arguments": {"place": "Bern"}}'},
            {"from": "observation", "value": '{"sun": true}'},
            {"from": "gpt", "value": "Sunny"},
        ],
        "tools": '[{"name": "weather", "parameters": {}}]',
        "system": "Be brief",
    }

    conversation = read(record, "sharegpt")

    assert conversation.messages[0] == Message("system", "Be brief")
    assert conversation.messages[2].content == ""
    assert conversation.messages[2].tool_calls == [
        {"type": "function", "function": {"name": "weather", "arguments": {"place": "Bern"}}}
    ]
    assert conversation.tools == [{"type": "function", "function": {"name": "weather", "parameters": {}}}]


def test_arguments_as_json_text_are_not_quoted_twice() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"n": 1}'}}
    turns = [{"role": "user", "content": "go"}, {"role": "assistant", "content": None, "tool_calls": [call]}]

    calls = read({"messages": turns}, "messages").messages[1].tool_calls

    assert calls is not None
    assert calls[0]["function"]["arguments"] == {"n": 1}


@pytest.mark.parametrize("nothing", [None, "", "[]", []])
def test_no_tools_is_none(nothing: Any) -> None:
    assert read(SAME["messages"] | {"tools": nothing}, "messages").tools is None


def test_a_turn_can_be_marked_as_not_learned() -> None:
    turns = [*SAME["messages"]["messages"][:1], {"role": "assistant", "content": "5", "train": False}]

    assert read({"messages": turns}, "messages").messages[1].train is False


def test_a_weight_of_0_is_another_way_to_say_so() -> None:
    turns = [*SAME["messages"]["messages"][:1], {"role": "assistant", "content": "5", "weight": 0}]

    assert read({"messages": turns}, "messages").messages[1].train is False
    with pytest.raises(DataError, match="'weight' of a turn is '0.5'; only 0"):
        read({"messages": [{"role": "assistant", "content": "5", "weight": 0.5}]}, "messages")


@pytest.mark.parametrize(
    ("role", "key"),
    [("assistant", "function_call"), *(("user", key) for key in ("reasoning_content", "reasoning", "thinking"))],
)
def test_text_of_a_turn_that_would_be_lost_is_refused(role: str, key: str) -> None:
    turns = [dict(turn) for turn in SAME["messages"]["messages"]]
    turns[role == "assistant"][key] = "two and two"

    with pytest.raises(DataError, match=f"{key} of the {role} turn would be lost"):
        read({"messages": turns}, "messages")
    turns[role == "assistant"][key] = None
    assert read({"messages": turns}, "messages").messages == (QUESTION, ANSWER)


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_the_reasoning_of_an_answer_is_read_by_any_of_its_names(key: str) -> None:
    turns = [*SAME["messages"]["messages"][:1], {"role": "assistant", "content": "4", key: "two and two"}]

    assert read({"messages": turns}, "messages").messages[1].reasoning == "two and two"
    with pytest.raises(DataError, match="reasoning_content and thinking of the assistant turn differ"):
        read({"messages": [turns[0], {**ANSWERED, "reasoning_content": "a", "thinking": "b"}]}, "messages")


def test_text_parts_of_a_content_are_joined() -> None:
    parts = [{"type": "text", "text": "2+"}, {"type": "text", "text": "2?", "image": None}]
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": ["4"]}]

    assert read({"messages": turns}, "messages").messages == (QUESTION, ANSWER)


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"type": "image", "image": "x.png"}, "image"),
        ({"type": "image_url", "image_url": {"url": "x"}}, "image_url"),
        ({"type": "input_audio"}, "input_audio"),
        ({"type": "text", "text": None}, "'type': 'text'"),
        (3, "3"),
    ],
)
def test_other_parts_of_a_content_are_refused_by_name(part: Any, kind: str) -> None:
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "2+2?"}, part]},
        {"role": "assistant", "content": "4"},
    ]

    with pytest.raises(DataError, match=f"content of the user turn' has parts that are no text .*{kind}"):
        read({"messages": turns}, "messages")


def test_calls_of_a_user_would_be_lost_too() -> None:
    turns = [{"role": "user", "content": "a", "tool_calls": [{"name": "f"}]}, {"role": "assistant", "content": "b"}]

    with pytest.raises(DataError, match="tool_calls of the user turn would be lost"):
        read({"messages": turns}, "messages")


def test_arguments_come_through_as_they_were_written() -> None:
    # Given calls with different arguments, a whole number beside a broken one, and the name last
    calls = [{"arguments": {"n": [1, 0.5]}, "name": "f"}, {"name": "g", "arguments": {"text": None}}]
    turns = [{"role": "user", "content": "go"}, {"role": "assistant", "content": None, "tool_calls": calls}]

    found = read({"messages": turns}, "messages").messages[1].tool_calls

    assert found is not None
    assert json.dumps([call["function"] for call in found]) == (
        '[{"name": "f", "arguments": {"n": [1, 0.5]}}, {"name": "g", "arguments": {"text": null}}]'
    )


def test_names_and_call_ids_of_turns_are_taken_along_for_templates_that_read_them() -> None:
    turns = [{"role": "tool", "content": "sun", "name": "weather", "tool_call_id": "c1", "id": 3}]
    turns += SAME["messages"]["messages"]

    assert read({"messages": turns}, "messages").messages[0].extra == {"name": "weather", "tool_call_id": "c1"}


def test_a_column_may_lie_inside_others() -> None:
    record = {"instruction": "Add", "instances": [{"input": "2, 2", "output": "4"}]}
    names = {"input": "instances.0.input", "output": "instances.0.output"}

    assert detect_format(list(record), names) == "alpaca"
    assert [message.content for message in read(record, "alpaca", names).messages] == ["Add\n\n2, 2", "4"]
    with pytest.raises(DataError, match=r"'instances\.1\.output' is missing; columns: instruction, instances"):
        read(record, "alpaca", {"output": "instances.1.output"})
    assert read(record | {"a.b": "5"}, "alpaca", {"output": "a.b"}).messages[1].content == "5"


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 100_000, '{"name": 3}', '[{"name": "f"}, 4]'])
def test_text_that_only_looks_like_a_call_is_an_answer(text: str) -> None:
    record = {"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": text}]}

    assert read(record, "sharegpt").messages[1] == Message("assistant", text)


def test_an_empty_system_turn_is_no_turn() -> None:
    turns = [{"role": "system", "content": ""}, *SAME["messages"]["messages"]]

    assert read({"messages": turns}, "messages").messages == (QUESTION, ANSWER)


def test_what_a_record_says_of_itself_is_kept_beside_the_turns() -> None:
    record = SAME["alpaca"] | {"family": "sums", "source": "me", "other": 1}

    assert read(record, "alpaca").meta == {"family": "sums", "source": "me"}


FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({"instruction": "a", "output": ""}, "alpaca", "'output' is empty; a record without an answer teaches nothing"),
    ({"instruction": "a", "output": " \n"}, "alpaca", "'output' is empty"),
    ({"instruction": "a", "output": None}, "alpaca", "'output' is empty"),
    ({"instruction": None, "output": "b"}, "alpaca", "'instruction' is empty"),
    ({"instruction": "a", "output": 4}, "alpaca", "'output' is int, not text: '4'"),
    ({"instruction": "a", "input": ["x"], "output": "4"}, "alpaca", "'input' is list, not text"),
    ({"instruction": "a"}, "alpaca", "'output' is missing; columns: instruction; .*data.columns.output="),
    ({"prompt": "a"}, "prompt_completion", "'completion' is missing"),
    ({"text": ""}, "text", "'text' is empty"),
    ({"messages": []}, "messages", "'messages' is empty"),
    ({"messages": "hello"}, "messages", "'messages' is str"),
    ({"messages": [{"role": "user", "content": "a"}]}, "messages", "no assistant turn"),
    ({"messages": [{"role": "bot", "content": "a"}]}, "messages", "from 'bot'; known: system, user"),
    ({"messages": [{"from": "bot"}]}, "messages", "got keys from"),
    ({"messages": ["hi"]}, "messages", "got str"),
    ({"messages": [{"role": "assistant", "content": ""}]}, "messages", "content of the assistant turn' is empty"),
    ({"messages": [{"role": "assistant", "content": "a", "train": "no"}]}, "messages", "write true or false"),
    ({"messages": [{"role": "assistant", "content": "a", "tool_calls": "f"}]}, "messages", "'tool_calls' is str"),
    ({"messages": [{"role": "assistant", "content": "a", "tool_calls": [{}]}]}, "messages", "no name"),
    (SAME["messages"] | {"tools": "{not json"}, "messages", "not JSON"),
    (SAME["messages"] | {"tools": {"name": "f"}}, "messages", "'tools' is dict"),
    (SAME["messages"] | {"tools": "[" * 100_000}, "messages", "not JSON"),
    (SAME["messages"] | {"tools": [{"function": 3}]}, "messages", "a function in 'tools' has no name"),
    ({"instruction": 10**5000, "output": "a"}, "alpaca", "'instruction' is int, not text: 'int'"),
    ({"conversations": [{"from": ["a"], "value": "b"}]}, "sharegpt", "known: human"),
]


@pytest.mark.parametrize(("record", "format", "message"), FAULTS)
def test_a_faulty_record_is_told_in_words(record: dict[str, Any], format: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        to_conversation(record, format)


def test_an_unknown_format_lists_the_known_ones() -> None:
    with pytest.raises(DataError, match="'alpacca'; known: auto, messages, sharegpt, alpaca"):
        to_conversation({}, "alpacca")


def test_unknown_columns_are_listed_with_the_closest_format_and_the_way_out() -> None:
    with pytest.raises(DataError) as caught:
        detect_format(["question", "instructions", "outputs"])

    message = str(caught.value)
    assert "instructions, outputs, question fit no format" in message
    assert all(name in message for name in FORMATS)
    assert "closest: alpaca" in message
    assert "data.columns.instruction=... data.columns.output=..." in message


def test_renamed_columns_tell_the_format() -> None:
    names = {"prompt": "question", "completion": "answer"}

    assert detect_format(["question", "answer"], names) == "prompt_completion"
    assert read({"question": "2+2?", "answer": "4"}, "prompt_completion", names).messages == (QUESTION, ANSWER)
    with pytest.raises(DataError, match="no format"):
        detect_format(["question", "reply"], names)


@pytest.mark.parametrize(("file", "format", "columns", "count"), REAL)
def test_real_files_read_to_the_last_row(file: str, format: str, columns: dict[str, str], count: int) -> None:
    rows = rows_of(file)

    assert detect_format(list(rows[0]), columns) == format
    conversations = [read(row, format, columns) for row in rows]

    assert len(conversations) == count
    assert all(conversation.messages[-1].role == "assistant" for conversation in conversations)


def test_real_placeholders_survive() -> None:
    rows = rows_of("identity/identity.json")

    kept = sum("{{name}}" in read(row, "alpaca").messages[1].content for row in rows)

    assert kept == sum("{{name}}" in row["output"] for row in rows) > 0


def test_real_tool_files_have_calls_results_and_tools() -> None:
    conversations = [read(row, "sharegpt") for row in rows_of("toolcall/glaive_toolcall_en.json")]

    calling = [talk for talk in conversations if any(message.tool_calls for message in talk.messages)]

    assert len(calling) > 100
    assert all(talk.tools for talk in calling)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "train", "tool_calls", "name"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
columns = st.sampled_from(
    "instruction input output response prompt completion messages conversations tools text".split()
)


@given(st.dictionaries(columns, json_like, max_size=5), st.sampled_from(sorted(FORMATS)))
def test_whatever_a_record_holds_only_data_errors_come_out(record: dict[str, Any], format: str) -> None:
    try:
        read_as = to_conversation(record, format)
    except DataError as fault:
        assert str(fault)
    else:
        assert isinstance(read_as, str) or read_as.last_assistant_turn() is not None


def test_a_config_names_a_format_of_an_allowed_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Given a package with a function that returns a format
    (tmp_path / "mylab_formats.py").write_text(
        "from tunelab.data.conversation import Conversation, Message\n"
        "from tunelab.data.formats import RecordFormat\n"
        "def read(row):\n"
        "    return Conversation((Message('user', row.text('ask', '')), Message('assistant', row.text('reply', ''))))\n"
        "def dialogue():\n"
        "    return RecordFormat(read, (('ask',), ('reply',)), prompt='ask', answer='reply')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(formats, "_REGISTRY", dict(formats._REGISTRY))
    monkeypatch.setattr(formats, "FORMATS", MappingProxyType(formats._REGISTRY))
    words = ("data=instruction", "data.train=x.jsonl", "data.format=mylab_formats.dialogue")

    # When nothing allows the package, then it is refused
    with pytest.raises(ConfigError, match=r"plugins=\[mylab_formats\]"):
        build_task(settings(*words))

    # When the command line allows it, then the task reads by it
    monkeypatch.setattr(plugins, "_packages", ["mylab_formats"])
    task = build_task(settings(*words))
    assert task.content({"ask": "2+2?", "reply": "4"}) == "2+2?"
    # and a name without a dot is still one of ours
    with pytest.raises(ConfigError, match="alpaca"):
        settings("data=instruction", "data.train=x.jsonl", "data.format=alpacca")


def test_a_format_of_another_package_is_known_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a layout that a package outside has written down
    def read_dialogue(row: ColumnView) -> Conversation:
        texts = (row.text("ask", "nothing is asked"), row.text("reply", "nothing is learned"))
        return Conversation((Message("user", texts[0]), Message("assistant", texts[1])))

    form = RecordFormat(read_dialogue, (("ask",), ("reply",)), prompt="ask", answer="reply")
    monkeypatch.setattr(formats, "_REGISTRY", dict(formats._REGISTRY))
    monkeypatch.setattr(formats, "FORMATS", MappingProxyType(formats._REGISTRY))

    # When it is registered, twice as a module that is imported anew would
    formats.register_format("dialogue", form)
    formats.register_format("dialogue", form)

    # Then it is detected by its columns, read whole, and read for its question alone
    assert detect_format(["ask", "reply", "id"]) == "dialogue"
    assert to_conversation({"ask": "2+2?", "reply": "4"}, "dialogue") == Conversation((QUESTION, ANSWER))
    assert read_question({"ask": "2+2?"}, "auto") == Conversation((QUESTION,))
    # and no name is taken twice
    with pytest.raises(ConfigError, match="already"):
        formats.register_format("alpaca", form)

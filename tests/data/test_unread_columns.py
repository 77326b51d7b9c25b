"""Text of a record reaches the model, or is named: columns that are read, unread, refused, or left out on purpose."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.tiny_runs import settings
from tunelab.data.columns import ColumnUse, survey_columns
from tunelab.data.conversation import Conversation
from tunelab.data.data_sources import DataSplits, read_splits
from tunelab.data.formats import read_question, to_conversation
from tunelab.data.preference_pairs import to_preference_pair
from tunelab.errors import DataError
from tunelab.training.components import build_task

Rows = Sequence[Mapping[str, Any]]
TOWNS = ["Lorn", "Vesk", "Patu", "Mirel", "Oska", "Trine", "Balo", "Quen", "Serra", "Dovic"]
ALPACA: list[dict[str, Any]] = [{"instruction": f"Where is lamp {i}?", "output": town} for i, town in enumerate(TOWNS)]
TURNS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": f"Lamp {i}?"}, {"role": "assistant", "content": town}]}
    for i, town in enumerate(TOWNS)
]
PROMPTS: list[dict[str, Any]] = [{"prompt": f"Where is lamp {i}?", "completion": town} for i, town in enumerate(TOWNS)]
PAIRS: list[dict[str, Any]] = [
    {"prompt": f"Where is lamp {i}?", "chosen": town, "rejected": "No idea."} for i, town in enumerate(TOWNS)
]
TEXTS: list[dict[str, Any]] = [
    {"text": f"Lamp {i} is in {town}", "label": "ab"[i % 2], "score": i} for i, town in enumerate(TOWNS)
]


def with_column(rows: Rows, name: str, value: Any) -> list[dict[str, Any]]:
    return [{**row, name: value} for row in rows]


def write(folder: Path, kind: str, rows: Rows) -> str:
    """The rows as a file of that kind; a table holds lists as JSON text."""
    path = folder / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if kind == "tsv" else ",")
            writer.writerow(rows[0])
            writer.writerows(
                [value if isinstance(value, str) else json.dumps(value) for value in row.values()] for row in rows
            )
    return str(path)


def splits(file: str, *overrides: str) -> DataSplits:
    """The splits of a run on one file, validation made from it."""
    run = settings(f"data.train='{file}'", "data.split.validation=0.2", "data.split.test=0", *overrides)
    return read_splits(run.data, build_task(run), seed=3)


def turns(conversation: Conversation | str) -> list[tuple[str, str]]:
    assert isinstance(conversation, Conversation)
    return [(message.role, message.content) for message in conversation.messages]


def test_the_context_of_a_question_stands_below_it_and_an_input_is_preferred() -> None:
    record = {"instruction": "Where is it?", "context": "It is in Lorn.", "response": "Lorn", "category": "closed_qa"}

    assert turns(to_conversation(record, "alpaca")) == [
        ("user", "Where is it?\n\nIt is in Lorn."),
        ("assistant", "Lorn"),
    ]
    assert turns(to_conversation({**record, "context": ""}, "alpaca"))[0] == ("user", "Where is it?")
    assert turns(to_conversation({**record, "input": "In Vesk."}, "alpaca"))[0] == ("user", "Where is it?\n\nIn Vesk.")
    named = {"prompt": "Where is it?", "context": "It is in Lorn.", "completion": "Lorn"}
    assert turns(to_conversation(named, "prompt_completion", {"input": "context"}))[0][1].endswith("It is in Lorn.")


@pytest.mark.parametrize(
    "history",
    [
        [["I left it in Lorn.", "Noted."]],
        [("I left it in Lorn.", "Noted.")],
        ["I left it in Lorn.", "Noted."],
        [{"role": "user", "content": "I left it in Lorn."}, {"role": "assistant", "content": "Noted."}],
        [{"from": "human", "value": "I left it in Lorn."}, {"from": "gpt", "value": "Noted."}],
        [{"user": "I left it in Lorn.", "assistant": "Noted."}],
        [{"instruction": "I left it in Lorn.", "output": "Noted."}],
        json.dumps([["I left it in Lorn.", "Noted."]]),
    ],
)
def test_every_layout_of_a_history_reads_as_the_same_earlier_turns(history: Any) -> None:
    extra = {"history": history, "system": "Be brief."}
    expected = [("system", "Be brief."), ("user", "I left it in Lorn."), ("assistant", "Noted."), ("user", "Lamp 0?")]

    for format, record in {
        "alpaca": {"instruction": "Lamp 0?", "output": "Lorn", **extra},
        "prompt_completion": {"prompt": "Lamp 0?", "completion": "Lorn", **extra},
        "messages": {**TURNS[0], **extra},
        "sharegpt": {
            "conversations": [{"from": "human", "value": "Lamp 0?"}, {"from": "gpt", "value": "Lorn"}],
            **extra,
        },
    }.items():
        assert turns(to_conversation(record, format)) == [*expected, ("assistant", "Lorn")]
        assert turns(read_question(record, format)) == expected
    pair = to_preference_pair({"prompt": "Lamp 0?", "chosen": "Lorn", "rejected": "No idea.", **extra})
    assert [(message.role, message.content) for message in pair.prompt] == expected
    assert [message.train for message in pair.chosen.messages] == [False] * 4 + [True]


def test_turns_that_a_conversation_holds_already_are_not_said_twice() -> None:
    messages = [{"role": "system", "content": "Be brief."}, *TURNS[0]["messages"]]
    record = {"messages": messages, "system": "Be brief.", "history": [["Lamp 0?", "Lorn"]]}

    assert turns(to_conversation(record, "messages")) == [(turn["role"], turn["content"]) for turn in messages]
    with pytest.raises(DataError, match=r"'system' and the system turn .* differ.*data.ignore_columns=\[system\]"):
        to_conversation({**record, "system": "Be long."}, "messages")


@pytest.mark.parametrize("history", ["He asked before.", [["a", "b", "c"]], [["a", ""]], ["a"], [{"a": "b"}], 7])
def test_a_history_that_is_no_list_of_rounds_is_refused(history: Any) -> None:
    with pytest.raises(DataError, match="'history'"):
        to_conversation({"instruction": "a", "output": "b", "history": history}, "alpaca")


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_a_file_of_any_kind_says_which_text_is_not_read(kind: str, tmp_path: Path) -> None:
    rows = [
        {**row, "context": "On Monday.", "system": "Be brief.", "history": [["a", "b"]], "id": i, "topic": "lamps"}
        for i, row in enumerate(ALPACA)
    ]

    use = splits(write(tmp_path, kind, rows), "data=instruction").columns[""]

    assert use == ColumnUse(["instruction", "output", "context", "system", "history"], {"topic": 10}, [])


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_turns_in_a_table_are_json_text(kind: str, tmp_path: Path) -> None:
    sources = splits(write(tmp_path, kind, TURNS), "data=instruction")

    rows = sources.splits["train"].rows
    assert {turns(to_conversation(row, "messages"))[1][1] for row in rows} <= set(TOWNS)
    assert turns(read_question(rows[0], "messages"))[0][0] == "user"


def test_pairs_of_turns_in_a_table_are_json_text_and_an_answer_that_is_a_list_stays_one() -> None:
    question = [{"role": "user", "content": "Lamp?"}]
    answers = {side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    as_text = {name: json.dumps(value) for name, value in {"prompt": question, **answers}.items()}

    assert to_preference_pair(as_text) == to_preference_pair({"prompt": question, **answers})
    pair = to_preference_pair({"prompt": "Lamp?", "chosen": '["a"]', "rejected": "[]"})
    assert pair.chosen.messages[-1].content == '["a"]'


REFUSED = [
    ("instruction", with_column(TURNS, "context", "In Lorn."), "data.columns.input=context|write it into 'messages'"),
    ("instruction", with_column(PROMPTS, "context", "In Lorn."), "data.columns.input=context has it read"),
    ("instruction", with_column(PROMPTS, "input", "In Lorn."), "data.columns.input=input has it read"),
    ("instruction", with_column(ALPACA, "system_prompt", "Be brief."), "data.columns.system=system_prompt"),
    ("instruction", with_column([{"text": t} for t in TOWNS], "system", "Be brief."), "write it into 'text'"),
    ("preference", with_column(PAIRS, "context", "In Lorn."), "data.columns.input=context"),
    ("preference", with_column(PAIRS, "chat_history", [["a", "b"]]), "data.columns.history=chat_history"),
    ("classification data.text=text data.label=label", with_column(TEXTS, "context", "x"), "data.text_pair=context"),
    ("regression data.text=text data.target=score", with_column(TEXTS, "history", "x"), "data.text_pair=history"),
]


@pytest.mark.parametrize(("task", "rows", "way_out"), REFUSED)
def test_text_that_belongs_to_the_question_is_read_or_refused(
    task: str, rows: list[dict[str, Any]], way_out: str, tmp_path: Path
) -> None:
    file, name = write(tmp_path, "jsonl", rows), list(rows[0])[-1]

    with pytest.raises(DataError, match=f"column '{name}' of rows.jsonl holds text in 10 rows.*({way_out})"):
        splits(file, *f"data={task}".split())

    # Then leaving it out on purpose is a way, and so is the one that the message names
    use = splits(file, *f"data={task}".split(), f"data.ignore_columns=[{name}]").columns[""]
    assert use.ignored == [name]
    assert name not in use.unread
    if way_out.startswith("data."):
        word = next(part for part in way_out.split() if part.startswith("data.")).partition("|")[0]
        if "messages" not in rows[0]:
            assert name in splits(file, *f"data={task}".split(), word).columns[""].read


def test_a_column_left_out_on_purpose_does_not_reach_the_model(tmp_path: Path) -> None:
    file = write(tmp_path, "jsonl", with_column(ALPACA, "system", "Be brief."))

    rows = splits(file, "data=instruction", "data.ignore_columns=[system]").splits["train"].rows

    assert all("system" not in row for row in rows)
    with pytest.raises(DataError, match=r"data.ignore_columns=systm: .* did you mean 'system'"):
        splits(file, "data=instruction", "data.ignore_columns=[systm]")
    with pytest.raises(DataError, match="data.ignore_columns leaves out 'text', which data.text names"):
        texts = write(tmp_path, "json", TEXTS)
        splits(texts, "data=classification", "data.text=text", "data.label=label", "data.ignore_columns=[text]")


def test_an_older_runs_settings_refuse_no_column(tmp_path: Path) -> None:
    file = write(tmp_path, "jsonl", with_column(TEXTS, "context", "x"))
    words = ("data=classification", "data.text=text", "data.label=label", "data.ignore_columns=null")

    assert splits(file, *words).columns[""].unread == {"context": 10}


def test_the_column_of_groups_is_read(tmp_path: Path) -> None:
    file = write(tmp_path, "jsonl", [{**row, "author": f"a{i // 2}"} for i, row in enumerate(TEXTS)])

    use = splits(file, "data=classification", "data.text=text", "data.label=label", "data.group=author").columns[""]

    assert use == ColumnUse(["text", "label", "author"], {}, [])


def test_an_empty_column_and_numbers_are_no_text() -> None:
    rows = [{"text": "a", "context": " ", "id": "17", "n": 3, "history": []}, {"text": "b", "context": None, "id": "x"}]

    assert survey_columns(rows, lambda filled: {"text"}).unread == {"id": 1}


def mixed(mix: str) -> DataSplits:
    """The splits of a run on a mix, validation made from each source."""
    run = settings(
        "data=instruction",
        "data.train=null",
        f"data.mix={mix}",
        "data.split.validation=0.2",
        "data.split.test=0",
    )
    return read_splits(run.data, build_task(run), seed=3)


def test_each_source_of_a_mix_is_looked_at_by_itself(tmp_path: Path) -> None:
    a = write(tmp_path, "json", with_column(ALPACA, "system", "Be brief."))
    b = write(tmp_path, "jsonl", with_column(PROMPTS, "context", "In Lorn."))

    sources = mixed(f"{{a: {{train: '{a}'}}, b: {{train: '{b}', ignore_columns: [context]}}}}")

    assert sources.columns["a"] == ColumnUse(["instruction", "output", "system"], {}, [])
    assert sources.columns["b"].ignored == ["context"]
    assert {row.get("system") for row in sources.splits["train"].rows} == {"Be brief.", None}
    with pytest.raises(DataError, match="column 'context' of b holds text"):
        mixed(f"{{a: {{train: '{a}'}}, b: {{train: '{b}'}}}}")

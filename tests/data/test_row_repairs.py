"""Control characters, nulls that Arrow adds, records on one line, bad targets: told with their place, or mended."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.tiny_runs import MODEL, settings
from support.tiny_runs import write as write_jsonl
from tunelab.data.formats import to_conversation
from tunelab.data.readers import read_records
from tunelab.errors import DataError
from tunelab.training.components import encode_data

Write = Callable[[str, str | bytes], str]
FILES = {
    "t.csv": "text,label\na\x01b,x\nfine,y\n",
    "t.tsv": "text\tlabel\na\x01b\tx\nfine\ty\n",
    "t.jsonl": '{"text": "a\x01b", "label": "x"}\n{"text": "fine", "label": "y"}\n',
    "u.jsonl": '{"text": "a\\u0000b", "label": "x"}\n{"text": "fine", "label": "y"}\n',
    "h.jsonl": '{"text": "a\\ud800b", "label": "x"}\n{"text": "fine", "label": "y"}\n',
    "t.json": '[{"text": "a\x01b", "label": "x"},\n {"text": "fine", "label": "y"}]',
    "u.json": '[{"text": "a\\u0000b", "label": "x"},\n {"text": "fine", "label": "y"}]',
}


@pytest.mark.parametrize("name", FILES)
def test_a_control_character_is_told_with_its_place_and_taken_out_on_request(name: str, write: Write) -> None:
    source = write(name, FILES[name])

    with pytest.raises(DataError, match=rf"{name}.* line \d.*(?s:.)*data.on_bad=clean"):
        read_records(source)

    records = read_records(source, on_bad="clean")
    assert records.rows == [{"text": "ab", "label": "x"}, {"text": "fine", "label": "y"}]
    assert any("control characters are taken out of texts in 1 row, first in line" in note for note in records.notes)


def test_a_control_character_of_parquet_is_told_with_row_and_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["fine", "a\0b"]}), tmp_path / "t.parquet")

    with pytest.raises(DataError, match=r"t.parquet row 2: a text holds the NUL .*column 'text'.*data.on_bad=clean"):
        read_records(str(tmp_path / "t.parquet"))
    assert read_records(str(tmp_path / "t.parquet"), on_bad="clean").rows[1] == {"text": "ab"}


def test_cleaning_mends_nothing_else_and_leaves_tabs_and_line_ends(write: Write) -> None:
    with pytest.raises(DataError, match="line 2: .*cell"):
        read_records(write("t.csv", "text,label\nx\n"), on_bad="clean")
    with pytest.raises(DataError, match="not utf-8"):
        read_records(write("t.jsonl", b'{"a": "\xff"}\n'), on_bad="clean")
    records = read_records(write("u.jsonl", '{"a": "x\ty\\nz"}\n'), on_bad="clean")
    assert records.rows == [{"a": "x\ty\nz"}]


def test_a_row_that_is_skipped_for_a_control_character_is_counted(write: Write) -> None:
    source = write("t.csv", "text\n" + "fine\n" * 150 + "a\x01b\n")

    records = read_records(source, on_bad="skip")

    assert len(records.rows) == 150
    assert "t.csv line 152: column 'text' holds a control character" in records.skipped[0]


CALLS: list[dict[str, Any]] = [
    {
        "messages": [
            {"role": "user", "content": "Weather in Lorn?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"name": "weather", "arguments": {"town": "Lorn"}}],
            },
        ],
        "tools": [{"name": "weather", "parameters": {"town": {"type": "string"}}}],
    },
    {
        "messages": [
            {"role": "user", "content": "Time?"},
            {"role": "assistant", "content": "", "tool_calls": [{"name": "time", "arguments": {"unit": "h"}}]},
        ],
        "tools": [{"name": "time", "parameters": {"unit": {"type": "string", "enum": ["h", None]}}}],
    },
]


@pytest.mark.parametrize("in_memory", [64, 0])
def test_the_nulls_that_arrow_adds_to_calls_and_schemas_are_left_out(in_memory: float, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(CALLS), tmp_path / "calls.parquet")

    records = read_records(str(tmp_path / "calls.parquet"), in_memory=in_memory)

    for row, original in zip(records.rows, CALLS, strict=True):
        read, known = to_conversation(row, "messages"), to_conversation(original, "messages")
        assert read == known
    assert len(records.notes) == 1
    assert "null keys inside columns are left out" in records.notes[0]
    assert "in 2 rows, first in row 1" in records.notes[0]


def test_the_nulls_of_a_hub_set_are_left_out_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: datasets.Dataset.from_list(CALLS))

    records = read_records("owner/name")

    assert to_conversation(records.rows[0], "messages") == to_conversation(CALLS[0], "messages")
    assert "null keys inside columns are left out" in records.notes[0]


def test_the_nulls_of_json_and_of_whole_columns_stay(write: Write, tmp_path: Path) -> None:
    row = {"a": None, "calls": [{"town": "Lorn", "unit": None}]}
    assert read_records(write("t.jsonl", json.dumps(row))).rows == [row]
    pq.write_table(pa.table({"a": [None, "x"], "b": ["y", "z"]}), tmp_path / "t.parquet")
    records = read_records(str(tmp_path / "t.parquet"))
    assert records.rows[0] == {"a": None, "b": "y"}
    assert not records.notes


def test_records_on_one_line_are_named_by_their_number(write: Write) -> None:
    rows = [{"text": f"text {i}"} for i in range(50)]
    records = read_records(write("one.json", json.dumps(rows)))
    assert records.location(36) == "one.json record 37"
    pretty = read_records(write("many.json", json.dumps(rows, indent=1)))
    assert pretty.location(36) == "many.json line 110"

    bad = json.dumps([*rows[:36], {"text": "a\0b"}, *rows[36:]])
    with pytest.raises(DataError, match="one.json record 37: a text holds the NUL"):
        read_records(write("one.json", bad))
    skipped = read_records(write("one.json", json.dumps([*rows * 3, {"text": "a\0b"}, *rows])), on_bad="skip")
    assert skipped.location(150) == "one.json record 152"
    with pytest.raises(DataError, match="one.json, record 51 of line 1: key 'text' stands twice"):
        read_records(write("one.json", json.dumps(rows)[:-1] + ', {"text": "a", "text": "b"}]'))


@pytest.mark.parametrize(
    ("task", "bad", "message"),
    [
        ("data=regression data.target=score", {"score": "high"}, "column 'score' holds 'high', not a number"),
        ("data=regression data.target=score", {"score": None}, "column 'score' holds None"),
        ("data=classification data.label=label", {"label": ""}, "label is empty"),
        ("data=classification data.label=label", {"label": 1.5}, "label 1.5 is a fraction"),
    ],
)
def test_a_bad_target_is_told_with_file_and_line(task: str, bad: dict[str, Any], message: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": f"text {i}", "label": "ab"[i % 2], "score": i} for i in range(8)]
    train = write_jsonl(tmp_path / "train.jsonl", [*rows[:3], {**rows[3], **bad}, *rows[4:]])
    val = write_jsonl(tmp_path / "val.jsonl", [{"text": "another", "label": "a", "score": 1}])
    words = [*task.split(), "data.text=text", f"data.train={train}", f"data.validation={val}", "data.split.test=0"]

    with pytest.raises(DataError, match=f"train.jsonl line 4: {message}"):
        encode_data(settings(*words, *MODEL))

"""Every record is read as written or refused with its line: JSON, encodings, places, options."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from tunelab.data.readers import READABLE_SUFFIXES, read_records
from tunelab.errors import ConfigError, DataError

Write = Callable[[str, str | bytes], str]


def test_each_row_knows_its_line_although_blank_lines_lie_between(write: Write) -> None:
    source = write("train.jsonl", '{"a": 1}\n\n  \n{"b": "x"}\r\n')

    records = read_records(source)

    assert records.rows == [{"a": 1}, {"b": "x"}]
    assert records.lines == [1, 4]
    assert records.location(1) == "train.jsonl line 4"
    assert records.columns() == ["a", "b"]
    assert records.sha256 == sha256(Path(source).read_bytes()).hexdigest()


def test_rows_of_an_array_know_the_line_they_start_on(write: Write) -> None:
    text = json.dumps([{"a": "x\ny"}, {"a": ["]", "{"]}, {"a": {}}], indent=2)
    start = [number for number, line in enumerate(text.split("\n"), 1) if line == "  {"]

    records = read_records(write("t.json", text))

    assert records.rows == json.loads(text)
    assert records.lines == start


@pytest.mark.parametrize("text", ['{"data": [{"a": 1}]}', '{"version": "2", "rows": [{"a": 1}], "n": {"x": [1]}}'])
def test_an_object_around_the_one_array_is_opened(write: Write, text: str) -> None:
    assert read_records(write("t.json", text)).rows == [{"a": 1}]


@pytest.mark.parametrize("suffix", READABLE_SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"], ids=["nothing", "blank lines", "only a mark"])
def test_a_file_without_records_is_refused(write: Write, suffix: str, content: bytes) -> None:
    with pytest.raises(DataError, match=r"0 records|cannot be read as parquet"):
        read_records(write(f"empty{suffix}", content))


BAD_LINES: dict[str, tuple[str, str]] = {
    "cut short": ('{"a": 1', r"bad.jsonl line 3, column 8: not JSON"),
    "missing comma": ('{"a": 1 "b": 2}', r"line 3, column 9: not JSON: .*at: \{\"a\": 1 \"b\": 2\}"),
    "array": ('[{"a": 1}]', "line 3: an array; JSON Lines has one object a line"),
    "bare number": ("7", "line 3: a bare int"),
    "duplicate key": ('{"a": 1, "a": 2}', "line 3: key 'a' stands twice"),
    "duplicate key inside": ('{"a": {"b": 1, "b": 2}}', "line 3: key 'b' stands twice"),
    "beyond 64 bit": ('{"a": 18446744073709551616}', "line 3: integer 18446744073709551616 does not fit"),
    "thousands of digits": ('{"a": ' + "9" * 5000 + "}", "line 3: integer 9999.* does not fit"),
    "infinite number": ('{"a": 1e999}', "line 3: number 1e999 is too large"),
    "NaN": ('{"a": NaN}', "line 3: NaN is not JSON"),
    "Infinity": ('{"a": -Infinity}', "line 3: -Infinity is not JSON"),
    "NUL": ('{"a": "x\0y"}', r"line 3, column 9: not JSON: Invalid control character.*x\\x00y"),
    "tab in text": ('{"a": "x\ty"}', "line 3, column 9: not JSON: Invalid control character"),
    "escaped NUL": ('{"a": ["x\\u0000"]}', "line 3: a text holds the NUL character"),
    "escaped NUL in a key": ('{"\\u0000": 1}', "line 3: a text holds the NUL character"),
    "half a character": ('{"a": {"b": "\\ud800"}}', "line 3: a text holds half a character"),
    "nested deeply": ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "line 3: nested too deeply"),
}


@pytest.mark.parametrize(("line", "message"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_named_with_file_line_and_reason(write: Write, line: str, message: str) -> None:
    source = write("bad.jsonl", f'{{"a": 1}}\n{{"a": 2}}\n{line}\n{{"a": 4}}\n')

    with pytest.raises(DataError, match=message):
        read_records(source)


@pytest.mark.parametrize(("line", "message"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_among_hundreds_can_be_skipped_and_is_reported(write: Write, line: str, message: str) -> None:
    lines = [f'{{"a": {i}}}' for i in range(200)]
    source = write("bad.jsonl", "\n".join([*lines[:2], line, *lines[2:]]))

    records = read_records(source, on_bad="skip")

    assert [row["a"] for row in records.rows] == list(range(200))
    assert records.lines == [1, 2, *range(4, 202)]
    assert len(records.skipped) == 1
    assert "bad.jsonl line 3" in records.skipped[0]


@pytest.mark.parametrize(("bad", "passes"), [(1, True), (2, False)], ids=["one in a hundred", "two"])
def test_skipping_stops_above_one_percent(write: Write, bad: int, passes: bool) -> None:
    source = write("t.jsonl", '{"a": 1}\n' * (100 - bad) + "oops\n" * bad)

    if passes:
        assert len(read_records(source, on_bad="skip").rows) == 99
    else:
        with pytest.raises(DataError, match=r"2 of 100 lines cannot be read.*stops above 1%"):
            read_records(source, on_bad="skip")


def test_all_bad_lines_are_told_at_once_and_the_rest_counted(write: Write) -> None:
    with pytest.raises(DataError, match=r"(?s)line 1,.*line 5,.*\.\.\. and 4 more"):
        read_records(write("t.jsonl", "x\n" * 9))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1}, {"a": 1, "a": 2}]', "line 1: key 'a' stands twice"),
        ('[\n{"a": 1},\n{"a": NaN}]', "line 3: NaN is not JSON"),
        ('[\n{"a": 1},\n{"a": "\\u0000"}]', "line 3: a text holds the NUL"),
        ('[\n{"a": 1},\n{"a": 1', "line 3, column 8: not JSON"),
        ('[{"a": 1},\n]', "line 2, column 1: not JSON"),
        ('[{"a": 1}] x', "line 1, column 12: not JSON: Extra data"),
        ('[\n{"a": 1},\n7]', "line 3: 7 is no object"),
        ('{"a": 1}\n{"a": 2}\n', "JSON Lines, name the file .jsonl"),
        ('{"a": [], "b": []}', r"2 arrays \(a, b\)"),
        ('{"a": [], "a": []}', "key 'a' stands twice"),
        ('{"a": 1}', "an object without an array"),
        ("7", "a bare int"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' * 100_000, "nested too deeply"),
        ("[]", "0 records"),
    ],
)
def test_a_bad_json_file_is_refused_with_its_line(write: Write, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_records(write("t.json", text))


def test_what_is_legal_stays_as_it_is(write: Write) -> None:
    row = {"big": 2**64 - 1, "low": -(2**63), "none": None, "smile": "\U0001f600", "line": "a\u2028b\x85c", "half": 0.5}
    escaped = json.dumps(row)  # the smile as a pair of surrogates

    assert read_records(write("a.jsonl", escaped)).rows == [row]
    assert read_records(write("b.ndjson", json.dumps(row, ensure_ascii=False))).rows == [row]
    assert read_records(write("c.jsonl", '{"a": "\\\\u0000"}')).rows == [{"a": "\\u0000"}]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_record_longer_than_the_limit_is_refused(write: Write, suffix: str) -> None:
    rows = [{"a": "x"}, {"a": "é" * 100}]
    text = json.dumps(rows, ensure_ascii=False) if suffix == ".json" else "\n".join(map(json.dumps, rows))
    source = write(f"t{suffix}", text)

    assert len(read_records(source, max_line_bytes=1000).rows) == 2
    with pytest.raises(DataError, match=r"longer than data.max_line_bytes=150"):
        read_records(source, max_line_bytes=150)


def test_illegal_options_are_told_all_at_once(write: Write) -> None:
    with pytest.raises(ConfigError, match=r"(?s)klingon.*data.on_bad.*data.quoting.*max_line_bytes"):
        read_records(
            write("t.jsonl", '{"a": 1}'), encoding="klingon", on_bad="ignore", quoting="maybe", max_line_bytes=0
        )


def test_a_header_for_a_file_with_its_own_names_is_refused(write: Write) -> None:
    with pytest.raises(ConfigError, match="leave it out"):
        read_records(write("t.jsonl", '{"a": 1}'), header=["a"])

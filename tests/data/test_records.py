"""Every record is read as written or refused with its line: JSON, encodings, places, options."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tunelab.data.records import SUFFIXES, Records, read_records
from tunelab.errors import ConfigError, DataError

Write = Callable[[str, str | bytes], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def file(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return file


def test_each_row_knows_its_line_although_blank_lines_lie_between(write: Write) -> None:
    source = write("train.jsonl", '{"a": 1}\n\n  \n{"b": "x"}\r\n')

    records = read_records(source)

    assert records.rows == [{"a": 1}, {"b": "x"}]
    assert records.lines == [1, 4]
    assert records.where(1) == "train.jsonl line 4"
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


@pytest.mark.parametrize("suffix", SUFFIXES)
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


CHINESE = '{"text": "今天的天气很好，我们去公园散步。"}\n'  # noqa: RUF001


@pytest.mark.parametrize("encoding", ["gb18030", "gbk", "utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_a_file_in_a_named_encoding_reads_the_same(write: Write, encoding: str) -> None:
    plain = read_records(write("a.jsonl", CHINESE))

    assert read_records(write("b.jsonl", CHINESE.encode(encoding)), encoding=encoding).rows == plain.rows


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (CHINESE.encode("gbk"), "line 1: byte 0xbd at offset 10 .*looks like gb18030; set data.encoding=gb18030"),
        (b'{"a": 1}\n{"a": "caf\xe9 cr\xe8me"}\n', "line 2: byte 0xe9 at offset 19 .*set data.encoding=cp1252"),
        (CHINESE.encode("utf-16"), "looks like utf-16; set data.encoding=utf-16"),
        (('{"text": "hello"}\n' * 3).encode("utf-16-le"), "set data.encoding=utf-16-le"),
        (('{"text": "hello"}\n' * 3).encode("utf-16-be"), "set data.encoding=utf-16-be"),
        (CHINESE.encode("utf-32"), "set data.encoding=utf-32"),
    ],
    ids=["gbk", "latin", "utf-16", "utf-16 without mark", "utf-16 big", "utf-32"],
)
def test_another_encoding_is_named_with_line_byte_and_advice(write: Write, raw: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"t.jsonl.*{message}"):
        read_records(write("t.jsonl", raw))


def test_the_advised_encoding_reads_the_file(write: Write) -> None:
    source = write("t.jsonl", CHINESE.encode("gbk"))

    assert read_records(source, encoding="gb18030").rows == [json.loads(CHINESE)]


def test_a_utf8_mark_contradicts_another_encoding(write: Write) -> None:
    with pytest.raises(DataError, match="set it to utf-8"):
        read_records(write("t.jsonl", CHINESE.encode("utf-8-sig")), encoding="gb18030")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_one_undecodable_line_can_be_skipped(write: Write, suffix: str) -> None:
    good, bad = (b'{"a": "x"}\n', b'{"a": "\xff"}\n') if suffix == ".jsonl" else (b"x,y\n", b"\xff,y\n")

    records = read_records(write(f"t{suffix}", good * 150 + bad + good), on_bad="skip")

    assert len(records.skipped) == 1
    assert "line 151" in records.skipped[0]


def test_illegal_options_are_told_all_at_once(write: Write) -> None:
    with pytest.raises(ConfigError, match=r"(?s)klingon.*data.on_bad.*data.quoting.*max_line_bytes"):
        read_records(
            write("t.jsonl", '{"a": 1}'), encoding="klingon", on_bad="ignore", quoting="maybe", max_line_bytes=0
        )


@pytest.mark.parametrize("encoding", ["hex", "rot13", "a\0b", "klingon"])
def test_a_codec_that_is_no_text_encoding_is_refused(write: Write, encoding: str) -> None:
    with pytest.raises(ConfigError, match="no text encoding"):
        read_records(write("t.jsonl", '{"a": 1}'), encoding=encoding)


def test_a_header_for_a_file_with_its_own_names_is_refused(write: Write) -> None:
    with pytest.raises(ConfigError, match="leave it out"):
        read_records(write("t.jsonl", '{"a": 1}'), header=["a"])


def test_a_missing_file_is_told_with_its_near_names(write: Write) -> None:
    source = write("train.jsonl", "{}")

    with pytest.raises(DataError, match=r"no such file: .*trian.jsonl'; in folder .* there is train.jsonl"):
        read_records(source.replace("train", "trian"))


@pytest.mark.parametrize(
    "source",
    ["./nothing", "/nowhere/at/all", "data/x.jsonl", "~nobody/x", "a/b/c", "x.txt", "", "a b", "\0", "x" * 5000],
)
def test_what_can_only_be_a_path_never_asks_the_hub(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunelab.data.records.hub_rows", lambda name: pytest.fail(f"asked for {name}"))

    with pytest.raises(DataError):
        read_records(source)


def test_a_folder_is_refused_with_the_files_in_it(write: Write, tmp_path: Path) -> None:
    write("train.jsonl", "{}")

    with pytest.raises(DataError, match=r"is a folder; name one file in it: train.jsonl"):
        read_records(str(tmp_path))


def test_an_unknown_suffix_is_refused_with_those_that_are_known(write: Write) -> None:
    with pytest.raises(DataError, match=r"suffix '.xlsx'; there are .json, .jsonl"):
        read_records(write("t.xlsx", "x"))


def test_a_file_inside_an_installed_package_is_read(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shipped_rows").mkdir()
    write("shipped_rows/__init__.py", "")
    write("shipped_rows/rows.jsonl", '{"a": 1}')
    monkeypatch.syspath_prepend(str(tmp_path))

    records = read_records("package:shipped_rows/rows.jsonl")

    assert records.rows == [{"a": 1}]
    assert records.where(0) == "rows.jsonl line 1"


def test_a_hub_set_is_asked_for_its_split(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked: list[tuple[str, str]] = []

    def load(name: str, *, split: str) -> Any:
        asked.append((name, split))
        return datasets.Dataset.from_list([{"text": "x", "label": 1}, {"text": "y", "label": None}])

    monkeypatch.setattr("datasets.load_dataset", load)
    records = read_records("owner/name:test[:10%]")
    same = read_records("name")

    assert asked == [("owner/name", "test[:10%]"), ("name", "train")]
    assert records.rows == [{"text": "x", "label": 1}, {"text": "y", "label": None}]
    assert records.where(1) == "owner/name:test[:10%] row 2"
    assert records.sha256 == same.sha256


def test_a_hub_set_that_cannot_be_loaded_says_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")

    def load(name: str, *, split: str) -> Any:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("datasets.load_dataset", load)
    with pytest.raises(DataError, match=r"data set owner/name, split train, failed: ConnectionError: no route"):
        read_records("owner/name")


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    rows = [{"text": "001", "labels": ["a"], "n": 1}, {"text": "NA", "labels": [], "n": None}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t.parquet")

    records = read_records(str(tmp_path / "t.parquet"))

    assert records.rows == rows
    assert records.where(1) == "t.parquet row 2"


def test_parquet_with_a_nul_is_refused_with_its_row(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"a": "x"}, {"a": ["x\0"][0]}]), tmp_path / "t.parquet")

    with pytest.raises(DataError, match=r"t.parquet row 2: a text holds the NUL"):
        read_records(str(tmp_path / "t.parquet"))


FRAGMENTS = [
    b'{"a":',
    b"1",
    b'"',
    b"}",
    b"[",
    b"]",
    b",",
    b"\n",
    b"\r",
    b"\t",
    b"\\u0000",
    b"\\ud800",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
]
PIECES = st.one_of(
    st.sampled_from([*FRAGMENTS, b"NaN", b"1e999", b"9" * 30, b"\0", b"\xe9", b"PAR1", b'"a"']), st.binary()
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(PIECES, max_size=12),
    suffix=st.sampled_from(SUFFIXES),
    encoding=st.sampled_from(["utf-8", "utf-8", "gb18030", "utf-16", "utf-7", "latin-1", "punycode"]),
    on_bad=st.sampled_from(["error", "skip"]),
    quoting=st.sampled_from(["auto", "minimal", "none"]),
)
@example(pieces=[b"a,b\n\ta"], suffix=".csv", encoding="utf-7", on_bad="error", quoting="auto")
def test_any_bytes_give_records_or_a_data_error(
    tmp_path: Path, pieces: list[bytes], suffix: str, encoding: str, on_bad: str, quoting: str
) -> None:
    path = tmp_path / f"fuzz{suffix}"
    path.write_bytes(b"".join(pieces))

    try:
        records = read_records(str(path), encoding=encoding, on_bad=on_bad, quoting=quoting)
    except DataError as error:
        assert "fuzz" in str(error)
        str(error).encode()  # a message can always be printed
    else:
        assert isinstance(records, Records)
        assert records.rows
        assert len(records.rows) == len(records.lines)
        json.dumps(records.rows, ensure_ascii=False, default=str).encode()  # every text has an encoding

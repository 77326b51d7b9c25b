"""Records on disk are the records in memory: same rows, same lines, same faults."""

import datetime
import decimal
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunelab.data import json_reader, text_file
from tunelab.data.memory_map import MemoryMap, ScratchDir
from tunelab.data.readers import read_records
from tunelab.data.text_store import JsonRowWriter
from tunelab.errors import DataError, TuneLabError

Write = Callable[[str, str | bytes], str]
RECORD = '{"a": "北京 \\u00e9", "n": 12345, "deep": {"list": [1, 2.5, null, true]}}'
FILES: dict[str, str | bytes] = {
    "rows.jsonl": f'{RECORD}\n\n{{"other": "columns"}}\r\n' * 40,
    "array.json": f'[{RECORD},\n {RECORD}, {{"x": "]}},"}}]',
    "object.json": f'{{"version": 12, "data": [{RECORD},\n\n{RECORD}], "done": true}}',
    "table.csv": 'a,b\n"x\nz",1\n"say ""hi""",2\n',
    "windows.csv": "a,b\r\n1,2\r\n",
    "old.csv": "a,b\r1,2\r3,4\r",
    "table.tsv": 'a\tb\nsay "hi"\t2\nx\ty\n',
    "both.tsv": 'a\tb\n"x\ty\np"\tq\n',
    "marked.jsonl": b"\xef\xbb\xbf" + f"{RECORD}\n{RECORD}".encode(),
}
FAULTY: dict[str, str | bytes] = {
    "bad.jsonl": '{"a": 1}\n{"a": NaN}\n{"a": 1, "a": 2}\n',
    "not_text.jsonl": b'{"a": 1}\n' * 20 + b'{"a": "\xff"}\n',
    "cut.json": '[{"a": 1},\n {"a": 2},\n {"a": ',
    "two.json": '{"k": [{"a": 1}], "l": [{"a": 2}]}',
    "twice.json": '[{"a": 1},\n {"a": 1, "a": 2}]',
    "more.json": '{"a": 1}\n{"a": 2}\n',
    "large.json": '[{"a": 1e999}]',
    "short.csv": "a,b\n1\n",
    "open.csv": 'a,b\n"1,2\n3,4\n',
    "empty.jsonl": "\n",
}


def told(source: str, **how: Any) -> Any:
    """Everything a reader gives, or its complaint."""
    try:
        found = read_records(source, **how)
    except TuneLabError as fault:
        return str(fault)
    places = [found.location(i) for i in range(len(found.rows))]
    return list(found.rows), list(found.lines), places, found.sha256, found.skipped, found.notes, found.columns()


@pytest.mark.parametrize("piece", [7, 64, 2**20])
@pytest.mark.parametrize("name", [*FILES, *FAULTY])
def test_a_file_on_disk_reads_as_one_in_memory(
    name: str, piece: int, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a file that is read in pieces much shorter than its records
    monkeypatch.setattr(text_file, "CHUNK_BYTES", piece)
    monkeypatch.setattr(json_reader, "MAX_PASSED_CHARS", 16)
    source = write(name, (FILES | FAULTY)[name])

    # Then rows, lines, hash and notes, or the message, are those of the file read whole
    in_memory = told(source)
    assert told(source, in_memory=0) == in_memory
    assert isinstance(in_memory, str) == (name in FAULTY)
    assert type(read_records(source, in_memory=0).rows) is not list if name in FILES else True


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(
        st.sampled_from(
            [b'{"a": 1}\n', b'"', b"\t", b",", b"\n", b"\r", b'"x\ny"', b"1,2\n", b"p\tq\n", b"\xc3\xa9", b'a "b"\t2\n']
        ),
        max_size=12,
    ),
    suffix=st.sampled_from([".jsonl", ".csv", ".tsv"]),
    encoding=st.sampled_from(["utf-8", "gb18030", "utf-16", "utf-7"]),
    on_bad=st.sampled_from(["error", "skip"]),
    piece=st.sampled_from([1, 3, 64]),
)
def test_any_bytes_read_the_same_from_disk(
    tmp_path: Path, pieces: list[bytes], suffix: str, encoding: str, on_bad: str, piece: int
) -> None:
    path = tmp_path / f"any{suffix}"
    path.write_bytes(b"".join(pieces))
    whole = told(str(path), encoding=encoding, on_bad=on_bad)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_file, "CHUNK_BYTES", piece)
        in_pieces = told(str(path), encoding=encoding, on_bad=on_bad, in_memory=0)

    # a file with two faults may be refused for either; what is read is the same
    assert in_pieces == whole or (isinstance(whole, str) and isinstance(in_pieces, str))


def test_parquet_and_hub_sets_on_disk_keep_their_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import pyarrow
    from pyarrow import parquet

    rows = [
        {"day": datetime.date(2026, 1, i + 1), "price": decimal.Decimal("1.50"), "raw": b"\0\1", "tags": ["x"] * i,
         "n": None if i else 2**40, "deep": {"a": [i]}, "kind": "ab"[i % 2]}
        for i in range(5)
    ]  # fmt: skip
    table = pyarrow.Table.from_pylist(rows)
    table = table.set_column(6, "kind", table["kind"].dictionary_encode())
    parquet.write_table(table, tmp_path / "t.parquet")
    monkeypatch.setattr("datasets.load_dataset", lambda name, split: datasets.Dataset(table))

    for source in (str(tmp_path / "t.parquet"), "owner/name"):
        found = read_records(source, in_memory=0)
        assert type(found.rows) is not list
        assert list(found.rows) == rows == read_records(source).rows
        assert found.sha256 == read_records(source).sha256


def test_rows_are_found_at_any_place_and_survive_being_sent_to_another_process(write: Write) -> None:
    source = write("t.jsonl", "".join(json.dumps({"i": i, "text": "x" * (i % 97)}) + "\n" for i in range(30_000)))
    rows = read_records(source, in_memory=0).rows

    assert [rows[i]["i"] for i in (0, 29_999, 12_345, -1)] == [0, 29_999, 12_345, 29_999]
    assert [row["i"] for row in rows[10:40:10]] == [10, 20, 30]
    assert pickle.loads(pickle.dumps(rows))[12_345] == rows[12_345]
    with pytest.raises(IndexError):
        rows[30_000]


def test_the_copy_goes_when_nobody_reads_it_any_more_and_a_child_leaves_it_alone(tmp_path: Path, write: Write) -> None:
    cache = tmp_path / "cache"
    found = read_records(write("t.jsonl", '{"a": 1}\n'), in_memory=0, cache=str(cache))
    assert len(list(cache.iterdir())) == 1

    # Given a forked process, such as a loader worker, in which the rows are collected
    if (child := os.fork()) == 0:
        del found
        os._exit(0)
    os.waitpid(child, 0)

    assert found.rows[0] == {"a": 1}
    assert len(list(cache.iterdir())) == 1
    del found
    assert not list(cache.iterdir())


def test_no_copy_is_left_where_the_file_is_refused(tmp_path: Path, write: Write) -> None:
    with pytest.raises(DataError, match="line 2"):
        read_records(write("t.jsonl", '{"a": 1}\nx\n'), in_memory=0, cache=str(tmp_path / "cache"))

    assert not list((tmp_path / "cache").iterdir())


def test_a_place_where_no_copy_can_be_made_is_named(tmp_path: Path, write: Write) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(DataError, match="data.cache="):
        read_records(write("t.jsonl", '{"a": 1}\n'), in_memory=0, cache=str(tmp_path / "file"))


def test_pages_are_handed_back_and_come_again(tmp_path: Path) -> None:
    writer = JsonRowWriter(ScratchDir(tmp_path))
    for i in range(3000):
        writer.append({"i": i})
    rows = writer.finish()

    assert [row["i"] for row in rows] == list(range(3000))  # past the count of reads after which pages go
    mapped = MemoryMap(next(tmp_path.glob("*/texts-*/text")))
    before = bytes(mapped.view())
    mapped.release_pages()
    assert bytes(mapped.view()) == before

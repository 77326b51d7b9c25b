"""Where records come from: a file, an installed package, parquet, or a hub data set."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunelab.data.readers import read_records
from tunelab.errors import DataError

Write = Callable[[str, str | bytes], str]


def test_a_missing_file_is_told_with_its_near_names(write: Write) -> None:
    source = write("train.jsonl", "{}")

    with pytest.raises(DataError, match=r"no such file: .*trian.jsonl'; in folder .* there is train.jsonl"):
        read_records(source.replace("train", "trian"))


@pytest.mark.parametrize(
    "source",
    ["./nothing", "/nowhere/at/all", "data/x.jsonl", "~nobody/x", "a/b/c", "x.txt", "", "a b", "\0", "x" * 5000],
)
def test_what_can_only_be_a_path_never_asks_the_hub(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunelab.data.readers.hub_rows", lambda name: pytest.fail(f"asked for {name}"))

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
    assert records.location(0) == "rows.jsonl line 1"


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
    assert records.location(1) == "owner/name:test[:10%] row 2"
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
    assert records.location(1) == "t.parquet row 2"


def test_parquet_with_a_nul_is_refused_with_its_row(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"a": "x"}, {"a": ["x\0"][0]}]), tmp_path / "t.parquet")

    with pytest.raises(DataError, match=r"t.parquet row 2: a text holds the NUL"):
        read_records(str(tmp_path / "t.parquet"))

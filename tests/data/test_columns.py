"""A column that the settings name and the file lacks is reported at once, with all others, before anything else."""

from pathlib import Path

import pytest

from support.tiny_runs import labelled, settings, write
from tunelab.data.columns import missing_column_faults
from tunelab.errors import DataError
from tunelab.training.components import encode_data

ROWS = [{"text": "a", "label": "x"}, {"text": "b", "extra": {"deep": [1, 2]}}]


def test_a_column_that_some_record_has_is_there() -> None:
    named = ["text", "label", "extra", "extra.deep.1"]
    assert missing_column_faults([("data.text", name) for name in named], ROWS, "a.jsonl") == []


def test_every_missing_column_is_told_with_what_is_there_and_what_was_meant() -> None:
    told = missing_column_faults([("data.text", "txet"), ("data.label", "zzz"), ("data.x", "label")], ROWS, "a.jsonl")

    assert told == [
        "data.text=txet: a.jsonl has no such column; did you mean 'text'? it has text, label, extra",
        "data.label=zzz: a.jsonl has no such column; it has text, label, extra",
    ]


def test_a_file_with_another_separator_is_recognised() -> None:
    assert (
        "parted by something else"
        in missing_column_faults([("data.text", "text")], [{"text;label": "a;b"}], "a.csv")[0]
    )


def test_a_run_tells_both_columns_of_a_labelled_file(tmp_path: Path) -> None:
    file = labelled(tmp_path)
    with pytest.raises(DataError, match=r"(?s)data\.text=txet.*'text'.*data\.target=nmber.*'number'"):
        encode_data(settings("data=regression", f"data.train={file}", "data.text=txet", "data.target=nmber"))


@pytest.mark.parametrize(
    "given",
    [["data.columns.input=contxt"], ["data.train=null", "data.mix={a: {train: FILE, columns: {input: contxt}}}"]],
    ids=["alone", "in a mix"],
)
def test_a_misspelt_optional_column_is_not_passed_over(given: list[str], tmp_path: Path) -> None:
    rows = [{"instruction": f"say {i}", "context": "x", "output": "y"} for i in range(20)]
    file = write(tmp_path / "rows.jsonl", rows)
    typed = [override.replace("FILE", str(file)) for override in given]

    with pytest.raises(DataError, match=r"columns\.input=contxt: .*did you mean 'context'"):
        encode_data(settings("data=instruction", f"data.train={file}", *typed))

"""CSV and TSV: cells stay text, rows stay whole, and quoting is settled without losing a row."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tunelab.data.readers import read_records
from tunelab.errors import DataError

Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def file(name: str, content: str) -> str:
        path = tmp_path / name
        path.write_bytes(content.encode())
        return str(path)

    return file


def test_cells_stay_text_as_written(write: Write) -> None:
    source = write("t.csv", "a,b\n001,NA\n,null\n1e3, x \nTrue,None\n")

    assert [list(row.values()) for row in read_records(source).rows] == [
        ["001", "NA"],
        ["", "null"],
        ["1e3", " x "],
        ["True", "None"],
    ]


def test_a_row_over_two_lines_counts_lines_rightly(write: Write) -> None:
    records = read_records(write("t.csv", 'a,b\n"x, y\n\nz",1\nw,2\n'))

    assert records.rows == [{"a": "x, y\n\nz", "b": "1"}, {"a": "w", "b": "2"}]
    assert records.lines == [2, 5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\nx,1\nx, y,1\n", "t.csv line 3: has 3 cells, the first line has 2"),
        ("a,b\nx\n", "t.csv line 2: has 1 cell"),
        ("a,a\nx,1\n", "column 'a' stands twice in the header"),
        ('a,b\n"x",1\n"y"z,2\n', "t.csv line 3: .*(?s:.)*data.quoting=none"),
        ('a,b\n"x, y",1\n"open,2\nz,3\n', "t.csv line 3: .*still open in line"),
        ("a,b\nx\0y,1\n", "t.csv line 2: column 'a' holds a control character .*U.0000.*data.on_bad=clean"),
        ("a,b\n", "0 records"),
        ("a\0,b\nx,y\n", "column name holds a control"),
    ],
    ids=["cell too many", "cell missing", "name twice", "early quote", "open quote", "NUL", "only names", "bad name"],
)
def test_a_bad_table_is_refused_with_its_line(write: Write, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_records(write("t.csv", text))


def test_a_bad_header_is_never_skipped(write: Write) -> None:
    with pytest.raises(DataError, match="line 1: the header itself cannot be read"):
        read_records(write("t.csv", '"a"x,b\n' + "1,2\n" * 500), on_bad="skip", quoting="minimal")


def test_skipping_a_bad_row_keeps_every_other(write: Write) -> None:
    rows = [f'"text {i}, ""said""",{i}' for i in range(300)]
    source = write("t.csv", "\n".join(["a,b", *rows[:150], '"oops" x,1', "one,two,three", *rows[150:]]))

    records = read_records(source, on_bad="skip")

    assert [row["b"] for row in records.rows] == [str(i) for i in range(300)]
    assert [message.partition(":")[0] for message in records.skipped] == ["t.csv line 152", "t.csv line 153"]


def test_every_line_that_a_stray_quote_spoils_counts_as_skipped(write: Write) -> None:
    # Given 200 rows, and one quote that opens a cell and closes too early three lines further on
    spoilt = ['x,"open', "y,1", "z,2", 'w,"shut" late']
    source = write("t.csv", "\n".join(["a,b", *["good,0"] * 200, *spoilt]))

    # When bad lines may be skipped, then these are four of 204 lines, not one
    with pytest.raises(DataError, match="4 of 204 lines cannot be read"):
        read_records(source, on_bad="skip", quoting="minimal")


def test_quotes_that_would_swallow_whole_rows_of_a_tsv_are_plain(write: Write) -> None:
    source = write("t.tsv", 'label\ttext\nham\t"hi\nspam\tbye"\nham\tok\n')

    records = read_records(source)

    assert [row["text"] for row in records.rows] == ['"hi', 'bye"', "ok"]
    assert len(read_records(source, quoting="minimal").rows) == 2


def test_quotes_that_may_swallow_whole_rows_of_a_csv_are_a_question(write: Write) -> None:
    source = write("t.csv", 'label,text\nham,"hi\nspam,bye"\nham,ok\n')

    with pytest.raises(DataError, match="lines 2 to 3 are one record if quotes count, 2 if"):
        read_records(source)
    assert len(read_records(source, quoting="minimal").rows) == 2
    assert len(read_records(source, quoting="none").rows) == 3


def test_a_quoted_cell_that_looks_like_rows_is_noted_where_quotes_are_in_force(write: Write) -> None:
    records = read_records(write("t.csv", 'text,label\n"Hi, you\nbye",1\n"a, b, c",2\n'))

    assert records.rows[0]["text"] == "Hi, you\nbye"
    assert records.notes == ["t.csv: quotes join several lines in 1 record(s), first in lines 2 to 3"]


def test_one_bare_quote_shows_that_a_tsv_is_not_quoted(write: Write) -> None:
    plain = read_records(write("a.tsv", 'label\ttext\nham\t"Yes"\nspam\tsay "no"\n'))
    quoted = read_records(write("b.tsv", 'label\ttext\nham\t"Yes"\nspam\t"say ""no"""\n'))

    assert [row["text"] for row in plain.rows] == ['"Yes"', 'say "no"']
    assert [row["text"] for row in quoted.rows] == ["Yes", 'say "no"']


def test_a_quoted_tsv_with_one_broken_row_is_not_read_plain(write: Write) -> None:
    with pytest.raises(DataError, match=r"t.tsv line 3"):
        read_records(write("t.tsv", 'label\ttext\nham\t"say ""no"""\nspam\t"so" he said\n'))


def test_names_can_be_given_to_a_file_without_a_header(write: Write) -> None:
    source = write("t.tsv", "ham\tok\nspam\twin\n")

    records = read_records(source, header=["label", "text"])

    assert records.rows == [{"label": "ham", "text": "ok"}, {"label": "spam", "text": "win"}]
    assert records.lines == [1, 2]
    with pytest.raises(DataError, match=r"has 2 cells, data.header names 3"):
        read_records(source, header=["a", "b", "c"])
    with pytest.raises(DataError, match="is itself the header"):
        read_records(source, header=["ham", "ok"])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_system_are_one(write: Write, end: str) -> None:
    records = read_records(write("t.csv", end.join(["a,b", "x\u2028y,1", '"p, q",2', ""])))

    assert [row["a"] for row in records.rows] == ["x\u2028y", "p, q"]
    assert records.lines == [2, 3]


def test_a_cell_beyond_the_standard_limit_is_read_and_the_limit_put_back(write: Write) -> None:
    before = csv.field_size_limit()

    records = read_records(write("t.csv", f'a,b\n"{"x" * 200_000}",1\n'))

    assert len(records.rows[0]["a"]) == 200_000
    assert csv.field_size_limit() == before
    with pytest.raises(DataError, match=r"longer than data.max_line_bytes=1000"):
        read_records(write("t.csv", f'a,b\n"{"x" * 200_000}",1\n'), max_line_bytes=1000)


# Carriage returns are left out: inside a quoted cell they come back as line feeds, as in any text file.
CELL = st.text(st.sampled_from('ab ,"\n\té'), max_size=8)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6), tabs=st.booleans())
def test_what_the_csv_module_writes_is_read_back_or_asked_about(
    tmp_path: Path, table: list[tuple[str, str]], tabs: bool
) -> None:
    # Given a table written by the standard library
    buffer = io.StringIO()
    csv.writer(buffer, delimiter="\t" if tabs else ",", lineterminator="\n").writerows([("one", "two"), *table])
    path = tmp_path / ("t.tsv" if tabs else "t.csv")
    path.write_text(buffer.getvalue(), encoding="utf-8", newline="")

    # When it is read back by the rule it was written by
    told = read_records(str(path), quoting="minimal")

    # Then nothing is changed, and `auto` gives the same, asks, or says that it read quotes as characters
    assert [tuple(row.values()) for row in told.rows] == table
    try:
        found = read_records(str(path))
    except DataError as error:
        assert "data.quoting" in str(error)
    else:
        assert found.rows == told.rows or found.notes


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=st.lists(st.tuples(*[st.text(st.sampled_from('ab "'), min_size=1, max_size=6)] * 2), min_size=1, max_size=8)
)
def test_no_line_of_an_unquoted_tsv_is_ever_swallowed(tmp_path: Path, table: list[tuple[str, str]]) -> None:
    # Given lines that nobody quoted, full of stray quotes
    path = tmp_path / "t.tsv"
    path.write_text("\n".join("\t".join(row) for row in [("one", "two"), *table]), encoding="utf-8")
    assume(not any('""' in cell for row in table for cell in row))  # else it may be the work of a program that quotes

    # When it is read
    records = read_records(str(path))

    # Then each line is a row
    assert len(records.rows) == len(table)

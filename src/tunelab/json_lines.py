"""Rows of plain values, one JSON object per line."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from tunelab.atomic import plain, write_with
from tunelab.errors import TuneLabError

Row = dict[str, Any]


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace `path` by the rows, in one move; see `tunelab.atomic.write_with`."""

    def fill(file: IO[bytes]) -> None:
        for row in rows:
            file.write(_line(row))

    write_with(path, fill)


def read_lines(path: Path) -> list[Row]:
    """The rows of a file.  Lines end at a line feed only: text may hold every other separator Unicode has."""
    with path.open(encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def join_shares(shares: Sequence[Sequence[Row]], expected: int | Collection[int]) -> list[Row]:
    """Join what several ranks predicted, ordered by `row`.

    Args:
        shares: Rows of each rank; each row carries `row`, the index of its record in the split.
        expected: The rows there must be: a number of them counted from 0, or the very indices, where records were
            dropped on the way.

    Raises:
        TuneLabError: If a row is missing, is there twice, or belongs to no record: scores over such rows would be
            wrong without a word.
    """
    rows = sorted((row for share in shares for row in share), key=lambda row: int(row["row"]))
    found = [int(row["row"]) for row in rows]
    wanted = set(range(expected) if isinstance(expected, int) else expected)
    twice = {row for row, after in pairwise(found) if row == after}
    faults = {"missing": wanted - set(found), "there twice": twice, "of no record": set(found) - wanted}
    told = [f"{len(ids)} rows {what}, such as {sorted(ids)[:5]}" for what, ids in faults.items() if ids]
    if told:
        raise TuneLabError(
            f"the predictions of {len(shares)} ranks do not cover the split once: {'; '.join(told)}; "
            "scores over them would be wrong. Run the test again, on one process if it persists"
        )
    return rows


def _line(row: Mapping[str, Any]) -> bytes:
    """A row as one line, readable as it stands; escaped only where UTF-8 has no form for it (half a surrogate pair)."""
    try:
        return (json.dumps(plain(row), ensure_ascii=False, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(plain(row), allow_nan=False) + "\n").encode()

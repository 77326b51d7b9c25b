"""Rows of a parquet file, typed as it says."""

import io

from tunelab.data.bad_rows import Fault, Row, excerpt
from tunelab.data.json_rows import unusable_text
from tunelab.errors import DataError


def parquet_rows(name: str, raw: bytes) -> list[tuple[int, Row | Fault]]:
    """Rows with their numbers from 1.

    Raises:
        DataError: If the bytes are no parquet, or a column name stands twice.
    """
    import pyarrow  # slow to load, and most data is text
    from pyarrow import parquet

    try:
        table = parquet.read_table(io.BytesIO(raw))
        twice = sorted({column for column in table.column_names if table.column_names.count(column) > 1})
        if twice:
            raise DataError(f"{name}: column {', '.join(twice)} stands twice; rename one")
        rows = table.to_pylist()
    except (pyarrow.ArrowException, ValueError, OSError, OverflowError) as error:
        raise DataError(f"{name} cannot be read as parquet: {error}") from error
    return [(number, checked(row)) for number, row in enumerate(rows, start=1)]


def checked(row: Row) -> Row | Fault:
    """The row, or why its texts break later steps."""
    reason = unusable_text(row)
    return Fault(f"{reason}, in: {excerpt(repr(row))}") if reason else row

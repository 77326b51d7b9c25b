"""Rows of a parquet file, typed as it says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunelab.data.bad_rows import Fault, Row, excerpt
from tunelab.data.json_rows import unusable_text
from tunelab.errors import DataError

ROWS = 1024  # held at once


class ParquetFile:
    """A parquet file that is read a few rows at a time.

    Raises:
        DataError: If it is no parquet, or a column name stands twice.

    Attributes:
        bytes: Of its columns, uncompressed.
        schema: Names and types of its columns, as Arrow has them.
    """

    def __init__(self, name: str, path: Path) -> None:
        from pyarrow import parquet  # slow to load, and most data is text

        self.name, self.path = name, path
        with self._told():
            self.file = parquet.ParquetFile(path)
            found = self.file.metadata
            self.bytes = sum(found.row_group(i).total_byte_size for i in range(found.num_row_groups))
            self.schema = self.file.schema_arrow
        names = self.schema.names
        if twice := sorted({column for column in names if names.count(column) > 1}):
            raise DataError(f"{name}: column {', '.join(twice)} stands twice; rename one")

    def _told(self) -> "Telling":
        return Telling(self.name)

    def rows(self) -> Iterator[tuple[int, Row | Fault]]:
        """Rows with their numbers from 1."""
        number = 0
        with self._told():
            for batch in self.file.iter_batches(ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, checked(row)


class Telling:
    """Turns what Arrow raises inside a `with` block into a DataError that names the file."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, fault: BaseException | None, trace: Any) -> None:
        import pyarrow

        if isinstance(fault, pyarrow.ArrowException | ValueError | OSError | OverflowError | NotImplementedError):
            raise DataError(f"{self.name} cannot be read as parquet: {fault}") from fault


def plain_schema(schema: Any) -> Any:
    """The schema with every dictionary of values as the values themselves, which is what rows hold."""
    import pyarrow

    return pyarrow.schema(
        [
            pyarrow.field(field.name, field.type.value_type if pyarrow.types.is_dictionary(field.type) else field.type)
            for field in schema
        ]
    )


def checked(row: Row) -> Row | Fault:
    """The row, or why its texts break later steps."""
    reason = unusable_text(row)
    return Fault(f"{reason}, in: {excerpt(repr(row))}") if reason else row

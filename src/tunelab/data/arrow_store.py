"""Records of a large parquet file or hub set: an Arrow file on disk, mapped into memory, with the schema they have.

Rows become dicts on access.  Imports pyarrow, so it is imported only where it is needed.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, groupby
from typing import Any

import pyarrow as pa

from tunelab.data.bad_rows import RowDict, drop_nested_nulls
from tunelab.data.lazy_sequences import LazySequence
from tunelab.data.memory_map import MemoryMap, ScratchDir

BATCH_ROWS = 1024  # rows with a schema in one Arrow batch


class _ArrowFile:
    """An Arrow file, and where in it each row stands."""

    def __init__(self, mapped: MemoryMap) -> None:
        self.mapped = mapped
        file = pa.ipc.open_file(pa.py_buffer(mapped.view()))
        self.batches = [file.get_batch(i) for i in range(file.num_record_batches)]  # views, not copies
        self.starts: list[int] = [0, *accumulate(batch.num_rows for batch in self.batches)]

    def find(self, place: int) -> tuple[Any, int]:
        """The batch that holds a row, and where in the batch it stands."""
        self.mapped.count_access()
        part = bisect_right(self.starts, place) - 1
        return self.batches[part], place - self.starts[part]

    def __reduce__(self) -> tuple[Any, ...]:
        return _ArrowFile, (self.mapped,)


class ArrowRows(LazySequence[RowDict]):
    """Rows of an Arrow file with a schema; each access reads one, and nothing is kept."""

    def __init__(self, batches: _ArrowFile) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return self.batches.starts[-1]

    def item(self, place: int) -> RowDict:
        batch, inner = self.batches.find(place)
        return drop_nested_nulls(dict(batch.slice(inner, 1).to_pylist()[0]))

    def take(self, indices: Sequence[int]) -> list[RowDict]:
        rows: list[RowDict] = []
        starts = self.batches.starts
        for part, of_part in groupby(indices, lambda index: bisect_right(starts, index) - 1):
            inner = pa.array([index - starts[part] for index in of_part], pa.int64())
            self.batches.mapped.count_access(len(inner))
            rows += map(drop_nested_nulls, self.batches.batches[part].take(inner).to_pylist())
        return rows


class _ArrowWriter:
    """Writes rows or texts to an Arrow file in a scratch folder."""

    def __init__(self, scratch: ScratchDir, schema: pa.Schema) -> None:
        self.scratch, self.schema = scratch, schema
        self.path = scratch.make_folder("rows") / "rows.arrow"
        try:
            self.sink = pa.OSFile(str(self.path), "wb")
            self.writer = pa.ipc.new_file(self.sink, schema)
        except OSError as fault:
            raise scratch.write_error(fault) from fault
        self.pending: list[Any] = []
        self.rows = 0

    def __len__(self) -> int:
        return self.rows

    def batch(self) -> Any:
        """The pending rows as an Arrow batch."""
        return pa.RecordBatch.from_pylist(self.pending, schema=self.schema)

    def flush(self) -> None:
        """Write the pending rows."""
        if self.pending:
            try:
                self.writer.write_batch(self.batch())
            except OSError as fault:
                raise self.scratch.write_error(fault) from fault
            self.pending = []

    def close(self) -> _ArrowFile:
        """The finished file."""
        self.flush()
        try:
            self.writer.close()
            self.sink.close()
        except OSError as fault:
            raise self.scratch.write_error(fault) from fault
        return _ArrowFile(MemoryMap(self.path, self.scratch))


class SchemaRowWriter(_ArrowWriter):
    """Takes rows of one schema."""

    def append(self, row: RowDict) -> None:
        """Keep one row."""
        self.rows += 1
        self.pending.append(row)
        if len(self.pending) >= BATCH_ROWS:
            self.flush()

    def finish(self) -> LazySequence[RowDict]:
        """The rows, once all are there."""
        return ArrowRows(self.close())

"""Texts of a large file: their UTF-8 in one memory-mapped file, and in another where each of them ends."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from tunelab.data.bad_rows import RowDict
from tunelab.data.lazy_sequences import LazySequence, MappedView
from tunelab.data.memory_map import MemoryMap, ScratchDir

PENDING_TEXTS = 4096  # texts written together
MAX_SPREAD = 8  # texts passed over for each that is taken, up to which a whole stretch is decoded at once
SEPARATOR = "\0"  # after each text, so that a stretch of them is decoded and cut in one go


class StoredTexts(LazySequence[str]):
    """Texts on disk; each access makes fresh ones, and nothing is kept.

    Args:
        text: Their bytes, a separator after each.
        ends: For each, the place behind its separator, int64.
    """

    def __init__(self, text: MemoryMap, ends: MemoryMap) -> None:
        self.files = (text, ends)
        self.bytes = text.view()
        self.ends: npt.NDArray[np.int64] = np.frombuffer(ends.view(), np.int64)

    def __len__(self) -> int:
        return len(self.ends)

    def item(self, index: int) -> str:
        return self._decode(index, index + 1, 1)[: -len(SEPARATOR)]

    def take(self, indices: Sequence[int]) -> list[str]:
        first, last = (min(indices), max(indices)) if indices else (0, 0)
        if not indices or last - first >= MAX_SPREAD * len(indices):
            return super().take(indices)
        texts = self._decode(first, last + 1, len(indices)).split(SEPARATOR)
        if len(texts) != last - first + 2:  # a text holds the separator
            return super().take(indices)
        if isinstance(indices, range) and indices.step == 1:
            return texts[:-1]
        return [texts[index - first] for index in indices]

    def _decode(self, first: int, stop: int, accesses: int) -> str:
        """The texts from `first` up to `stop`, with their separators."""
        for file in self.files:
            file.count_access(accesses)
        start = int(self.ends[first - 1]) if first else 0
        return str(self.bytes[start : int(self.ends[stop - 1])], "utf-8", "surrogatepass")

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredTexts, self.files


class TextBlock(NamedTuple):
    """Texts as they are stored.

    Attributes:
        text: Their UTF-8, a separator after each.
        sizes: Bytes of each with its separator, int64.
    """

    text: bytes
    sizes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Self:
        """Texts as they are stored."""
        raw = [(text + SEPARATOR).encode("utf-8", "surrogatepass") for text in texts]
        return cls(b"".join(raw), np.fromiter(map(len, raw), np.int64, len(raw)))


class TextWriter:
    """Takes texts and leaves them as a store.

    Args:
        scratch: Where the files are made.
    """

    def __init__(self, scratch: ScratchDir) -> None:
        self.scratch = scratch
        self.files = scratch.open_files("texts", ("text", "ends"))
        self.paths = [Path(file.name) for file in self.files]
        self.pending: list[bytes] = []
        self.count, self.size = 0, 0

    def __len__(self) -> int:
        return self.count

    def append(self, text: str) -> None:
        """Keep one text."""
        self.count += 1
        self.pending.append((text + SEPARATOR).encode("utf-8", "surrogatepass"))
        if len(self.pending) >= PENDING_TEXTS:
            self._flush()

    def extend(self, block: TextBlock) -> None:
        """Keep many texts."""
        self._flush()
        self.count += len(block.sizes)
        self._write(block)

    def _flush(self) -> None:
        pending, self.pending = self.pending, []
        self._write(TextBlock(b"".join(pending), np.fromiter(map(len, pending), np.int64, len(pending))))

    def _write(self, block: TextBlock) -> None:
        ends = block.sizes.cumsum() + self.size
        try:
            self.files[0].write(block.text)
            self.files[1].write(ends.tobytes())
        except OSError as fault:
            raise self.scratch.write_error(fault) from fault
        self.size += len(block.text)

    def finish(self) -> LazySequence[str]:
        """The texts, once all are there."""
        self._flush()
        try:
            for file in self.files:
                file.close()
        except OSError as fault:
            raise self.scratch.write_error(fault) from fault
        text, ends = (MemoryMap(path, self.scratch) for path in self.paths)
        return StoredTexts(text, ends)


class JsonRowWriter:
    """Takes rows that are plain JSON values, whatever their columns and types."""

    def __init__(self, scratch: ScratchDir) -> None:
        self.scratch, self.texts = scratch, TextWriter(scratch)

    def __len__(self) -> int:
        return len(self.texts)

    def append(self, row: RowDict) -> None:
        """Keep one row."""
        self.texts.append(json.dumps(row, ensure_ascii=False, separators=(",", ":")))

    def finish(self) -> LazySequence[RowDict]:
        """The rows, once all are there."""
        return stored_rows(self.texts.finish())


def stored_rows(texts: LazySequence[str]) -> LazySequence[RowDict]:
    """Rows whose JSON is stored."""
    return MappedView(load_row, texts)


# what `json.loads` does, without looking for blanks at either end; typeshed does not know it
_scan: Callable[[str, int], tuple[Any, int]] = getattr(json.JSONDecoder(), "scan_once")  # noqa: B009


def load_row(text: str) -> RowDict:
    """The row that a stored text holds."""
    row: RowDict = _scan(text, 0)[0]
    return row

"""The text of a file in pieces, so that a large file is never held whole."""

import codecs
import re
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from tunelab.data.decode import MARKS, SAMPLE, check_encoding, decode
from tunelab.errors import DataError

PIECE = 2**20  # bytes read at once
# Codecs whose pieces decode as the whole does; the others (utf-7, punycode) need all bytes at once.
IN_PIECES = re.compile(
    r"utf[-_](8|16|32)([-_](sig|le|be))?|ascii|cp\d+|iso8859-\d+|gb\w+|big5\w*|shift_jis\w*|euc_\w+|koi8-\w"
)


class TextFile:
    """The decoded text of a file, read again at each iteration; a byte order mark is taken off.

    Args:
        name: As messages name it.
        path: The file.
        encoding: As `data.encoding`.
        keep_going: As in `decode`.
        whole: Up to how many bytes a file is read in one piece, and once only.

    Raises:
        DataError: While it is read, if the bytes are not in that encoding; with line, offset and a likely encoding.
    """

    def __init__(self, name: str, path: Path, encoding: str, *, keep_going: bool, whole: int) -> None:
        self.name, self.path, self.encoding, self.keep_going = name, path, encoding, keep_going
        self.codec = check_encoding(encoding)
        self.text: str | None = None
        if path.stat().st_size <= whole or not IN_PIECES.fullmatch(self.codec):
            self.text = self._all()

    def _all(self) -> str:
        return decode(self.name, self.path.read_bytes(), self.encoding, keep_going=self.keep_going)

    def pieces(self) -> Iterator[str]:
        """The text from its start, piece by piece."""
        if self.text is not None:
            yield self.text
            return
        unicode, codec = self.codec in ("utf-8", "utf-8-sig"), self.codec
        with self.path.open("rb") as file:
            head = file.read(SAMPLE)
            file.seek(0)
            if unicode:
                decode(self.name, head, self.encoding, keep_going=True)  # refuses a file that is plainly another one
            elif head.startswith(codecs.BOM_UTF8):
                decode(self.name, head, self.encoding)  # the mark alone contradicts the encoding
            elif codec in ("utf-16", "utf-32") and not head.startswith(tuple(mark for mark, _ in MARKS)):
                codec += "-le" if sys.byteorder == "little" else "-be"  # without a mark: as this machine has it
            handler = "surrogateescape" if unicode and self.keep_going else "strict"
            decoder = codecs.getincrementaldecoder(codec)(handler)
            first = True
            try:
                for raw in iter(partial(file.read, PIECE), b""):
                    text = decoder.decode(raw)
                    yield text.removeprefix("\ufeff") if first else text
                    first = first and not text
                yield decoder.decode(b"", final=True)
            except ValueError as fault:
                self._all()  # the same fault, told with its line and a likely encoding
                raise DataError(f"{self.name} is not {self.encoding}: {fault}") from fault

    def lines(self, ends: str = "\n") -> Iterator[str]:
        """Physical lines without `ends`, as `text.split(ends)` gives them."""
        if self.text is not None:
            yield from self.text.split(ends)
            return
        open_line: list[str] = []
        for piece in self.pieces():
            head, *rest = piece.split(ends)
            open_line.append(head)
            if rest:
                yield "".join(open_line)
                yield from rest[:-1]
                open_line = [rest[-1]]
        yield "".join(open_line)


class TableLines(Iterable[str]):
    r"""Lines of a table without their ends (\n, \r\n, or \r alone if the file has no \n)."""

    def __init__(self, file: TextFile) -> None:
        self.file = file
        self.ends = "\n" if any("\n" in piece for piece in file.pieces()) else "\r"

    def __iter__(self) -> Iterator[str]:
        return (line.removesuffix("\r") for line in self.file.lines(self.ends))

"""Text of a file, decoded in chunks, or a message that says which encoding the file probably has."""

import codecs
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from tunelab.errors import ConfigError, DataError
from tunelab.language.translation import translate

# Codecs of host names, of source code, of escapes; and rot13, which turns text into other text.
CODECS_OF_NO_TEXT = ("idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined", "rot13", "unicode_escape")
CHUNK_BYTES = 2**20  # bytes read at once
# Codecs whose pieces decode as the whole does; the others (utf-7, punycode) need all bytes at once.
INCREMENTAL_CODECS = re.compile(
    r"utf[-_](8|16|32)([-_](sig|le|be))?|ascii|cp\d+|iso8859-\d+|gb\w+|big5\w*|shift_jis\w*|euc_\w+|koi8-\w"
)


class TextFile:
    """The decoded text of a file, read again at each iteration; a byte order mark is taken off.

    Args:
        name: As messages name it.
        path: The file.
        encoding: As `data.encoding`.
        keep_going: As in `decode_bytes`.
        whole: Up to how many bytes a file is read in one piece, and once only.

    Raises:
        DataError: While it is read, if the bytes are not in that encoding; with line, offset and a likely encoding.
    """

    def __init__(self, name: str, path: Path, encoding: str, *, keep_going: bool, whole: int) -> None:
        self.name, self.path, self.encoding, self.keep_going = name, path, encoding, keep_going
        self.codec = check_encoding(encoding)
        self.text: str | None = None
        if path.stat().st_size <= whole or not INCREMENTAL_CODECS.fullmatch(self.codec):
            self.text = self._all()

    def _all(self) -> str:
        return decode_bytes(self.name, self.path.read_bytes(), self.encoding, keep_going=self.keep_going)

    def check_head(self) -> None:
        """Refuse a file that is plainly in another encoding than UTF-8."""
        with self.path.open("rb") as file:
            decode_bytes(self.name, file.read(SAMPLE_BYTES), self.encoding, keep_going=True)

    def pieces(self) -> Iterator[str]:
        """The text from its start, piece by piece."""
        if self.text is not None:
            yield self.text
            return
        unicode, codec = self.codec in ("utf-8", "utf-8-sig"), self.codec
        with self.path.open("rb") as file:
            head = file.read(SAMPLE_BYTES)
            file.seek(0)
            if unicode:
                self.check_head()
            elif head.startswith(codecs.BOM_UTF8):
                decode_bytes(self.name, head, self.encoding)  # the mark alone contradicts the encoding
            elif codec in ("utf-16", "utf-32") and not head.startswith(tuple(mark for mark, _ in BYTE_ORDER_MARKS)):
                codec += "-le" if sys.byteorder == "little" else "-be"  # without a mark: as this machine has it
            handler = "surrogateescape" if unicode and self.keep_going else "strict"
            decoder = codecs.getincrementaldecoder(codec)(handler)
            first = True
            try:
                for raw in iter(partial(file.read, CHUNK_BYTES), b""):
                    text = decoder.decode(raw)
                    yield text.removeprefix("\ufeff") if first else text
                    first = first and not text
                yield decoder.decode(b"", final=True)
            except ValueError as fault:
                self._all()  # the same fault, reported with its line and a likely encoding
                raise DataError(
                    translate("{name} is not {encoding}: {fault}", name=self.name, encoding=self.encoding, fault=fault)
                ) from fault

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


UTF8_BOM = codecs.BOM_UTF8
BYTE_ORDER_MARKS = (  # longest first: the UTF-32 mark begins with the UTF-16 one
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SAMPLE_BYTES = 65536  # bytes a guess looks at


def check_encoding(encoding: str) -> str:
    """The canonical name of a text encoding.

    Raises:
        ConfigError: If Python knows no text encoding of that name.
    """
    try:
        name = codecs.lookup(encoding).name
        "".encode(encoding)  # refuses bytes-to-bytes codecs such as hex, which `lookup` alone lets through
        b"".decode(encoding)
        if name in CODECS_OF_NO_TEXT:
            raise LookupError(name)
        return name
    except (LookupError, ValueError, TypeError) as error:
        raise ConfigError(
            translate("data.encoding={encoding!r} is no text encoding; try utf-8, gb18030 or utf-16", encoding=encoding)
        ) from error


def decode_bytes(name: str, raw: bytes, encoding: str, *, keep_going: bool = False) -> str:
    """Decode a whole file; a byte order mark is taken off.

    Args:
        name: The file, as messages name it.
        raw: All its bytes.
        encoding: As `data.encoding`.
        keep_going: Leave undecodable bytes of UTF-8 as lone surrogates, so that only their lines are bad.

    Raises:
        DataError: If the bytes are not in that encoding; names line, byte offset and a likely encoding.
        ConfigError: If there is no such encoding.
    """
    canonical = check_encoding(encoding)
    unicode = canonical in ("utf-8", "utf-8-sig")
    if raw.startswith(UTF8_BOM) and not unicode:
        raise DataError(
            translate(
                "{name} starts with the UTF-8 byte order mark, got data.encoding={encoding}; set it to utf-8",
                name=name,
                encoding=encoding,
            )
        )
    likely = guess_utf16_or_utf32(raw) if unicode else None
    if likely:
        raise DataError(
            translate(
                "{name} is not {encoding}: it looks like {likely}; set data.encoding={likely}",
                name=name,
                encoding=encoding,
                likely=likely,
            )
        )
    try:
        return raw.decode(canonical, "surrogateescape" if unicode and keep_going else "strict").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        start, byte = error.start, raw[error.start : error.start + 1].hex()
        line = raw[:start].decode(canonical, "ignore").count("\n") + 1
        other = guess_encoding(raw)
        advice = (
            translate("it looks like {other}; set data.encoding={other}", other=other)
            if other != canonical
            else translate("save the file anew")
        )
        raise DataError(
            translate(
                "{name} line {line}: byte 0x{byte} at offset {start} is not {encoding} ({reason}); {advice}",
                name=name,
                line=line,
                byte=byte,
                start=start,
                encoding=encoding,
                reason=error.reason,
                advice=advice,
            )
        ) from error
    except ValueError as error:  # UnicodeError of codecs such as utf-16, and what odd codecs raise
        raise DataError(
            translate("{name} is not {encoding}: {error}", name=name, encoding=encoding, error=error)
        ) from error


def guess_utf16_or_utf32(raw: bytes) -> str | None:
    """`utf-16...` or `utf-32` where the byte order mark or the pattern of zero bytes says so."""
    for mark, encoding in BYTE_ORDER_MARKS:
        if raw.startswith(mark):
            return encoding
    even, odd = raw[0:SAMPLE_BYTES:2], raw[1:SAMPLE_BYTES:2]
    if len(odd) < 2:  # too short to show a pattern
        return None
    for zeros, letters, encoding in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        # Latin text, JSON punctuation and line ends have a zero high byte; real text has none in the low one.
        if zeros.count(0) >= max(2, len(zeros) // 5) and not letters.count(0):
            return encoding
    return None


def guess_encoding(raw: bytes) -> str:
    """The encoding that a file which is not UTF-8 most likely has.

    GB 18030 decodes much Western text by accident, into rare characters; Chinese text stays mostly within the
    common ones of GB 2312.
    """
    if wide := guess_utf16_or_utf32(raw):
        return wide
    with suppress(UnicodeDecodeError):
        wide_characters = [c for c in raw.decode("gb18030") if not c.isascii()]
        if sum(1 for c in wide_characters if c.encode("gb2312", "ignore")) * 2 > len(wide_characters):
            return "gb18030"
    with suppress(UnicodeDecodeError):
        raw.decode("cp1252")
        return "cp1252"
    return "latin-1"

"""From the bytes of a file to text, or to a message that says which encoding it probably has."""

import codecs
from contextlib import suppress

from tunelab.errors import ConfigError, DataError

UTF8_MARK = codecs.BOM_UTF8
MARKS = (  # longest first: the UTF-32 mark begins with the UTF-16 one
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SAMPLE = 65536  # bytes a guess looks at


def check_encoding(encoding: str) -> str:
    """The canonical name of a text encoding.

    Raises:
        ConfigError: If Python knows no text encoding of that name.
    """
    try:
        "".encode(encoding)  # refuses bytes-to-bytes codecs such as hex, which `lookup` alone lets through
        b"".decode(encoding)
        return codecs.lookup(encoding).name
    except (LookupError, ValueError) as error:
        raise ConfigError(f"data.encoding={encoding!r} is no text encoding; try utf-8, gb18030 or utf-16") from error


def decode(name: str, raw: bytes, encoding: str, *, keep_going: bool = False) -> str:
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
    if raw.startswith(UTF8_MARK) and not unicode:
        raise DataError(f"{name} starts with the UTF-8 byte order mark, got data.encoding={encoding}; set it to utf-8")
    likely = guess_wide(raw) if unicode else None
    if likely:
        raise DataError(f"{name} is not {encoding}: it looks like {likely}; set data.encoding={likely}")
    try:
        return raw.decode(canonical, "surrogateescape" if unicode and keep_going else "strict").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        start, byte = error.start, raw[error.start : error.start + 1].hex()
        line = raw[:start].decode(canonical, "ignore").count("\n") + 1
        other = guess(raw)
        advice = f"it looks like {other}; set data.encoding={other}" if other != canonical else "save the file anew"
        raise DataError(
            f"{name} line {line}: byte 0x{byte} at offset {start} is not {encoding} ({error.reason}); {advice}"
        ) from error
    except ValueError as error:  # UnicodeError of codecs such as utf-16, and what odd codecs raise
        raise DataError(f"{name} is not {encoding}: {error}") from error


def guess_wide(raw: bytes) -> str | None:
    """`utf-16...` or `utf-32` where the byte order mark or the pattern of zero bytes says so."""
    for mark, encoding in MARKS:
        if raw.startswith(mark):
            return encoding
    even, odd = raw[0:SAMPLE:2], raw[1:SAMPLE:2]
    if len(odd) < 2:  # too short to show a pattern
        return None
    for zeros, letters, encoding in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        # Latin text, JSON punctuation and line ends have a zero high byte; real text has none in the low one.
        if zeros.count(0) >= max(2, len(zeros) // 5) and not letters.count(0):
            return encoding
    return None


def guess(raw: bytes) -> str:
    """The encoding that a file which is not UTF-8 most likely has.

    GB 18030 decodes much Western text by accident, into rare characters; Chinese text stays mostly within the
    common ones of GB 2312.
    """
    if wide := guess_wide(raw):
        return wide
    with suppress(UnicodeDecodeError):
        wide_characters = [c for c in raw.decode("gb18030") if not c.isascii()]
        if sum(1 for c in wide_characters if c.encode("gb2312", "ignore")) * 2 > len(wide_characters):
            return "gb18030"
    with suppress(UnicodeDecodeError):
        raw.decode("cp1252")
        return "cp1252"
    return "latin-1"

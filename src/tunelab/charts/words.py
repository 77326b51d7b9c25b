"""Text in a drawing: how wide it runs, where it breaks, what must be escaped."""

import re
import unicodedata
from html import escape

SIZE = 16.0  # room is planned for this, the size of letters where a phone shrinks the drawing; else they are smaller
NARROW = 0.58  # mean width of a letter as a share of its size, for the usual faces without serifs
FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")  # XML holds none of these


def safe(text: str) -> str:
    """Text as it may stand in SVG and HTML, in elements and in quoted attributes."""
    return escape(FORBIDDEN.sub("\ufffd", text), quote=True)


def width(text: str, size: float = SIZE) -> float:
    """How wide text runs, in units of the drawing: an estimate, as nothing here knows the reader's fonts."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return size * (wide + NARROW * (len(text) - wide))


def cut(text: str, room: float, size: float = SIZE) -> str:
    """Text that fits, its end replaced by an ellipsis where it does not."""
    if width(text, size) <= room:
        return text
    kept = text
    while kept and width(kept + "…", size) > room:
        kept = kept[:-1]
    return kept.rstrip() + "…"


def wrapped(text: str, room: float, size: float = SIZE) -> list[str]:
    """Lines that fit, broken between words; a word that fits no line is cut."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width(longer, size) <= room:
            lines[-1] = longer
        else:
            lines.append(cut(word, room, size))
    return lines

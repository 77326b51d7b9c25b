"""Cells, durations, counts and percentages as report text.  Pure."""

import math

from tunelab.analysis.number_format import format_number
from tunelab.language.score_names import ScoreName, score_label
from tunelab.language.translation import localize, translate
from tunelab.report.document import CellValue

MAX_TEXT_LENGTH = 600  # characters of one text on a page


def format_cell(value: object) -> str:
    """A cell as text: numbers with four digits, a dash for a gap."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return translate("yes") if value else translate("no")
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return format_number(value, 4)
    if isinstance(value, ScoreName):
        return score_label(value)
    return localize(value) if isinstance(value, str) else str(value)


def truncate(text: str, most: int = MAX_TEXT_LENGTH) -> str:
    """Text cut at a length, with how much is missing."""
    return (
        text
        if len(text) <= most
        else translate(
            "{start} … ({count:,} more [character|characters])", start=text[:most].rstrip(), count=len(text) - most
        )
    )


def format_count(number: int, one: str, many: str = "") -> str:
    """A count with its noun: `1 run` or `1,234 runs`."""
    words = "{count:,} " + (one if number == 1 else many or one + "s")
    return translate(words, count=number)


def format_percent(share: float) -> str:
    """A fraction in per cent."""
    return f"{100 * share:.3g}\u00a0%"


def join_names(names: list[str], most: int = 6) -> str:
    """Names joined by commas, the rest counted."""
    rest = len(names) - most
    listed = translate(", ").join(names[:most])
    return translate("{names} and {count} more", names=listed, count=rest) if rest > 0 else listed


def to_cell(value: object) -> CellValue:
    """A value of a setting as a cell."""
    if value is None or isinstance(value, str | int | float):
        return str(value).lower() if isinstance(value, bool) else value
    return str(value)

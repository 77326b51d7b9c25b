"""The rows of one source of a mix, in the names and with the columns that the run reads.  Pure."""

from collections.abc import Mapping
from typing import Any

from tunelab.data.columns import MISSING, find
from tunelab.data.formats import FORMATS, META, detect
from tunelab.errors import ConfigError


def renamed(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """A row in which each column of `columns` (the run's name -> the source's) goes by the run's name.

    Example:
        >>> renamed({"question": "2+2?", "id": 7}, {"prompt": "question"})
        {'id': 7, 'prompt': '2+2?'}
    """
    given = {ours: find(row, theirs) for ours, theirs in columns.items()}
    gone = {*columns, *columns.values()}
    rest = {name: value for name, value in row.items() if name not in gone}
    return rest | {ours: value for ours, value in given.items() if value is not MISSING}


def layout(format: str, names: list[str], columns: Mapping[str, str]) -> frozenset[str]:
    """The columns to keep, so that each record shows by itself what it is.

    Args:
        format: Layout of the source; "auto" tells it by `names`.
        names: Every column of the source.
        columns: Our name of a column -> the run's name of it.

    Raises:
        ConfigError: If there is no such format.
        DataError: If no format fits the columns.
    """
    if format != "auto" and format not in FORMATS:
        raise ConfigError(f"data.mix: format={format} is unknown; choose auto, {', '.join(FORMATS)}")
    form = FORMATS[detect(names, columns) if format == "auto" else format]
    ours = {name for group in form.needs for name in group} | set(form.takes)
    theirs = {columns[name] for name in ours if name in columns}
    return frozenset(ours | theirs | {way.partition(".")[0] for way in theirs} | set(META))


def laid_out(row: Mapping[str, Any], kept: frozenset[str]) -> dict[str, Any]:
    """A row without the columns that are not kept."""
    return {name: value for name, value in row.items() if name in kept}

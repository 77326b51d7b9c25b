"""Columns that the settings name, looked for in the file before anything else is.  Pure."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from tunelab.data.columns import MISSING, find


def missing_columns(wanted: Iterable[tuple[str, str]], rows: Iterable[Mapping[str, Any]], file: str) -> list[str]:
    """What is wrong with columns that no record has; a column that some records lack is no fault here.

    A misspelt name of an optional column would otherwise change nothing and be noticed by nobody.

    Args:
        wanted: Pairs of a setting and the column it names, or the way to it: `instances.0.output`.
        rows: The records of the file.
        file: Its name, for the message.

    Example:
        >>> missing_columns([("data.text", "txet")], [{"text": "a", "label": "b"}], "a.csv")
        ["data.text=txet: a.csv has no such column; did you mean 'text'? it has text, label"]
    """
    sought = dict.fromkeys(wanted)
    seen: dict[str, None] = {}
    for row in rows:
        for setting, name in [pair for pair in sought if find(row, pair[1]) is not MISSING]:
            del sought[setting, name]
        if not sought:
            return []
        seen |= dict.fromkeys(map(str, row))
    names = list(seen)
    faults = []
    for setting, name in sought:
        near = get_close_matches(name, names, 1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        if len(names) == 1 and name in re.split(r"[;|]", names[0]):
            hint = "its cells are parted by something else than the comma of a csv or the tab of a tsv; "
        faults.append(f"{setting}={name}: {file} has no such column; {hint}it has {', '.join(names) or 'none'}")
    return faults

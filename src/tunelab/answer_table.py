"""The tables of generated answers as the terminal shows them.  Pure."""

from collections.abc import Mapping
from typing import Any

SHOWN = 12  # groups of a table; the rest stands in the run folder
COLUMNS = ("exact_match", "token_f1", "rougeL", "accuracy")

Rows = dict[str, dict[str, float]]


def group_tables(tables: Mapping[str, Any]) -> dict[str, Rows]:
    """A table for each grouping of the test answers: the largest groups, before training and after.

    Args:
        tables: As `Outcome.tables`: `test` and perhaps `base`, each with `by_family` or `by_source`.

    Returns:
        Title to name of a group to name of a column to value.
    """
    found: dict[str, Rows] = {}
    for key in ("family", "source"):
        tuned: Rows = tables.get("test", {}).get(f"by_{key}", {})
        before: Rows = tables.get("base", {}).get(f"by_{key}", {})
        largest = sorted(tuned, key=lambda name: (-tuned[name]["rows"], name))
        rest = len(largest) - SHOWN
        if tuned:
            title = f"test answers by {key}" + (f" ({rest} smaller ones are in scores.json)" if rest > 0 else "")
            found[title] = {name: columns(tuned[name], before.get(name, {})) for name in largest[:SHOWN]}
    return found


def columns(tuned: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """One line: the number of rows, the exact match before training, the scores after it."""
    first: dict[str, float] = {"rows": int(tuned["rows"])}
    if "exact_match" in before:
        first["base exact_match"] = before["exact_match"]
    return first | {name: tuned[name] for name in COLUMNS if name in tuned}

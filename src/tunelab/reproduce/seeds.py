"""Runs that differ from one run in nothing but their seed: how far chance alone moves a score."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ASIDE = ("seed", "name", "logger", "trial", "resume", "save", "search", "test")  # settings that change no score

Card = Mapping[str, Any]


def same_but_seed(card: Card, around: Path) -> list[dict[str, Any]]:
    """Cards of finished runs beside a run, trained with its settings and its data but another seed.

    Args:
        card: Of the run.
        around: A folder that holds run folders.
    """
    found = []
    for file in sorted(around.glob("*/run.json")):
        try:
            other = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # a run that is being written; it would not be finished
        if other.get("status") in ("finished", "early-stopped") and alike(card, other):
            found.append(other)
    return found


def alike(card: Card, other: Card) -> bool:
    """Whether two runs are the same experiment with two seeds."""
    one, two = (
        {name: value for name, value in (found.get("config") or {}).items() if name not in ASIDE}
        for found in (card, other)
    )
    files = [(found.get("data") or {}).get("files") for found in (card, other)]
    seeds = [(found.get("config") or {}).get("seed") for found in (card, other)]
    return one == two and files[0] == files[1] and seeds[0] != seeds[1]

"""What stands more than once, within a split or across splits.  Pure: splits in, plain values out."""

from itertools import combinations
from typing import Any

from tunelab.data.prepare import Sources
from tunelab.tasks.base import Task

SHOWN = 5  # places named for each finding


def duplicates_within(sources: Sources) -> dict[str, dict[str, Any]]:
    """For each split, how many rows repeat the content of an earlier row of it, and where the first of them stand."""
    found: dict[str, dict[str, Any]] = {}
    for duplicate in sources.duplicates:
        for name, rows in duplicate.places.items():
            if len(rows) > 1:
                entry = found.setdefault(name, {"texts": 0, "repeats": 0, "examples": []})
                entry["texts"] += 1
                entry["repeats"] += len(rows) - 1
                if len(entry["examples"]) < SHOWN:
                    places = [sources.splits[name].places[row] for row in rows[:SHOWN]]
                    entry["examples"].append({"text": shown(duplicate.content), "places": places})
    return found


def conflicts(task: Task, sources: Sources) -> dict[str, Any]:
    """Equal texts that carry different labels, within or across splits: no model can learn both."""
    count, examples = 0, list[dict[str, Any]]()
    for duplicate in sources.duplicates:
        held = [(name, row) for name, rows in duplicate.places.items() for row in rows]
        labels = [str(task.stratum(sources.splits[name].rows[row])) for name, row in held]
        if len(set(labels)) > 1:
            count += 1
            if len(examples) < SHOWN:
                places = [
                    f"{sources.splits[name].places[row]}: {label}"
                    for (name, row), label in zip(held[:SHOWN], labels, strict=False)
                ]
                examples.append({"text": shown(duplicate.content), "places": places})
    return {"texts": count, "examples": examples}


def exact_leaks(sources: Sources) -> list[dict[str, Any]]:
    """For each pair of splits that share contents, how many rows of the later one stand in the earlier one too."""
    found = []
    for earlier, later in combinations(sources.splits, 2):
        shared = [held for held in sources.duplicates if earlier in held.places and later in held.places]
        if shared:
            places = {name: sources.splits[name].places for name in (earlier, later)}
            examples = [
                {"text": shown(held.content), "places": [places[name][held.places[name][0]] for name in places]}
                for held in shared[:SHOWN]
            ]
            rows = sum(len(held.places[later]) for held in shared)
            found.append({"splits": [earlier, later], "rows": rows, "of": len(places[later]), "examples": examples})
    return found


def shown(content: str, most: int = 160) -> str:
    """A content on one line, cut with three dots where it is long."""
    flat = " ".join(content.replace("\x1f", " / ").split())
    return flat if len(flat) <= most else flat[: most - 3] + "..."

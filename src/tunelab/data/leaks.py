"""Rows that are almost a row of another split.  Pure: splits in, plain values out."""

from collections.abc import Mapping, Sequence
from typing import Any

from tunelab.data.near_duplicates import Likeness, near_duplicates
from tunelab.data.prepare import Sources
from tunelab.data.repeats import SHOWN, shown
from tunelab.tasks.base import Task

LEARNED_ROWS = 100_000  # training rows searched for near duplicates: some seconds
JUDGED_ROWS = 20_000  # rows of each evaluation split that are looked up among them
LETTERS = 30_000_000  # of all texts of a split that take part


def near_leaks(task: Task, sources: Sources, threshold: float | None) -> dict[str, Any] | None:
    """Rows that are no copy, but almost one, of a row in an earlier split; None where nobody asked.

    Large splits are searched in part.  `searched` tells how many rows of how many, `crowded` how many rows have so
    many lookalikes that not all were compared.
    """
    if threshold is None:
        return None
    drawn, texts = dict[str, list[int]](), dict[str, list[str]]()
    for name, split in sources.splits.items():
        drawn[name] = evenly(len(split.rows), LEARNED_ROWS if name == "train" else JUDGED_ROWS)
        texts[name] = [task.content(split.rows[row]) for row in drawn[name]]
        letters = sum(map(len, texts[name]))
        if letters > LETTERS:  # long texts: fewer of them
            kept = evenly(len(drawn[name]), max(1, len(drawn[name]) * LETTERS // letters))
            drawn[name], texts[name] = [drawn[name][at] for at in kept], [texts[name][at] for at in kept]
    names, pairs, crowded = list(sources.splits), [], 0
    for place, earlier in enumerate(names[:-1]):
        asked = [(name, at) for name in names[place + 1 :] for at in fresh(sources, earlier, name, drawn[name])]
        alike, more = near_duplicates(texts[earlier], [texts[name][at] for name, at in asked], threshold=threshold)
        crowded += more
        for later in names[place + 1 :]:
            own = [(found, asked[found.asked][1]) for found in alike if asked[found.asked][0] == later]
            if own:
                examples = [
                    alike_texts(sources, (earlier, later), drawn, texts, found, at)
                    for found, at in sorted(own, key=lambda pair: -pair[0].similarity)[:SHOWN]
                ]
                of = len(drawn[later])
                pairs.append({"splits": [earlier, later], "rows": len(own), "of": of, "examples": examples})
    searched = {name: [len(drawn[name]), len(split.rows)] for name, split in sources.splits.items()}
    return {"threshold": threshold, "pairs": pairs, "searched": searched, "crowded": crowded}


def fresh(sources: Sources, earlier: str, later: str, drawn: Sequence[int]) -> list[int]:
    """Positions in `drawn` of rows of `later` that are no exact copy of one in `earlier`."""
    copied = {row for held in sources.duplicates if earlier in held.places for row in held.places.get(later, ())}
    return [at for at, row in enumerate(drawn) if row not in copied]


def alike_texts(
    sources: Sources,
    names: tuple[str, str],
    drawn: Mapping[str, Sequence[int]],
    texts: Mapping[str, Sequence[str]],
    found: Likeness,
    at: int,
) -> dict[str, Any]:
    """Two texts that are alike, for a reader: likeness, texts and places."""
    positions = dict(zip(names, (found.known, at), strict=True))
    return {
        "likeness": round(found.similarity, 3),
        "texts": [shown(texts[name][position]) for name, position in positions.items()],
        "places": [sources.splits[name].places[drawn[name][position]] for name, position in positions.items()],
    }


def evenly(rows: int, most: int) -> list[int]:
    """At most `most` of `rows` indices, evenly spaced from the first.

    Example:
        >>> evenly(9, 3)
        [0, 3, 6]
    """
    return list(range(rows)) if rows <= most else [place * rows // most for place in range(most)]

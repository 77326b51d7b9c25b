"""Duplicates within a split and leakage across splits, exact and near, with examples.  Pure: splits in, plain values
out.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any
from unicodedata import category

from tunelab.data.data_sources import DataSplits
from tunelab.data.examples import Example
from tunelab.data.lazy_sequences import MappedView, evenly_spaced
from tunelab.data.near_duplicates import SimilarPair, find_near_duplicates
from tunelab.data.protocols import RecordTask
from tunelab.data.splits import find_duplicates, normalize_text
from tunelab.data.unknown_tokens import input_ids

MAX_EXAMPLES_LISTED = 5  # places named for each finding


def duplicates_within(sources: DataSplits) -> dict[str, dict[str, Any]]:
    """For each split, how many rows repeat the content of an earlier row of it, and where the first of them stand."""
    by_split: dict[str, dict[str, Any]] = {}
    for duplicate in sources.duplicates:
        for name, rows in duplicate.rows_by_split.items():
            if len(rows) > 1:
                entry = by_split.setdefault(name, {"texts": 0, "repeats": 0, "examples": []})
                entry["texts"] += 1
                entry["repeats"] += len(rows) - 1
                if len(entry["examples"]) < MAX_EXAMPLES_LISTED:
                    places = [sources.splits[name].locations[row] for row in rows[:MAX_EXAMPLES_LISTED]]
                    entry["examples"].append({"text": one_line(duplicate.content), "places": places})
    return by_split


def token_duplicates(
    task: RecordTask, sources: DataSplits, examples: Mapping[str, Sequence[Example]]
) -> dict[str, Any]:
    """Rows whose texts differ while the model is given the same tokens: how many, across splits too, and examples.

    A tokenizer that knows no case, or not the script of a text, makes the same of different texts.
    """

    def tokens(example: Example) -> str:
        return " ".join(map(str, input_ids(example)))

    views: dict[str, Sequence[str]] = {name: MappedView(tokens, split) for name, split in examples.items()}
    rows, across, listed = 0, 0, list[dict[str, Any]]()
    for held in find_duplicates(views):
        places = [
            (name, examples[name][place].row) for name, rows_there in held.rows_by_split.items() for place in rows_there
        ]
        texts = [task.content(sources.splits[name].rows[row]) for name, row in places]
        if len(set(map(normalize_text, texts))) > 1:
            rows += len(places)
            across += len(places) * held.crosses_splits
            if len(listed) < MAX_EXAMPLES_LISTED:
                several = list(dict(zip(texts, places, strict=True)).items())[:2]
                listed.append(
                    {
                        "texts": [one_line(text) for text, _ in several],
                        "places": [sources.splits[name].locations[row] for _, (name, row) in several],
                    }
                )
    return {"rows": rows, "across_splits": across, "examples": listed}


def near_empty_texts(task: RecordTask, sources: DataSplits) -> dict[str, dict[str, Any]]:
    """For each split, how many rows have a text without a letter, a digit or a symbol, and where the first stand."""
    by_split: dict[str, dict[str, Any]] = {}
    for name, split in sources.splits.items():
        for row, record in enumerate(split.rows):
            empty = [kind for kind, text in task.record_texts(record).items() if text and not says_something(text)]
            if empty:
                entry = by_split.setdefault(name, {"rows": 0, "examples": []})
                entry["rows"] += 1
                if len(entry["examples"]) < MAX_EXAMPLES_LISTED:
                    texts = task.record_texts(record)
                    quoted = ", ".join(f"{kind} {texts[kind]!r}" for kind in empty)
                    entry["examples"].append({"text": one_line(quoted), "places": [split.locations[row]]})
    return by_split


def says_something(text: str) -> bool:
    """Whether a text holds a letter, a digit or a symbol such as an emoji, in any script.

    Example:
        >>> says_something(" ...?! "), says_something("👍")
        (False, True)
    """
    return any(character.isalnum() or category(character)[0] in "LNS" for character in text)


def label_conflicts(task: RecordTask, sources: DataSplits) -> dict[str, Any]:
    """Equal texts that carry different labels, within or across splits: no model can learn both."""
    count, examples = 0, list[dict[str, Any]]()
    for duplicate in sources.duplicates:
        held = [(name, row) for name, rows in duplicate.rows_by_split.items() for row in rows]
        labels = [str(task.stratum(sources.splits[name].rows[row])) for name, row in held]
        if len(set(labels)) > 1:
            count += 1
            if len(examples) < MAX_EXAMPLES_LISTED:
                places = [
                    f"{sources.splits[name].locations[row]}: {label}"
                    for (name, row), label in zip(held[:MAX_EXAMPLES_LISTED], labels, strict=False)
                ]
                examples.append({"text": one_line(duplicate.content), "places": places})
    return {"texts": count, "examples": examples}


def exact_leaks(sources: DataSplits) -> list[dict[str, Any]]:
    """For each pair of splits that share contents, how many rows of the later one stand in the earlier one too."""
    leaks = []
    for earlier, later in combinations(sources.splits, 2):
        shared = [held for held in sources.duplicates if earlier in held.rows_by_split and later in held.rows_by_split]
        if shared:
            places = {name: sources.splits[name].locations for name in (earlier, later)}
            examples = [
                {
                    "text": one_line(held.content),
                    "places": [places[name][held.rows_by_split[name][0]] for name in places],
                }
                for held in shared[:MAX_EXAMPLES_LISTED]
            ]
            rows = sum(len(held.rows_by_split[later]) for held in shared)
            leaks.append({"splits": [earlier, later], "rows": rows, "of": len(places[later]), "examples": examples})
    return leaks


def one_line(content: str, most: int = 160) -> str:
    """A content on one line, cut with three dots where it is long."""
    flat = " ".join(content.replace("\x1f", " / ").split())
    return flat if len(flat) <= most else flat[: most - 3] + "..."


MAX_TRAIN_ROWS = 100_000  # training rows searched for near duplicates: some seconds
MAX_EVAL_ROWS = 20_000  # rows of each evaluation split that are looked up among them
MAX_CHARACTERS = 30_000_000  # of all texts of a split that take part


def near_leaks(task: RecordTask, sources: DataSplits, threshold: float | None) -> dict[str, Any] | None:
    """Rows that are no copy, but almost one, of a row in an earlier split; None without a threshold.

    Large splits are searched in part.  `searched` says how many rows of how many, `crowded` how many rows have so
    many lookalikes that not all were compared.
    """
    if threshold is None:
        return None
    drawn, texts = dict[str, list[int]](), dict[str, list[str]]()
    for name, split in sources.splits.items():
        drawn[name] = evenly_spaced(len(split.rows), MAX_TRAIN_ROWS if name == "train" else MAX_EVAL_ROWS)
        texts[name] = [task.content(split.rows[row]) for row in drawn[name]]
        letters = sum(map(len, texts[name]))
        if letters > MAX_CHARACTERS:  # long texts: fewer of them
            kept = evenly_spaced(len(drawn[name]), max(1, len(drawn[name]) * MAX_CHARACTERS // letters))
            drawn[name], texts[name] = [drawn[name][at] for at in kept], [texts[name][at] for at in kept]
    names, pairs, crowded = list(sources.splits), [], 0
    for place, earlier in enumerate(names[:-1]):
        queries = [(name, at) for name in names[place + 1 :] for at in not_copied(sources, earlier, name, drawn[name])]
        similar, more = find_near_duplicates(
            texts[earlier], [texts[name][at] for name, at in queries], threshold=threshold
        )
        crowded += more
        for later in names[place + 1 :]:
            of_later = [(pair, queries[pair.query][1]) for pair in similar if queries[pair.query][0] == later]
            if of_later:
                examples = [
                    similar_example(sources, (earlier, later), drawn, texts, pair, at)
                    for pair, at in sorted(of_later, key=lambda pair: -pair[0].similarity)[:MAX_EXAMPLES_LISTED]
                ]
                of = len(drawn[later])
                pairs.append({"splits": [earlier, later], "rows": len(of_later), "of": of, "examples": examples})
    searched = {name: [len(drawn[name]), len(split.rows)] for name, split in sources.splits.items()}
    return {"threshold": threshold, "pairs": pairs, "searched": searched, "crowded": crowded}


def not_copied(sources: DataSplits, earlier: str, later: str, drawn: Sequence[int]) -> list[int]:
    """Positions in `drawn` of rows of `later` that are no exact copy of one in `earlier`."""
    copied = {
        row for held in sources.duplicates if earlier in held.rows_by_split for row in held.rows_by_split.get(later, ())
    }
    return [at for at, row in enumerate(drawn) if row not in copied]


def similar_example(
    sources: DataSplits,
    names: tuple[str, str],
    drawn: Mapping[str, Sequence[int]],
    texts: Mapping[str, Sequence[str]],
    pair: SimilarPair,
    at: int,
) -> dict[str, Any]:
    """Two texts that are alike, for a reader: likeness, texts and places."""
    positions = dict(zip(names, (pair.reference, at), strict=True))
    return {
        "likeness": round(pair.similarity, 3),
        "texts": [one_line(texts[name][position]) for name, position in positions.items()],
        "places": [sources.splits[name].locations[drawn[name][position]] for name, position in positions.items()],
    }

"""Duplicates within a split and leakage across splits, exact and near, with examples.  Pure: splits in, plain values
out.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from tunelab.data.columns import empty_texts
from tunelab.data.data_sources import DataSplits
from tunelab.data.examples import Example
from tunelab.data.lazy_sequences import MappedView, concatenate, evenly_spaced, select_items, take_items
from tunelab.data.near_duplicates import SignedTexts, SimilarPair, find_closest
from tunelab.data.protocols import RecordTask
from tunelab.data.splits import RowArray, content_hashes, index_duplicates, normalize_text
from tunelab.data.token_store import input_hashes, row_indices
from tunelab.data.unknown_tokens import input_ids

MAX_EXAMPLES_LISTED = 5  # places named for each finding


def duplicates_within(sources: DataSplits) -> dict[str, dict[str, Any]]:
    """For each split, how many rows repeat the content of an earlier row of it, and where the first of them stand."""
    by_name: dict[str, tuple[int, dict[str, Any]]] = {}
    held = sources.duplicates
    for place, name in enumerate(held.names):
        repeated = np.flatnonzero(held.counts[:, place] > 1)
        if not len(repeated):
            continue
        locations = sources.splits[name].locations
        examples = []
        for index in repeated[:MAX_EXAMPLES_LISTED].tolist():
            rows = held[index].rows_by_split[name][:MAX_EXAMPLES_LISTED]
            examples.append({"text": one_line(held[index].content), "places": [locations[row] for row in rows]})
        repeats = int((held.counts[repeated, place] - 1).sum())
        by_name[name] = int(repeated[0]), {"texts": len(repeated), "repeats": repeats, "examples": examples}
    return {name: by_name[name][1] for name in sorted(by_name, key=lambda name: by_name[name][0])}


def token_duplicates(
    task: RecordTask, sources: DataSplits, examples: Mapping[str, Sequence[Example]]
) -> dict[str, Any]:
    """Rows whose texts differ while the model is given the same tokens: how many, across splits too, and examples.

    A tokenizer that knows no case, or not the script of a text, makes the same of different texts.
    """
    views = {name: MappedView(input_text, split) for name, split in examples.items()}
    hashes = np.concatenate([np.empty(0, np.uint64), *map(input_hashes, examples.values())])
    same = index_duplicates(views, hashes, among=other_contents(sources, examples))
    rows, across, listed = 0, 0, list[dict[str, Any]]()
    for held in same:
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


def input_text(example: Example) -> str:
    """The tokens that the model is given for an example, as text."""
    return " ".join(map(str, input_ids(example)))


def other_contents(
    sources: DataSplits, examples: Mapping[str, Sequence[Example]]
) -> Callable[[RowArray, RowArray], npt.NDArray[np.bool_]] | None:
    """Tells of sets of examples which have different contents; None where the contents are not known.

    The sets are given as examples counted over all splits, and as where each set starts among them.
    """
    if not all(name in sources.contents for name in examples):
        return None
    hashes = [
        content_hashes(sources.contents[name])[np.asarray(row_indices(split), np.int64)]
        for name, split in examples.items()
    ]
    whole = np.concatenate([np.empty(0, np.uint64), *hashes])

    def differ(rows: RowArray, starts: RowArray) -> npt.NDArray[np.bool_]:
        held = whole[rows]
        marks: npt.NDArray[np.bool_] = np.minimum.reduceat(held, starts) != np.maximum.reduceat(held, starts)
        return marks

    return differ


def near_empty_texts(
    task: RecordTask, sources: DataSplits, known: Mapping[str, Sequence[int]] | None = None
) -> dict[str, dict[str, Any]]:
    """For each split, how many rows have a text without a letter, a digit or a symbol, and where the first stand.

    Args:
        task: Knows the texts of a record.
        sources: The splits.
        known: The rows with such a text, where they have been looked for.
    """
    by_split: dict[str, dict[str, Any]] = {}
    for name, split in sources.splits.items():
        rows = (
            known[name]
            if known
            else [row for row, record in enumerate(split.rows) if empty_texts(task.record_texts(record))]
        )
        if len(rows):
            by_split[name] = {"rows": len(rows), "examples": []}
            for row in rows[:MAX_EXAMPLES_LISTED]:
                empty = empty_texts(task.record_texts(split.rows[row]))
                quoted = ", ".join(f"{kind} {text!r}" for kind, text in empty.items())
                by_split[name]["examples"].append({"text": one_line(quoted), "places": [split.locations[row]]})
    return by_split


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
        both = sources.duplicates.shared(earlier, later)
        shared = [sources.duplicates[index] for index in both[:MAX_EXAMPLES_LISTED]]
        if shared:
            places = {name: sources.splits[name].locations for name in (earlier, later)}
            examples = [
                {
                    "text": one_line(held.content),
                    "places": [places[name][held.rows_by_split[name][0]] for name in places],
                }
                for held in shared
            ]
            rows = len(sources.duplicates.rows_in(later, both))
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
    drawn, texts = dict[str, list[int]](), dict[str, Sequence[str]]()
    for name, split in sources.splits.items():
        rows = evenly_spaced(len(split.rows), MAX_TRAIN_ROWS if name == "train" else MAX_EVAL_ROWS)
        known = sources.contents.get(name)
        chosen = list(map(task.content, take_items(split.rows, rows))) if known is None else select_items(known, rows)
        letters = sum(map(len, chosen))
        if letters > MAX_CHARACTERS:  # long texts: fewer of them
            kept = evenly_spaced(len(rows), max(1, len(rows) * MAX_CHARACTERS // letters))
            rows, chosen = [rows[at] for at in kept], select_items(chosen, kept)
        drawn[name], texts[name] = rows, chosen
    names, pairs, crowded = list(sources.splits), [], 0
    firsts = dict(zip(names, accumulate(map(len, texts.values()), initial=0), strict=False))
    scratch = next((split.scratch for split in sources.splits.values() if split.scratch), None)
    signed = SignedTexts(concatenate([*texts.values()]), scratch)
    for place, earlier in enumerate(names[:-1]):
        queries = [(name, at) for name in names[place + 1 :] for at in not_copied(sources, earlier, name, drawn[name])]
        similar, more = find_closest(
            signed,
            range(firsts[earlier], firsts[earlier] + len(texts[earlier])),
            [firsts[name] + at for name, at in queries],
            threshold=threshold,
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
    held = sources.duplicates
    copied = set(held.rows_in(later, held.shared(earlier)).tolist()) if len(held) else set()
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

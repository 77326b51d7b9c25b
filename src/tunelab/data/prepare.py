"""From the `data` block of the config to splits of records, and from records to counted examples."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tunelab.data.examples import Example
from tunelab.data.records import Records, read_records
from tunelab.data.split import assign_splits, check_shares, find_duplicates
from tunelab.errors import DataError
from tunelab.tasks.base import Record, Task

SPLITS = ("train", "validation", "test")
SHOWN = 10  # faults told in one message
T = TypeVar("T")


@dataclass(frozen=True)
class Split:
    """The records of one split, each with the place it came from.

    Attributes:
        rows: The records.
        places: Where each stands, such as "train.jsonl line 12".
    """

    rows: list[Record] = field(default_factory=list)
    places: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Sources:
    """The splits and where they came from.

    Attributes:
        splits: `train`, `validation`, `test`; the last two may be empty.
        files: sha256 of each file, by the name it was given.
        notes: What a reader should know: rows skipped, splits made, duplicates found.
    """

    splits: dict[str, Split]
    files: dict[str, str]
    notes: list[str]


def read_splits(settings: Mapping[str, Any], task: Task, *, seed: int) -> Sources:
    """Read the files that are given and make the splits that are not, out of the training file.

    A missing validation split is never replaced by the test split, and a made split never shares a text with another.

    Args:
        settings: The `data` block.
        task: Says which text of a record is its content.
        seed: Fixes which rows go where.

    Raises:
        DataError: Naming every unusable record (up to ten), or a split that came out empty.
    """
    splits, files, notes = {name: Split() for name in SPLITS}, {}, list[str]()
    for name in SPLITS:
        if source := settings.get(name):
            records = read_records(
                str(source),
                encoding=str(settings["encoding"]),
                on_bad=str(settings["on_bad"]),
                quoting=str(settings["quoting"]),
                header=settings.get("header"),
            )
            files[str(source)] = records.sha256
            notes += [f"skipped: {message}" for message in records.skipped]
            notes += records.notes
            splits[name] = taken(records, settings.get("limit"))
    contents = {name: each(task.content, split) for name, split in splits.items()}
    wanted = {name: 0.0 if settings.get(name) else float(settings["split"][name]) for name in SPLITS[1:]}
    if any(wanted.values()):
        sides = assign_splits(contents["train"], seed=seed, **wanted)
        notes += check_shares(sides, each(task.stratum, splits["train"]), **wanted)
        whole = splits["train"]
        for name in ["train", *(name for name in SPLITS[1:] if wanted[name])]:
            kept = [place for place, side in enumerate(sides) if side == name]
            splits[name] = Split([whole.rows[i] for i in kept], [whole.places[i] for i in kept])
            contents[name] = [contents["train"][i] for i in kept] if name != "train" else contents["train"]
            notes.append(f"{name}: {len(kept)} of {len(sides)} rows of the training file, by content hash")
        contents["train"] = [text for text, side in zip(contents["train"], sides, strict=True) if side == "train"]
    for name, split in splits.items():
        if not split.rows and (settings.get(name) or wanted.get(name) or name == "train"):
            raise DataError(f"the {name} split has no rows; give data.{name}=FILE, or more rows to make it from")
    notes += duplicate_notes(contents)
    return Sources(splits, files, notes)


def taken(records: Records, limit: int | None) -> Split:
    """The first `limit` records as a split; all of them where it is None."""
    count = len(records.rows) if limit is None else min(int(limit), len(records.rows))
    return Split(list(records.rows[:count]), [records.where(i) for i in range(count)])


def each(action: Callable[[Record], T], split: Split) -> list[T]:
    """Apply `action` to every record; the faults of all records make one error, with their places."""
    found, faults = [], []
    for row, place in zip(split.rows, split.places, strict=True):
        try:
            found.append(action(row))
        except DataError as fault:
            faults.append(f"{place}: {fault}")
    if faults:
        more = f"\n  ... and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise DataError(f"{len(faults)} unusable records:\n  " + "\n  ".join(faults[:SHOWN]) + more)
    return found


def duplicate_notes(contents: Mapping[str, Sequence[str]]) -> list[str]:
    """One line for each pair of splits that share a text."""
    pairs = Counter(tuple(duplicate.places) for duplicate in find_duplicates(contents) if duplicate.across)
    return [
        f"{count} texts occur in both {' and '.join(pair)}: a score there measures memory too"
        for pair, count in pairs.items()
    ]


def encode_split(split: Split, task: Task) -> tuple[list[Example], dict[str, int | float]]:
    """Examples of a split and its line of the data report.

    Returns:
        The examples, and the counts: rows, kept, dropped, truncated, tokens, supervised, longest.

    Raises:
        DataError: Naming every record that cannot be used, or a split in which none is left.
    """
    task.truncated = 0
    numbers = iter(range(len(split.rows)))
    found = each(lambda record: task.encode(record, next(numbers)), split)
    examples = [example for example in found if example is not None]
    lengths = [len(example.ids) for example in examples]
    if split.rows and not examples:
        raise DataError(
            f"none of {len(split.rows)} rows is left: all are too long or have nothing to learn; "
            "raise data.max_tokens, or set data.too_long=truncate_prompt"
        )
    counts: dict[str, int | float] = {
        "rows": len(split.rows),
        "dropped": len(split.rows) - len(examples),
        "truncated": task.truncated,
        "tokens": sum(lengths),
        "supervised": sum(example.units for example in examples),
        "longest": max(lengths, default=0),
    }
    return examples, counts


def padding_fraction(lengths: Sequence[int], micros: Sequence[Sequence[int]], *, flat: bool) -> float:
    """Share of pad tokens in micro-batches given as lists of example indices, in [0, 1)."""
    real = sum(lengths[i] for micro in micros for i in micro)
    laid = real if flat else sum(len(micro) * max(lengths[i] for i in micro) for micro in micros)
    return 1 - real / laid if laid else 0.0

"""One source of records: its files read, and the splits made that it does not bring."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from tunelab.data.mapped import Scratch
from tunelab.data.mix import Source
from tunelab.data.named_columns import missing_columns
from tunelab.data.records import IN_MEMORY, Records, read_records, short
from tunelab.data.source_rows import laid_out, layout, renamed
from tunelab.data.split import assign_splits, check_shares
from tunelab.data.views import Each, pick
from tunelab.errors import DataError
from tunelab.tasks.base import Record, Task

SPLITS = ("train", "validation", "test")
SHOWN = 10  # faults told in one message
T = TypeVar("T")


@dataclass(frozen=True)
class Split:
    """The records of one split, each with the place it came from.

    Attributes:
        rows: The records; of a large file they stay on disk, and each access makes a fresh dict.
        places: Where each stands, such as "train.jsonl line 12".
        sources: Where each comes from: its file, or with `data.mix` the name of its source.
        scratch: Of records on disk, the folder they lie in; None where all are in memory.
    """

    rows: Sequence[Record] = field(default_factory=list)
    places: Sequence[str] = field(default_factory=list)
    sources: Sequence[str] = field(default_factory=list)
    scratch: Scratch | None = None

    def part(self, kept: Sequence[int]) -> "Split":
        """Some of its rows."""
        return Split(pick(self.rows, kept), pick(self.places, kept), pick(self.sources, kept), self.scratch)


@dataclass
class Part:
    """What one source gives.

    Attributes:
        source: As it was asked for.
        splits: `train`, `validation`, `test`; the last two may be empty.
        contents: Of each split, what identifies each record.
        files: sha256 of each file, by the name it was given.
        notes: Rows skipped, splits made.
        expected: Splits that were asked for, by a file or a share.
    """

    source: Source
    splits: dict[str, Split] = field(default_factory=lambda: {name: Split() for name in SPLITS})
    contents: dict[str, Sequence[str]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    expected: set[str] = field(default_factory=lambda: {"train"})


def read_source(source: Source, task: Task, *, seed: int) -> Part:
    """Read the files of a source and make the splits that are not given, out of its training file.

    A missing validation split is never replaced by the test split, and a made split never shares a text with another.

    Args:
        source: Which files, and how to read them.
        task: Says which text of a record is its content.
        seed: Fixes which rows go where.

    Raises:
        DataError: Naming every column that is not there, else every unusable record (up to ten).
    """
    settings, part = source.settings, Part(source)
    for name in SPLITS:
        if file := settings.get(name):
            records = read_records(
                str(file),
                encoding=str(settings["encoding"]),
                on_bad=str(settings["on_bad"]),
                quoting=str(settings["quoting"]),
                header=settings.get("header"),
                in_memory=float(settings.get("in_memory", IN_MEMORY)),
                cache=settings.get("cache"),
            )
            part.files[str(file)] = records.sha256
            part.notes += [f"skipped: {message}" for message in records.skipped]
            part.notes += records.notes
            part.splits[name] = taken(records, settings.get("limit"), source.name or None)
    own = [(f"data.mix.{source.name}.columns.{ours}", theirs) for ours, theirs in source.columns.items()]
    named = own if source.name else task.named_columns()
    if faults := missing_columns(named, part.splits["train"].rows, short(str(settings["train"]))):
        raise DataError.listing(faults)
    if source.name:
        read_as_run(source, part)
    part.contents = {name: contents_of(split, task) for name, split in part.splits.items()}
    wanted = {name: 0.0 if settings.get(name) else float(settings["split"][name]) for name in SPLITS[1:]}
    part.expected |= {name for name in SPLITS[1:] if settings.get(name) or wanted[name]}
    if any(wanted.values()):
        make_splits(part, task, wanted, seed)
    return part


def make_splits(part: Part, task: Task, wanted: Mapping[str, float], seed: int) -> None:
    """Share the rows of the training file out among the splits whose share is above zero."""
    whole, texts = part.splits["train"], part.contents["train"]
    sides = assign_splits(texts, seed=seed, **wanted)
    plain = type(task).stratum is Task.stratum  # there are no classes, so no record needs to be looked at
    strata = [None] * len(sides) if plain else each(task.stratum, whole)
    part.notes += check_shares(sides, strata, **wanted)
    for name in SPLITS:
        if name == "train" or wanted[name]:
            kept = [place for place, side in enumerate(sides) if side == name]
            part.splits[name], part.contents[name] = whole.part(kept), pick(texts, kept)
            if name != "train":
                part.notes.append(f"{name}: {len(kept)} of {len(sides)} rows of the training file, by content hash")


def read_as_run(source: Source, part: Part) -> None:
    """Bring the rows of one source of a mix to the names that the run knows."""

    def changed(split: Split, change: Callable[[Record], Record]) -> Split:
        view: Sequence[Record] = Each(change, split.rows)
        return replace(split, rows=list(view) if split.scratch is None else view)

    own = source.columns
    if own:
        asked: Mapping[str, Any] = source.settings.get("run_columns") or {}
        columns = {asked.get(ours) or ours: theirs for ours, theirs in own.items()}
        part.splits = {name: changed(split, partial(renamed, columns=columns)) for name, split in part.splits.items()}
    if source.format:
        names = list(dict.fromkeys(name for row in part.splits["train"].rows for name in row))
        known = {ours: name for ours, name in (source.settings.get("run_columns") or {}).items() if name}
        kept = layout(source.format, names, known)
        part.splits = {name: changed(split, partial(laid_out, kept=kept)) for name, split in part.splits.items()}


def taken(records: Records, limit: int | None, name: str | None = None) -> Split:
    """The first `limit` records as a split, all of them where it is None; `name` is their source, else the file."""
    count = len(records.rows) if limit is None else min(int(limit), len(records.rows))
    kept = range(count)
    places: Sequence[str] = Each(records.where, kept)
    small = records.scratch is None
    sources = [name or short(records.source)] * count
    return Split(pick(records.rows, kept), list(places) if small else places, sources, records.scratch)


def contents_of(split: Split, task: Task) -> Sequence[str]:
    """What identifies each record; of records on disk it is on disk too."""
    if split.scratch is None:
        return each(task.content, split)
    from tunelab.data.arrow_store import TextWriter  # slow to load, and most files are small

    texts = TextWriter(split.scratch)
    each(lambda record: texts.append(task.content(record)), split)
    return texts.finish()


def each(action: Callable[[Record], T], split: Split) -> list[T]:
    """Apply `action` to every record; the faults of all records make one error, with their places."""
    found: list[T] = []
    faults: dict[str, list[str]] = {}  # what is wrong, and where: a fault of the whole file is told once
    for number, row in enumerate(split.rows):
        try:
            found.append(action(row))
        except DataError as fault:
            faults.setdefault(str(fault), []).append(split.places[number])
    if faults:
        total = sum(map(len, faults.values()))
        lines = [
            places[0] + (f" and {len(places) - 1} more like it" if len(places) > 1 else "") + f": {message}"
            for message, places in faults.items()
        ]
        more = f"\n  ... and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
        raise DataError(f"{total} unusable records:\n  " + "\n  ".join(lines[:SHOWN]) + more)
    return found

"""From the `data` block of the config to splits of records, and from records to counted examples."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tunelab.data.examples import Example
from tunelab.data.folds import Turn
from tunelab.data.mix import Source, sources_of
from tunelab.data.one_source import SPLITS, Part, Split, each, read_source, taken
from tunelab.data.split import Duplicate, find_duplicates
from tunelab.data.token_store import TokenWriter
from tunelab.data.turns import take_turn, without_splits
from tunelab.data.views import join
from tunelab.errors import DataError
from tunelab.tasks.base import Record, Task

__all__ = ["SPLITS", "Sources", "Split", "each", "encode_split", "read_splits", "taken"]


@dataclass(frozen=True)
class Sources:
    """The splits and where they came from.

    Attributes:
        splits: `train`, `validation`, `test`; the last two may be empty.
        files: sha256 of each file, by the name it was given.
        notes: What a reader should know: rows skipped, splits made, duplicates found.
        duplicates: Contents that stand more than once, within a split or across splits.
        weights: With `data.mix` how often an epoch sees the rows of each source; else empty.
    """

    splits: dict[str, Split]
    files: dict[str, str]
    notes: list[str]
    duplicates: list[Duplicate] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)


def read_splits(settings: Mapping[str, Any], task: Task, *, seed: int, turn: Turn | None = None) -> Sources:
    """Read every source, and lay their splits one after another.

    Each source that brings no validation or test file has its own made, by a hash of the content: a text that stands
    in several sources goes to the same side in all of them.

    Args:
        settings: The `data` block.
        task: Says which text of a record is its content.
        seed: Fixes which rows go where.
        turn: In a cross-validation, the fold that validates; each source has folds of its own.

    Raises:
        DataError: Naming every unusable record (up to ten), or a split that came out empty.
    """
    given, mixed = sources_of(settings), settings.get("mix") is not None
    if mixed:
        task.expect_mix()
    parts = [read_turn(source, task, turn, seed) if turn else read_source(source, task, seed=seed) for source in given]
    splits = {name: joined([part.splits[name] for part in parts]) for name in SPLITS}
    for name, split in splits.items():
        if not split.rows and any(name in part.expected for part in parts):
            raise DataError(
                f"the {name} split has no rows; give data.{name}=FILE or more rows to make it from, or set "
                f"data.split.{name}=0 to go without"
            )
    duplicates = find_duplicates({name: join([part.contents[name] for part in parts]) for name in SPLITS})
    notes = [f"{part.source.name}: {note}" if mixed else note for part in parts for note in part.notes]
    notes += duplicate_notes(duplicates)
    notes += mix_notes(parts) if mixed else []
    files = {name: digest for part in parts for name, digest in part.files.items()}
    weights = {source.name: source.weight for source in given} if mixed else {}
    return Sources(splits, files, notes, duplicates, weights)


def read_turn(source: Source, task: Task, turn: Turn, seed: int) -> Part:
    """Read the files of a source and part its rows as the turn of a fold has it."""
    part = read_source(replace(source, settings=without_splits(source.settings)), task, seed=seed)
    test = 0.0 if source.settings.get("test") else float(source.settings["split"]["test"])
    take_turn(part, task, turn, test=test, seed=seed)
    return part


def joined(parts: Sequence[Split]) -> Split:
    """The rows of several splits, one after another."""
    scratch = next((part.scratch for part in parts if part.scratch), None)
    rows: Sequence[Record] = join([part.rows for part in parts])
    return Split(rows, join([part.places for part in parts]), join([part.sources for part in parts]), scratch)


def mix_notes(parts: Sequence[Part]) -> list[str]:
    """What the sources of a mix share, and which of them lack a split that others have."""
    notes = [
        f"{part.source.name} has no row in {name}, so it has no scores there"
        for name in SPLITS[1:]
        for part in parts
        if not part.splits[name].rows and any(other.splits[name].rows for other in parts)
    ]
    contents = {part.source.name: join([part.contents[name] for name in SPLITS]) for part in parts}
    pairs = Counter(tuple(duplicate.places) for duplicate in find_duplicates(contents) if duplicate.across)
    return notes + [f"{count} texts occur in the sources {' and '.join(pair)}" for pair, count in pairs.items()]


def duplicate_notes(duplicates: Sequence[Duplicate]) -> list[str]:
    """One line for each pair of splits that share a text."""
    pairs = Counter(tuple(duplicate.places) for duplicate in duplicates if duplicate.across)
    return [
        f"{count} texts occur in both {' and '.join(pair)}: a score there measures memory too"
        for pair, count in pairs.items()
    ]


def encode_split(split: Split, task: Task, name: str = "the data") -> tuple[Sequence[Example], dict[str, int | float]]:
    """Examples of a split and its line of the data report; where the records are on disk, so are the examples.

    Args:
        split: The records.
        task: Fitted, with its tokenizer.
        name: What the split is called in messages.

    Returns:
        The examples, and the counts: rows, kept, dropped, truncated, tokens, supervised, longest.

    Raises:
        DataError: Naming every record that cannot be used, or a split in which none is left.
    """
    task.truncated = 0
    numbers = iter(range(len(split.rows)))
    store = TokenWriter(split.scratch) if split.scratch else None
    kept: list[Example] = []
    tokens = longest = 0
    supervised: float = 0

    def keep(record: Record) -> None:
        nonlocal tokens, longest, supervised
        example = task.encode(record, next(numbers))
        if example is not None:
            tokens, supervised = tokens + len(example.ids), supervised + example.units
            longest = max(longest, example.longest)
            (store or kept).append(example)

    each(keep, split)
    examples: Sequence[Example] = store.finish() if store else kept
    if split.rows and not examples:
        ways = ["raise data.max_tokens", "set data.too_long=truncate_prompt", "give more rows"]
        if task.limit is None:
            ways = ways[2:]
        elif getattr(task, "too_long", "") == "truncate_prompt":
            ways.pop(1)
        raise DataError(f"{name}: none of {len(split.rows)} rows is left: {why_left_out(task)}; {', or '.join(ways)}")
    counts: dict[str, int | float] = {
        "rows": len(split.rows),
        "dropped": len(split.rows) - len(examples),
        "truncated": task.truncated,
        "tokens": tokens,
        "supervised": supervised,
        "longest": longest,
    }
    return examples, counts


def left_out_notes(counts: Mapping[str, Mapping[str, int | float]], task: Task) -> list[str]:
    """One line for each split that rows were left out of."""
    return [
        f"{name}: {row['dropped']:,} of {row['rows']:,} rows are left out: {why_left_out(task)}"
        for name, row in counts.items()
        if row["dropped"]
    ]


def why_left_out(task: Task) -> str:
    """What makes a row useless to a task."""
    alone = " by its answers alone" if getattr(task, "too_long", "") == "truncate_prompt" else ""
    long = "" if task.limit is None else f"is longer than {task.limit:,} tokens{alone}, or "
    return f"each {long}has nothing to learn in it"


def padding_fraction(lengths: Sequence[int], micros: Sequence[Sequence[int]], *, flat: bool) -> float:
    """Share of pad tokens in micro-batches given as lists of example indices, in [0, 1)."""
    real = sum(lengths[i] for micro in micros for i in micro)
    laid = real if flat else sum(len(micro) * max(lengths[i] for i in micro) for micro in micros)
    return 1 - real / laid if laid else 0.0

"""From the `data` block of the config to splits of records, and from records to counted examples."""

import os
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, combinations, islice
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from tunelab.config.instantiate import import_target
from tunelab.config.schema import KEEP_TOGETHER_LIKENESS, DataConfig, SplitConfig
from tunelab.data.bad_rows import MAX_SKIPPED_SHARE
from tunelab.data.batching import SourceRange, source_ranges
from tunelab.data.columns import (
    ColumnCounts,
    ColumnUse,
    drop_columns,
    empty_texts,
    missing_column_faults,
    plainly_says_something,
    survey_columns,
    unread_column_faults,
)
from tunelab.data.examples import Example
from tunelab.data.folds import FoldSpec, assign_folds, number_groups
from tunelab.data.formats import FORMATS, RecordFormat, format_columns, keep_columns, register_format, rename_columns
from tunelab.data.grouped_splits import deal_splits
from tunelab.data.lazy_sequences import MappedView, SubsetView, concatenate, select_items
from tunelab.data.memory_map import ScratchDir
from tunelab.data.mixture import SourceConfig, list_sources
from tunelab.data.near_duplicates import near_duplicate_clusters
from tunelab.data.parallel import map_parts
from tunelab.data.protocols import EncodingTask, Record, RecordTask
from tunelab.data.readers import Records, read_records, short_name
from tunelab.data.row_streams import read_head
from tunelab.data.splits import (
    TEST,
    TRAIN,
    VALIDATION,
    DuplicateIndex,
    HashedTexts,
    assign_splits,
    concatenate_contents,
    hash_of_compared,
    hash_position,
    hash_positions,
    index_duplicates,
    normalize_text,
    position_of_compared,
    select_contents,
    split_share_warnings,
)
from tunelab.data.text_store import TextBlock, TextWriter
from tunelab.data.token_store import TokenBlock, TokenWriter, row_indices
from tunelab.data.unknown_tokens import (
    MAX_ROWS_LOOKED_AT,
    UnknownShare,
    count_lost,
    count_unknown,
    unknown_token_messages,
)
from tunelab.errors import ConfigError, DataError, WarningNote
from tunelab.language.translation import labelled, message, translate

SPLITS = ("train", "validation", "test")
MAX_FAULTS_LISTED = 10  # faults listed in one message
T = TypeVar("T")


@dataclass(frozen=True)
class Split:
    """The records of one split, each with the place it came from.

    Attributes:
        rows: The records; of a large file they stay on disk, and each access makes a fresh dict.
        locations: Where each stands, such as "train.jsonl line 12".
        sources: Where each comes from: its file, or with `data.mix` the name of its source.
        scratch: Of records on disk, the folder they lie in; None where all are in memory.
    """

    rows: Sequence[Record] = field(default_factory=list)
    locations: Sequence[str] = field(default_factory=list)
    sources: Sequence[str] = field(default_factory=list)
    scratch: ScratchDir | None = None

    def select(self, kept: Sequence[int]) -> "Split":
        """The rows at some indices, as a split."""
        if self.scratch is not None:
            kept = array("q", kept)  # held once for all
        return Split(
            select_items(self.rows, kept),
            select_items(self.locations, kept),
            select_items(self.sources, kept),
            self.scratch,
        )


@dataclass
class SourceSplits:
    """The splits of one source, with contents, files and notes.

    Attributes:
        source: Its configuration.
        splits: `train`, `validation`, `test`; the last two may be empty.
        contents: Of each split, what identifies each record.
        files: sha256 of each file, by the name it was given.
        notes: Rows skipped, splits made.
        required_splits: Splits that a file or a share was set for.
        columns: Which of its columns are read.
    """

    source: SourceConfig
    splits: dict[str, Split] = field(default_factory=lambda: {name: Split() for name in SPLITS})
    contents: dict[str, Sequence[str]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    required_splits: set[str] = field(default_factory=lambda: {"train"})
    columns: ColumnUse = field(default_factory=ColumnUse)

    def change_rows(self, change: Callable[[Record], Record]) -> None:
        """Change every row of every split."""
        for name, split in self.splits.items():
            view: Sequence[Record] = MappedView(change, split.rows)
            self.splits[name] = replace(split, rows=list(view) if split.scratch is None else view)


def import_formats(data: DataConfig) -> None:
    """Register the formats that the `data` block names by a function of another package: `mylab.formats.dialogue`.

    The function takes nothing and returns a `RecordFormat`.

    Raises:
        ConfigError: If there is no such function, or no `plugins=[...]` allows its package.
    """
    for name in {source.format for source in list_sources(data)} | {str(getattr(data, "format", ""))}:
        if "." in name:
            form = import_target(name)()
            if not isinstance(form, RecordFormat):
                raise ConfigError(
                    translate(
                        "data.format={name}: the function returns no RecordFormat but {form!r:.60}",
                        name=name,
                        form=form,
                    )
                )
            register_format(name, form)


def read_source(source: SourceConfig, task: RecordTask, *, seed: int) -> SourceSplits:
    """Read the files of a source and make the splits that are not given, out of its training file.

    A missing validation split is never replaced by the test split, and a made split never shares a text with another.

    Args:
        source: Which files, and how to read them.
        task: Says which text of a record is its content.
        seed: Fixes which rows go where.

    Raises:
        DataError: Naming every column that is not there, else every unusable record (up to ten).
    """
    data, part = source.data, SourceSplits(source)
    files = {"train": data.train, "validation": data.validation, "test": data.test}
    for name in SPLITS:
        if file := files[name]:
            records = (
                read_head(data)
                if data.streaming and name == "train"
                else read_records(
                    file,
                    encoding=data.encoding,
                    on_bad=data.on_bad,
                    quoting=data.quoting,
                    header=data.header,
                    in_memory=data.in_memory,
                    cache=data.cache,
                )
            )
            part.files[file] = records.sha256
            part.notes += [translate("skipped: {message}", message=message) for message in records.skipped]
            part.notes += records.notes
            part.splits[name] = to_split(records, data.limit, source.name or None)
    more_named = [("data.ignore_columns", name) for name in data.ignored]
    more_named += [("data.group", data.group)] if data.group else []
    own = [(f"data.mix.{source.name}.columns.{ours}", theirs) for ours, theirs in source.columns.items()]
    named = own if source.name else task.named_columns()
    faults = missing_column_faults([*named, *more_named], part.splits["train"].rows, short_name(str(data.train)))
    faults += [
        translate(
            "data.ignore_columns leaves out '{name}', which {setting} names; take it out of one of the two",
            name=name,
            setting=setting,
        )
        for setting, name in named
        if name in data.ignored
    ]
    if faults:
        raise DataError.listing(faults)
    if data.ignored:
        part.change_rows(partial(drop_columns, names=frozenset(data.ignored)))
    if source.name and source.columns:
        columns = {data.run_columns.get(ours) or ours: theirs for ours, theirs in source.columns.items()}
        part.change_rows(partial(rename_columns, columns=columns))
    if source.name and source.format:
        looks = {name: look_at_rows(split) for name, split in part.splits.items()}
        check_columns(part, task, looks)
        keep_format_columns(source, part)
        looks = {name: look_at_rows(split, task, seed) for name, split in part.splits.items()}
    else:
        looks = {name: look_at_rows(split, task, seed) for name, split in part.splits.items()}
        check_columns(part, task, looks)
    for name, look in looks.items():
        take_contents(part, name, look, skip_bad=data.on_bad == "skip")
    shares = {"validation": data.split.validation, "test": data.split.test}
    shares = {name: 0.0 if files[name] else share for name, share in shares.items()}
    part.required_splits |= {name for name in SPLITS[1:] if files[name] or shares[name]}
    if any(shares.values()):
        make_splits(part, task, shares, seed)
    return part


@dataclass
class RowsLook:
    """One look at every row of a split.

    Attributes:
        columns: What its columns hold.
        contents: Of each row that can be read.
        faults: Rows that cannot, by their index, and why.
    """

    columns: ColumnCounts = field(default_factory=ColumnCounts)
    contents: Sequence[str] = field(default_factory=list)
    faults: list[tuple[int, str]] = field(default_factory=list)


def look_at_rows(split: Split, task: RecordTask | None = None, seed: int = 0) -> RowsLook:
    """Look at every row of a split; with a task at their contents too, which are kept on disk where the rows are.

    Args:
        split: The records.
        task: Says which text of a record is its content.
        seed: Of the run, which decides with the content where a row goes.
    """
    look, store = RowsLook(), TextWriter(split.scratch) if split.scratch and task else None
    contents: list[str] = []
    hashes, positions = [np.empty(0, np.uint64)], [np.empty(0, np.float64)]
    for block in map_rows(partial(look_at_block, task=task, seed=seed, on_disk=store is not None), split, task):
        look.columns.merge(block.columns)
        look.faults += block.faults
        contents += block.contents
        if store is not None:
            store.extend(block.stored)
            hashes.append(block.hashes)
            positions.append(block.positions)
    look.contents = (
        HashedTexts(store.finish(), np.concatenate(hashes), np.concatenate(positions))
        if store is not None
        else contents
    )
    return look


class BlockLook(NamedTuple):
    """The look at some rows in a row; of rows on disk the contents come as they are stored, with their hashes."""

    columns: ColumnCounts
    contents: list[str]
    stored: TextBlock
    hashes: npt.NDArray[np.uint64]
    positions: npt.NDArray[np.float64]
    faults: list[tuple[int, str]]


def look_at_block(
    rows: Sequence[Record], first: int, *, task: RecordTask | None, seed: int, on_disk: bool
) -> BlockLook:
    """The look at rows of which the first has a certain index."""
    columns, contents, faults = ColumnCounts(), list[str](), list[tuple[int, str]]()
    columns.add(rows)
    if task:
        for place, row in enumerate(rows, start=first):
            try:
                contents.append(task.content(row))
            except DataError as fault:
                faults.append((place, str(fault)))
    if not on_disk:
        return BlockLook(columns, contents, *NOTHING_STORED, faults)
    compared = [normalize_text(content) for content in contents]
    hashes = np.fromiter(map(hash_of_compared, compared), np.uint64, len(compared))
    positions = np.fromiter((position_of_compared(text, seed) for text in compared), np.float64, len(compared))
    return BlockLook(columns, [], TextBlock.of(contents), hashes, positions, faults)


NOTHING_STORED = (TextBlock.of([]), np.empty(0, np.uint64), np.empty(0, np.float64))
BLOCK_ROWS = 4096  # rows that a process works on at once


def map_rows(function: Callable[[Sequence[Record], int], T], split: Split, task: object = None) -> Iterator[T]:
    """The results of a function for blocks of rows and the index of the first of each, in order.

    Rows on disk are worked on by every core, unless the task or a format is of a package of the user's own, which may
    do anything.
    """

    def of_block(first: int) -> T:
        return function(split.rows[first : first + BLOCK_ROWS], first)

    spread = split.scratch is not None and (task is None or is_own_code(task))
    yield from map_parts(of_block, range(0, len(split.rows), BLOCK_ROWS), None if spread else 1)


def is_own_code(task: object) -> bool:
    """Whether a task and every format are of this package, so that it is known what they do."""
    return type(task).__module__.startswith("tunelab.") and not any("." in name for name in FORMATS)


def take_contents(part: SourceSplits, name: str, look: RowsLook, *, skip_bad: bool) -> None:
    """Keep the contents of a split; rows without one are refused, or left out with a note for each.

    Raises:
        DataError: Naming them.
    """
    split = part.splits[name]
    part.contents[name] = look.contents
    if look.faults:
        skipped: list[str] | None = [] if skip_bad else None
        judge_faults(look.faults, split, skipped=skipped)
        bad = {place for place, _ in look.faults}
        part.splits[name] = split.select([place for place in range(len(split.rows)) if place not in bad])
        part.notes += [translate("skipped: {fault}", fault=fault) for fault in skipped or ()]


def make_splits(part: SourceSplits, task: RecordTask, shares: Mapping[str, float], seed: int) -> None:
    """Divide the rows of the training file into the splits whose share is above zero."""
    whole, texts, data = part.splits["train"], part.contents["train"], part.source.data
    sets = tied_rows(data, whole, texts)
    if sets is None:
        sides, way = assign_splits(texts, seed=seed, **shares), translate("by content hash")
    else:
        labels = map_records(task.strata, whole)
        sides, way = deal_sets(sets, labels, texts, shares, seed), f"with {tie_words(data, data.group)} on one side"
    strata = map_records(task.stratum, whole) if task.has_classes else [None] * len(sides)
    part.notes += split_share_warnings(sides, strata, **shares)
    for name in SPLITS:
        if name == "train" or shares[name]:
            kept = [place for place, side in enumerate(sides) if side == name]
            part.splits[name], part.contents[name] = whole.select(kept), select_contents(texts, kept)
            if name != "train":
                part.notes.append(
                    translate(
                        "{name}: {count} of {total} [row|rows] of the training file, {way}",
                        name=name,
                        count=len(kept),
                        total=len(sides),
                        way=way,
                    )
                )
    if data.group:
        part.notes += shared_group_notes(part, data.group)


def tied_rows(data: DataConfig, whole: Split, texts: Sequence[str], group: str | None = None) -> list[int] | None:
    """The set of each row that no border between made splits may cut; None where rows are tied by equal texts only.

    Args:
        data: Says which column makes groups, and whether near duplicates stay together.
        whole: The rows.
        texts: Their contents.
        group: Column of groups that folds name themselves.
    """
    column, near = group or data.group, data.near_duplicates == "keep_together"
    if not column and not near:
        return None
    keys: list[Sequence[str | int]] = [[normalize_text(text) for text in texts]]
    keys += [record_groups(whole, column, "data.group" if data.group else "cv.group")] if column else []
    keys += [near_duplicate_clusters(texts, threshold=KEEP_TOGETHER_LIKENESS, scratch=whole.scratch)] if near else []
    return number_groups(*keys)


def tie_words(data: DataConfig, group: str | None) -> str:
    """What ties rows together, for a message."""
    near = ["near duplicates"] if data.near_duplicates == "keep_together" else []
    return translate(" and ").join([translate("each {group}", group=group)] * bool(group) + near)


def deal_sets(
    sets: Sequence[int], labels: Sequence[Sequence[str]], texts: Sequence[str], shares: Mapping[str, float], seed: int
) -> list[str]:
    """The split of each row where sets of rows stay whole; what the shares leave is train.

    Test is dealt first, so that its rows are the same whatever becomes of the others.
    """
    order = hash_positions(texts, seed)
    sides, left = [TRAIN] * len(sets), 1.0
    for name in (TEST, VALIDATION):
        if share := shares.get(name, 0.0):
            free = [row for row, side in enumerate(sides) if side == TRAIN]
            parts = {TRAIN: 1 - share / left, name: share / left}
            dealt = deal_splits(
                [sets[row] for row in free], [labels[row] for row in free], [order[r] for r in free], parts
            )
            for row, side in zip(free, dealt, strict=True):
                sides[row] = side
            left -= share
    return sides


def shared_group_notes(part: SourceSplits, column: str) -> list[str]:
    """A line for each pair of splits that share a group, as files given by the user may."""
    groups = {
        name: set(record_groups(split, column, "data.group")) for name, split in part.splits.items() if split.rows
    }
    return [
        translate(
            "{count} [value|values] of {column} [occurs|occur] in both {one} and {other}: a score there measures "
            "memory too",
            count=len(shared),
            column=column,
            one=one,
            other=other,
        )
        for one, other in combinations(groups, 2)
        if (shared := groups[one] & groups[other])
    ]


def check_columns(part: SourceSplits, task: RecordTask, looks: Mapping[str, RowsLook]) -> None:
    """Note which columns of a source are read, and refuse those whose text must not be lost, unless all may be.

    Raises:
        DataError: Naming them, each with a way out.
    """
    counts = ColumnCounts()
    for look in looks.values():
        counts.merge(look.columns)
    columns, format, data = list(counts.names), part.source.format, part.source.data
    part.columns = counts.use(
        lambda filled: {*task.columns_read(columns, filled, format), *([data.group] if data.group else [])},
        ignored=data.ignored,
    )
    if data.ignore_columns is None:
        return
    name = part.source.name or short_name(str(data.train))
    if faults := unread_column_faults(part.columns, lambda column: task.unread_advice(column, columns, format), name):
        raise DataError.listing(faults)


def unread_column_notes(rows: Sequence[Record], task: RecordTask) -> list[str]:
    """A line that names the columns with text that a trained task does not read; nothing where it reads all."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    unread = survey_columns(rows, lambda filled: task.columns_read(columns, filled)).unread
    listed = ", ".join(
        translate("{name} (text in {count:,} [row|rows])", name=name, count=count) for name, count in unread.items()
    )
    return [translate("columns that the run does not read: {listed}", listed=listed)] if unread else []


def keep_format_columns(source: SourceConfig, part: SourceSplits) -> None:
    """Drop the columns of one source of a mix that its format does not have, so that each row shows what it is."""
    names = list(dict.fromkeys(name for row in part.splits["train"].rows for name in row))
    known = {ours: name for ours, name in source.data.run_columns.items() if name}
    kept = format_columns(source.format, names, known)
    part.change_rows(partial(keep_columns, kept=kept.union([source.data.group] if source.data.group else [])))


def to_split(records: Records, limit: int | None, name: str | None = None) -> Split:
    """The first `limit` records as a split, all of them where it is None; `name` is their source, else the file."""
    count = len(records.rows) if limit is None else min(int(limit), len(records.rows))
    kept = range(count)
    places: Sequence[str] = records.locations if limit is None else SubsetView(records.locations, kept)
    small = records.scratch is None
    sources = [name or short_name(records.source)] * count
    rows = records.rows if limit is None else select_items(records.rows, kept)
    return Split(rows, list(places) if small else places, sources, records.scratch)


def map_records(action: Callable[[Record], T], split: Split) -> list[T]:
    """The results of `action` for every record, in order.

    Args:
        action: Raises DataError for a record that cannot be used; depends on the record alone.
        split: The records.

    Raises:
        DataError: Naming all records that cannot be used.
    """

    def act_on(rows: Sequence[Record], first: int) -> tuple[list[T], list[tuple[int, str]]]:
        results, faults = list[T](), list[tuple[int, str]]()
        for number, row in enumerate(rows, start=first):
            try:
                results.append(action(row))
            except DataError as fault:
                faults.append((number, str(fault)))
        return share_equal_texts(results, {}), faults

    results, faults, known = list[T](), list[tuple[int, str]](), dict[T, T]()
    for of_block, bad in map_rows(act_on, split, getattr(action, "__self__", None)):
        results += share_equal_texts(of_block, known)
        faults += bad
    judge_faults(faults, split)
    return results


def share_equal_texts(values: list[T], known: dict[T, T]) -> list[T]:
    """The values, of equal texts one alone, so that a million labels take the memory of a few."""
    return [known.setdefault(value, value) if isinstance(value, str) else value for value in values]


def judge_faults(
    faults: Sequence[tuple[int, str]], split: Split, *, skipped: list[str] | None = None, of_rows: int | None = None
) -> None:
    """Refuse records that cannot be used, or take their faults where they are few; arguments as of `map_records`.

    Args:
        faults: Indices of the records, and what is wrong with each.
        split: Where they stand.
        skipped: Takes the faults.
        of_rows: What their share is taken of.

    Raises:
        DataError: Naming them, a fault of the whole file once.
    """
    by_message: dict[str, list[str]] = {}
    for number, reason in faults:
        by_message.setdefault(reason, []).append(split.locations[number])
    total = len(faults)
    rows = len(split.rows) if of_rows is None else of_rows
    if skipped is not None and len(skipped) + total <= MAX_SKIPPED_SHARE * rows:
        skipped += [labelled(place, reason) for reason, places in by_message.items() for place in places]
    elif faults:
        lines = [
            labelled(
                places[0] + (translate(" and {count} more like it", count=len(places) - 1) if len(places) > 1 else ""),
                reason,
            )
            for reason, places in by_message.items()
        ]
        more = (
            translate("\n  ... and {count} more", count=len(lines) - MAX_FAULTS_LISTED)
            if len(lines) > MAX_FAULTS_LISTED
            else ""
        )
        count = translate("{total} unusable [record|records]", total=total)
        if skipped is not None:
            count = translate("{count} unusable [record|records] of {rows}", count=len(skipped) + total, rows=rows)
            count += translate(
                ", and data.on_bad=skip stops above {max_skipped_share:.0%}", max_skipped_share=MAX_SKIPPED_SHARE
            )
        raise DataError(f"{count}:\n  " + "\n  ".join(lines[:MAX_FAULTS_LISTED]) + more)


def make_cv_split(part: SourceSplits, task: RecordTask, fold: FoldSpec, *, test: float, seed: int) -> None:
    """Divide the rows of a source into the training and validation split of one fold.

    The rows of a validation file join those of the training file.  A test file is left alone; without one, test rows
    are drawn as in any other run, so that they are the same: by a hash of the text, or of the group where groups stay
    together.

    Args:
        part: A source whose files have been read, nothing made from them yet; changed in place.
        task: Knows texts and labels of records.
        fold: Which fold validates.
        test: Share of the rows that becomes the test split; 0 where there is a file, or no test split is made.
        seed: Fixes which rows go where.

    Raises:
        DataError: If the column of groups is missing, or the folds cannot be filled.
    """
    whole, texts = pool_validation_rows(part)
    data, column = part.source.data, fold.group or part.source.data.group
    groups = None if column is None else record_groups(whole, column, "cv.group" if fold.group else "data.group")
    dealt = bool(data.group) or data.near_duplicates == "keep_together"
    labels = map_records(task.strata, whole)
    free = list(range(len(texts)))
    if test:
        sides = (
            deal_sets(tied_rows(data, whole, texts, column) or [], labels, texts, {TEST: test}, seed)
            if dealt
            else assign_splits(groups or texts, validation=0, test=test, seed=seed)
        )
        strata = ["+".join(sorted(names)) or None for names in labels]
        part.notes += split_share_warnings(sides, strata, validation=0, test=test)
        held_out = [row for row, side in enumerate(sides) if side == TEST]
        part.splits[TEST], part.contents[TEST] = whole.select(held_out), select_contents(texts, held_out)
        way = translate("by hash of {column}", column=column) if groups else translate("by content hash")
        way = translate("with {data} on one side", data=tie_words(data, column)) if dealt else way
        part.notes.append(
            translate("test: {count} of {total} [row|rows], {way}", count=len(held_out), total=len(sides), way=way)
        )
        part.required_splits.add(TEST)
        free = [row for row, side in enumerate(sides) if side != TEST]
    elif groups and part.splits[TEST].rows:
        shared = set(groups) & set(record_groups(part.splits[TEST], str(column), "cv.group"))
        part.notes += (
            [
                translate(
                    "{count} [value|values] of {column} [occurs|occur] in test and in the folds",
                    count=len(shared),
                    column=column,
                )
            ]
            if shared
            else []
        )
    free_texts = [normalize_text(texts[row]) for row in free]
    fold_of_row = assign_folds(
        tied_rows(data, whole.select(free), free_texts, column) or number_groups(free_texts),
        [labels[row] for row in free],
        [hash_position(texts[row], seed) for row in free],
        folds=fold.count,
    )
    for name, validates in (("validation", True), ("train", False)):
        kept = [row for row, index in zip(free, fold_of_row, strict=True) if (index == fold.index) is validates]
        part.splits[name], part.contents[name] = whole.select(kept), select_contents(texts, kept)
    part.required_splits |= {"train", "validation"}
    ties = tie_words(data, column)
    ways = [translate("with equal shares of each label")] * any(labels) + [
        translate("{ties} in one fold", ties=ties)
    ] * bool(ties)
    part.notes.append(
        translate(
            "fold {index} of {folds}: {count} [row trains|rows train] and {held_out} validate{names}; no fold "
            "sees test rows",
            index=fold.index,
            folds=fold.count,
            count=len(part.splits["train"].rows),
            held_out=len(part.splits["validation"].rows),
            names="".join(f", {way}" for way in ways),
        )
    )


def pool_validation_rows(part: SourceSplits) -> tuple[Split, Sequence[str]]:
    """The rows that folds are made of, with their contents: those of the training file, then of a validation file."""
    files = [part.splits[name] for name in ("train", "validation") if name == "train" or part.splits[name].rows]
    if len(files) == 1:
        return files[0], part.contents["train"]
    part.notes.append(
        translate(
            "the {count} [row|rows] of the validation file [takes|take] part in the folds", count=len(files[1].rows)
        )
    )
    return concat_splits(files), concatenate_contents([part.contents["train"], part.contents["validation"]])


def record_groups(split: Split, column: str, setting: str) -> list[str]:
    """The group of each record.

    Raises:
        DataError: Naming every record without one.
    """

    def group(record: Record) -> str:
        value = record.get(column)
        if value is None or value == "":
            raise DataError(
                translate(
                    "{setting}={column}: no value there; the columns are {names}",
                    setting=setting,
                    column=column,
                    names=", ".join(record),
                )
            )
        return str(value)

    return map_records(group, split)


@dataclass(frozen=True)
class DataSplits:
    """The splits and where they came from.

    Attributes:
        splits: `train`, `validation`, `test`; the last two may be empty.
        file_hashes: sha256 of each file, by the name it was given.
        notes: What a reader should know: rows skipped, splits made, duplicates found.
        duplicates: Contents that stand more than once, within a split or across splits.
        weights: With `data.mix` how often an epoch sees the rows of each source; else empty.
        columns: Which columns each source has that are read, unread or left out; its name is empty without a mix.
        contents: Of each split, what identifies each record; empty where the splits were not read from files.
    """

    splits: dict[str, Split]
    file_hashes: dict[str, str]
    notes: list[str]
    duplicates: DuplicateIndex = field(default_factory=partial(index_duplicates, {}))
    weights: dict[str, float] = field(default_factory=dict)
    columns: dict[str, ColumnUse] = field(default_factory=dict)
    contents: dict[str, Sequence[str]] = field(default_factory=dict)


def read_splits(data: DataConfig, task: RecordTask, *, seed: int, fold: FoldSpec | None = None) -> DataSplits:
    """Read every source, and lay their splits one after another.

    Each source that brings no validation or test file has its own made, by a hash of the content: a text that stands
    in several sources goes to the same side in all of them.

    Args:
        data: The block of the config.
        task: Says which text of a record is its content.
        seed: Fixes which rows go where.
        fold: In a cross-validation, the fold that validates; each source has folds of its own.

    Raises:
        DataError: Naming every unusable record (up to ten), or a split that came out empty.
    """
    sources, mixed = list_sources(data), data.mix is not None
    if mixed:
        task.expect_mixture()
    parts = [
        read_source_fold(source, task, fold, seed) if fold else read_source(source, task, seed=seed)
        for source in sources
    ]
    splits = {name: concat_splits([part.splits[name] for part in parts]) for name in SPLITS}
    for name, split in splits.items():
        if not split.rows and any(name in part.required_splits for part in parts):
            raise DataError(
                translate(
                    "the {name} split has no rows; give data.{name}=FILE or more rows to make it from, "
                    "or set data.split.{name}=0 to go without",
                    name=name,
                )
            )
    contents = {name: concatenate_contents([part.contents[name] for part in parts]) for name in SPLITS}
    duplicates = index_duplicates(contents)
    notes = [f"{part.source.name}: {note}" if mixed else note for part in parts for note in part.notes]
    notes += duplicate_notes(duplicates)
    notes += mixture_notes(parts) if mixed else []
    files = {name: digest for part in parts for name, digest in part.files.items()}
    weights = {source.name: source.weight for source in sources} if mixed else {}
    columns = {part.source.name: part.columns for part in parts}
    return DataSplits(splits, files, notes, duplicates, weights, columns, contents)


def read_source_fold(source: SourceConfig, task: RecordTask, fold: FoldSpec, seed: int) -> SourceSplits:
    """Read the files of a source and divide its rows into the splits of one fold."""
    undivided = replace(source.data, split=SplitConfig(validation=0.0, test=0.0))
    part = read_source(replace(source, data=undivided), task, seed=seed)
    test = 0.0 if source.data.test else source.data.split.test
    make_cv_split(part, task, fold, test=test, seed=seed)
    return part


def concat_splits(parts: Sequence[Split]) -> Split:
    """The rows of several splits, one after another."""
    scratch = next((part.scratch for part in parts if part.scratch), None)
    rows: Sequence[Record] = concatenate([part.rows for part in parts])
    return Split(
        rows, concatenate([part.locations for part in parts]), concatenate([part.sources for part in parts]), scratch
    )


def mixture_notes(parts: Sequence[SourceSplits]) -> list[str]:
    """Notes on splits that a source of a mix lacks, and on texts that several sources share."""
    notes = [
        translate("{name} has no row in {source}, so it has no scores there", name=part.source.name, source=name)
        for name in SPLITS[1:]
        for part in parts
        if not part.splits[name].rows and any(other.splits[name].rows for other in parts)
    ]
    contents = {part.source.name: concatenate_contents([part.contents[name] for name in SPLITS]) for part in parts}
    pairs = index_duplicates(contents).crossings()
    return notes + [
        translate(
            "{count} [text occurs|texts occur] in the sources {names}", count=count, names=translate(" and ").join(pair)
        )
        for pair, count in pairs.items()
    ]


def duplicate_notes(duplicates: DuplicateIndex) -> list[str]:
    """One line for each pair of splits that share a text."""
    return [
        WarningNote(
            translate(
                "{count} [text occurs|texts occur] in both {names}: a score there measures memory too",
                count=count,
                names=translate(" and ").join(pair),
            )
        )
        for pair, count in duplicates.crossings().items()
    ]


@dataclass(frozen=True)
class EncodedSplits:
    """The examples of every split.

    Attributes:
        examples: Of each split.
        counts: One line of counts for each split.
        portions: With `data.mix`, where the examples of each source stand in each split.
        unknown: How much of each split the tokenizer does not know; None where it has no token for that.
        notes: On rows that were left out or are several sequences, and on text that the tokenizer does not know.
        near_empty: Rows of each split with a text that says nothing.
    """

    examples: dict[str, Sequence[Example]]
    counts: dict[str, dict[str, int | float]]
    portions: dict[str, list[SourceRange]]
    unknown: dict[str, UnknownShare | None]
    notes: list[str]
    near_empty: dict[str, "array[int]"]


def encode_splits(
    sources: DataSplits,
    task: EncodingTask,
    tokenizer: PreTrainedTokenizerBase,
    max_unknown: float,
    *,
    skip_bad: bool = False,
) -> EncodedSplits:
    """Encode every split.

    Args:
        sources: The splits of records.
        task: Fitted, with its tokenizer.
        tokenizer: That tokenizer.
        max_unknown: Share of a split's text from which on a tokenizer that does not know it is refused; 1 refuses none.
        skip_bad: Whether a few records that cannot be used are left out, with a note for each, and not refused.

    Raises:
        DataError: If records cannot be used, the tokenizer does not know their text, or a weight is so small that an
            epoch sees nothing of its source.
    """
    bad: list[str] | None = [] if skip_bad else None
    rows = sum(len(split.rows) for split in sources.splits.values())
    near_empty = {name: array("q") for name in sources.splits}
    encoded = {
        name: encode_split(split, task, name, skipped=bad, of_rows=rows, near_empty=near_empty[name])
        for name, split in sources.splits.items()
    }
    examples = {name: split_examples for name, (split_examples, _) in encoded.items()}
    counts = {name: row for name, (_, row) in encoded.items()}
    texts = {
        name: [text for row in islice(split.rows, MAX_ROWS_LOOKED_AT) for text in task.record_texts(row).values()]
        for name, split in sources.splits.items()
    }
    unknown = {
        name: count_unknown(split_examples, tokenizer) or count_lost(texts[name], tokenizer)
        for name, split_examples in examples.items()
    }
    faults, warnings = unknown_token_messages(unknown, texts, tokenizer, max_unknown)
    if faults:
        raise DataError.listing(faults)
    notes: list[str] = [WarningNote(translate("skipped: {fault}", fault=fault)) for fault in bad or ()]
    notes += [*dropped_notes(counts, task), *sequence_notes(counts, examples), *warnings]
    return EncodedSplits(examples, counts, source_portions(sources, examples), unknown, notes, near_empty)


def source_portions(sources: DataSplits, examples: Mapping[str, Sequence[Example]]) -> dict[str, list[SourceRange]]:
    """With several sources, where the examples of each stand in each split; else nothing.

    Raises:
        DataError: If a weight is so small that an epoch sees nothing of its source.
    """
    if not sources.weights:
        return {}
    return {
        name: source_ranges(
            [sources.splits[name].sources[row] for row in row_indices(split_examples)],
            sources.weights if name == "train" else {},
        )
        for name, split_examples in examples.items()
    }


def encode_split(
    split: Split,
    task: EncodingTask,
    name: str = message("the data"),
    *,
    skipped: list[str] | None = None,
    of_rows: int | None = None,
    near_empty: "array[int] | None" = None,
) -> tuple[Sequence[Example], dict[str, int | float]]:
    """Examples of a split and its line of the data report; where the records are on disk, so are the examples.

    Args:
        split: The records.
        task: Fitted, with its tokenizer.
        name: What the split is called in messages.
        skipped: Takes the faults of records that cannot be used, which are left out; None refuses them.
        of_rows: Rows of all splits, of which few may be left out.
        near_empty: Takes the rows with a text that says nothing.

    Returns:
        The examples, and the counts: rows, kept, dropped and why (too_long, no_target, unusable: only those that are
        not 0), truncated, tokens, supervised, longest.

    Raises:
        DataError: Naming every record that cannot be used, or a split in which none is left.
    """
    task.truncated_count = task.too_long_count = 0
    unusable_before = len(skipped or ())
    store = TokenWriter(split.scratch) if split.scratch else None
    kept: list[Example] = []
    faults: list[tuple[int, str]] = []
    tokens = longest = rows_kept = too_long = 0
    supervised: float = 0
    for block in map_rows(partial(encode_block, task=task, to_store=store is not None), split, task):
        if store:
            store.extend(block.stored)
        kept += block.examples
        faults += block.faults
        if near_empty is not None:
            near_empty.extend(block.near_empty)
        tokens, supervised, rows_kept = tokens + block.tokens, supervised + block.supervised, rows_kept + block.rows
        longest, too_long = max(longest, block.longest), too_long + block.too_long
        if block.process != os.getpid():
            task.add_tally(block.tally)
    judge_faults(faults, split, skipped=skipped, of_rows=of_rows)
    examples: Sequence[Example] = store.finish() if store else kept
    if split.rows and not examples:
        ways = [
            translate("raise data.max_tokens"),
            translate("set data.too_long=truncate_prompt"),
            translate("give more rows"),
        ]
        if task.limit is None:
            ways = ways[2:]
        elif task.too_long == "truncate_prompt":
            ways.pop(1)
        raise DataError(
            translate(
                "{name}: none of {count} [row|rows] is left: {task}; {names}",
                name=name,
                count=len(split.rows),
                task=drop_reason(task),
                names=", or ".join(ways),
            )
        )
    dropped, unusable = len(split.rows) - rows_kept, len(skipped or ()) - unusable_before
    reasons = {"too_long": too_long, "no_target": dropped - too_long - unusable, "unusable": unusable}
    counts: dict[str, int | float] = {
        "rows": len(split.rows),
        "kept": rows_kept,
        "dropped": dropped,
        **{reason: count for reason, count in reasons.items() if count},
        "truncated": task.truncated_count,
        "tokens": tokens,
        "supervised": int(supervised) if supervised == int(supervised) else supervised,
        "longest": longest,
    }
    return examples, counts


class EncodedBlock(NamedTuple):
    """The examples of some rows in a row: as they are stored, or else as they are.

    Attributes:
        faults: Rows that cannot be used, and why.
        near_empty: Rows with a text that says nothing.
        rows: How many rows gave an example.
        too_long: How many gave none as they are too long.
        tally: What the task counted meanwhile.
        process: In which process.
    """

    stored: TokenBlock
    examples: list[Example]
    faults: list[tuple[int, str]]
    near_empty: list[int]
    rows: int
    tokens: int
    supervised: float
    longest: int
    too_long: int
    tally: tuple[int, ...]
    process: int


def encode_block(rows: Sequence[Record], first: int, *, task: EncodingTask, to_store: bool) -> EncodedBlock:
    """The examples of rows of which the first has a certain index."""
    before, own_code = task.tally(), is_own_code(task)
    plain = task.plain_exchanges(rows) if to_store and own_code else None
    rest, numbers = rows, np.arange(first, first + len(rows))  # records that are not plain, and their rows
    if plain is not None:
        left = np.ones(len(rows), bool)
        left[plain.rows] = False
        rest, numbers = [rows[place] for place in np.flatnonzero(left).tolist()], numbers[left]
    outcomes: list[Sequence[Example] | DataError] = []
    too_long, longer = 0, task.too_long_count
    for outcome in task.encode_many(rest, first if plain is None else 0):
        too_long += not isinstance(outcome, DataError) and not outcome and task.too_long_count > longer
        longer = task.too_long_count
        outcomes.append(outcome)
    faults = [
        (row, str(fault)) for row, fault in zip(numbers.tolist(), outcomes, strict=True) if isinstance(fault, DataError)
    ]
    good = [outcome for outcome in outcomes if not isinstance(outcome, DataError)]
    examples = list(chain.from_iterable(good))
    stored = TokenBlock.of(examples if to_store else [])
    if plain is not None:
        stored.rows["row"] = numbers[stored.rows["row"]]
        stored = stored.beside(TokenBlock.of_exchanges(plain._replace(rows=plain.rows + first)))
    unusable = {row for row, _ in faults}
    return EncodedBlock(
        stored,
        [] if to_store else examples,
        faults,
        [
            row
            for row, record in enumerate(rows, start=first)
            if not (own_code and plainly_says_something(record))
            and row not in unusable
            and empty_texts(task.record_texts(record))
        ],
        sum(map(bool, good)) + (0 if plain is None else len(plain.rows)),
        sum(len(example.ids) for example in examples) + (0 if plain is None else len(plain.flat.ids)),
        sum(example.loss_weight for example in examples) + (0 if plain is None else int(plain.supervised().sum())),
        max(
            max((example.max_sequence_length for example in examples), default=0),
            0 if plain is None else int(np.diff(plain.flat.ends, prepend=0).max(initial=0)),
        ),
        too_long,
        tuple(after - earlier for after, earlier in zip(task.tally(), before, strict=True)),
        os.getpid(),
    )


def dropped_notes(counts: Mapping[str, Mapping[str, int | float]], task: EncodingTask) -> list[str]:
    """One line for each split that rows were left out of."""
    return [
        WarningNote(
            translate(
                "{name}: dropped {dropped:,} of {rows:,} [row|rows]: {row}",
                name=name,
                dropped=row["dropped"],
                rows=row["rows"],
                row=drop_counts(row, task),
            )
        )
        for name, row in counts.items()
        if row["dropped"]
    ]


def drop_counts(row: Mapping[str, int | float], task: EncodingTask) -> str:
    """How many rows of a split were dropped for each reason.

    Args:
        row: The counts of the split, as `encode_split` gives them.
        task: Knows the limit, and what happens to a longer row.
    """
    alone = translate(" by its answers alone") if task.too_long == "truncate_prompt" else ""
    texts = {
        "too_long": translate("longer than {value:,} [token|tokens]{alone}", value=task.limit or 0, alone=alone),
        "no_target": translate("without target tokens"),
        "unusable": translate("unusable (data.on_bad=skip)"),
    }
    return ", ".join(f"{row[reason]:,} {text}" for reason, text in texts.items() if reason in row)


def sequence_notes(
    counts: Mapping[str, Mapping[str, int | float]], examples: Mapping[str, Sequence[Example]]
) -> list[str]:
    """One line for each split whose records give more sequences than there are rows."""
    return [
        translate(
            "{name}: {rows:,} [row is|rows are] {count:,} [sequence|sequences]: the chat template writes an earlier "
            "answer otherwise than a model is asked for it (its reasoning is left out, say), so "
            "each such answer is learned in a text of its own",
            name=name,
            rows=rows,
            count=len(examples[name]),
        )
        for name, row in counts.items()
        if len(examples[name]) > (rows := int(row["rows"] - row["dropped"]))
    ]


def drop_reason(task: EncodingTask) -> str:
    """The reason why rows are dropped, for a message."""
    alone = translate(" by its answers alone") if task.too_long == "truncate_prompt" else ""
    long = (
        ""
        if task.limit is None
        else translate("is longer than {limit:,} [token|tokens]{alone}, or ", limit=task.limit, alone=alone)
    )
    return translate("each {long}has nothing to learn (no target tokens)", long=long)

"""The splits of one run of a cross-validation: one fold validates, all others train, the test split stays as it is."""

from collections.abc import Mapping, Sequence

from tunelab.data.folds import Turn, assign_folds, tied
from tunelab.data.one_source import Part, Split, each
from tunelab.data.split import TEST, assign_splits, check_shares, normal, position
from tunelab.data.views import join, pick
from tunelab.errors import DataError
from tunelab.tasks.base import Record, Task


def take_turn(part: Part, task: Task, turn: Turn, *, test: float, seed: int) -> None:
    """Part the rows that may be learned from among training and validation, as the turn of a fold has it.

    The rows of a validation file join those of the training file.  A test file is left alone; without one, test rows
    are drawn as in any other run, so that they are the same: by a hash of the text, or of the group where groups stay
    together.

    Args:
        part: A source whose files have been read, nothing made from them yet; changed in place.
        task: Knows texts and labels of records.
        turn: Which fold validates.
        test: Share of the rows that becomes the test split; 0 where there is a file, or none is wanted.
        seed: Fixes which rows go where.

    Raises:
        DataError: If the column of groups is missing, or the folds cannot be filled.
    """
    whole = part.splits["train"]
    texts: Sequence[str] = part.contents["train"]
    if given := part.splits["validation"].rows:
        more = part.splits["validation"]
        whole = Split(
            join([whole.rows, more.rows]), join([whole.places, more.places]), join([whole.sources, more.sources]),
            whole.scratch,
        )  # fmt: skip
        texts = join([texts, part.contents["validation"]])
        part.notes.append(f"the {len(given)} rows of the validation file take part in the folds")
    groups = None if turn.group is None else groups_of(whole, turn.group)
    labels = each(task.strata, whole)
    free = list(range(len(texts)))
    if test:
        sides = assign_splits(groups or texts, validation=0, test=test, seed=seed)
        part.notes += check_shares(
            sides, ["+".join(sorted(found)) or None for found in labels], validation=0, test=test
        )
        held = [row for row, side in enumerate(sides) if side == TEST]
        part.splits[TEST], part.contents[TEST] = whole.part(held), pick(texts, held)
        by = f"hash of {turn.group}" if groups else "content hash"
        part.notes.append(f"test: {len(held)} of {len(sides)} rows, by {by}")
        part.expected.add(TEST)
        free = [row for row, side in enumerate(sides) if side != TEST]
    elif groups and part.splits[TEST].rows:
        shared = set(groups) & set(groups_of(part.splits[TEST], str(turn.group)))
        part.notes += [f"{len(shared)} values of {turn.group} occur in test and in the folds"] if shared else []
    keys = [[normal(texts[row]) for row in free], *([[groups[row] for row in free]] if groups else [])]
    folds = assign_folds(
        tied(*keys), [labels[row] for row in free], [position(texts[row], seed) for row in free], folds=turn.folds
    )
    for name, mine in (("validation", True), ("train", False)):
        kept = [row for row, fold in zip(free, folds, strict=True) if (fold == turn.fold) is mine]
        part.splits[name], part.contents[name] = whole.part(kept), pick(texts, kept)
    part.expected |= {"train", "validation"}
    ways = ["with equal shares of each label"] * any(labels) + [f"each {turn.group} in one fold"] * bool(groups)
    part.notes.append(
        f"fold {turn.fold} of {turn.folds}: {len(part.splits['train'].rows)} rows train and "
        f"{len(part.splits['validation'].rows)} validate{''.join(f', {way}' for way in ways)}; no fold sees test rows"
    )


def groups_of(split: Split, column: str) -> list[str]:
    """The group of each record.

    Raises:
        DataError: Naming every record without one.
    """

    def group(record: Record) -> str:
        value = record.get(column)
        if value is None or value == "":
            raise DataError(f"cv.group={column}: no value there; the columns are {', '.join(record)}")
        return str(value)

    return each(group, split)


def without_splits(settings: Mapping[str, object]) -> dict[str, object]:
    """The `data` block of a source whose splits are made here rather than as it is read."""
    return {**settings, "split": {"validation": 0.0, "test": 0.0}}

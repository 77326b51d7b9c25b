"""Folds of a cross-validation: which fold each row belongs to.  Pure.

Rows that belong together (equal texts, and rows of one group where groups are set) share a fold.  Among what is
left free, folds get equal shares of every label, then equally many rows.  That takes knowing all rows, so that a row
added to the file may move others; which rows are the test split never depends on others.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from tunelab.config.schema import CrossValidationConfig
from tunelab.errors import DataError
from tunelab.language.translation import translate


@dataclass(frozen=True)
class FoldSpec:
    """The fold that validates in one run of a cross-validation.

    Attributes:
        index: Which fold, from 0.
        count: How many folds there are.
        group: Column whose equal values stay in one fold; None: no grouping.
    """

    index: int
    count: int
    group: str | None = None

    @classmethod
    def from_config(cls, cv: CrossValidationConfig) -> "FoldSpec | None":
        """The fold that the block `cv` describes; None where a run is no fold."""
        return None if cv.fold is None or cv.folds is None else cls(cv.fold, cv.folds, cv.group)


def number_groups(*keys: Sequence[Hashable]) -> list[int]:
    """Number the sets of rows that belong together: two rows do if they agree in any key, or both with a third.

    Args:
        keys: Sequences of equal length, an entry for each row.

    Returns:
        The number of each row's set, from 0 in order of first appearance.

    Example:
        >>> number_groups(["a", "b", "c", "b"], ["x", "y", "x", "z"])
        [0, 1, 0, 1]
    """
    above = list(range(len(keys[0])))

    def top(row: int) -> int:
        while above[row] != row:
            above[row] = above[above[row]]
            row = above[row]
        return row

    for key in keys:
        first: dict[Hashable, int] = {}
        for row, value in enumerate(key):
            above[top(row)] = top(first.setdefault(value, row))
    numbers: dict[int, int] = {}
    return [numbers.setdefault(top(row), len(numbers)) for row in range(len(above))]


def assign_folds(
    sets: Sequence[int], labels: Sequence[Sequence[str]], order: Sequence[float], *, folds: int
) -> list[int]:
    """Give each row a fold, so that every set stays whole and every label is spread evenly.

    Sets are dealt out one after another, large ones first, each to the fold where it makes the shares of its labels
    least uneven (the sum of their squares grows least, a rare label weighing as much as a common one), then to the one
    with fewest rows.  Of single rows with one label each, no fold so gets more than one more than another of any label,
    nor of all.  The idea is that of iterative stratification (Sechidis et al. 2011) for sets of rows.

    Args:
        sets: Which set each row belongs to, as `number_groups` numbers them.
        labels: Of each row; none where there are none to spread.
        order: A number for each row, at random; fixes the order among sets that are alike.
        folds: How many folds.

    Returns:
        The fold of each row, from 0.

    Raises:
        DataError: If there are fewer sets than folds, or all rows of a label are in one set: the fold that validates
            them would have had none to learn from.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for row, number in enumerate(sets):
        members[number].append(row)
    if len(members) < folds:
        raise DataError(
            translate(
                "cv.folds={folds} needs as many rows or groups that can be parted, and there are "
                "{count} (equal texts count as one); lower cv.folds",
                folds=folds,
                count=len(members),
            )
        )
    labels_of_set = {number: Counter(name for row in rows for name in labels[row]) for number, rows in members.items()}
    check_labels_spread(labels_of_set)
    totals = Counter[str]()
    for counts in labels_of_set.values():
        totals.update(counts)
    dealing_order = sorted(
        members,
        key=lambda number: (
            -len(members[number]),
            sorted(labels_of_set[number]),
            min(order[r] for r in members[number]),
        ),
    )
    labels_of_fold: list[Counter[str]] = [Counter() for _ in range(folds)]
    sizes, fold_of_row = [0] * folds, [0] * len(sets)
    for number in dealing_order:
        counts = labels_of_set[number]

        def unevenness(fold: int, counts: Counter[str] = counts) -> float:
            return sum(n * (2 * labels_of_fold[fold][name] + n) / totals[name] ** 2 for name, n in counts.items())

        chosen = min(range(folds), key=lambda fold: (unevenness(fold), sizes[fold], fold))
        labels_of_fold[chosen].update(counts)
        sizes[chosen] += len(members[number])
        for row in members[number]:
            fold_of_row[row] = chosen
    return fold_of_row


def check_labels_spread(counted: Mapping[int, Mapping[str, int]]) -> None:
    """Refuse labels that no two folds can share.

    Raises:
        DataError: Naming them.
    """
    sets = Counter(name for counts in counted.values() for name in counts)
    if lonely := sorted(name for name, count in sets.items() if count == 1):
        raise DataError(
            translate(
                "cross-validation: all rows of {names} are one text or one group, so the fold that "
                "validates them has none to learn from; leave them out, or join them with another "
                "label",
                names=", ".join(map(repr, lonely[:10])),
            )
        )

"""Made splits that keep rows together: which split each set of rows goes to.  Pure.

Rows of one group, near duplicates and equal texts never stand on both sides of a split.  Labels are spread as evenly as
whole sets allow, which takes knowing all rows: a row added to the file may move others.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from tunelab.errors import DataError
from tunelab.language.translation import translate


def deal_splits(
    sets: Sequence[int], labels: Sequence[Sequence[str]], order: Sequence[float], shares: Mapping[str, float]
) -> list[str]:
    """Give each row a split, so that every set stays whole and every split has about its share of rows and labels.

    Sets are dealt out one after another, large ones first, each to the split where it brings the counts of rows and
    labels closest to their shares (the sum of squared distances, each in units of its fair count, grows least).  A
    split that is left empty takes the smallest set of the others.

    Args:
        sets: Which set each row belongs to.
        labels: Of each row; none where there are none to spread.
        order: A number for each row, at random; fixes the order among sets of one size.
        shares: Of each split, above 0, 1 together.

    Raises:
        DataError: If there are fewer sets than splits.

    Example:
        >>> deal_splits([0, 0, 1, 1, 2, 2], [()] * 6, [0.1, 0.1, 0.2, 0.2, 0.3, 0.3], {"train": 0.7, "test": 0.3})
        ['train', 'train', 'test', 'test', 'train', 'train']
    """
    members: dict[int, list[int]] = defaultdict(list)
    for row, number in enumerate(sets):
        members[number].append(row)
    if len(members) < len(shares):
        raise DataError(
            translate(
                "{count} [row makes|rows make] {sets} [set|sets] that may not be parted (groups, near duplicates, "
                "equal texts), and {names} need one each; give files of your own, or set "
                "data.split.NAME=0 for one",
                count=len(sets),
                sets=len(members),
                names=translate(" and ").join(shares),
            )
        )
    counts_of = {number: _counts(rows, labels) for number, rows in members.items()}
    totals = _counts(range(len(sets)), labels)
    held: dict[str, Counter[str]] = {name: Counter() for name in shares}
    sets_of: dict[str, list[int]] = {name: [] for name in shares}

    def growth(split: str, counts: Counter[str]) -> float:
        return sum(
            n * (n + 2 * (held[split][label] - shares[split] * totals[label])) / (shares[split] * totals[label] ** 2)
            for label, n in counts.items()
        )

    for number in sorted(members, key=lambda number: (-len(members[number]), min(order[r] for r in members[number]))):
        chosen = min(shares, key=lambda split: growth(split, counts_of[number]))
        held[chosen].update(counts_of[number])
        sets_of[chosen].append(number)
    for empty in [name for name, numbers in sets_of.items() if not numbers]:
        giver = max(sets_of, key=lambda split: (len(sets_of[split]) > 1, held[split][ALL_ROWS] / shares[split]))
        sets_of[empty].append(sets_of[giver].pop())  # the smallest, as large ones came first
        held[giver].subtract(counts_of[sets_of[empty][0]])
    split_of = {number: name for name, numbers in sets_of.items() for number in numbers}
    return [split_of[number] for number in sets]


ALL_ROWS = ""  # stands among labels for the rows themselves; no label is empty


def _counts(rows: Sequence[int], labels: Sequence[Sequence[str]]) -> Counter[str]:
    """How many of some rows carry each label, and how many they are."""
    counts = Counter(name for row in rows for name in labels[row])
    counts[ALL_ROWS] = len(rows)
    return counts

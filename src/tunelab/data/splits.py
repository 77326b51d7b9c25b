"""Train, validation and test splits by a hash of the content, and contents that stand more than once.  Pure.

A record's side is a function of its own content and the seed.  Adding, removing or re-ordering other records
never moves it, so a model trained last month has not seen this month's test rows, and equal contents share a side.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import sqrt
from unicodedata import normalize

import numpy as np
import numpy.typing as npt

from tunelab.data.lazy_sequences import ConcatView, LazySequence, concatenate, select_items, take_items
from tunelab.errors import ConfigError
from tunelab.language.translation import translate

RowArray = npt.NDArray[np.int64]
TRAIN, VALIDATION, TEST = "train", "validation", "test"
MAX_DEVIATIONS = 3.0  # standard deviations of a fair draw above which a share is no accident
MIN_RELATIVE_DEVIATION = 0.25  # and how far off, relative to the configured share, it must be to matter


def normalize_text(content: str) -> str:
    """`content` as it is compared: NFKC, and every run of whitespace one space.

    Full-width and composed letters become their plain form.  Case stays: "US" is not "us", and in code or names
    a difference of case is a difference of meaning.
    """
    return " ".join((content if content.isascii() else normalize("NFKC", content)).split())


def assign_splits(contents: Sequence[str], *, validation: float, test: float, seed: int) -> list[str]:
    """Give each record its split by a hash of its content.

    The hash is uniform, so each split has its share in expectation, of all rows and of every class; a class of n
    rows is off by about sqrt(n * share * (1 - share)).  Exact shares per class would need to know the other rows
    of the class, and then one added row can move another across the border: the two promises exclude each
    other, and this one keeps the border still.  `split_share_warnings` says where chance was unkind; another seed or
    a split of your own is the way out.

    Raising `validation` moves rows from train only; raising `test` moves none out of test.

    Args:
        contents: What identifies each record, without its label; compared as `normalize_text` gives it.
        validation: Share of the validation split, in [0, 1).
        test: Share of the test split, in [0, 1); both together below 1.
        seed: Another seed draws other sides.

    Returns:
        "train", "validation" or "test" for each record, in order.

    Raises:
        ConfigError: If the shares cannot be honoured.

    Example:
        >>> assign_splits(["a", "b", "a"], validation=0.0, test=0.0, seed=0)
        ['train', 'train', 'train']
    """
    check_split_fractions(validation, test)
    return [
        TEST if place < test else VALIDATION if place < test + validation else TRAIN
        for place in hash_positions(contents, seed)
    ]


def hash_positions(contents: Sequence[str], seed: int) -> list[float]:
    """`hash_position` of each content."""
    if isinstance(contents, HashedTexts):
        known: list[float] = contents.positions.tolist()
        return known
    return [hash_position(content, seed) for content in contents]


def hash_position(content: str, seed: int) -> float:
    """A number in [0, 1), uniform over contents, the same on every machine."""
    return position_of_compared(normalize_text(content), seed)


def position_of_compared(text: str, seed: int) -> float:
    """`hash_position` of a content that is given as `normalize_text` gives it."""
    return (hash_of_compared(f"{seed}\0{text}") >> 11) / 2**53  # 53 bits: exact in a float


def content_hash(content: str) -> int:
    """64 bits that equal contents share, the same on every machine."""
    return hash_of_compared(normalize_text(content))


def hash_of_compared(text: str) -> int:
    """`content_hash` of a content that is given as `normalize_text` gives it."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def check_split_fractions(validation: float, test: float) -> None:
    """Refuse shares that leave no training rows.

    Raises:
        ConfigError: Naming every fault.
    """
    faults = [
        translate("data.split.{name}={value} must be at least 0 and below 1", name=name, value=value)
        for name, value in (("validation", validation), ("test", test))
        if not 0 <= value < 1  # also refuses NaN
    ]
    if not faults and validation + test >= 1:
        total = f"{validation + test:g}"
        faults.append(
            translate(
                "validation and test fractions sum to {total}, which leaves no training rows; try 0.1 and 0.1",
                total=total,
            )
        )
    if faults:
        raise ConfigError.listing(faults)


def split_share_warnings(
    sides: Sequence[str], strata: Sequence[str | None], *, validation: float, test: float
) -> list[str]:
    """Warn where a class has no row in a split, or a share that chance does not explain.

    Args:
        sides: As `assign_splits` gave them.
        strata: Class of each record, in the same order; None where there are no classes.
        validation: Configured share.
        test: Configured share.

    Returns:
        One message per class and split, empty if all is well.
    """
    shares = {TRAIN: 1 - validation - test, VALIDATION: validation, TEST: test}
    totals = Counter(strata)
    counts = Counter(zip(strata, sides, strict=True))
    warnings = []
    for stratum in sorted(totals, key=str):
        rows = totals[stratum]
        label = "the data" if stratum is None else f"class '{stratum}'"
        for side, share in shares.items():
            if not share:
                continue
            got, fair = counts[stratum, side], rows * share
            if not got:
                warnings.append(
                    translate(
                        "{label} ({rows} [row|rows]) has no row in {side}; try another seed or more rows",
                        label=label,
                        rows=rows,
                        side=side,
                    )
                )
            elif abs(got - fair) > max(MAX_DEVIATIONS * sqrt(fair * (1 - share)), MIN_RELATIVE_DEVIATION * fair):
                warnings.append(
                    translate(
                        "{label} has {got} of its {rows} [row|rows] in {side}, {fair:.0f} would be fair; many "
                        "equal contents may have gone one way together",
                        label=label,
                        got=got,
                        rows=rows,
                        side=side,
                        fair=fair,
                    )
                )
    return warnings


@dataclass(frozen=True, slots=True)
class Duplicate:
    """One content that stands more than once.

    Attributes:
        content: As `normalize_text` gives it.
        rows_by_split: Indices of its rows in each split that holds it.
    """

    content: str
    rows_by_split: dict[str, list[int]]

    @property
    def crosses_splits(self) -> bool:
        """Whether more than one split holds it, so that a score is partly memory."""
        return len(self.rows_by_split) > 1

    @property
    def extra_rows(self) -> int:
        """Rows beyond the first within each split, summed over splits."""
        return sum(len(rows) - 1 for rows in self.rows_by_split.values())


@dataclass(frozen=True, slots=True, eq=False)
class HashedTexts(LazySequence[str]):
    """Contents with what is known of them from when they were first read.

    Attributes:
        texts: The contents.
        hashes: `content_hash` of each.
        positions: `hash_position` of each, with the seed of the run.
    """

    texts: Sequence[str]
    hashes: npt.NDArray[np.uint64]
    positions: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.hashes)

    def item(self, index: int) -> str:
        return self.texts[index]

    def take(self, indices: Sequence[int]) -> list[str]:
        return take_items(self.texts, indices)


def select_contents(contents: Sequence[str], kept: Sequence[int]) -> Sequence[str]:
    """The contents at some indices, with what is known of them."""
    if not isinstance(contents, HashedTexts):
        return select_items(contents, kept)
    places = np.fromiter(kept, np.int64, len(kept))
    texts = select_items(contents.texts, kept)
    return HashedTexts(texts, contents.hashes[places], contents.positions[places])


def concatenate_contents(parts: Sequence[Sequence[str]]) -> Sequence[str]:
    """Contents one after another, with what is known of them where it is known of all."""
    hashed = [part for part in parts if isinstance(part, HashedTexts)]
    if len(hashed) < sum(map(bool, parts)) or not hashed:
        return concatenate(parts)
    return HashedTexts(
        concatenate([part.texts for part in hashed]),
        np.concatenate([part.hashes for part in hashed]),
        np.concatenate([part.positions for part in hashed]),
    )


def content_hashes(contents: Sequence[str]) -> npt.NDArray[np.uint64]:
    """`content_hash` of each content."""
    if isinstance(contents, HashedTexts):
        return contents.hashes
    return np.fromiter(map(content_hash, contents), np.uint64, len(contents))


class DuplicateIndex(LazySequence[Duplicate]):
    """Contents that stand more than once, in order of first appearance; each is made on access.

    Attributes:
        names: The splits.
        contents: Of each.
        rows: Rows of the first such content, then of the second, and so on, in their order; counted over all splits.
        starts: Where the rows of each begin, with the number of rows at the end.
        counts: How many rows each has in each split, (contents, splits).
    """

    def __init__(self, contents: Mapping[str, Sequence[str]], rows: RowArray, starts: RowArray) -> None:
        self.names, self.contents = list(contents), [*contents.values()]
        self.rows, self.starts = rows, starts
        self.first_rows = np.cumsum([0, *map(len, self.contents)])  # of each split
        split_of_row = np.searchsorted(self.first_rows, rows, side="right") - 1
        group_of_row = np.repeat(np.arange(len(self)), np.diff(starts))
        self.counts = np.zeros((len(self), len(self.names)), np.int64)
        np.add.at(self.counts, (group_of_row, split_of_row), 1)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def item(self, index: int) -> Duplicate:
        held: dict[str, list[int]] = {}
        rows = self.rows[self.starts[index] : self.starts[index + 1]]
        for place, name in enumerate(self.names):
            inside = rows[(rows >= self.first_rows[place]) & (rows < self.first_rows[place + 1])]
            if len(inside):
                held[name] = (inside - self.first_rows[place]).tolist()
        split = next(iter(held))
        return Duplicate(normalize_text(self.contents[self.names.index(split)][held[split][0]]), held)

    def shared(self, *names: str) -> npt.NDArray[np.int64]:
        """Which of the contents stand in all of some splits."""
        if not len(self):
            return np.empty(0, np.int64)
        columns = [self.names.index(name) for name in names]
        return np.flatnonzero((self.counts[:, columns] > 0).all(axis=1))

    def rows_in(self, name: str, chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The rows that some of the contents have in a split, counted within it."""
        marked = np.zeros(len(self), bool)
        marked[chosen] = True
        place = self.names.index(name)
        rows = self.rows[np.repeat(marked, np.diff(self.starts))] - self.first_rows[place]
        inside: RowArray = rows[(rows >= 0) & (rows < len(self.contents[place]))]
        return inside

    def crossings(self) -> Counter[tuple[str, ...]]:
        """For each set of two splits or more, how many contents stand in just these."""
        pairs = Counter(map(tuple, (self.counts > 0).tolist()))  # in order of first appearance
        named = {
            tuple(name for name, held in zip(self.names, marks, strict=True) if held): count
            for marks, count in pairs.items()
        }
        return Counter({names: count for names, count in named.items() if len(names) > 1})


def index_duplicates(
    splits: Mapping[str, Sequence[str]],
    hashes: npt.NDArray[np.uint64] | None = None,
    among: Callable[[RowArray, RowArray], npt.NDArray[np.bool_]] | None = None,
) -> DuplicateIndex:
    """Contents that stand more than once, within a split or across splits, compared as `normalize_text` gives them.

    Args:
        splits: The contents of each split, by its name.
        hashes: Of all contents, equal where these are; None computes them.
        among: Tells which sets of rows with one hash are looked at, from the rows of all sets and where each starts.
    """
    if hashes is None:
        hashes = np.concatenate([np.empty(0, np.uint64), *map(content_hashes, splits.values())])
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    repeated = np.zeros(len(order) + 1, bool)
    repeated[1:-1] = ordered[1:] == ordered[:-1]
    alike = repeated[1:] | repeated[:-1]
    order, ordered = order[alike], ordered[alike]
    starts = np.flatnonzero(np.concatenate([np.ones(min(1, len(order)), bool), ordered[1:] != ordered[:-1]]))
    ends = np.append(starts, len(order))[1:]
    chosen = among(order, starts) if among and len(starts) else np.ones(len(starts), bool)
    whole = ConcatView([*splits.values()])
    groups = [
        part
        for first, last in zip(starts[chosen].tolist(), ends[chosen].tolist(), strict=True)
        for part in _equal_texts(whole, order[first:last])
    ]
    groups.sort(key=lambda group: int(group[0]))
    sizes = np.fromiter(map(len, groups), np.int64, len(groups))
    rows = np.concatenate([np.empty(0, np.int64), *groups])
    return DuplicateIndex(splits, rows, np.concatenate([np.zeros(1, np.int64), sizes.cumsum()]))


def _equal_texts(whole: LazySequence[str], rows: RowArray) -> list[RowArray]:
    """Rows of one hash, parted by their texts, which decide; those that stand alone are left out."""
    texts = [normalize_text(text) for text in whole.take(rows.tolist())]
    if len(set(texts)) == 1:
        return [rows]
    by_text: dict[str, list[int]] = {}
    for row, text in zip(rows.tolist(), texts, strict=True):
        by_text.setdefault(text, []).append(row)
    return [np.array(held) for held in by_text.values() if len(held) > 1]


def find_duplicates(splits: Mapping[str, Sequence[str]]) -> list[Duplicate]:
    """The contents of `index_duplicates` as a list.

    Args:
        splits: The contents of each split, by its name.

    Returns:
        One entry per content, in order of first appearance.
    """
    return list(index_duplicates(splits))

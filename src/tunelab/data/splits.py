"""Train, validation and test splits by a hash of the content, and contents that stand more than once.  Pure.

A record's side is a function of its own content and the seed.  Adding, removing or re-ordering other records
never moves it, so a model trained last month has not seen this month's test rows, and equal contents share a side.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import sqrt
from unicodedata import normalize

import torch

from tunelab.errors import ConfigError

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
    sides = []
    for content in contents:
        place = hash_position(content, seed)
        sides.append(TEST if place < test else VALIDATION if place < test + validation else TRAIN)
    return sides


def hash_position(content: str, seed: int) -> float:
    """A number in [0, 1), uniform over contents, the same on every machine."""
    text = f"{seed}\0{normalize_text(content)}".encode("utf-8", "surrogatepass")
    return (int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> 11) / 2**53  # 53 bits: exact in a float


def content_hash(content: str) -> int:
    """64 bits that equal contents share, the same on every machine."""
    text = normalize_text(content).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


def check_split_fractions(validation: float, test: float) -> None:
    """Refuse shares that leave no training rows.

    Raises:
        ConfigError: Naming every fault.
    """
    faults = [
        f"data.split.{name}={value} must be at least 0 and below 1"
        for name, value in (("validation", validation), ("test", test))
        if not 0 <= value < 1  # also refuses NaN
    ]
    if not faults and validation + test >= 1:
        total = f"{validation + test:g}"
        faults.append(f"validation and test fractions sum to {total}, which leaves no training rows; try 0.1 and 0.1")
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
                warnings.append(f"{label} ({rows} rows) has no row in {side}; try another seed or more rows")
            elif abs(got - fair) > max(MAX_DEVIATIONS * sqrt(fair * (1 - share)), MIN_RELATIVE_DEVIATION * fair):
                warnings.append(
                    f"{label} has {got} of its {rows} rows in {side}, {fair:.0f} would be fair; "
                    f"many equal contents may have gone one way together"
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


def repeated_hashes(hashes: Iterable["array[int]"]) -> set[int]:
    """The numbers (64 bits each) that stand more than once, in one sequence or in several."""
    whole = array("Q")
    for part in hashes:
        whole.extend(part)
    if not whole:
        return set()
    ordered = torch.frombuffer(whole, dtype=torch.int64).sort().values  # signed, which equality does not mind
    twice = ordered[1:][ordered[1:] == ordered[:-1]].unique()
    return {number % 2**64 for number in twice.tolist()}


def find_duplicates(splits: Mapping[str, Sequence[str]]) -> list[Duplicate]:
    """Contents that stand more than once, within a split or across splits, compared as `normalize_text` gives them.

    Args:
        splits: The contents of each split, by its name.

    Returns:
        One entry per content, in order of first appearance.
    """
    hashes = {split: array("Q", map(content_hash, contents)) for split, contents in splits.items()}
    suspects = repeated_hashes(hashes.values())
    places: dict[str, dict[str, list[int]]] = {}
    for split, contents in splits.items():
        for row, number in enumerate(hashes[split]):
            if number in suspects:  # the texts themselves decide; of all others no text is held
                places.setdefault(normalize_text(contents[row]), {}).setdefault(split, []).append(row)
    repeated = (Duplicate(content, held) for content, held in places.items())
    return [duplicate for duplicate in repeated if duplicate.crosses_splits or duplicate.extra_rows]

"""Texts that are almost the same, found by MinHash and proved by counting.  Pure; nothing is drawn at random.

A text is compared as the set of its shingles: three words in a row, or three characters in a row where a script does
not part words.  The likeness of two texts is the Jaccard index of their sets: shared shingles over all shingles.
MinHash (Broder 1997) with bands (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", chapter 3) proposes
pairs; the true index decides, so what is reported is never wrong.  A pair right at the threshold is missed with a
probability below `MISS`, and less the more alike the two are.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tunelab.data.shingles import Hashes, scrambled, shingles

FUNCTIONS = 128  # hash functions of a signature
MISS = 0.002  # most pairs right at the threshold that may be missed
CROWD = 64  # known texts of one bucket, and in all, that are compared with a text; templates fill buckets by thousands
DOUBT = 4.0  # standard deviations by which an estimate may lie below the threshold and still be counted out
BLOCK = 2**17  # shingles hashed at once: they stay in the processor's cache


@dataclass(frozen=True, slots=True)
class Likeness:
    """A text and the known text that is most like it.

    Attributes:
        asked, known: Their indices.
        similarity: Jaccard index of their shingles, in [threshold, 1].
    """

    asked: int
    known: int
    similarity: float


def signatures(hashes: Hashes, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """For each text and hash function the smallest hash of its shingles, (texts, FUNCTIONS)."""
    # hashes are spread already, so 32 bits and one multiplication by an odd number re-order them well enough
    factors = scrambled(np.arange(FUNCTIONS, dtype=np.uint64)).astype(np.uint32) | np.uint32(1)
    shifts = scrambled(np.arange(FUNCTIONS, 2 * FUNCTIONS, dtype=np.uint64)).astype(np.uint32)
    short = hashes.astype(np.uint32)
    found = np.empty((len(starts) - 1, FUNCTIONS), dtype=np.uint32)
    first = 0
    while first < len(starts) - 1:
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + BLOCK, side="right")) - 1)
        block, cuts = short[starts[first] : starts[last]], starts[first:last] - starts[first]
        for function in range(FUNCTIONS):
            found[first:last, function] = np.minimum.reduceat(block * factors[function] + shifts[function], cuts)
        first = last
    return found


def bands(threshold: float) -> tuple[int, int]:
    """How many bands a signature is cut into, and how many hashes make one: as long as `MISS` allows."""
    for length in range(FUNCTIONS, 1, -1):
        if (1 - threshold**length) ** (FUNCTIONS // length) <= MISS:
            return FUNCTIONS // length, length
    return FUNCTIONS, 1


def keys_of(signed: npt.NDArray[np.uint32], threshold: float) -> Iterator[Hashes]:
    """For each band one number per text; texts that agree in a band share it."""
    count, length = bands(threshold)
    for band in range(count):
        key = np.full(len(signed), band, dtype=np.uint64)
        for column in range(band * length, (band + 1) * length):
            key = scrambled(key ^ signed[:, column])
        yield key


def near_duplicates(known: Sequence[str], asked: Sequence[str], *, threshold: float) -> tuple[list[Likeness], int]:
    """For each asked text, the known text most like it, where one is at least `threshold` like it.

    Args:
        known: Texts that a model learns from.
        asked: Texts that it is judged by.
        threshold: Least Jaccard index, in (0, 1].

    Returns:
        Likenesses in the order of `asked`, the earliest known text where several are equally alike; and how many
        asked texts had more candidates in one bucket than `CROWD`, so that a closer one may exist.
    """
    if not known or not asked:
        return [], 0
    hashes, starts = shingles([*known, *asked])
    signed = signatures(hashes, starts)
    candidates: dict[int, set[int]] = {}
    crowded: set[int] = set()
    for key in keys_of(signed, threshold):
        own, others = key[: len(known)], key[len(known) :]
        order = np.argsort(own, kind="stable")
        low, high = (np.searchsorted(own[order], others, side=side) for side in ("left", "right"))
        for place in np.flatnonzero(high > low).tolist():
            first, last = int(low[place]), int(high[place])
            if last - first > CROWD:
                crowded.add(place)
            candidates.setdefault(place, set()).update(order[first : min(last, first + CROWD)].tolist())
    sets = _Sets(hashes, starts)
    found = []
    for place in sorted(candidates):
        rows = likely(signed, np.array(sorted(candidates[place])), len(known) + place, threshold)
        if len(rows) > CROWD:
            crowded.add(place)
        likeness = {row: sets.jaccard(row, len(known) + place) for row in sorted(rows[:CROWD].tolist())}
        best = max(likeness, key=likeness.__getitem__, default=None)
        if best is not None and likeness[best] >= threshold:
            found.append(Likeness(place, best, likeness[best]))
    return found, len(crowded)


def likely(
    signed: npt.NDArray[np.uint32], rows: npt.NDArray[np.int64], asked: int, threshold: float
) -> npt.NDArray[np.int64]:
    """Those of `rows` that may reach the threshold, by the share of equal hashes in signatures; likeliest first."""
    shares = (signed[rows] == signed[asked]).mean(axis=1)
    spread = (threshold * (1 - threshold) / FUNCTIONS) ** 0.5
    kept = shares >= threshold - DOUBT * spread
    order = np.argsort(-shares[kept], kind="stable")
    found: npt.NDArray[np.int64] = rows[kept][order]
    return found


class _Sets(Mapping[int, frozenset[int]]):
    """The shingles of each text as a set, made when first asked for."""

    def __init__(self, hashes: Hashes, starts: npt.NDArray[np.int64]) -> None:
        self._hashes, self._starts = hashes, starts
        self._made: dict[int, frozenset[int]] = {}

    def __getitem__(self, text: int) -> frozenset[int]:
        if text not in self._made:
            self._made[text] = frozenset(self._hashes[self._starts[text] : self._starts[text + 1]].tolist())
        return self._made[text]

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def jaccard(self, one: int, other: int) -> float:
        """Shared shingles over all shingles of two texts, in [0, 1]."""
        left, right = self[one], self[other]
        shared = len(left & right)
        return shared / (len(left) + len(right) - shared)

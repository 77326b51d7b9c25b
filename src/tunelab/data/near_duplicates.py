"""Near duplicates of texts, proposed by MinHash and decided by counting.  Pure; nothing is drawn at random.

A text is compared as the set of its shingles: three words in a row, or three characters in a row where a script does
not part words.  The similarity of two texts is the Jaccard index of their sets: shared shingles over all shingles.
MinHash (Broder 1997) with bands (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", chapter 3) proposes
pairs; the true index decides, so what is reported is never wrong.  A pair right at the threshold is missed with a
probability below `MAX_MISS_PROBABILITY`, and less the more alike the two are.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from tunelab.data.splits import normalize_text

HashArray = npt.NDArray[np.uint64]
TEXTS_AT_ONCE = 4096  # whose words are held together
SHINGLE_WIDTH = 3  # words, or characters of an unspaced script, in one shingle
UNSPACED_SCRIPTS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
WORD_PATTERN = re.compile(
    f"[{UNSPACED_SCRIPTS}]|[^\\W{UNSPACED_SCRIPTS}]+"
)  # Thai, Burmese, Khmer, kana and Han letters stand for themselves


class _WordHashes(dict[str, int]):
    """Words to 64-bit hashes, the same on every machine."""

    def __missing__(self, word: str) -> int:
        self[word] = hashed = int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest())
        return hashed


def split_words(text: str) -> list[str]:
    """The units of shingles: words without case, single characters of unspaced scripts, else every character.

    Example:
        >>> split_words("Rain in 北京, again!")
        ['rain', 'in', '北', '京', 'again']
    """
    plain = normalize_text(text).casefold()
    return WORD_PATTERN.findall(plain) or list(plain)


def hash_shingles(texts: Sequence[str]) -> tuple[HashArray, npt.NDArray[np.int64]]:
    """The shingles of all texts, one after another, as hashes; repeats are kept.

    A text of fewer words than a shingle has is one shingle; an empty one too.

    Returns:
        Hashes, and where each text starts among them, with their number at the end, (texts + 1,).
    """
    known, parts, sizes = _WordHashes(), [np.empty(0, np.uint64)], [np.zeros(1, np.int64)]
    for first in range(0, len(texts), TEXTS_AT_ONCE):
        hashes, counts = _hash_some(texts[first : first + TEXTS_AT_ONCE], known)
        parts.append(hashes)
        sizes.append(counts)
    return np.concatenate(parts), np.concatenate(sizes).cumsum()


def _hash_some(texts: Sequence[str], known: _WordHashes) -> tuple[HashArray, npt.NDArray[np.int64]]:
    """The shingles of some texts, and how many each has."""
    flat: list[int] = []
    counts = np.empty(len(texts), dtype=np.int64)
    for place, text in enumerate(texts):
        before = len(flat)
        flat.extend(map(known.__getitem__, split_words(text)))
        flat.extend([0] * (SHINGLE_WIDTH - len(flat) + before))
        counts[place] = len(flat) - before
    hashed = np.array([*flat, *[0] * (SHINGLE_WIDTH - 1)], dtype=np.uint64)
    mixed = np.zeros(len(flat), dtype=np.uint64)
    for offset in range(SHINGLE_WIDTH):
        mixed = splitmix64(mixed ^ hashed[offset : offset + len(flat)])
    ends = counts.cumsum()
    whole = np.ones(len(flat), dtype=bool)
    for back in range(1, SHINGLE_WIDTH):
        whole[ends - back] = False  # these would reach into the next text
    return mixed[whole], counts - SHINGLE_WIDTH + 1


def splitmix64(values: HashArray) -> HashArray:
    """Spread 64-bit numbers over their range (the finalizer of splitmix64; Steele, Lea, Flood 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


HASH_FUNCTIONS = 128  # hash functions of a signature
MAX_MISS_PROBABILITY = 0.002  # most pairs right at the threshold that may be missed
MAX_CANDIDATES = (
    64  # known texts of one bucket, and in all, that are compared with a text; templates fill buckets by thousands
)
ESTIMATE_TOLERANCE = (
    4.0  # standard deviations by which an estimate may lie below the threshold and still be counted out
)
SHINGLES_PER_BLOCK = 2**17  # shingles hashed at once: they stay in the processor's cache


@dataclass(frozen=True, slots=True)
class SimilarPair:
    """A text and the known text that is most like it.

    Attributes:
        query, reference: Their indices.
        similarity: Jaccard index of their shingles, in [threshold, 1].
    """

    query: int
    reference: int
    similarity: float


def minhash_signatures(hashes: HashArray, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """For each text and hash function the smallest hash of its shingles, (texts, HASH_FUNCTIONS)."""
    # hashes are spread already, so 32 bits and one multiplication by an odd number re-order them well enough
    factors = splitmix64(np.arange(HASH_FUNCTIONS, dtype=np.uint64)).astype(np.uint32) | np.uint32(1)
    shifts = splitmix64(np.arange(HASH_FUNCTIONS, 2 * HASH_FUNCTIONS, dtype=np.uint64)).astype(np.uint32)
    short = hashes.astype(np.uint32)
    signatures = np.empty((len(starts) - 1, HASH_FUNCTIONS), dtype=np.uint32)
    first = 0
    while first < len(starts) - 1:
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + SHINGLES_PER_BLOCK, side="right")) - 1)
        block, cuts = short[starts[first] : starts[last]], starts[first:last] - starts[first]
        for function in range(HASH_FUNCTIONS):
            signatures[first:last, function] = np.minimum.reduceat(block * factors[function] + shifts[function], cuts)
        first = last
    return signatures


def lsh_bands(threshold: float) -> tuple[int, int]:
    """Number of bands of a signature, and of hashes in one: as long as `MAX_MISS_PROBABILITY` allows."""
    for length in range(HASH_FUNCTIONS, 1, -1):
        if (1 - threshold**length) ** (HASH_FUNCTIONS // length) <= MAX_MISS_PROBABILITY:
            return HASH_FUNCTIONS // length, length
    return HASH_FUNCTIONS, 1


def band_keys(signed: npt.NDArray[np.uint32], threshold: float) -> Iterator[HashArray]:
    """For each band one number per text; texts that agree in a band share it."""
    count, length = lsh_bands(threshold)
    for band in range(count):
        key = np.full(len(signed), band, dtype=np.uint64)
        for column in range(band * length, (band + 1) * length):
            key = splitmix64(key ^ signed[:, column])
        yield key


def find_near_duplicates(
    references: Sequence[str], queries: Sequence[str], *, threshold: float
) -> tuple[list[SimilarPair], int]:
    """For each query, the known text most like it, where one is at least `threshold` like it.

    Args:
        references: Texts that a model learns from.
        queries: Texts that it is judged by.
        threshold: Least Jaccard index, in (0, 1].

    Returns:
        Likenesses in the order of `queries`, the earliest known text where several are equally alike; and how many
        queries had more candidates in one bucket than `MAX_CANDIDATES`, so that a closer one may exist.
    """
    if not references or not queries:
        return [], 0
    hashes, starts = hash_shingles([*references, *queries])
    signed = minhash_signatures(hashes, starts)
    candidates: dict[int, set[int]] = {}
    crowded: set[int] = set()
    for key in band_keys(signed, threshold):
        own, others = key[: len(references)], key[len(references) :]
        order = np.argsort(own, kind="stable")
        low, high = (np.searchsorted(own[order], others, side=side) for side in ("left", "right"))
        for place in np.flatnonzero(high > low).tolist():
            first, last = int(low[place]), int(high[place])
            if last - first > MAX_CANDIDATES:
                crowded.add(place)
            candidates.setdefault(place, set()).update(order[first : min(last, first + MAX_CANDIDATES)].tolist())
    sets = _ShingleSets(hashes, starts)
    pairs = []
    for place in sorted(candidates):
        rows = likely_matches(signed, np.array(sorted(candidates[place])), len(references) + place, threshold)
        if len(rows) > MAX_CANDIDATES:
            crowded.add(place)
        likeness = {row: sets.jaccard(row, len(references) + place) for row in sorted(rows[:MAX_CANDIDATES].tolist())}
        best = max(likeness, key=likeness.__getitem__, default=None)
        if best is not None and likeness[best] >= threshold:
            pairs.append(SimilarPair(place, best, likeness[best]))
    return pairs, len(crowded)


def near_duplicate_clusters(texts: Sequence[str], *, threshold: float) -> list[int]:
    """The cluster of each text: texts share one if they are at least `threshold` alike, or linked by others that are.

    A text is compared with the `MAX_CANDIDATES` beside it in a bucket, and no more once so many were not alike.

    Example:
        >>> near_duplicate_clusters(["a b c d e f", "x y z", "a b c d e g"], threshold=0.5)
        [0, 1, 0]
    """
    if not texts:
        return []
    hashes, starts = hash_shingles(texts)
    signed, sets = minhash_signatures(hashes, starts), _ShingleSets(hashes, starts)
    above, unlike = np.arange(len(texts)), [0] * len(texts)

    def top(text: int) -> int:
        while above[text] != text:
            above[text] = above[above[text]]
            text = int(above[text])
        return text

    spread = (threshold * (1 - threshold) / HASH_FUNCTIONS) ** 0.5
    for key in band_keys(signed, threshold):
        order = np.argsort(key, kind="stable")
        for step in range(1, min(MAX_CANDIDATES, len(texts) - 1) + 1):
            same = np.flatnonzero(key[order[step:]] == key[order[:-step]])
            if not len(same):
                break
            left, right = order[same], order[same + step]
            likely = (signed[left] == signed[right]).mean(axis=1) >= threshold - ESTIMATE_TOLERANCE * spread
            for one, other in zip(left[likely].tolist(), right[likely].tolist(), strict=True):
                first, second = top(one), top(other)
                if first == second or max(unlike[one], unlike[other]) >= MAX_CANDIDATES:
                    continue
                if sets.jaccard(one, other) >= threshold:
                    above[max(first, second)] = min(first, second)
                else:
                    unlike[one], unlike[other] = unlike[one] + 1, unlike[other] + 1
    numbers: dict[int, int] = {}
    return [numbers.setdefault(top(text), len(numbers)) for text in range(len(texts))]


def likely_matches(
    signed: npt.NDArray[np.uint32], rows: npt.NDArray[np.int64], query: int, threshold: float
) -> npt.NDArray[np.int64]:
    """Those of `rows` that may reach the threshold, by the share of equal hashes in signatures; likeliest first."""
    shares = (signed[rows] == signed[query]).mean(axis=1)
    spread = (threshold * (1 - threshold) / HASH_FUNCTIONS) ** 0.5
    kept = shares >= threshold - ESTIMATE_TOLERANCE * spread
    order = np.argsort(-shares[kept], kind="stable")
    matches: npt.NDArray[np.int64] = rows[kept][order]
    return matches


class _ShingleSets(Mapping[int, frozenset[int]]):
    """The shingles of each text as a set, made when first needed."""

    def __init__(self, hashes: HashArray, starts: npt.NDArray[np.int64]) -> None:
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

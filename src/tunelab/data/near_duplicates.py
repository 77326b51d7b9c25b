"""Near duplicates of texts, proposed by MinHash and decided by counting.  Pure; nothing is drawn at random.

A text is compared as the set of its shingles: three words in a row, or three characters in a row where a script does
not part words.  The similarity of two texts is the Jaccard index of their sets: shared shingles over all shingles.
MinHash (Broder 1997) with bands (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", chapter 3) proposes
pairs; the true index decides, so what is reported is never wrong.  A pair right at the threshold is missed with a
probability below `MAX_MISS_PROBABILITY`, and less the more alike the two are.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from io import BytesIO
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from tunelab.data.memory_map import ScratchDir
from tunelab.data.parallel import map_parts
from tunelab.data.splits import RowArray, normalize_text

HashArray = npt.NDArray[np.uint64]
TEXTS_AT_ONCE = 2048  # that a process reads together
CHARACTERS_AT_ONCE = 2**20  # from which on no further text is hashed with the ones before
WORDS_KNOWN = 2**17  # whose hashes are kept; numbers and names of all rows would be too many
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
        if len(self) >= WORDS_KNOWN:
            self.clear()
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


def hash_shingles(texts: Sequence[str], known: _WordHashes) -> tuple[HashArray, npt.NDArray[np.int64]]:
    """The shingles of texts, one after another, as hashes, repeats kept; and how many each text has.

    A text of fewer words than a shingle has is one shingle; an empty one too.
    """
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
HASH_BYTES = 8
MAX_SHINGLES_IN_SETS = 2**18  # of sets that are kept for further comparisons, some 25 MB
PAIRS_AT_ONCE = 4096  # whose signatures are compared together
QUERIES_AT_ONCE = 256  # whose candidates are held together
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


class SignedTexts:
    """The shingles of texts and the signatures made of them; no text is held, and few sets of shingles.

    Args:
        texts: The texts.
        scratch: Where the shingles of many texts are kept, which every core then makes; None holds them in memory.

    Attributes:
        signatures: As `minhash_signatures` gives them, (texts, HASH_FUNCTIONS).
    """

    def __init__(self, texts: Sequence[str], scratch: ScratchDir | None = None) -> None:
        self.signatures = np.empty((len(texts), HASH_FUNCTIONS), np.uint32)
        self._ends = np.zeros(len(texts) + 1, np.int64)
        self._shingles: IO[bytes] = BytesIO()
        self._sets: dict[int, frozenset[int]] = {}
        self._in_sets = 0
        known = _WordHashes()

        def sign(part: range) -> list[_SignedBlock]:
            return list(sign_blocks(texts[part.start : part.stop], known))

        parts = [range(len(texts))[first : first + TEXTS_AT_ONCE] for first in range(0, len(texts), TEXTS_AT_ONCE)]
        first = 0
        if scratch is not None:
            self._shingles = scratch.open_unnamed()
        for blocks in map_parts(sign, parts, 1 if scratch is None else None):
            for block in blocks:
                last = first + len(block.counts)
                self.signatures[first:last] = block.signatures
                self._ends[first + 1 : last + 1] = block.counts
                write_whole(self._shingles, block.hashes.tobytes(), scratch)
                first = last
        np.cumsum(self._ends, out=self._ends)

    def shingles(self, text: int) -> frozenset[int]:
        """The shingles of a text."""
        if text not in self._sets:
            begin, end = self._ends[text : text + 2].tolist()
            if self._in_sets > MAX_SHINGLES_IN_SETS:
                self._sets.clear()
                self._in_sets = 0
            self._in_sets += end - begin
            self._shingles.seek(begin * HASH_BYTES)
            read = self._shingles.read((end - begin) * HASH_BYTES)
            self._sets[text] = frozenset(np.frombuffer(read, np.uint64).tolist())
        return self._sets[text]

    def jaccard(self, one: int, other: int) -> float:
        """Shared shingles over all shingles of two texts, in [0, 1]."""
        left, right = self.shingles(one), self.shingles(other)
        shared = len(left & right)
        return shared / (len(left) + len(right) - shared)

    def signature_shares(self, left: RowArray, right: RowArray) -> npt.NDArray[np.float64]:
        """The share of equal hashes in the signatures of pairs of texts, which estimates their Jaccard index."""
        shares = np.empty(len(left))
        for first in range(0, len(left), PAIRS_AT_ONCE):
            some = slice(first, first + PAIRS_AT_ONCE)
            equal = self.signatures[left[some]] == self.signatures[right[some]]
            shares[some] = np.count_nonzero(equal, axis=1) / HASH_FUNCTIONS
        return shares


def write_whole(file: IO[bytes], data: bytes, scratch: ScratchDir | None) -> None:
    """Write all of the data; a full disk may take a part of it without an error.

    Raises:
        DataError: If that fails.
    """
    left = memoryview(data)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as fault:
        if scratch is None:
            raise
        raise scratch.write_error(fault) from fault


class _SignedBlock(NamedTuple):
    """Shingles of some texts one after another, how many each text has, and the signatures."""

    hashes: HashArray
    counts: npt.NDArray[np.int64]
    signatures: npt.NDArray[np.uint32]


def sign_blocks(texts: Sequence[str], known: _WordHashes) -> Iterator[_SignedBlock]:
    """The shingles and signatures of texts, of some texts at a time."""
    first = letters = 0
    for place, text in enumerate(texts, start=1):
        letters += len(text)
        if letters >= CHARACTERS_AT_ONCE or place == len(texts):
            hashes, counts = hash_shingles(texts[first:place], known)
            starts = np.concatenate([np.zeros(1, np.int64), counts.cumsum()])
            yield _SignedBlock(hashes, counts, minhash_signatures(hashes, starts))
            first, letters = place, 0


class _Buckets(NamedTuple):
    """In one band, the references in the order of their keys, and where those that share the key of a query stand."""

    order: npt.NDArray[np.int32]
    low: npt.NDArray[np.int32]
    high: npt.NDArray[np.int32]


def find_closest(
    signed: SignedTexts, references: range, queries: Sequence[int], *, threshold: float
) -> tuple[list[SimilarPair], int]:
    """For each of some signed texts the one most like it among others, where one is at least `threshold` like it.

    Memory is bounded however many lookalikes there are: some queries at a time have their candidates made.

    Args:
        signed: All of them.
        references: Indices of texts that a model learns from, in a row.
        queries: Indices behind them of texts that it is judged by.
        threshold: Least Jaccard index, in (0, 1].

    Returns:
        Likenesses in the order of `queries`, as places in `references` and `queries`, the earliest known text where
        several are equally alike; and how many queries had more candidates in one bucket than `MAX_CANDIDATES`, so
        that a closer one may exist.
    """
    rows = np.array(queries, np.int64)
    if not len(references) or not len(rows):
        return [], 0
    buckets, earliest = [], np.full(len(rows), len(references))
    for key in band_keys(signed.signatures[references.start :], threshold):
        own, others = key[: len(references)], key[rows - references.start]
        order = np.argsort(own, kind="stable").astype(np.int32)
        low, high = (np.searchsorted(own[order], others, side=side).astype(np.int32) for side in ("left", "right"))
        met = np.flatnonzero(high > low)
        earliest[met] = np.minimum(earliest[met], order[low[met]])
        buckets.append(_Buckets(order, low, high))
    by_lookalike = np.argsort(earliest, kind="stable")  # queries one after another share candidates
    by_lookalike = by_lookalike[: np.count_nonzero(earliest < len(references))]
    crowded = np.zeros(len(rows), bool)
    pairs: list[SimilarPair] = []
    for first in range(0, len(by_lookalike), QUERIES_AT_ONCE):
        places, candidates = _bucket_mates(buckets, by_lookalike[first : first + QUERIES_AT_ONCE], crowded)
        places, candidates = _likeliest(signed, rows, places, candidates + references.start, threshold, crowded)
        best: dict[int, SimilarPair] = {}
        for place, row in zip(places.tolist(), candidates.tolist(), strict=True):
            likeness = signed.jaccard(row, int(rows[place]))
            if likeness >= threshold and (place not in best or likeness > best[place].similarity):
                best[place] = SimilarPair(place, row - references.start, likeness)
        pairs += best.values()
    return sorted(pairs, key=lambda pair: pair.query), int(crowded.sum())


def _bucket_mates(
    buckets: Sequence[_Buckets], places: RowArray, crowded: npt.NDArray[np.bool_]
) -> tuple[RowArray, RowArray]:
    """Pairs of a query and a reference that share a bucket, each once; marks the queries whose buckets hold more."""
    codes = [np.empty(0, np.int64)]
    for order, low, high in buckets:
        counts = (high - low)[places].astype(np.int64)
        crowded[places[counts > MAX_CANDIDATES]] = True
        counts = np.minimum(counts, MAX_CANDIDATES)
        first = low[places] - (counts.cumsum() - counts)
        codes.append(np.repeat(places, counts) * len(order) + order[np.repeat(first, counts) + np.arange(counts.sum())])
    held, candidates = np.divmod(np.unique(np.concatenate(codes)), len(buckets[0].order))
    return held, candidates


def _likeliest(
    signed: SignedTexts,
    queries: RowArray,
    places: RowArray,
    candidates: RowArray,
    threshold: float,
    crowded: npt.NDArray[np.bool_],
) -> tuple[RowArray, RowArray]:
    """Of pairs of a place in `queries` and a text the likeliest of each place, in order; marks where there are more."""
    shares = signed.signature_shares(candidates, queries[places])
    kept = shares >= least_share(threshold)
    places, candidates, shares = places[kept], candidates[kept], shares[kept]
    ranked = np.lexsort((candidates, -shares, places))
    starts = np.unique(places, return_index=True)[1]
    rank = np.arange(len(ranked)) - np.repeat(starts, np.diff(starts, append=len(ranked)))
    crowded[places[ranked[rank >= MAX_CANDIDATES]]] = True
    chosen = np.sort(ranked[rank < MAX_CANDIDATES])
    return places[chosen], candidates[chosen]


def least_share(threshold: float) -> float:
    """The share of equal hashes in two signatures below which they are not worth a count."""
    spread: float = (threshold * (1 - threshold) / HASH_FUNCTIONS) ** 0.5
    return threshold - ESTIMATE_TOLERANCE * spread


def near_duplicate_clusters(texts: Sequence[str], *, threshold: float, scratch: ScratchDir | None = None) -> list[int]:
    """The cluster of each text: texts share one if they are at least `threshold` alike, or linked by others that are.

    A text is compared with the `MAX_CANDIDATES` beside it in a bucket, and no more once so many were not alike.

    Args:
        texts: The texts.
        threshold: Least Jaccard index, in (0, 1].
        scratch: Of `SignedTexts`.

    Example:
        >>> near_duplicate_clusters(["a b c d e f", "x y z", "a b c d e g"], threshold=0.5)
        [0, 1, 0]
    """
    if not texts:
        return []
    signed = SignedTexts(texts, scratch)
    above, unlike = np.arange(len(texts)), [0] * len(texts)

    def top(text: int) -> int:
        while above[text] != text:
            above[text] = above[above[text]]
            text = int(above[text])
        return text

    for key in band_keys(signed.signatures, threshold):
        order = np.argsort(key, kind="stable")
        for step in range(1, min(MAX_CANDIDATES, len(texts) - 1) + 1):
            same = np.flatnonzero(key[order[step:]] == key[order[:-step]])
            if not len(same):
                break
            left, right = order[same], order[same + step]
            likely = signed.signature_shares(left, right) >= least_share(threshold)
            for one, other in zip(left[likely].tolist(), right[likely].tolist(), strict=True):
                first, second = top(one), top(other)
                if first == second or max(unlike[one], unlike[other]) >= MAX_CANDIDATES:
                    continue
                if signed.jaccard(one, other) >= threshold:
                    above[max(first, second)] = min(first, second)
                else:
                    unlike[one], unlike[other] = unlike[one] + 1, unlike[other] + 1
    numbers: dict[int, int] = {}
    return [numbers.setdefault(top(text), len(numbers)) for text in range(len(texts))]

"""Texts as sets of word triples: three words in a row, or three letters where a script does not part words.  Pure."""

import re
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from tunelab.data.split import normal

Hashes = npt.NDArray[np.uint64]
WIDTH = 3  # words, or characters of an unspaced script, in one shingle
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
WORD = re.compile(f"[{UNSPACED}]|[^\\W{UNSPACED}]+")  # Thai, Burmese, Khmer, kana and Han letters stand for themselves


class _Words(dict[str, int]):
    """Words to 64-bit hashes, the same on every machine."""

    def __missing__(self, word: str) -> int:
        self[word] = found = int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest())
        return found


def words(text: str) -> list[str]:
    """What shingles are made of: words without case, single characters of unspaced scripts, else every character.

    Example:
        >>> words("Rain in 北京, again!")
        ['rain', 'in', '北', '京', 'again']
    """
    plain = normal(text).casefold()
    return WORD.findall(plain) or list(plain)


def shingles(texts: Sequence[str]) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """The shingles of all texts, one after another, as hashes; repeats are kept.

    A text of fewer words than a shingle has is one shingle; an empty one too.

    Returns:
        Hashes, and where each text starts among them, with their number at the end, (texts + 1,).
    """
    known = _Words()
    flat: list[int] = []
    counts = np.empty(len(texts), dtype=np.int64)
    for place, text in enumerate(texts):
        before = len(flat)
        flat.extend(map(known.__getitem__, words(text)))
        flat.extend([0] * (WIDTH - len(flat) + before))
        counts[place] = len(flat) - before
    hashed = np.array([*flat, *[0] * (WIDTH - 1)], dtype=np.uint64)
    mixed = np.zeros(len(flat), dtype=np.uint64)
    for offset in range(WIDTH):
        mixed = scrambled(mixed ^ hashed[offset : offset + len(flat)])
    ends = counts.cumsum()
    whole = np.ones(len(flat), dtype=bool)
    for back in range(1, WIDTH):
        whole[ends - back] = False  # these would reach into the next text
    return mixed[whole], np.concatenate([[0], (counts - WIDTH + 1).cumsum()])


def scrambled(values: Hashes) -> Hashes:
    """Spread 64-bit numbers over their range (the finalizer of splitmix64; Steele, Lea, Flood 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))

"""Scores of a generated answer against the wanted one.  Pure: texts in, numbers in [0, 1] out."""

import re
from collections import Counter
from collections.abc import Sequence

TOKEN = re.compile(r"[a-z0-9]+|[^\x00-\x7f]")  # words and numbers; each character of scripts written without spaces


def exact_match(answer: str, wanted: str) -> float:
    """1 where both are the same text, apart from space at the ends and runs of space inside."""
    return float(" ".join(answer.split()) == " ".join(wanted.split()))


def tokens(text: str) -> list[str]:
    """Lower-case words and numbers; scripts without spaces count by character."""
    return TOKEN.findall(text.lower())


def token_f1(answer: str, wanted: str) -> float:
    """Harmonic mean of precision and recall over the bag of tokens (Rajpurkar et al., 2016)."""
    ours, theirs = Counter(tokens(answer)), Counter(tokens(wanted))
    return harmonic((ours & theirs).total(), ours.total(), theirs.total())


def rouge_l(answer: str, wanted: str) -> float:
    """F-measure of the longest common subsequence of tokens (Lin, 2004)."""
    ours, theirs = tokens(answer), tokens(wanted)
    return harmonic(longest_common(ours, theirs), len(ours), len(theirs))


def longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    best = [0] * (len(other) + 1)
    for left in one:
        before = 0  # best[j] of the row above, before it is overwritten
        for place, right in enumerate(other, 1):
            above = best[place]
            best[place] = before + 1 if left == right else max(above, best[place - 1])
            before = above
    return best[-1]


def harmonic(shared: int, ours: int, theirs: int) -> float:
    """Harmonic mean of shared / ours and shared / theirs; two empty sides agree."""
    if not ours and not theirs:
        return 1.0
    return 2 * shared / (ours + theirs)

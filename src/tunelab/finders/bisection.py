"""The largest count that fits.  Pure."""

from collections.abc import Callable


def largest(fits: Callable[[int], bool], limit: int) -> int:
    """The largest count of 1 to `limit` that fits, given that whatever is below one that fits, fits; 0 if 1 does not.

    It doubles from 1 until one does not fit, then halves the gap, so it never tries more than twice the answer and
    takes some two times log2(answer) tries.
    """
    low, high = 0, 1
    while high <= limit and fits(high):
        low, high = high, min(2 * high, limit) if high < limit else limit + 1
    high = min(high, limit + 1)
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low

"""Truncation of supervised ids to a length limit, and the count of supervised tokens.  Pure: lists in, lists out."""

from collections.abc import Sequence
from typing import Final, get_args

from tunelab.config.schema import TooLong
from tunelab.data.examples import IGNORE
from tunelab.errors import DataError
from tunelab.language.translation import translate

LabelledIds = tuple[list[int], list[int]]  # ids and labels of one sequence
TOO_LONG_CHOICES: Final[tuple[str, ...]] = get_args(TooLong)


def count_supervised(labels: Sequence[int]) -> int:
    """The number of tokens that carry loss: labels other than `IGNORE`, without the first, which nothing precedes.

    Example:
        >>> count_supervised([7, IGNORE, 8, 9])
        2
    """
    learned = labels[1:]
    return len(learned) - learned.count(IGNORE)


def truncate_example(
    ids: list[int], labels: list[int], *, limit: int | None, too_long: str, bos: int | None = None
) -> tuple[list[int], list[int]] | None:
    """One example cut to `limit` tokens in the way `too_long` says; None where it is left out.

    Args:
        ids: Token ids, T of them.
        labels: T labels, equal to the ids or `IGNORE`.
        limit: Longest allowed sequence, in tokens; None for no limit.
        too_long: What happens to a longer one.
            "drop": it is left out.
            "truncate_prompt": the oldest tokens without a label go, as many as needed.  No answer token goes;
            where answers alone exceed the limit, the example is left out.
            "truncate_answer": everything after `limit` tokens goes, the end of the last answer included.
            "error": it is refused.
        bos: Id of the begin token.  Where it leads, "truncate_prompt" keeps it: models expect it at position 0.

    Returns:
        Ids and labels of at most `limit` tokens, or None where the example is left out: too long, or nothing
        that can be learned is left.

    Raises:
        DataError: If `too_long` is "error" and the example is longer than `limit`.

    Example:
        >>> labels = [IGNORE, IGNORE, IGNORE, 7, 8]
        >>> truncate_example([1, 5, 6, 7, 8], labels, limit=4, too_long="truncate_prompt", bos=1)
        ([1, 6, 7, 8], [-100, -100, 7, 8])
    """
    if too_long not in TOO_LONG_CHOICES:
        raise ValueError(
            translate("too_long is {too_long!r}; known: {names}", too_long=too_long, names=", ".join(TOO_LONG_CHOICES))
        )
    if limit is not None and len(ids) > limit:
        if too_long == "error":
            raise DataError(
                translate(
                    "the record is {count} [token|tokens] long and the limit is {limit}; raise data.max_tokens, "
                    "or set data.too_long=truncate_prompt or drop",
                    count=len(ids),
                    limit=limit,
                )
            )
        if too_long == "drop":
            return None
        if too_long == "truncate_answer":
            ids, labels = ids[:limit], labels[:limit]
        else:
            kept = _without_oldest_prompt(ids, labels, surplus=len(ids) - limit, bos=bos)
            if kept is None:
                return None
            ids, labels = [ids[t] for t in kept], [labels[t] for t in kept]
    return (ids, labels) if count_supervised(labels) else None


def truncate_pair(
    one: LabelledIds, other: LabelledIds, *, limit: int | None, too_long: str, bos: int | None = None
) -> tuple[LabelledIds, LabelledIds] | None:
    """Bring two answers to one prompt under `limit`, the prompt cut alike for both; as `truncate_example` for one.

    Returns:
        Both, or None where the pair is left out: one is too long, lost all that can be learned, or no longer differs.

    Raises:
        DataError: If `too_long` is "error" and one is longer than `limit`.

    Example:
        >>> truncate_pair(([1, 2, 3], [IGNORE, IGNORE, 3]), ([1, 2, 4, 5], [IGNORE, IGNORE, 4, 5]), limit=3,
        ...              too_long="truncate_prompt")
        (([2, 3], [-100, 3]), ([2, 4, 5], [-100, 4, 5]))
    """
    surplus = 0 if limit is None else max(0, max(len(one[0]), len(other[0])) - limit)
    kept = []
    for ids, labels in (one, other):
        own = len(ids) - surplus if limit is not None and too_long == "truncate_prompt" else limit
        short = truncate_example(ids, labels, limit=own, too_long=too_long, bos=bos)
        if short is None:
            return None
        kept.append(short)
    return None if kept[0] == kept[1] else (kept[0], kept[1])


def _without_oldest_prompt(ids: list[int], labels: list[int], *, surplus: int, bos: int | None) -> list[int] | None:
    """Positions that stay when the oldest `surplus` prompt tokens go; None if there are not that many to give.

    An answer that loses its whole prompt cannot be learned as an answer, and the first token of a sequence
    carries no loss, so one prompt token before the first answer token always stays.
    """
    first = 1 if bos is not None and ids[0] == bos and labels[0] == IGNORE else 0
    prompt = [t for t in range(first, len(ids)) if labels[t] == IGNORE]
    if len(prompt) < surplus:
        return None
    gone = set(prompt[:surplus])
    kept = [t for t in range(len(ids)) if t not in gone]
    lost_its_prompt = labels[kept[0]] != IGNORE and labels[0] == IGNORE
    return None if lost_its_prompt else kept

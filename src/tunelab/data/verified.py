"""The two promises about token ids that are checked for every record: clean prompts, and answers that end."""

from collections.abc import Collection, Sequence
from itertools import takewhile

from transformers import PreTrainedTokenizerBase

from tunelab.errors import DataError


def require_prefix(tokenizer: PreTrainedTokenizerBase, prefix: list[int], ids: list[int], what: str) -> None:
    """Refuse ids that do not start with `prefix`, because a tokenizer joined the end of it with what follows.

    Raises:
        DataError: Showing where the two part.
    """
    if ids[: len(prefix)] == prefix:
        return
    at = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prefix, ids, strict=False)))
    apart, joint = (tokenizer.decode(part[at : at + 3]) for part in (prefix, ids))
    raise DataError(
        f"{what} is no token prefix of the whole: at token {at} it reads {apart!r}, in the whole {joint!r}; "
        "a model asked with it would see other tokens than it learned; end prompts in a newline or a marker"
    )


def end_of_turn(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], stretch: tuple[int, int], stops: Collection[int]
) -> int | None:
    """Where an answer's learned tokens stop: one past the token that ends the turn; None if none does.

    Args:
        tokenizer: Tells blanks from text.
        ids: The whole record, T tokens.
        stretch: First token of the answer, and one past the last; may or may not take in the end-of-turn token.
        stops: Ids that end a turn.  Blanks may stand between the text and that token, and after it.
    """

    def is_blank(token: int) -> bool:
        return token not in stops and not str(tokenizer.decode([token])).strip()

    start, end = stretch
    inside = [t for t in range(start, end) if ids[t] in stops]
    if inside:
        return inside[-1] + 1 if all(map(is_blank, ids[inside[-1] + 1 : end])) else None
    after = end + sum(1 for _ in takewhile(is_blank, ids[end:]))
    return after + 1 if after < len(ids) and ids[after] in stops else None

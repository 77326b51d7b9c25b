"""A tokenizer that encodes control tokens in a user's text as the plain characters they are made of."""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from transformers import PreTrainedTokenizerBase

from tunelab.errors import DataError

Span = tuple[int, int]  # characters of a text, first and one past the last

MATCH_NOTHING: Final = re.compile(r"(?!)")
REASONING_NAMES: Final = "think|thinking|thought|reason|reasoning|seed:think"
REASONING_MARK: Final = re.compile(rf"<[/|]{{0,2}}(?:{REASONING_NAMES})[|]?>|\[/?THINK\]|◁/?think▷")


class LiteralTextEncoder:
    """Text to ids, with control tokens that a user has spelled out as ordinary text.

    "</s>" in a text about tokenizers would end the turn half-way, and a second begin token would confuse the model.
    The text is the template's, untouched; where a record spells out such a token, the caller says so, and that stretch
    is encoded as the characters it is made of.

    Marks of reasoning ("<think>") are not protected, special or not: in an answer they are what is to be learned.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """No token is protected yet."""
        self.tokenizer = tokenizer
        self.control = MATCH_NOTHING  # matches every protected token
        self._newline: list[int] = []

    def protect(self, tokens: Iterable[int]) -> None:
        """Treat these ids (and begin and end of sequence) as control tokens from now on."""
        added = self.tokenizer.added_tokens_decoder
        spelled = {self.tokenizer.bos_token, self.tokenizer.eos_token} - {None}
        spelled |= {added[token].content for token in tokens if token in added}
        longest_first = sorted((str(t) for t in spelled if not REASONING_MARK.fullmatch(str(t))), key=len, reverse=True)
        if longest_first:
            self.control = re.compile("|".join(map(re.escape, longest_first)))
        self._newline = self._encode("\n")

    def literal_spans(self, text: str, start: int = 0, end: int | None = None) -> list[Span]:
        """Where control tokens are spelled out in a stretch of a text."""
        return [match.span() for match in self.control.finditer(text, start, len(text) if end is None else end)]

    def ids(self, text: str, literal: Sequence[Span] = ()) -> list[int]:
        """Ids of a text, without begin or end tokens of the tokenizer's own.

        Args:
            text: What is encoded.
            literal: Stretches of it that are ordinary text whatever they spell, in their order; those beyond the end
                of the text are left out.

        Raises:
            DataError: If the text is not valid Unicode, or such a stretch cannot be encoded as text.
        """
        inside = [span for span in literal if span[1] <= len(text)]
        if not inside:
            return self._encode(text)
        ids: list[int] = []
        done = 0
        for start, end in inside:
            if start > done:
                ids += self._encode_after(text[done:start]) if done else self._encode(text[:start])
            ids += self._encode_literal(text[start:end])
            done = end
        return ids + self._encode_after(text[done:]) if done < len(text) else ids

    def _encode_literal(self, token: str) -> list[int]:
        own = self.tokenizer.convert_tokens_to_ids(token)
        ids = self._encode_after(token, literal=True)
        if own in ids:  # an added token that is not special is matched all the same: cut it apart
            ids = [*self._encode_after(token[:1], literal=True), *self._encode_after(token[1:], literal=True)]
        if own in ids:
            raise DataError(f"{token!r} in a text would be read as a control token; take it out, or drop the record")
        return ids

    def _encode_after(self, piece: str, *, literal: bool = False) -> list[int]:
        """Encode what follows other text: after a newline, or some tokenizers put a space before it."""
        ids = self._encode("\n" + piece, literal=literal)
        if ids[: len(self._newline)] == self._newline:
            return ids[len(self._newline) :]
        return self._encode(piece, literal=literal)

    def _encode(self, text: str, *, literal: bool = False) -> list[int]:
        try:
            encoding = self.tokenizer(
                text,
                add_special_tokens=False,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
                split_special_tokens=literal,
            )
        except (UnicodeError, TypeError) as fault:
            raise DataError(f"a text is not valid Unicode ({fault}); repair its encoding or drop the record") from None
        return list(encoding["input_ids"])

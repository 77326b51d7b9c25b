"""Encode text so that control tokens are only those the chat template writes itself."""

import re
from collections.abc import Iterable
from typing import Any, Final

from transformers import PreTrainedTokenizerBase

from tunelab.errors import DataError

OPEN, CLOSE = "\ue000", "\ue001"  # private-use characters: no text means anything by them
NEVER: Final = re.compile(r"(?!)")


class PlainText:
    """A tokenizer that can be told which tokens a user's text must not turn into.

    "</s>" in a text about tokenizers would end the turn half-way, and a second begin token would confuse the model.
    Such a spot is marked before the template is applied, and encoded as the characters it is made of.  The way is
    that of `apply_chat_template(sanitize_control_tokens=True)` in transformers, which gives no assistant mask.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Protect nothing yet."""
        self.tokenizer = tokenizer
        self._control = self._marked = NEVER
        self._newline: list[int] = []

    def protect(self, tokens: Iterable[int]) -> None:
        """Treat these ids (and begin and end of sequence) as control tokens from now on."""
        special = {self.tokenizer.bos_token, self.tokenizer.eos_token} - {None}
        special |= {self.tokenizer.added_tokens_decoder[t].content for t in tokens if self._is_added(t)}
        longest_first = sorted(map(str, special), key=len, reverse=True)
        if longest_first:
            spelled = "|".join(map(re.escape, longest_first))
            self._control = re.compile(spelled)
            self._marked = re.compile(f"{OPEN}({spelled}){CLOSE}")
        self._newline = self._encode("\n")

    def mark(self, value: Any) -> Any:
        """The same value with control tokens in its texts marked, keys of mappings included."""
        if isinstance(value, str):
            return self._control.sub(f"{OPEN}\\g<0>{CLOSE}", value)
        if isinstance(value, dict):
            return {self.mark(key): self.mark(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.mark(inner) for inner in value]
        return value

    def ids(self, text: str) -> list[int]:
        """Ids of a written text, without begin or end tokens of the tokenizer's own.

        Raises:
            DataError: If the text is not valid Unicode.
        """
        pieces = self._marked.split(text)
        ids = self._encode(pieces[0])
        for index, piece in enumerate(pieces[1:], start=1):
            if piece:
                ids += self._encode_inside(piece, literal=index % 2 == 1)
        return ids

    def _encode_inside(self, piece: str, *, literal: bool) -> list[int]:
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

    def _is_added(self, token: int) -> bool:
        return token in self.tokenizer.added_tokens_decoder

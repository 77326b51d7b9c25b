"""An example as it can be read: its tokens as text, each known to be trained, masked or special."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from transformers import PreTrainedTokenizerBase

from tunelab.data.examples import IGNORE, Example

LOST = "\ufffd"  # what a decoder writes for half a letter
SHOW = {"\n": "⏎\n", "\t": "⇥", "\r": "␍", "⟦": "\\u27e6", "⟧": "\\u27e7"}


@dataclass(frozen=True, slots=True)
class Piece:
    """One token, or the tokens that make up one letter together.

    Attributes:
        text: As a reader may see it: no control characters, ⏎ before each line break.
        ids: The tokens.
        trained: Whether a loss is taken on them.  None where the whole text is input and nothing of it is predicted.
        special: Whether it is a control token of the model rather than text.
    """

    text: str
    ids: tuple[int, ...]
    trained: bool | None
    special: bool


def sequences(example: Example, tokenizer: PreTrainedTokenizerBase) -> list[list[Piece]]:
    """The sequences of an example (two for a pair of answers) as pieces.

    A token is trained exactly if its label is not `IGNORE` and something precedes it.
    """
    if not isinstance(example.target, list) or len(example.target) != len(example.ids):
        return [list(pieces(example.ids, None, tokenizer))]
    labels = [int(label) for label in example.target]
    cuts = [0, *([] if example.second is None else [example.second]), len(labels)]
    return [list(pieces(example.ids[start:stop], labels[start:stop], tokenizer)) for start, stop in pairwise(cuts)]


def pieces(ids: list[int], labels: list[int] | None, tokenizer: PreTrainedTokenizerBase) -> Iterator[Piece]:
    """Tokens as text.  A letter of several tokens is one piece, unless a border of what is trained cuts through it.

    Text is what a token adds to the tokens before it: by itself, many tokenizers would drop its leading space.
    """

    def decode(part: list[int]) -> str:
        return str(tokenizer.decode(part, clean_up_tokenization_spaces=False))

    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    special |= set(tokenizer.all_special_ids)
    trained = [None if labels is None else place > 0 and labels[place] != IGNORE for place in range(len(ids))]
    before, start, known = 0, 0, ""  # where the context starts, where the piece starts, the context as text
    for place, token in enumerate(ids):
        if token in special:
            yield Piece(visible(str(tokenizer.convert_ids_to_tokens(token))), (token,), trained[place], True)
            before, start, known = place, place + 1, decode([token])
            continue
        text = decode(ids[before : place + 1])
        last = place + 1 == len(ids) or ids[place + 1] in special or trained[place + 1] != trained[place]
        if text.endswith(LOST) and not last:
            continue
        gained = text[len(known) :] if text.startswith(known) else decode(ids[start : place + 1])
        yield Piece(visible(gained), tuple(ids[start : place + 1]), trained[place], False)
        before, start = start, place + 1
        known = decode(ids[before:start])


def visible(text: str) -> str:
    """Text that cannot steer a terminal or a page, and that shows where its lines end."""
    return "".join(SHOW.get(letter) or (letter if letter.isprintable() else escaped(letter)) for letter in text)


def escaped(letter: str) -> str:
    """An unprintable letter by its number."""
    return f"\\u{ord(letter):04x}"

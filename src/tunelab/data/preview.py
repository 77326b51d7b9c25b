"""Preview of records as the model sees them: tokens as text, each marked as trained, masked or special."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from transformers import PreTrainedTokenizerBase

from tunelab.data.data_sources import Split
from tunelab.data.examples import IGNORE, Example
from tunelab.data.lazy_sequences import evenly_spaced
from tunelab.data.preference_pairs import PAIR_SIDES
from tunelab.data.summary import SummarizedTask
from tunelab.language.translation import translate

REPLACEMENT_CHAR = "\ufffd"  # what a decoder writes for half a letter
VISIBLE_CHARS = {"\n": "⏎\n", "\t": "⇥", "\r": "␍", "⟦": "\\u27e6", "⟧": "\\u27e7"}


@dataclass(frozen=True, slots=True)
class TokenPiece:
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


def example_pieces(example: Example, tokenizer: PreTrainedTokenizerBase) -> list[list[TokenPiece]]:
    """The sequences of an example (two for a pair of answers) as pieces.

    A token is trained exactly if its label is not `IGNORE` and something precedes it.
    """
    if not isinstance(example.target, list) or len(example.target) != len(example.ids):
        return [list(token_pieces(example.ids, None, tokenizer))]
    labels = [int(label) for label in example.target]
    cuts = [0, *([] if example.second_start is None else [example.second_start]), len(labels)]
    return [
        list(token_pieces(example.ids[start:stop], labels[start:stop], tokenizer)) for start, stop in pairwise(cuts)
    ]


def token_pieces(ids: list[int], labels: list[int] | None, tokenizer: PreTrainedTokenizerBase) -> Iterator[TokenPiece]:
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
            yield TokenPiece(make_visible(str(tokenizer.convert_ids_to_tokens(token))), (token,), trained[place], True)
            before, start, known = place, place + 1, decode([token])
            continue
        text = decode(ids[before : place + 1])
        last = place + 1 == len(ids) or ids[place + 1] in special or trained[place + 1] != trained[place]
        if text.endswith(REPLACEMENT_CHAR) and not last:
            continue
        gained = text[len(known) :] if text.startswith(known) else decode(ids[start : place + 1])
        yield TokenPiece(make_visible(gained), tuple(ids[start : place + 1]), trained[place], False)
        before, start = start, place + 1
        known = decode(ids[before:start])


def make_visible(text: str) -> str:
    """Text that cannot steer a terminal or a page, and that shows where its lines end."""
    return "".join(
        VISIBLE_CHARS.get(letter) or (letter if letter.isprintable() else escape_char(letter)) for letter in text
    )


def escape_char(letter: str) -> str:
    """An unprintable letter by its number."""
    return f"\\u{ord(letter):04x}"


@dataclass(frozen=True, slots=True)
class PreviewRecord:
    """One record for a reader.

    Attributes:
        title: Where it stands, and how many tokens it has.
        sequences: Its sequences; two for a pair of answers.
        target: Label or numbers, where the task learns such.
        names: What each of several sequences is; empty where there is one.
    """

    title: str
    sequences: list[list[TokenPiece]]
    target: str
    names: tuple[str, ...] = ()


def preview_records(
    task: SummarizedTask, split: Split, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, rows: int
) -> list[PreviewRecord]:
    """At most `rows` records, evenly spaced over the examples of a split."""
    records = []
    for place in evenly_spaced(len(examples), rows):
        example = examples[place]
        parts = example_pieces(example, tokenizer)
        trained = sum(len(piece.ids) for part in parts for piece in part if piece.trained)
        trained_note = translate(", {trained:,} trained", trained=trained) if task.head == "causal" else ""
        title = translate(
            "{locations}: {count:,} [token|tokens]{trained_note}",
            locations=split.locations[example.row],
            count=len(example.ids),
            trained_note=trained_note,
        )
        names = PAIR_SIDES if example.second_start is not None else ()
        records.append(PreviewRecord(title, parts, task.target_text(split.rows[example.row]), names))
    return records


def mark_trained(part: Sequence[TokenPiece]) -> list[tuple[str, str]]:
    """Parts of the text with their kind, "trained", "masked", "special" or "trained special".

    What is trained stands between ⟦ and ⟧, which no text of the data can hold (see `make_visible`).
    """
    marked: list[tuple[str, str]] = []
    for trained, stretch in groupby(part, key=lambda piece: bool(piece.trained)):
        kind = "trained" if trained else "masked"
        marked += [("⟦", kind)] if trained else []
        marked += [(piece.text, f"{kind} special" if piece.special else kind) for piece in stretch]
        marked += [("⟧", kind)] if trained else []
    return marked

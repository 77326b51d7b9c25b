"""Token ids of many texts, each part of them that stands more than once tokenized once.

A tokenizer that is known to cut before certain spaces, whatever stands around them, gives a text the ids of the parts
between such places, end to end.  Words are few and texts are many, so most parts are known already.  Which tokenizers
are known to cut so is read from what they are made of; all others tokenize whole texts.
"""

import json
import re
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate, chain, pairwise
from sys import getsizeof
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

START, END_OF_TEXT, CUT = "\2", "\1", "\0"  # marks in texts that are laid end to end; no text may hold one
NO_ID: Final = -1  # in place of an id at the end of a text
STRETCH_CHARACTERS: Final = 2**20  # of texts that are laid end to end
# Of parts and their ids; as many more are kept until they are seen again, or that many others.
MAX_KNOWN_BYTES: Final = 25 * 10**6
ENTRY_BYTES: Final = 100  # of a dictionary, for one part
BATCH_CHARACTERS: Final = 2**17  # of texts that are tokenized in one call, which takes 100 bytes and more for a token
ANY_LETTER, LOWER_CASE = "[!-~]", "[a-z]"  # what stands behind a space before which is cut
# Patterns by which words are parted, and what must follow a space before which each of them cuts.  None of their
# alternatives goes from a visible ASCII character over a space, and none looks ahead of one across it.
CUTTING_PATTERNS: Final[Mapping[str, str]] = {
    # GPT-2, as ByteLevel brings it
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": ANY_LETTER,
    # GPT-4, Llama 3: numbers of three digits at most
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+": ANY_LETTER,
    # Qwen: digits alone
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+": ANY_LETTER,
    # the built-in model, whose words may take the space along before a capital or a digit
    r"(?: ?\p{L}+| ?[^\s\p{L}\d]+) (?=[\p{Lu}\d])|\d+(?::\d\d)?| ?\p{L}+| ?[^\s\p{L}\d]+|\s+(?!\S)|\s+": LOWER_CASE,
}
LOCAL_NORMALIZERS: Final = frozenset({"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer"})
SPACE_CUTTERS: Final = frozenset({"BertPreTokenizer", "Whitespace", "WhitespaceSplit"})
LOCAL_CUTTERS: Final = frozenset({"Digits", "Punctuation"})  # which go by the letters of a run alone
WORD_MODELS: Final = frozenset({"BPE", "WordPiece", "WordLevel", "Unigram"})  # which see one word at a time


CHECKED_TEXTS: Final = 4  # of many, whose ids are compared with those that the tokenizer itself gives
CHECKED_CHARACTERS: Final = 100_000  # of each of these; a longer text is worth the comparison alone


class FlatIds(NamedTuple):
    """Ids of texts end to end, int32, and where those of each text end."""

    ids: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int64]

    def lists(self) -> list[list[int]]:
        """The ids of each text."""
        whole = self.ids.tolist()
        return [whole[start:end] for start, end in pairwise([0, *self.ends.tolist()])]


class WholeEncoder:
    """Encodes whole texts.

    Args:
        core: The tokenizer, as the library `tokenizers` has it, which must not truncate or pad.
    """

    def __init__(self, core: Any) -> None:
        self.core = core

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without special tokens; their places in the text, which cost time, are left out."""
        return [
            encoding.ids
            for batch in text_batches(texts, BATCH_CHARACTERS)
            for encoding in self.core.encode_batch_fast([*batch], add_special_tokens=False)
        ]

    def flat_ids(self, texts: Sequence[str]) -> FlatIds:
        """The ids of texts end to end."""
        ids = WholeEncoder.ids(self, texts)
        ends = np.fromiter(map(len, ids), np.int64, len(ids)).cumsum()
        return FlatIds(np.fromiter(chain.from_iterable(ids), np.int32), ends)


class PartEncoder(WholeEncoder):
    """Encodes texts by their parts.

    Args:
        core: The tokenizer, as the library `tokenizers` has it.
        behind: What stands behind a space before which it cuts, as a regular expression.
        borders: Control tokens before which texts are cut too.
    """

    def __init__(self, core: Any, behind: str, borders: Sequence[str]) -> None:
        super().__init__(core)
        self.borders = tuple(borders)
        # beginning with what to look for, which the engine skips to
        self.cut = re.compile(f"{CUT}| (?<=[!-~] )(?={behind})")
        self.known: dict[str, bytes] = {}  # part -> its ids, int32
        self.before: dict[str, bytes] = {}  # those that were known when there were too many
        self.known_bytes = 0

    @classmethod
    def of(cls, core: Any, borders: Collection[str] = ()) -> "PartEncoder | None":
        """An encoder for a tokenizer; None where it is not known to cut at places that can be told beforehand.

        Args:
            core: The tokenizer.
            borders: Special tokens that take nothing of the text around them along.
        """
        added = [*core.get_added_tokens_decoder().values()]
        contents = [token.content for token in added]
        if any(token.rstrip or re.search(r"\s", token.content) for token in added):
            return None
        model = type(core.model).__name__
        if model not in WORD_MODELS or (model == "BPE" and core.model.dropout):
            return None
        if not is_local_normalizer(describe(core.normalizer)):
            return None
        behind = space_cut_before(describe(core.pre_tokenizer))
        free = [border for border in borders if not border[:1].islower() and stands_alone(border, contents)]
        return cls(core, behind, free) if behind else None

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without special tokens."""
        return self.flat_ids(texts).lists()

    def flat_ids(self, texts: Sequence[str]) -> FlatIds:
        """The ids of texts end to end."""
        parts = [self._stretch_ids(stretch) for stretch in text_batches(texts, STRETCH_CHARACTERS)] or [
            super().flat_ids([])
        ]
        shifts = accumulate((len(part.ids) for part in parts[:-1]), initial=0)
        return FlatIds(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.ends + shift for part, shift in zip(parts, shifts, strict=True)]),
        )

    def _stretch_ids(self, texts: Sequence[str]) -> FlatIds:
        whole = f"{CUT}{END_OF_TEXT}{CUT}{START}".join(texts)
        if sum(map(whole.count, (START, END_OF_TEXT, CUT))) != 4 * (len(texts) - 1):  # a text holds a mark of ours
            return super().flat_ids(texts)
        for border in self.borders:
            whole = whole.replace(border, CUT + border)
        parts = self.cut.split(f"{START}{whole}{CUT}{END_OF_TEXT}")
        self._learn(set(parts).difference(self.known))
        flat = np.frombuffer(b"".join(map(self.known.__getitem__, parts)), np.int32)
        at_end = flat == NO_ID
        places = np.flatnonzero(at_end)
        if self.known_bytes > MAX_KNOWN_BYTES:
            self.before, self.known, self.known_bytes = self.known, {}, 0
        return FlatIds(flat[~at_end], places - np.arange(len(places)))

    def _learn(self, parts: set[str]) -> None:
        """Encode parts that are not known yet."""
        if END_OF_TEXT in parts:
            parts.remove(END_OF_TEXT)
            self.known[END_OF_TEXT] = array("i", [NO_ID]).tobytes()
        again = parts.intersection(self.before)
        self._keep(again, [*map(self.before.__getitem__, again)])
        fresh = [*parts.difference(again)]
        self._keep(fresh, [array("i", ids).tobytes() for ids in WholeEncoder.ids(self, [*map(self._as_text, fresh)])])

    def _keep(self, parts: Collection[str], ids: Sequence[bytes]) -> None:
        """Keep parts with their ids."""
        self.known.update(zip(parts, ids, strict=True))
        self.known_bytes += sum(map(getsizeof, parts)) + sum(map(getsizeof, ids)) + ENTRY_BYTES * len(ids)

    def _as_text(self, part: str) -> str:
        """A part as it stands in its text: a space before it, unless it begins the text or with a control token."""
        if part.startswith(START):
            return part[len(START) :]
        return part if part.startswith(self.borders) else f" {part}"


def special_frame(core: Any) -> tuple[list[int], list[int]] | None:
    """The ids that a tokenizer puts before and behind every single text; None where that is not plain."""
    bare, framed = (core.encode("a", add_special_tokens=special).ids for special in (False, True))
    places = [place for place in range(len(framed)) if framed[place : place + len(bare)] == bare]
    return (framed[: places[0]], framed[places[0] + len(bare) :]) if bare and len(places) == 1 else None


def texts_to_check(texts: Sequence[str]) -> list[str]:
    """The heads of the first texts, to compare an encoder with the tokenizer; none where all texts take no longer."""
    if len(texts) <= CHECKED_TEXTS and max(map(len, texts), default=0) <= CHECKED_CHARACTERS:
        return []
    return [text[:CHECKED_CHARACTERS] for text in texts[:CHECKED_TEXTS]]


def text_batches(texts: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    """Texts in their order, as many at once as have no more than some characters together; a longer one alone."""
    first, size = 0, 0
    for place, total in enumerate(accumulate(map(len, texts))):
        if total - size > most and place > first:
            yield texts[first:place]
            first, size = place, total - len(texts[place])
    if first < len(texts):
        yield texts[first:]


def describe(part: Any) -> Mapping[str, Any] | None:
    """A part of a tokenizer as its file has it."""
    return None if part is None else dict(json.loads(part.__getstate__()))


def is_local_normalizer(spec: Mapping[str, Any] | None) -> bool:
    """Whether a normalizer changes a text letter by letter, so that its parts may be changed one by one.

    A space behind and before ASCII letters takes part in no composition of letters.
    """
    if spec is None:
        return True
    if spec["type"] == "Sequence":
        return all(map(is_local_normalizer, spec["normalizers"]))
    return spec["type"] in LOCAL_NORMALIZERS


def space_cut_before(spec: Mapping[str, Any] | None) -> str:
    """What stands behind a space before which a pre-tokenizer cuts, if a visible ASCII character stands before it.

    Empty where that is not known.
    """
    if spec is None:
        return ""
    steps = spec["pretokenizers"] if spec["type"] == "Sequence" else [spec]
    behind: list[str] = []
    for place, step in enumerate(steps):
        kind, last = step["type"], place == len(steps) - 1
        if kind in SPACE_CUTTERS:
            behind.append(ANY_LETTER)
        elif kind == "ByteLevel" and last:  # it writes spaces as another letter
            behind += [ANY_LETTER] if step["use_regex"] else []
        elif kind == "Metaspace" and last and step["split"]:
            behind.append(ANY_LETTER)
        elif kind == "Split" and step["behavior"] == "Isolated" and not step["invert"]:
            pattern = step["pattern"].get("Regex", "")
            if pattern not in CUTTING_PATTERNS:
                return ""
            behind.append(CUTTING_PATTERNS[pattern])
        elif kind not in LOCAL_CUTTERS:
            return ""
    return LOWER_CASE if LOWER_CASE in behind else ANY_LETTER if behind else ""


def stands_alone(border: str, contents: Sequence[str]) -> bool:
    """Whether a token is the one that is read wherever it is spelled: no other overlaps with it, nor it with itself."""
    for other in contents:
        if other != border and (other in border or border in other):
            return False
        if any(other.endswith(border[:size]) or border.endswith(other[:size]) for size in range(1, len(border))):
            return False
    return True

"""Tokens that stand for text which a tokenizer does not know: their share, the script they hide, and the way out.

A model sees one and the same token for all of it, so nothing of it can be learned or told apart.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final
from unicodedata import category, name

import numpy as np
from transformers import PreTrainedTokenizerBase

from tunelab.data.examples import IGNORE, Example
from tunelab.data.token_store import token_stretches
from tunelab.errors import WarningNote
from tunelab.language.translation import message, translate

MIN_SHARE_SAID = 0.05  # share of unknown tokens from which a reader is warned
MAX_ROWS_LOOKED_AT = 200  # rows of a split whose letters are looked at one by one
BARE_SPACES: Final = ("▁", "Ġ", " ")  # tokens that are a space and nothing else
MODELS_BY_SCRIPT: Final = {
    "CJK": message("a Chinese or multilingual"),
    "HIRAGANA": message("a Japanese or multilingual"),
    "KATAKANA": message("a Japanese or multilingual"),
    "HANGUL": message("a Korean or multilingual"),
    "CYRILLIC": message("a Russian or multilingual"),
    "ARABIC": message("an Arabic, Persian or multilingual"),
    "DEVANAGARI": message("a Hindi or multilingual"),
    "GREEK": message("a Greek or multilingual"),
    "HEBREW": message("a Hebrew or multilingual"),
    "THAI": message("a Thai or multilingual"),
}


@dataclass(frozen=True, slots=True)
class UnknownShare:
    """How much of a split its tokenizer does not know, in tokens; in letters where unknown ones have no token at all.

    Attributes:
        unknown: Unknown tokens.
        tokens: All tokens that stand for text: no control tokens, no bare spaces.
        trained_unknown, trained_tokens: The same among the tokens that are learned; 0 where none is.
    """

    unknown: int
    tokens: int
    trained_unknown: int = 0
    trained_tokens: int = 0

    @property
    def share(self) -> float:
        """Share of unknown tokens in all text, or in what is learned, whichever is larger."""
        shares = [(self.unknown, self.tokens), (self.trained_unknown, self.trained_tokens)]
        return max(unknown / tokens if tokens else 0.0 for unknown, tokens in shares)


def unknown_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id that stands for unknown text; None where there is none, or it means something else too."""
    token = tokenizer.unk_token_id
    others = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id)
    return None if token is None or token in others else int(token)


def count_unknown(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> UnknownShare | None:
    """Count the unknown tokens of a split; None where the tokenizer has no such token."""
    unknown = unknown_id(tokenizer)
    if unknown is None:
        return None
    bare = {int(tokenizer.get_vocab().get(token, unknown)) for token in BARE_SPACES}
    aside = frozenset({*tokenizer.all_special_ids, *bare} - {unknown})
    totals = [0, 0, 0, 0]
    for ids, learned, _, _ in token_stretches(examples):
        is_unknown, is_text = ids == unknown, ~np.isin(ids, list(aside))
        for place, counted in enumerate((is_unknown, is_text, is_unknown & learned, is_text & learned)):
            totals[place] += int(counted.sum())
    return UnknownShare(*totals)


def count_lost(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> UnknownShare | None:
    """Count the letters that no token stands for; None where the tokenizer has a token for the unknown.

    A tokenizer without such a token, and without one for each byte, drops what it does not know.
    """
    if tokenizer.unk_token_id is not None:
        return None
    letters = Counter(letter for text in texts for letter in text if category(letter)[0] in "LNS")
    lost = sum(count for letter, count in letters.items() if not is_known(letter, tokenizer))
    return UnknownShare(lost, letters.total())


def is_known(letter: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer has tokens for a letter that stands by itself."""
    ids = tokenizer(letter, add_special_tokens=False)["input_ids"]
    assert isinstance(ids, list)
    return unknown_id(tokenizer) not in ids and bool(str(tokenizer.decode(ids)).strip())


def unknown_token_messages(
    shares: Mapping[str, UnknownShare | None],
    texts: Mapping[str, Iterable[str]],
    tokenizer: PreTrainedTokenizerBase,
    limit: float,
) -> tuple[list[str], list[str]]:
    """Faults of the splits whose share is at `limit` or above (1 refuses nothing), and warnings from 5 % on.

    Args:
        shares: Of each split.
        texts: Of each split, in which the script is looked for.
        tokenizer: Which one it is.
        limit: As `data.max_unknown`.
    """
    faults, warnings = list[str](), list[str]()
    known = {split: counted for split, counted in shares.items() if counted and counted.share >= MIN_SHARE_SAID}
    if known:
        shares_said = ", ".join(
            translate("{share:.0%} of the text of {split}", share=counted.share, split=split)
            for split, counted in known.items()
        )
        script = unknown_script(chain.from_iterable(texts[split] for split in known), tokenizer)
        letters = (
            translate(" (mostly {script} letters)", script=script if script == "CJK" else script.capitalize())
            if script
            else ""
        )
        stands = (
            translate("no token stands for any")
            if tokenizer.unk_token is None
            else translate("one {unk_token} stands for all", unk_token=tokenizer.unk_token)
        )
        says = translate(
            "the tokenizer does not know {shares_said}{letters}: {stands} of it",
            shares_said=shares_said,
            letters=letters,
            stands=stands,
        )
        model = translate(
            "{kind} model, or one whose tokens are bytes,", kind=MODELS_BY_SCRIPT.get(script, message("a multilingual"))
        )
        if limit < 1 and max(counted.share for counted in known.values()) >= limit:
            faults.append(
                translate(
                    "{says}, and of that nothing can be learned. Take {model} whose tokenizer knows it; "
                    "data.max_unknown=1 trains on it anyway",
                    says=says,
                    model=model,
                )
            )
        else:
            warnings.append(WarningNote(translate("{says}; {model} would know it", says=says, model=model)))
    return faults, warnings


def unknown_script(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> str:
    """The script of most letters that the tokenizer does not know by themselves; empty where it knows each.

    Example: "ETHIOPIC", "CJK", "CYRILLIC", the first word of a letter's name in Unicode.
    """
    letters = Counter(
        letter for text in texts for letter in text if category(letter)[0] in "LM" and not letter.isascii()
    )
    scripts = Counter[str]()
    for letter, count in letters.items():
        if not is_known(letter, tokenizer):
            scripts[name(letter, "").partition(" ")[0]] += count
    return scripts.most_common(1)[0][0] if scripts else ""


def input_ids(example: Example) -> Sequence[int]:
    """The tokens that the model is given before the last stretch it learns; all, where all or nothing is learned."""
    if not isinstance(example.target, list) or len(example.target) != len(example.ids):
        return example.ids
    end = len(example.ids) if example.second_start is None else example.second_start
    place = end - 1
    while place >= 0 and example.target[place] == IGNORE:
        place -= 1
    while place >= 0 and example.target[place] != IGNORE:
        place -= 1
    return example.ids[: place + 1] or example.ids[:end]

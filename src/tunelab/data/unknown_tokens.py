"""Tokens that stand for text which a tokenizer does not know: their share, the script they hide, and the way out.

A model sees one and the same token for all of it, so nothing of it can be learned or told apart.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final
from unicodedata import category, name

from transformers import PreTrainedTokenizerBase

from tunelab.data.examples import IGNORE, Example

MIN_SHARE_SAID = 0.05  # share of unknown tokens from which a reader is warned
MAX_TEXTS_LOOKED_AT = 200  # texts whose letters are tried one by one, for the name of the script
BARE_SPACES: Final = ("▁", "Ġ", " ")  # tokens that are a space and nothing else
MODELS_BY_SCRIPT: Final = {
    "CJK": "a Chinese or multilingual",
    "HIRAGANA": "a Japanese or multilingual",
    "KATAKANA": "a Japanese or multilingual",
    "HANGUL": "a Korean or multilingual",
    "CYRILLIC": "a Russian or multilingual",
    "ARABIC": "an Arabic, Persian or multilingual",
    "DEVANAGARI": "a Hindi or multilingual",
    "GREEK": "a Greek or multilingual",
    "HEBREW": "a Hebrew or multilingual",
    "THAI": "a Thai or multilingual",
}


@dataclass(frozen=True, slots=True)
class UnknownShare:
    """How much of a split its tokenizer does not know.

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


def count_unknown(examples: Iterable[Example], tokenizer: PreTrainedTokenizerBase) -> UnknownShare | None:
    """Count the unknown tokens of a split; None where the tokenizer has no such token."""
    unknown = unknown_id(tokenizer)
    if unknown is None:
        return None
    bare = {int(tokenizer.get_vocab().get(token, unknown)) for token in BARE_SPACES}
    aside = frozenset({*tokenizer.all_special_ids, *bare} - {unknown})
    totals = [0, 0, 0, 0]
    for example in examples:
        totals[0] += example.ids.count(unknown)
        totals[1] += len(example.ids) - sum(map(example.ids.count, aside.intersection(example.ids)))
        if isinstance(example.target, list) and len(example.target) == len(example.ids):
            labels = example.target
            totals[2] += labels.count(unknown)
            totals[3] += len(labels) - sum(map(labels.count, {*aside, IGNORE}.intersection(labels)))
    return UnknownShare(*totals)


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
        shares_said = ", ".join(f"{counted.share:.0%} of the text of {split}" for split, counted in known.items())
        some_texts = chain.from_iterable(islice(texts[split], MAX_TEXTS_LOOKED_AT) for split in known)
        script = unknown_script(some_texts, tokenizer)
        letters = f" (mostly {script if script == 'CJK' else script.capitalize()} letters)" if script else ""
        says = (
            f"the tokenizer does not know {shares_said}{letters}: the same {tokenizer.unk_token} stands for all of it"
        )
        model = f"{MODELS_BY_SCRIPT.get(script, 'a multilingual')} model, or one whose tokens are bytes,"
        if limit < 1 and max(counted.share for counted in known.values()) >= limit:
            faults.append(
                f"{says}, and of that nothing can be learned. Take {model} whose tokenizer knows it; "
                f"data.max_unknown=1 trains on it anyway"
            )
        else:
            warnings.append(f"{says}; {model} would know it")
    return faults, warnings


def unknown_script(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> str:
    """The script of most letters that the tokenizer does not know by themselves; empty where it knows each.

    Example: "ETHIOPIC", "CJK", "CYRILLIC", the first word of a letter's name in Unicode.
    """
    letters = Counter(
        letter for text in texts for letter in text if category(letter)[0] in "LM" and not letter.isascii()
    )
    unknown = unknown_id(tokenizer)
    scripts = Counter[str]()
    for letter, count in letters.items():
        if unknown in tokenizer(letter, add_special_tokens=False)["input_ids"]:
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

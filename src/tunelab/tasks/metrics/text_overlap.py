"""Exact match, token F1 and ROUGE-L of an answer against its reference, all by the same tokens.  Pure.

A token is a word, a number with its minus sign, or a symbol (category S of Unicode, but no modifier).  Scripts written
without spaces between words (Han, Kana, Thai, Lao, Khmer, Burmese) have one for each letter.  Combining marks stay with
their letter.  Case, width and other compatibility forms, punctuation (category P) and invisible characters count for
nothing.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache

NAME_WITHOUT_SPACES = re.compile(  # how the name of a letter begins: the standard library knows no scripts
    r"CJK |IDEOGRAPHIC |KATAKANA|HIRAGANA|THAI |LAO |KHMER |MYANMAR "
)
KEPT_FORMS = ("<super>", "<sub>", "<fraction>")  # 2⁵ is not 25, and 1½ is not 11/2
ZERO_WIDTH_SPACE = "\u200b"  # ends a word; other invisible characters stand inside words
# Over the kinds of the characters: letter, digit, mark of the one before, alone, hyphen or minus, space or punctuation.
TOKEN = re.compile(r"(?:(?<![ldma])-(?=d))?[ld][ldm]*|am*")


@cache
def compatibility_form(character: str) -> str:
    """A character as NFKC writes it, but for those that change what is said: super- and subscripts, fractions."""
    if unicodedata.decomposition(character).startswith(KEPT_FORMS):
        return character
    return unicodedata.normalize("NFKC", character)


def normalize_text(text: str) -> str:
    """A text without differences of case, width, composition and other compatibility forms."""
    for _ in range(2):  # folding case can take a letter and its mark apart again
        text = unicodedata.normalize("NFC", "".join(map(compatibility_form, text))).casefold()
    return unicodedata.normalize("NFC", text)


@cache
def character_kind(character: str) -> str:
    """The kind of a character as `TOKEN` names it; empty where it counts for nothing and parts nothing."""
    category, name = unicodedata.category(character), unicodedata.name(character, "")
    if character in "-\u2212":
        return "-"
    if category == "Cf" or "VARIATION SELECTOR" in name:
        return " " if character == ZERO_WIDTH_SPACE else ""
    if category == "Nd":
        return "d"
    if category[0] in "LN":
        return "a" if NAME_WITHOUT_SPACES.match(name) else "l"
    return "m" if category[0] == "M" else "a" if category[0] == "S" and category != "Sk" else " "


def word_tokens(text: str) -> list[str]:
    """The tokens of a text; where it has none its characters, so that `!` and `?` differ.

    Example:
        >>> word_tokens("Ça coûte -5 €, d'accord?")
        ['ça', 'coûte', '-5', '€', 'd', 'accord']
    """
    kept = [character for character in normalize_text(text).replace("\u2212", "-") if character_kind(character)]
    kinds, characters = "".join(map(character_kind, kept)), "".join(kept)
    tokens = [characters[match.start() : match.end()] for match in TOKEN.finditer(kinds)]
    return tokens or [character for character in characters if not character.isspace()]


def exact_match(answer: str, reference: str) -> float:
    """1 where both have the same tokens in the same order."""
    return float(word_tokens(answer) == word_tokens(reference))


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall over the bag of tokens (Rajpurkar et al., 2016)."""
    ours, theirs = Counter(word_tokens(answer)), Counter(word_tokens(reference))
    return overlap_f1((ours & theirs).total(), ours.total(), theirs.total())


def rouge_l(answer: str, reference: str) -> float:
    """F-measure of the longest common subsequence of tokens (Lin, 2004)."""
    ours, theirs = word_tokens(answer), word_tokens(reference)
    return overlap_f1(lcs_length(ours, theirs), len(ours), len(theirs))


def lcs_length(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    best = [0] * (len(other) + 1)
    for left in one:
        before = 0  # best[j] of the row above, before it is overwritten
        for place, right in enumerate(other, 1):
            above = best[place]
            best[place] = before + 1 if left == right else max(above, best[place - 1])
            before = above
    return best[-1]


def overlap_f1(shared: int, ours: int, theirs: int) -> float:
    """Harmonic mean of shared / ours and shared / theirs; two empty sides agree."""
    if not ours and not theirs:
        return 1.0
    return 2 * shared / (ours + theirs)

"""Multiple choice: the choices a record offers, the choice a generated answer means, the classes answers fall into.
Pure.

C choices.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Self

from tunelab.errors import DataError
from tunelab.language.translation import translate

EDGE_CHARACTERS = ".,:;!?()[]\"'`*"  # what may stand around an answer without changing it; of ASCII: C# is not C


@dataclass(frozen=True, slots=True)
class Choices:
    """The choices of a record.

    Attributes:
        texts: The choices, C of them.
        correct_index: Index of the right one.
        answer_forms: How an answer names each: by its text, or by its letter where the written answer is a letter.
    """

    texts: tuple[str, ...]
    correct_index: int
    answer_forms: tuple[str, ...]

    @classmethod
    def from_columns(cls, choices: Any, label: Any, answer: str) -> Self:
        """Read the columns `choices` and `label`.

        Args:
            choices: A list of texts, or `{"text": [...], "label": [...]}`.
            label: The correct one: its text, its place counted from 0, its letter, or its name among `label`; None
                where the answer says it.
            answer: The written answer.

        Raises:
            DataError: If they cannot be read, or do not say which choice is right.
        """
        names: list[str] = []
        if isinstance(choices, Mapping):
            names = [str(name) for name in choices.get("label") or ()]
            choices = choices.get("text")
        if not isinstance(choices, list | tuple) or len(choices) < 2:
            raise DataError(
                translate("'choices' is {choices!r}; write a list of at least two texts", choices=str(choices)[:60])
            )
        texts = tuple(str(choice) for choice in choices)
        forms = tuple(normalize_answer(text) for text in texts)
        if len(set(forms)) < len(forms) or not all(forms):
            raise DataError(
                translate(
                    "the choices {names} cannot be told apart, or one is empty", names=", ".join(map(repr, texts))
                )
            )
        letters = tuple(letter.lower() for letter in ascii_uppercase[: len(texts)])
        named = [forms, letters, tuple(normalize_answer(name) for name in names)]
        correct = choice_index(answer if label is None else label, named)
        if correct is None:
            raise DataError(
                translate(
                    "{value} {answer!r} is none of the choices {names}; a label is a text, a letter, or a place from 0",
                    value="the answer" if label is None else "the label",
                    answer=str(answer if label is None else label)[:60],
                    names=", ".join(map(repr, texts)),
                )
            )
        by_letter = (
            len(letters) == len(texts)
            and normalize_answer(answer) == letters[correct]
            and normalize_answer(answer) != forms[correct]
        )
        return cls(texts, correct, letters if by_letter else forms)

    def chosen_index(self, answer: str) -> int | None:
        """The index of the choice that an answer names, and nothing besides; None where it names none."""
        form = normalize_answer(answer)
        return self.answer_forms.index(form) if form in self.answer_forms else None


def choice_index(label: Any, names: Sequence[Sequence[str]]) -> int | None:
    """The place that a label means: a number counts from 0, a text is looked up in one list of names after another."""
    if isinstance(label, int) and not isinstance(label, bool):
        return label if 0 <= label < len(names[0]) else None
    form = normalize_answer(str(label))
    return next((known.index(form) for known in names if form in known), None)


def normalize_answer(text: str) -> str:
    """A text as answers are compared: small letters, single spaces, no punctuation of any script at its ends."""
    words = " ".join(unicodedata.normalize("NFC", text).split())
    inner = [place for place, character in enumerate(words) if not is_edge_character(character)]
    return unicodedata.normalize("NFC", words[inner[0] : inner[-1] + 1].casefold()) if inner else ""


def is_edge_character(character: str) -> bool:
    """Whether a character may stand around an answer without changing it."""
    if character.isascii():
        return character in EDGE_CHARACTERS or character.isspace()
    return unicodedata.category(character)[0] == "P"


@dataclass(frozen=True, slots=True)
class AnswerClasses:
    """The classes of the answers of a data set, collected from the training split.

    Attributes:
        names: The choices where every record offers the same, else their places ("1", "2", ...); empty where
            records offer none.
        named_by_choice: Whether `names` are the choices themselves.
    """

    names: tuple[str, ...] = ()
    named_by_choice: bool = True

    @classmethod
    def by_position(cls, most: int) -> Self:
        """The classes of records whose choices differ, at most this many each."""
        return cls(tuple(str(number + 1) for number in range(most)), named_by_choice=False)

    def class_index(self, texts: Sequence[str], text: str | None) -> int | None:
        """The index of the class of a choice; None where it has none, as an answer that names no choice."""
        if text is None:
            return None
        name = text if self.named_by_choice else str(texts.index(text) + 1)
        return self.names.index(name) if name in self.names else None

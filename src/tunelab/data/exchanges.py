"""Records that are one question and one answer, read and labelled without the objects that longer ones need.

What is read, and what is learned, is what `formats` and `chat_template` make of the same record; whatever is not
plainly an exchange is left to them.  Pure.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tunelab.data.conversation import Conversation, Message
from tunelab.data.examples import IGNORE
from tunelab.data.formats import FORMATS, detect_format
from tunelab.data.text_parts import FlatIds
from tunelab.data.text_placement import TAG
from tunelab.data.truncation import LabelledIds
from tunelab.data.turn_writer import MAX_FILLED_CHARACTERS
from tunelab.errors import DataError

Places = npt.NDArray[np.int64]
Kept = npt.NDArray[np.bool_]
QUESTIONS: Final = {
    "alpaca": "instruction",
    "prompt_completion": "prompt",
}  # formats of one exchange, by their question
MUST_BE_EMPTY: Final = ("context", "system", "history")  # columns that make more of a record than one exchange
NOTHING: Final = (None, "")
MUST_BE_NULL: Final = ("choices", "label")  # columns by which an answer is judged


class Exchange(NamedTuple):
    """One question and its answer, neither of them blank."""

    question: str
    answer: str

    def conversation(self) -> Conversation:
        """The same as turns."""
        return Conversation((Message("user", self.question), Message("assistant", self.answer)))


class ExchangeColumns(NamedTuple):
    """Where records of some columns hold an exchange.

    Attributes:
        question: Column of the question.
        about: Column of what it is about, which comes below it; None where there is none.
        answer: Column of the answer.
        empty: Columns that must hold nothing.
        null: Columns that must be null.
    """

    question: str
    about: str | None
    answer: str
    empty: tuple[str, ...]
    null: tuple[str, ...]

    @classmethod
    def of(cls, names: Collection[str], format: str, renamed: Mapping[str, str]) -> "ExchangeColumns | None":
        """The columns of an exchange among those of a record; None where that is not plain.

        Args:
            names: The columns of the record.
            format: The format of the records; "auto" detects it.
            renamed: Our name of a column -> the user's name of it.
        """
        try:
            known = detect_format(names, renamed) if format == "auto" else format
        except DataError:  # which the record itself will say
            return None
        if known not in QUESTIONS or not set(renamed) <= {QUESTIONS[known], FORMATS[known].answer}:
            return None
        ours = str(FORMATS[known].answer)
        question, answer = renamed.get(QUESTIONS[known], QUESTIONS[known]), renamed.get(ours, ours)
        if answer not in names and known == "alpaca" and ours not in renamed:
            answer = "response"
        if question not in names or answer not in names:
            return None
        about = "input" if known == "alpaca" and "input" in names else None
        empty = (name for name in MUST_BE_EMPTY if name in names and (name != "context" or known == "alpaca"))
        return cls(question, about, answer, tuple(empty), tuple(name for name in MUST_BE_NULL if name in names))

    def read(self, record: Mapping[str, Any]) -> Exchange | None:
        """The exchange that a record is; None where it is more, or cannot be used."""
        question, answer = record[self.question], record[self.answer]
        if type(question) is not str or type(answer) is not str or not question or not answer:
            return None
        if question.isspace() or answer.isspace():
            return None
        for name in self.empty:
            if record[name] not in NOTHING:
                return None
        for name in self.null:
            if record[name] is not None:
                return None
        about = None if self.about is None else record[self.about]
        if about in NOTHING:
            return Exchange(question, answer)
        return Exchange(f"{question}\n\n{about}", answer) if type(about) is str else None


class TokenMark(NamedTuple):
    """A place in a text by the last control token before it, which parts what stands on its two sides.

    Attributes:
        token: Its id.
        number: It is the number-th of its kind in the text, from 1.
        total: How many of its kind the text has.
        tail: Ids of what stands between it and the place.
    """

    token: int
    number: int
    total: int
    tail: list[int]

    def find(self, ids: list[int]) -> int | None:
        """The tokens before the place; None where the ids are not as they should be."""
        if ids.count(self.token) != self.total:
            return None
        place = -1
        for _ in range(self.number):
            place = ids.index(self.token, place + 1)
        end = place + 1 + len(self.tail)
        return end if ids[place + 1 : end] == self.tail else None

    def find_many(self, flat: FlatIds) -> tuple[Places, Kept]:
        """`find` in many texts: the places, counted over all ids, and where there is one."""
        texts, size = len(flat.ends), len(self.tail)
        at = np.flatnonzero(flat.ids == self.token)
        counts = np.bincount(np.searchsorted(flat.ends, at, side="right"), minlength=texts)
        known = counts == self.total
        if not known.any():
            return np.zeros(texts, np.int64), known
        nth = (counts.cumsum() - counts + self.number - 1).clip(max=len(at) - 1)
        ends = at[nth] + 1 + size
        known &= ends <= flat.ends
        for back, token in enumerate(reversed(self.tail), start=1):
            known &= flat.ids[(ends - back).clip(max=len(flat.ids) - 1)] == token
        return ends, known


class LabelledExchanges(NamedTuple):
    """Exchanges with what is learned of each.

    Attributes:
        rows: Which of some records they are.
        flat: Their ids.
        starts: Where the learned ids of each begin, counted over all ids.
        stops: Where they end.
    """

    rows: Places
    flat: FlatIds
    starts: Places
    stops: Places

    def select(self, kept: Kept) -> "LabelledExchanges":
        """Some of them."""
        if kept.all():
            return self
        lengths = np.diff(self.flat.ends, prepend=0)
        ids, ends = self.flat.ids[np.repeat(kept, lengths)], lengths[kept].cumsum()
        shift = (self.flat.ends - lengths)[kept] - (ends - lengths[kept])
        return LabelledExchanges(
            self.rows[kept], FlatIds(ids, ends), self.starts[kept] - shift, self.stops[kept] - shift
        )

    def supervised(self) -> Places:
        """`count_supervised` of each."""
        begins = self.flat.ends - np.diff(self.flat.ends, prepend=0)
        return self.stops - np.maximum(self.starts, begins + 1)


class ExchangeFrame(NamedTuple):
    """What a template writes around a question and its answer, and where the answer's tokens are.

    Attributes:
        literals: What stands before the question, between the two, and after the answer.
        start: Where the answer begins.
        end: Where it ends; None for the end of the text.
        stops: Ids that end an answer.
        bos: Id of the begin token, or None.
        marks: Matches letters with which a text begins that the template may look into, or a control token.
        control: Matches control tokens.
    """

    literals: tuple[str, str, str]
    start: TokenMark
    end: TokenMark | None
    stops: Collection[int]
    bos: int | None
    marks: re.Pattern[str]
    control: re.Pattern[str]

    def fill(self, exchange: Exchange) -> str | None:
        """The text of an exchange; None of one whose texts are not plain."""
        if len(exchange.question) + len(exchange.answer) > MAX_FILLED_CHARACTERS:
            return None
        for text in exchange:
            if text[0].isspace() or text[-1].isspace():
                return None
            if self.marks.search(text) and (TAG.search(text) or self.control.search(text)):
                return None
        before, between, after = self.literals
        return f"{before}{exchange.question}{between}{exchange.answer}{after}"

    def label(self, ids: list[int]) -> LabelledIds | None:
        """The ids of a filled text with their labels; None where a promise on them cannot be kept."""
        start, end = self.start.find(ids), len(ids) if self.end is None else self.end.find(ids)
        if start is None or end is None or end <= start or ids[end - 1] not in self.stops:
            return None
        if self.bos is not None and ids[:2] == [self.bos, self.bos]:
            return None
        return ids, [IGNORE] * start + ids[start:end] + [IGNORE] * (len(ids) - end)

    def label_many(self, rows: Places, flat: FlatIds) -> LabelledExchanges:
        """Those of many filled texts that `label` labels, with their labels.

        Args:
            rows: Which of some records they are.
            flat: Their ids.
        """
        begins = flat.ends - np.diff(flat.ends, prepend=0)
        starts, known = self.start.find_many(flat)
        stops = flat.ends
        if self.end is not None:
            stops, closed = self.end.find_many(flat)
            known &= closed
        known &= stops > starts
        if known.any():
            most, bos = len(flat.ids) - 1, -1 if self.bos is None else self.bos
            known &= np.isin(flat.ids[(stops - 1).clip(0, most)], [*self.stops])
            first, second = (flat.ids[(begins + place).clip(max=most)] == bos for place in (0, 1))
            known &= ~(first & second & (begins + 1 < flat.ends))
        return LabelledExchanges(rows, flat, starts, stops).select(known)

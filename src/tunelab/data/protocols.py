"""Protocols of a task for data code: `RecordTask` to read and split records, `EncodingTask` to encode them.

Tasks import data, never the other way round.  The summary has a protocol of its own, beside its reader.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from tunelab.data.examples import Example
from tunelab.data.exchanges import LabelledExchanges
from tunelab.errors import DataError

Record = Mapping[str, Any]


class RecordTask(Protocol):
    """A task as the reader of files and the splitter see it."""

    @property
    def has_classes(self) -> bool:
        """Whether `stratum` gives anything; where not, no record is read for it."""

    def expect_mixture(self) -> None:
        """Be ready for the records of several sources."""

    def named_columns(self) -> list[tuple[str, str]]:
        """The columns that settings name, each after its setting."""

    def columns_read(self, columns: Collection[str], filled: Collection[str], format: str = "") -> Collection[str]:
        """The columns of a record that are read: of all columns of the data, those `filled` in the record."""

    def unread_advice(self, column: str, columns: Collection[str], format: str = "") -> str | None:
        """How to have a column read whose text must not be lost; None where it may be."""

    def content(self, record: Record) -> str:
        """The input text of a record, by which duplicates are known."""

    def record_texts(self, record: Record) -> Mapping[str, str]:
        """The texts that the model is given or learns, by what they are called."""

    def stratum(self, record: Record) -> str | None:
        """The class of a record, or None."""

    def strata(self, record: Record) -> Sequence[str]:
        """The labels of a record that folds share evenly."""


class EncodingTask(RecordTask, Protocol):
    """A task with its tokenizer, as the encoder of a split sees it.

    Attributes:
        limit: Longest sequence in tokens, or None.
        too_long: What happens to a longer one: "drop" or "truncate_prompt".
        truncated_count: Records shortened since this was last set to 0.
        too_long_count: Sequences left out since then as they are longer than `limit`.
    """

    limit: int | None
    too_long: str
    truncated_count: int
    too_long_count: int

    def encode_all(self, record: Record, row: int) -> Sequence[Example]:
        """The examples of a record; none drops it."""

    def encode_many(self, records: Sequence[Record], first: int) -> Iterable[Sequence[Example] | DataError]:
        """The examples of each record, or why it cannot be used; the first has the index `first`."""

    def plain_exchanges(self, records: Sequence[Record]) -> LabelledExchanges | None:
        """Those of some records that are plain exchanges, encoded together; None where there is no quicker way."""

    def tally(self) -> tuple[int, ...]:
        """What was counted while records were encoded."""

    def add_tally(self, more: tuple[int, ...]) -> None:
        """Add what another process counted."""

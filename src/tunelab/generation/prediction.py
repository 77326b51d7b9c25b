"""Predictions for many records: windows of rows, sorted by length inside, each row predicted or given its error."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunelab.data.batching import longest_first, split_micro_batches
from tunelab.data.examples import Example
from tunelab.data.lazy_sequences import evenly_spaced
from tunelab.data.unknown_tokens import MAX_ROWS_LOOKED_AT, count_lost, count_unknown, unknown_token_messages
from tunelab.errors import DataError

WINDOW_ROWS = 512  # rows that are answered, and saved, together: a batch is refilled from them some times

Prediction = dict[str, Any]
InputRecords = Sequence[Mapping[str, Any]]


class PromptTask(Protocol):
    """A task that turns records without answers into prompts and answers them.

    Attributes:
        tokenizer: Its tokenizer.
    """

    tokenizer: PreTrainedTokenizerBase

    @property
    def packs_prompts(self) -> bool:
        """Whether prompts that are answered together have no pads."""

    def bound_generation(self, batch_tokens: int) -> bool:
        """Take the most tokens of a pass; whether the task then batches prompts by itself."""

    def encode_prompt(self, record: Mapping[str, Any], row: int) -> Example:
        """The prompt of a record; raises DataError if it cannot be used."""

    def answer_prompts(self, model: PreTrainedModel, examples: Sequence[Example]) -> list[Prediction]:
        """A prediction for each prompt, in their order."""


class Predictor(Protocol):
    """A trained model with its task, such as a loaded run."""

    @property
    def model(self) -> PreTrainedModel:
        """The model, in evaluation mode on its device."""

    @property
    def task(self) -> PromptTask:
        """Its fitted task."""

    def inference(self) -> AbstractContextManager[None]:
        """A block with the precision of the evaluation and without gradients."""


def predict_windows(
    predict: Callable[[InputRecords], list[Prediction]], records: InputRecords, start: int = 0
) -> Iterator[list[Prediction]]:
    """Predictions for records from `start` on, a window at a time, in their order.

    Windows begin at the same rows wherever one starts, so that going on gives what a whole pass gives.

    Args:
        predict: Gives the answers to the records of one window.
        records: What is asked; labels and answers in them are not looked at.
        start: Records before it are left out.

    Yields:
        One dict per record: `prediction` and what belongs to it; `prediction` None and an `error` where the record
        cannot be used.
    """
    for first in range(start // WINDOW_ROWS * WINDOW_ROWS, len(records), WINDOW_ROWS):
        yield predict(records[first : first + WINDOW_ROWS])[max(0, start - first) :]


def predict_window(trained: Predictor, records: InputRecords, batch_tokens: int, model: Any = None) -> list[Prediction]:
    """Predictions of a run for a few records.

    Args:
        trained: A trained model with its task.
        records: Rows; labels and answers in them are not looked at.
        batch_tokens: Most tokens of one forward pass, pads counted.
        model: What answers in place of the run's own model.
    """
    prompts, predictions = encode_prompts(trained, records)
    with trained.inference():
        batches: Iterable[list[Example]] = batch_by_length(prompts, batch_tokens, packed=trained.task.packs_prompts)
        for batch in [prompts] if trained.task.bound_generation(batch_tokens) else batches:
            answering = trained.model if model is None else model
            for example, prediction in zip(batch, trained.task.answer_prompts(answering, batch), strict=True):
                predictions[example.row] = prediction
    return predictions


MAX_ROWS_COUNTED = 1000  # rows whose unknown tokens are counted before anything is answered


def unknown_token_notes(task: PromptTask, records: InputRecords) -> list[str]:
    """A warning where the tokenizer does not know a good part of the records, evenly spaced ones of many."""
    rows = [records[place] for place in evenly_spaced(len(records), MAX_ROWS_COUNTED)]
    examples = []
    for place, row in enumerate(rows):
        with suppress(DataError):  # such a row gets its error beside its prediction
            examples.append(task.encode_prompt(row, place))
    some = rows[:MAX_ROWS_LOOKED_AT]
    texts = {"the input": [value for row in some for value in row.values() if isinstance(value, str)]}
    counted = {"the input": count_unknown(examples, task.tokenizer) or count_lost(texts["the input"], task.tokenizer)}
    return unknown_token_messages(counted, texts, task.tokenizer, limit=1)[1]


def encode_prompts(trained: Predictor, records: InputRecords) -> tuple[list[Example], list[Prediction]]:
    """Prompts of the usable records, and a prediction for each record: still empty, or the error of an unusable one."""
    predictions: list[Prediction] = [{} for _ in records]
    prompts: list[Example] = []
    for place, record in enumerate(records):
        try:
            prompts.append(trained.task.encode_prompt(record, place))
        except DataError as fault:
            predictions[place] = {"prediction": None, "error": str(fault)}
    return prompts, predictions


def batch_by_length(prompts: Sequence[Example], batch_tokens: int, *, packed: bool = False) -> Iterator[list[Example]]:
    """Prompts in batches of one forward pass, longest first; `packed` ones have no pads that count."""
    lengths = [len(example.ids) for example in prompts]
    order = longest_first(range(len(prompts)), lengths)
    for micro in split_micro_batches(order, lengths, micro_tokens=batch_tokens, packed=packed):
        yield [prompts[index] for index in micro]

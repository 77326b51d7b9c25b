"""Supervised fine-tuning on instructions: a causal language model, trained on answers only.

Shape letters: B sequences, T tokens, N supervised positions, V vocabulary.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel
from typing_extensions import override

from tunelab.config.schema import DataConfig, InstructionDataConfig
from tunelab.data.conversation import END_OF_REASONING, Conversation
from tunelab.data.examples import IGNORE, Example, MicroBatch
from tunelab.data.exchanges import Exchange, ExchangeColumns, LabelledExchanges
from tunelab.data.formats import detect_format, to_conversation
from tunelab.data.lazy_sequences import ITEMS_AT_ONCE, LazySequence
from tunelab.data.parallel import map_parts
from tunelab.data.protocols import Record
from tunelab.data.truncation import LabelledIds, count_supervised, truncate_example
from tunelab.errors import DataError
from tunelab.language.translation import translate
from tunelab.models.sharding import stays_gathered
from tunelab.models.unpadded_attention import causal_inputs
from tunelab.tasks.base import MetricInputs, Scores
from tunelab.tasks.causal import CausalTask, conversation_texts
from tunelab.tasks.metrics.answer_metrics import AnswerTotals, collect_answer_classes, read_choices, score_answer
from tunelab.tasks.metrics.directions import TOKEN_METRICS
from tunelab.tasks.metrics.token_metrics import TokenScores
from tunelab.tasks.multiple_choice import AnswerClasses
from tunelab.tasks.registry import DESCRIPTIONS, TaskDescription

FLAT_FORMATS = ("alpaca", "prompt_completion")  # whose texts are cells as they are


def survey_records(records: Sequence[Record]) -> tuple[list[str], list[int]]:
    """Every column in order of first appearance, and the rows that may hold reasoning or more than plain texts."""
    names: dict[str, None] = {}
    telling: list[int] = []

    def survey(start: int) -> tuple[dict[str, None], list[int]]:
        rows = records[start : start + ITEMS_AT_ONCE * 8]
        known = {tuple(record): None for record in rows}
        return dict.fromkeys(chain.from_iterable(known)), [
            row for row, record in enumerate(rows, start=start) if not all(map(is_plain_cell, record.values()))
        ]

    starts = range(0, len(records), ITEMS_AT_ONCE * 8)
    for more, rows in map_parts(survey, starts, None if isinstance(records, LazySequence) else 1):
        names |= more
        telling += rows
    return list(names), telling


def is_plain_cell(value: Any) -> bool:
    """Whether a cell is plainly one text without a mark of reasoning, or nothing."""
    if type(value) is str:
        return not value or (value[0] not in "[{" and not value[0].isspace() and not END_OF_REASONING.search(value))
    return value is None or type(value) in (int, float, bool)


class Instruction(CausalTask):
    """Instructions and answers, or plain text.

    Args:
        format: Name of the format of the records, or "auto".
        columns: Our column name to the user's, where they differ.
        template: Chat template: "auto", a name, or a .jinja file.
        template_date: The day that a template writes which reads the clock, as 2026-11-28; None for today.
        train_on: "answers", "last_answer" or "all".
        too_long: What happens to a longer one.
        max_new_tokens: Longest generated answer.
        label_smoothing: Probability moved from the right token to the whole vocabulary, in training only.
    """

    name: ClassVar[str] = "instruction"
    scores_untrained: ClassVar[bool] = True
    description: ClassVar[TaskDescription] = DESCRIPTIONS["instruction"]
    data_config: ClassVar[type[DataConfig]] = InstructionDataConfig
    score_names: Sequence[str] = tuple(TOKEN_METRICS)
    metrics_of_answers: ClassVar[bool] = True
    metric_inputs_text: ClassVar[str] = "(predictions, targets): a list of generated texts and one of reference texts"

    def __init__(
        self,
        *,
        format: str = "auto",
        columns: Mapping[str, str | None] | None = None,
        template: str = "auto",
        template_date: str | None = None,
        train_on: str = "answers",
        too_long: str = "drop",
        max_new_tokens: int = 64,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(template, template_date)
        self.label_smoothing = label_smoothing
        self.format = format
        self.columns = {ours: theirs for ours, theirs in (columns or {}).items() if theirs}
        self.mixed = False  # whether each record shows its format by its own columns
        self._exchange_columns: dict[tuple[str, tuple[str, ...]], ExchangeColumns | None] = {}
        self.train_on, self.too_long, self.max_new_tokens = train_on, too_long, max_new_tokens
        self._set_answer_classes(AnswerClasses())

    @override
    def expect_mixture(self) -> None:
        self.format, self.mixed = "auto", True

    @override
    def columns_read(self, columns: Collection[str], filled: Collection[str], format: str = "") -> Collection[str]:
        choices = {self.columns.get(name, name) for name in ("choices", "label")}
        return {*super().columns_read(columns, filled, format), *choices.intersection(filled)}

    @override
    def fit(self, train: Sequence[Record]) -> None:
        names, telling = survey_records(train)
        if self.format == "auto" and not self.mixed:
            self.format = detect_format(names, self.columns)
        choices = {self.columns.get(name, name).partition(".")[0] for name in ("choices", "label")}
        own_reader = type(self)._read is not Instruction._read
        if own_reader or self.mixed or self.format not in FLAT_FORMATS or choices.intersection(names):
            telling = list(range(len(train)))
        self.reasons = False
        self._set_answer_classes(collect_answer_classes(self._conversations(train, telling)))

    def _conversations(self, train: Sequence[Record], telling: Sequence[int]) -> Iterator[Conversation | None]:
        """The records that are conversations, None for those not in `telling`; notes whether answers have reasoning."""
        if len(telling) < len(train):
            yield None
        for record in train if len(telling) == len(train) else (train[row] for row in telling):
            read = self._read(record)
            if isinstance(read, Conversation):
                self.reasons = self.reasons or read.reasons
                yield read

    def _set_answer_classes(self, classes: AnswerClasses) -> None:
        self.totals = AnswerTotals(classes)
        self.labels = classes.names if classes.named_by_choice else ()
        self.answer_names = self.totals.names

    @override
    def state(self) -> dict[str, Any]:
        classes = self.totals.classes
        return super().state() | {"classes": list(classes.names), "closed": classes.named_by_choice}

    @override
    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._set_answer_classes(AnswerClasses(tuple(state.get("classes", ())), bool(state.get("closed", True))))

    def _read(self, record: Record) -> Conversation | str:
        # before `fit` has seen the training split, a record must say by itself what it is
        format = detect_format(list(record), self.columns) if self.format == "auto" else self.format
        return to_conversation(record, format, self.columns)

    def _read_exchange(self, record: Record) -> Exchange | None:
        """A record that is plainly one question and one answer; None of any other."""
        key = (self.format, tuple(record))
        if key not in self._exchange_columns:
            own = (
                type(self)._read is not Instruction._read or type(self)._read_to_learn is not Instruction._read_to_learn
            )
            self._exchange_columns[key] = None if own else ExchangeColumns.of(key[1], self.format, self.columns)
        columns = self._exchange_columns[key]
        return None if columns is None else columns.read(record)

    @override
    def content(self, record: Record) -> str:
        if exchange := self._read_exchange(record):
            return exchange.question
        read = self._read(record)
        if isinstance(read, str):
            return read
        last = read.last_assistant_turn()
        if last is None:
            raise DataError(translate("the record has no assistant turn, so there is nothing to learn; drop it"))
        return "\x1f".join(message.content for message in read.messages[:last])

    @override
    def record_texts(self, record: Record) -> Mapping[str, str]:
        return conversation_texts(self._read(record))

    @override
    def encode(self, record: Record, row: int) -> Example | None:
        read = self._read_to_learn(record)
        return None if read is None else self._example(self.template.encode(read, self.train_on), row, last=True)

    @override
    def encode_all(self, record: Record, row: int) -> Sequence[Example]:
        read = self._read_to_learn(record)
        return [] if read is None else self._examples(self.template.sequences(read, self.train_on), row)

    @override
    def encode_many(self, records: Sequence[Record], first: int) -> Iterable[Sequence[Example] | DataError]:
        if type(self).encode_all is not Instruction.encode_all:  # a class of the user's own does otherwise
            yield from super().encode_many(records, first)
            return
        read: list[Conversation | str | Exchange | DataError | None] = []
        for record in records:
            try:
                read.append(self._read_exchange(record) or self._read_to_learn(record))
            except DataError as fault:
                read.append(fault)
        learned = [entry for entry in read if isinstance(entry, Conversation | str | Exchange)]
        written = iter(self.template.sequences_of_many(learned, self.train_on))
        for row, entry in enumerate(read, start=first):
            outcome = next(written) if isinstance(entry, Conversation | str | Exchange) else entry or []
            try:
                yield outcome if isinstance(outcome, DataError) else self._examples(outcome, row)
            except DataError as fault:
                yield fault

    @override
    def plain_exchanges(self, records: Sequence[Record]) -> LabelledExchanges | None:
        own = type(self).encode_many is not Instruction.encode_many or type(self)._example is not Instruction._example
        if own or type(self).encode_all is not Instruction.encode_all:
            return None
        labelled = self.template.labelled_exchanges([*map(self._read_exchange, records)], self.train_on)
        if labelled is None:
            return None
        short = np.diff(labelled.flat.ends, prepend=0) <= (self.limit or np.inf)
        return labelled.select(short & (labelled.supervised() > 0))

    def _examples(self, sequences: Sequence[LabelledIds], row: int) -> list[Example]:
        """The sequences of a record within the limit."""
        last = len(sequences) - 1
        examples = [self._example(sequence, row, last=place == last) for place, sequence in enumerate(sequences)]
        return [example for example in examples if example is not None]

    def _read_to_learn(self, record: Record) -> Conversation | str | None:
        """A record as read; None where every answer is marked as not learned: it is counted as dropped."""
        read = self._read(record)
        if isinstance(read, Conversation):
            if not read.trained_turns(self.train_on):
                return None
            read_choices(read, self.labels)  # refuses what cannot be used, while the caller knows the place
        return read

    def _example(self, sequence: LabelledIds, row: int, *, last: bool) -> Example | None:
        """A sequence within the limit; `last` of those of its record."""
        short = truncate_example(*sequence, limit=self.limit, too_long=self.too_long, bos=self.bos)
        if short is None:
            self.too_long_count += self.limit is not None and len(sequence[0]) > self.limit
            return None
        self.truncated_count += len(short[0]) < len(sequence[0])
        return Example(*short, loss_weight=count_supervised(short[1]), row=row, predicts=last)

    @classmethod
    def learns_by_position(cls) -> bool:
        """Whether loss and scores are sums over positions, as here, so that parts of them add up."""
        ours = ("logits", "loss_sum", "scores", "step_scores", "predictions")
        return all(getattr(cls, name) is getattr(Instruction, name) for name in ours)

    @override
    def logit_parts(self, model: PreTrainedModel, micro: MicroBatch) -> Iterator[tuple[Tensor, MicroBatch]]:
        if not (self.learns_by_position() and self.takes_parts(model, micro)):
            yield from super().logit_parts(model, micro)
            return
        keep = micro.targets != IGNORE
        places = keep.flatten().nonzero()[:, 0]
        none = torch.zeros_like(micro.row_indices, dtype=torch.bool)
        with stays_gathered(model):
            chunked = self.supervised_head(model).chunked_logits(model, keep, **causal_inputs(micro))
            for number, (logits, own) in enumerate(zip(chunked.parts(), places.split(chunked.rows), strict=True)):
                targets = torch.full_like(micro.targets, IGNORE).flatten()
                targets[own] = micro.targets.flatten()[own]
                part = micro._replace(targets=targets.view_as(micro.targets))
                yield logits, part._replace(predicts=none) if number else part

    @override
    def logits_and_loss(self, model: PreTrainedModel, micro: MicroBatch) -> tuple[Tensor, Tensor]:
        if not (self.learns_by_position() and self.takes_parts(model, micro)):
            logits = self.logits(model, micro)
            return logits, self.loss_sum(logits, micro)
        targets = micro.targets[micro.targets != IGNORE]
        return self.in_parts(model, micro, lambda chunked: chunked.loss_sum(targets, self.label_smoothing))

    @override
    def loss_sum(self, logits: Tensor, micro: MicroBatch) -> Tensor:
        targets = micro.targets[micro.targets != IGNORE]
        return functional.cross_entropy(logits.float(), targets, reduction="sum", label_smoothing=self.label_smoothing)

    @override
    def scores(self) -> Scores:
        return TokenScores()

    @override
    def predictions(
        self, model: PreTrainedModel, micro: MicroBatch, logits: Tensor, records: Sequence[Record]
    ) -> list[dict[str, Any]]:
        return self.generate_predictions(model, micro.predicted_rows(), records)

    @override
    def has_prompt(self, record: Record) -> bool:
        return isinstance(self._read(record), Conversation)

    def prompt_length(self, record: Record) -> int:
        """The number of tokens of the prompt; 0 for a plain text."""
        read = self._read(record)
        return len(self.template.prompt_ids(read)) if isinstance(read, Conversation) else 0

    @override
    def generate_predictions(
        self, model: PreTrainedModel, rows: Sequence[int], records: Sequence[Record]
    ) -> list[dict[str, Any]]:
        read = [self._read(record) for record in records]
        conversations = {
            row: conversation
            for row, conversation in zip(rows, read, strict=True)
            if isinstance(conversation, Conversation)
        }
        answers = self.generate_answers(
            model, [self.template.prompt_ids(conversation) for conversation in conversations.values()]
        )
        predictions = {
            row: score_answer(
                row,
                conversation,
                self.template.reference_answer(conversation),
                (self.template.final_answer(answer.ids), answer),
                self.labels,
            )
            for (row, conversation), (_, answer) in zip(conversations.items(), answers, strict=True)
        }
        return [predictions.get(row, {"row": row}) for row in rows]  # plain text has no prompt

    @override
    def metric_example(self) -> MetricInputs:
        texts = ["one two three four five", "red blue green", "yes"]
        return MetricInputs(texts, [texts[0], "red blue gold", "no"])

    @override
    def summary(self, predictions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        total = self.totals.sum_vectors(predictions)
        return self.totals.to_metrics(total) if total[0] else {}

    @override
    def tables(self, predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return self.totals.tables(predictions)

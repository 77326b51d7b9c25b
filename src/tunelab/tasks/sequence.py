"""The base of classification and regression: reading text columns, encoding, padding, running the sequence head."""

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import override

from tunelab.data.batching import pack_texts
from tunelab.data.columns import NEEDED_NAMES
from tunelab.data.examples import Example, MicroBatch
from tunelab.data.protocols import Record
from tunelab.data.text_parts import PartEncoder, WholeEncoder, special_frame, texts_to_check
from tunelab.errors import ConfigError, DataError
from tunelab.language.translation import translate
from tunelab.models.heads import pair_token_types, sequence_logits
from tunelab.models.unpadded_attention import micro_to_device
from tunelab.models.unpadded_texts import UnpaddedTexts
from tunelab.tasks.base import Task


def column_value(record: Record, name: str) -> object:
    """The value of a column.

    Raises:
        DataError: If the record does not have it.
    """
    if name not in record:
        raise DataError(
            translate("no column {name!r}; this record has {names}", name=name, names=", ".join(map(repr, record)))
        )
    return record[name]


def column_text(record: Record, name: str) -> str:
    """The text of a column.

    Raises:
        DataError: If the column is missing, holds no text, or only blanks.
    """
    value = column_value(record, name)
    if not isinstance(value, str) or not value.strip():
        raise DataError(
            translate(
                "column {name!r} holds no text but {value!r}; drop the record or fill it in", name=name, value=value
            )
        )
    return value


class SequenceTask(Task):
    """A task that maps one text, or two, to one row of logits.

    Attributes:
        packed: Whether `collate` lays texts end to end; set once the model is known to take them.
        unpadded: How each model computes them so.
    """

    head: ClassVar[str] = "sequence"
    _parts: tuple[WholeEncoder, tuple[list[int], list[int]] | None] | None = None  # of the tokenizer, once it is used
    _together: Mapping[tuple[str, ...], Mapping[str, Any]] = MappingProxyType({})  # encoded with others, not yet given

    def __init__(self, text: str, text_pair: str | None, max_tokens: int | None) -> None:
        """Name the columns that hold the input, and the longest one allowed beside the model's own limit."""
        self.text = text
        self.text_pair = text_pair
        self.max_tokens = max_tokens
        self.separator: int | None = None
        self.packed = False
        self.unpadded: WeakKeyDictionary[PreTrainedModel, UnpaddedTexts] = WeakKeyDictionary()

    @property
    @override
    def packs_prompts(self) -> bool:
        return self.packed

    @classmethod
    def can_pack(cls) -> bool:
        """Whether rows may lie end to end: not where a task of one's own lays out or reads them in another way."""
        return cls.collate is SequenceTask.collate and cls.logits is SequenceTask.logits

    @override
    def set_tokenizer(self, tokenizer: PreTrainedTokenizerBase, limit: int | None) -> None:
        bounds = [bound for bound in (limit, self.max_tokens) if bound is not None]
        super().set_tokenizer(tokenizer, min(bounds, default=None))
        texts = 1 if self.text_pair is None else 2
        least = tokenizer.num_special_tokens_to_add(pair=texts == 2) + texts
        if self.limit is not None and self.limit < least:
            raise ConfigError(
                translate(
                    "the limit is {limit} [token|tokens], but special tokens and one token per text take "
                    "{least}; raise data.max_tokens, or take a model for longer texts",
                    limit=self.limit,
                    least=least,
                )
            )
        paired = self.text_pair is not None and "token_type_ids" in tokenizer.model_input_names
        self.separator = tokenizer.sep_token_id if paired else None

    @override
    def named_columns(self) -> list[tuple[str, str]]:
        pair = [] if self.text_pair is None else [("data.text_pair", self.text_pair)]
        return [("data.text", self.text), *pair]

    @override
    def columns_read(self, columns: Collection[str], filled: Collection[str], format: str = "") -> Collection[str]:
        return {name for _, name in self.named_columns()}.intersection(filled)

    @override
    def unread_advice(self, column: str, columns: Collection[str], format: str = "") -> str | None:
        if column.casefold() not in NEEDED_NAMES:
            return None
        if self.text_pair is None:
            return translate("data.text_pair={column} has it read beside '{words}'", column=column, words=self.text)
        return translate("write it into '{words}' or '{text_pair}'", words=self.text, text_pair=self.text_pair)

    @override
    def content(self, record: Record) -> str:
        first = column_text(record, self.text)
        # The unit separator keeps ("a b", "c") and ("a", "b c") apart.
        return first if self.text_pair is None else f"{first}\x1f{column_text(record, self.text_pair)}"

    @override
    def record_texts(self, record: Record) -> dict[str, str]:
        """The texts of a record as its line of the predictions holds them."""
        second = {} if self.text_pair is None else {"text_pair": column_text(record, self.text_pair)}
        return {"text": column_text(record, self.text), **second}

    def token_ids(self, record: Record) -> list[int]:
        """Token ids with special tokens, at most `limit`; the longest text gives way first.

        Raises:
            DataError: If a column is missing or empty, or the text holds the model's own separator.
        """
        texts = [column_text(record, self.text)]
        if self.text_pair is not None:
            texts.append(column_text(record, self.text_pair))
        encoded = self._together.get(tuple(texts)) or self.tokenizer(*texts, truncation=False, verbose=False)
        if self.limit is not None and len(encoded["input_ids"]) > self.limit:
            encoded = self._truncated(texts, encoded["input_ids"])
            self.truncated_count += 1
        ids: list[int] = encoded["input_ids"]
        if not ids:
            raise DataError(translate("column {words!r} gives no tokens: {texts!r}", words=self.text, texts=texts[0]))
        if self.separator is not None:
            types = pair_token_types(torch.tensor([ids]), torch.tensor([len(ids)]), self.separator)
            if types[0].tolist() != encoded["token_type_ids"]:
                raise DataError(
                    translate(
                        "the texts hold the separator {sep_token!r} that this model puts between them, so "
                        "where the second one starts cannot be told; remove it from the data",
                        sep_token=self.tokenizer.sep_token,
                    )
                )
        return ids

    def _truncated(self, texts: list[str], ids: list[int]) -> Mapping[str, list[int]]:
        """What the tokenizer makes of texts that are too long; it takes two hundred bytes and more for a character."""
        assert self.limit is not None
        frame = self._parts[1] if self._parts is not None and len(texts) == 1 else None
        if frame is not None and self.tokenizer.truncation_side == "right":
            before, behind = frame
            kept, end = self.limit - len(behind), len(ids) - len(behind)
            if ids[: len(before)] == before and ids[end:] == behind:
                return {"input_ids": [*ids[:kept], *behind]}
        return dict(self.tokenizer(*texts, truncation=True, max_length=self.limit))

    @override
    def encode_many(self, records: Sequence[Record], first: int) -> Iterable[Sequence[Example] | DataError]:
        names = [name for _, name in SequenceTask.named_columns(self)]
        columns = [[str(record.get(name) or "") for record in records] for name in names]
        rows = self._encode_columns(columns) if records else []
        self._together = dict(zip(zip(*columns, strict=True), rows, strict=True))
        try:
            yield from super().encode_many(records, first)
        finally:
            self._together = {}

    def _encode_columns(self, columns: list[list[str]]) -> list[dict[str, Any]]:
        """What the tokenizer makes of each row; of single texts their ids alone."""

        def encode(*texts: list[str]) -> list[dict[str, Any]]:
            encoded = self.tokenizer(*texts, truncation=False, verbose=False)
            return [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]

        texts = columns[0]
        checked = texts_to_check(texts)
        if len(columns) > 1 or not checked or not self.tokenizer.is_fast:
            return encode(*columns)
        ids_of_checked = [row["input_ids"] for row in encode(checked)]
        if self._parts is None or self._parts[0].core is not self.tokenizer.backend_tokenizer:
            core = self.tokenizer.backend_tokenizer  # as that call has set it
            self._parts = PartEncoder.of(core) or WholeEncoder(core), special_frame(core)
        encoder, frame = self._parts
        if frame is not None:
            before, behind = frame
            if [[*before, *ids, *behind] for ids in encoder.ids(checked)] == ids_of_checked:
                return [{"input_ids": [*before, *ids, *behind]} for ids in encoder.ids(texts)]
        return encode(texts)

    @override
    def encode_prompt(self, record: Record, row: int) -> Example:
        return replace(self.padding_example(), ids=self.token_ids(record), row=row)

    @override
    def answer_prompts(self, model: PreTrainedModel, examples: Sequence[Example]) -> list[dict[str, Any]]:
        return self.decode_logits(self.logits(model, micro_to_device(self.collate(examples), model.device)))

    @abstractmethod
    def decode_logits(self, logits: Tensor) -> list[dict[str, Any]]:
        """Predictions from logits (B, C): for each text `prediction` and what belongs to it."""

    @override
    def collate(self, examples: Sequence[Example]) -> MicroBatch:
        if self.packed:
            return pack_texts(examples)
        lengths = torch.tensor([len(example.ids) for example in examples])
        ids = torch.full((len(examples), int(lengths.max())), int(self.tokenizer.pad_token_id), dtype=torch.int64)
        for place, example in enumerate(examples):
            ids[place, : len(example.ids)] = torch.tensor(example.ids, dtype=torch.int64)
        single = isinstance(examples[0].target, int)
        targets = torch.tensor([example.target for example in examples], dtype=torch.int64 if single else torch.float32)
        return MicroBatch(ids, lengths, targets, torch.tensor([example.row for example in examples]))

    @override
    def logits(self, model: PreTrainedModel, micro: MicroBatch) -> Tensor:
        if micro.document_starts is None:
            return sequence_logits(model, micro, separator=self.separator)
        if model not in self.unpadded:
            self.unpadded[model] = UnpaddedTexts(model)
            assert self.unpadded[model].exact, translate("rows are packed, and this model does not take them")
        return self.unpadded[model].logits(model, micro, separator=self.separator)

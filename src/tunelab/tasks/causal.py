"""The base of every task with a causal language model: the chat template, generation, the head on supervised positions.

Shape letters: N supervised positions, V vocabulary.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
from types import MappingProxyType
from typing import Any, ClassVar, Final
from weakref import WeakKeyDictionary

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import override

from tunelab.data.batching import pack_examples, pad_examples
from tunelab.data.chat_template import ChatTemplate
from tunelab.data.columns import HISTORY_NAMES, NEEDED_NAMES, SYSTEM_NAMES
from tunelab.data.conversation import Conversation
from tunelab.data.data_sources import DataSplits
from tunelab.data.examples import IGNORE, Example, MicroBatch
from tunelab.data.formats import FORMATS, RecordFormat, detect_format, read_question
from tunelab.data.protocols import Record
from tunelab.errors import ConfigError, DataError
from tunelab.generation.decode import MAX_BATCH_TOKENS, GeneratedAnswer, decode
from tunelab.language.translation import translate
from tunelab.models.chunked_logits import ChunkedLogits, logits_budget
from tunelab.models.heads import SupervisedHead
from tunelab.models.unpadded_attention import causal_inputs
from tunelab.tasks.base import Task

PASSES_OF_TOKENS = 4  # a batch of answers may hold so many times the tokens of a pass: nothing is kept for a gradient
PROMPT_NOTES: Final = {  # by the way that a model is asked
    "no thinking": "that the template has for enable_thinking=false",
    "thinking": "that the template has for enable_thinking=true",
    "cut": "without that opening",
}


def parse_day(text: str | None) -> date | None:
    """The day that `data.template_date` names.

    Raises:
        ConfigError: If it names none.
    """
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            translate("data.template_date is {words!r}; write a day as 2026-11-28, or null for today", words=text)
        ) from None


def conversation_texts(read: Conversation | str) -> dict[str, str]:
    """What is asked and what the last answer says; a plain text as itself."""
    if isinstance(read, str):
        return {"text": read}
    last = read.last_assistant_turn()
    before = read.messages if last is None else read.messages[:last]
    prompt = "\n".join(message.content for message in before if message.role != "assistant")
    return {"prompt": prompt, "answer": "" if last is None else read.messages[last].content}


class CausalTask(Task):
    """A causal language model that reads conversations through a chat template.

    Attributes:
        format: Layout of the records, "auto" where each must say by itself what it is.
        columns: Our name of a column -> the user's name of it.
        max_new_tokens: Longest generated answer.
        packed: Whether `collate` packs rows; set once the model is known to take them.
        chunked_loss: Whether loss and scores take the logits a part at a time; "auto" where they are large.
        template_origin: Where the chat template came from, in words.
        template_date: The day that a template writes which reads the clock, as 2026-11-28; None for today.
        reasons: Whether answers may begin with reasoning; where none does, prompts ask for none.
    """

    head: ClassVar[str] = "causal"
    format: str = "auto"
    columns: Mapping[str, str] = MappingProxyType({})
    max_new_tokens: int = 64

    def __init__(self, template: str, template_date: str | None = None) -> None:
        self.template_name = template
        self.template_date = template_date
        self.reasons = True  # whether answers may begin with reasoning
        self.learned_template = ""  # of a model trained before, wherever it was read from then
        self.packed = False
        self.chunked_loss: bool | str = "auto"
        self.generation_budget = MAX_BATCH_TOKENS  # tokens of a batch that is answered, answers counted
        self.template_origin = ""
        self._heads: WeakKeyDictionary[PreTrainedModel, SupervisedHead] = WeakKeyDictionary()

    @override
    def named_columns(self) -> list[tuple[str, str]]:
        return [(f"data.columns.{ours}", theirs) for ours, theirs in self.columns.items()]

    def record_format(self, columns: Collection[str], format: str = "") -> RecordFormat:
        """The layout of records with these columns.

        Raises:
            DataError: If none fits.
        """
        named = format or self.format
        return FORMATS[detect_format(columns, self.columns) if named == "auto" else named]

    @override
    def columns_read(self, columns: Collection[str], filled: Collection[str], format: str = "") -> Collection[str]:
        try:
            known = self.record_format(columns, format)
        except DataError:  # each record will say what is wrong with it
            return filled
        return known.columns_read(filled, self.columns)

    @override
    def unread_advice(self, column: str, columns: Collection[str], format: str = "") -> str | None:
        known, name = self.record_format(columns, format), column.casefold()
        by_kind = {**dict.fromkeys(SYSTEM_NAMES, "system"), **dict.fromkeys(HISTORY_NAMES, "history")}
        ours = by_kind.get(name, "input")
        if name not in (*NEEDED_NAMES, *{"input"}.intersection({*known.optional, *known.when_named})):
            return None
        if ours in known.optional or ours in known.when_named:
            return translate("data.columns.{ours}={column} has it read", ours=ours, column=column)
        return translate("write it into '{column_name}'", column_name=self.columns.get(known.prompt, known.prompt))

    @override
    def set_tokenizer(self, tokenizer: PreTrainedTokenizerBase, limit: int | None) -> None:
        super().set_tokenizer(tokenizer, limit)
        self.bos = tokenizer.bos_token_id  # looked up once: it takes as long as encoding some words
        if self.learned_template:
            tokenizer.chat_template = self.learned_template
        self.template = ChatTemplate(
            tokenizer,
            "auto" if self.learned_template else self.template_name,
            reasons=self.reasons,
            day=parse_day(self.template_date),
        )
        self.template_origin = self.template.origin

    @override
    def tally(self) -> tuple[int, ...]:
        return *super().tally(), self.template.tails_left_out

    @override
    def add_tally(self, more: tuple[int, ...]) -> None:
        super().add_tally(more)
        self.template.tails_left_out += more[-1]

    @override
    def keep_date(self, day: str | None) -> None:
        self.template_date = self.template_date or day

    @override
    def encoding_notes(self) -> list[str]:
        notes = []
        if self.template.date:
            notes.append(
                translate(
                    "the chat template writes today's date: it stays {date} for this run, its "
                    "predictions and its reproduction (data.template_date)",
                    date=self.template.date,
                )
            )
        if count := self.template.tails_left_out:
            notes.append(
                translate(
                    "{count:,} [row ends|rows end] on turns that nothing answers: these turns are left out, as the "
                    "template writes the answer before them otherwise than a model is asked for it",
                    count=count,
                )
            )
        if self.template.prompt_way != "own":
            notes.append(
                translate(
                    "no answer has reasoning, and the template's prompt opens a thought: answers follow the prompt "
                )
                + PROMPT_NOTES[self.template.prompt_way]
            )
        return notes

    @override
    def data_summary(self, sources: DataSplits) -> dict[str, Any]:
        return {"format": self.format, "template": self.template_origin} if self.template_origin else {}

    @override
    def state(self) -> dict[str, Any]:
        return {"format": self.format, "template": self.template.source, "reasons": self.reasons}

    @override
    def restore(self, state: Mapping[str, Any]) -> None:
        self.format, self.learned_template = str(state["format"]), str(state["template"])
        self.reasons = bool(state.get("reasons", True))

    @override
    def encode_prompt(self, record: Record, row: int) -> Example:
        conversation = read_question(record, self.format, self.columns)
        # plain text is continued, so it gets no end marker
        ids = (
            self.template.encode(conversation)[0][:-1]
            if isinstance(conversation, str)
            else self.template.reply_ids(conversation)
        )
        if self.limit is not None and len(ids) >= self.limit:
            raise DataError(
                translate(
                    "the question takes {count} [token|tokens], and the limit with its answer is {limit}",
                    count=len(ids),
                    limit=self.limit,
                )
            )
        return Example(ids, [IGNORE] * len(ids), 0, row)

    @override
    def bound_generation(self, batch_tokens: int) -> bool:
        self.generation_budget = PASSES_OF_TOKENS * batch_tokens
        return True

    @override
    def answer_prompts(self, model: PreTrainedModel, examples: Sequence[Example]) -> list[dict[str, Any]]:
        prompts = [example.ids for example in examples]
        return [{"prediction": text} for text in self.generate_texts(model, prompts)]

    def generate_texts(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> list[str]:
        """Greedy answers to prompts, blank ends removed."""
        return [text for text, _ in self.generate_answers(model, prompts)]

    def generate_answers(
        self, model: PreTrainedModel, prompts: Sequence[Sequence[int]]
    ) -> list[tuple[str, GeneratedAnswer]]:
        """Greedy answers to prompts, blank ends removed, and how each came to its end."""
        if not prompts:  # a micro-batch of plain text has no prompts
            return []
        answers = decode(
            model,
            prompts,
            stop=self.template.stop_ids,
            max_new_tokens=self.max_new_tokens,
            budget=self.generation_budget,
        )
        texts = self.tokenizer.batch_decode([answer.ids for answer in answers], skip_special_tokens=True)
        return [(str(text).strip(), answer) for text, answer in zip(texts, answers, strict=True)]

    @override
    def padding_example(self) -> Example:
        return Example([0], [IGNORE], 0, -1)

    @override
    def collate(self, examples: Sequence[Example]) -> MicroBatch:
        return (
            pack_examples(examples) if self.packed else pad_examples(examples, pad=0)
        )  # pads are never looked at: any id does

    @override
    def logits(self, model: PreTrainedModel, micro: MicroBatch) -> Tensor:
        return self.supervised_head(model).logits(model, micro.targets != IGNORE, **causal_inputs(micro))

    def supervised_head(self, model: PreTrainedModel) -> SupervisedHead:
        """The head of a model on supervised positions."""
        if model not in self._heads:
            self._heads[model] = SupervisedHead(model)
        return self._heads[model]

    def takes_parts(self, model: PreTrainedModel, micro: MicroBatch) -> bool:
        """Whether the logits of a micro-batch are computed a part at a time."""
        keep = micro.targets != IGNORE
        size = 4 * int(keep.sum()) * model.config.get_text_config().vocab_size
        if self.chunked_loss is False or (self.chunked_loss == "auto" and size <= logits_budget(keep.device)):
            return False
        return not self.supervised_head(model).whole_reason()

    def in_parts(
        self, model: PreTrainedModel, micro: MicroBatch, work: Callable[[ChunkedLogits], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """No logits, (0, V), and what `work` makes of them a part at a time; only where the task `takes_parts`."""
        return self.supervised_head(model).in_parts(model, micro.targets != IGNORE, work, **causal_inputs(micro))

    @override
    def export_options(self) -> dict[str, Any]:
        return {"chat_template": self.template.export_template, "stop_ids": self.template.stop_ids}

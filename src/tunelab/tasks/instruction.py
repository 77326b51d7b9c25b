"""Learn to answer: a causal language model, supervised on answers only.

Shape letters: B sequences, T tokens, N supervised positions, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import override

from tunelab.data.batching import lay_flat, pad_rows
from tunelab.data.conversation import Conversation
from tunelab.data.examples import IGNORE, Example, Micro
from tunelab.data.formats import detect, to_conversation
from tunelab.data.supervise import shorten, supervised_targets
from tunelab.data.template import ChatTemplate
from tunelab.errors import DataError
from tunelab.generate.decode import greedy
from tunelab.models.document_attention import causal_inputs
from tunelab.models.supervised_head import SupervisedHead
from tunelab.tasks.base import Record, Scores, Task
from tunelab.tasks.text_scores import exact_match, rouge_l, token_f1
from tunelab.tasks.token_scores import TokenScores


class Instruction(Task):
    """Instructions and answers, or plain text.

    Args:
        format: Name of the format of the records, or "auto".
        columns: Our column name to the user's, where they differ.
        template: Chat template: "auto", a name, or a .jinja file.
        train_on: "answers", "last_answer" or "all".
        too_long: What happens to a longer one.
        max_new_tokens: Longest generated answer.

    Attributes:
        flat: Whether `collate` lays rows end to end; set once the model is known to take them.
        origin: Where the chat template came from, in words.
    """

    name: ClassVar[str] = "instruction"
    head: ClassVar[str] = "causal"
    monitor: ClassVar[str] = "val/loss"
    mode: ClassVar[str] = "min"
    score_names: Sequence[str] = ("loss", "perplexity", "token_accuracy")

    def __init__(
        self,
        *,
        format: str = "auto",
        columns: Mapping[str, str | None] | None = None,
        template: str = "auto",
        train_on: str = "answers",
        too_long: str = "drop",
        max_new_tokens: int = 64,
    ) -> None:
        self.format = format
        self.columns = {ours: theirs for ours, theirs in (columns or {}).items() if theirs}
        self.template_name, self.train_on = template, train_on
        self.too_long, self.max_new_tokens = too_long, max_new_tokens
        self.flat = False
        self.origin = ""
        self._heads: WeakKeyDictionary[PreTrainedModel, SupervisedHead] = WeakKeyDictionary()

    @override
    def fit(self, train: Sequence[Record]) -> None:
        if self.format == "auto":
            self.format = detect(list(dict.fromkeys(key for record in train for key in record)), self.columns)

    @override
    def use(self, tokenizer: PreTrainedTokenizerBase, limit: int | None) -> None:
        super().use(tokenizer, limit)
        self.template = ChatTemplate(tokenizer, self.template_name)
        self.origin = self.template.origin

    def _read(self, record: Record) -> Conversation | str:
        # before `fit` has seen the training split, a record must say by itself what it is
        format = detect(list(record), self.columns) if self.format == "auto" else self.format
        return to_conversation(record, format, self.columns)

    @override
    def content(self, record: Record) -> str:
        read = self._read(record)
        if isinstance(read, str):
            return read
        last = read.last_answer()
        if last is None:
            raise DataError("the record has no assistant turn, so there is nothing to learn; drop it")
        return "\x1f".join(message.content for message in read.messages[:last])

    @override
    def encode(self, record: Record, row: int) -> Example | None:
        ids, labels = self.template.encode(self._read(record), train_on=self.train_on)
        bos = self.tokenizer.bos_token_id
        short = shorten(ids, labels, limit=self.limit, too_long=self.too_long, bos=bos)
        if short is None:
            return None
        self.truncated += len(short[0]) < len(ids)
        return Example(*short, units=supervised_targets(short[1]), row=row)

    @override
    def filler(self) -> Example:
        return Example([0], [IGNORE], 0, -1)

    @override
    def collate(self, examples: Sequence[Example]) -> Micro:
        return lay_flat(examples) if self.flat else pad_rows(examples, pad=0)  # pads are never looked at: any id does

    @override
    def logits(self, model: PreTrainedModel, micro: Micro) -> Tensor:
        if model not in self._heads:
            self._heads[model] = SupervisedHead(model)
        return self._heads[model].logits(model, micro.targets != IGNORE, **causal_inputs(micro))

    @override
    def loss_sum(self, logits: Tensor, micro: Micro) -> Tensor:
        wanted = micro.targets[micro.targets != IGNORE]
        return functional.cross_entropy(logits.float(), wanted, reduction="sum")

    @override
    def scores(self) -> Scores:
        return TokenScores()

    @override
    def predictions(
        self, model: PreTrainedModel, micro: Micro, logits: Tensor, records: Sequence[Record]
    ) -> list[dict[str, Any]]:
        read = [self._read(record) for record in records]
        rows = [row for row in micro.rows.tolist() if row >= 0]
        talks = [(row, talk) for row, talk in zip(rows, read, strict=True) if isinstance(talk, Conversation)]
        if not talks:  # plain text asks nothing
            return [{"row": row} for row in rows]
        prompts = [self.template.prompt_ids(talk) for _, talk in talks]
        answers = greedy(model, prompts, stop=self.template.stop_ids, max_new_tokens=self.max_new_tokens)
        texts = [str(text) for text in self.tokenizer.batch_decode(answers, skip_special_tokens=True)]
        return [self._judged(row, talk, text.strip()) for (row, talk), text in zip(talks, texts, strict=True)]

    def _judged(self, row: int, talk: Conversation, answer: str) -> dict[str, Any]:
        wanted = self.template.reference(talk)
        last = talk.last_answer() or 0
        return {
            "row": row,
            **({"family": talk.meta["family"]} if "family" in talk.meta else {}),
            "prompt": "\n\n".join(message.content for message in talk.messages[:last]),
            "reference": wanted,
            "prediction": answer,
            "exact_match": exact_match(answer, wanted),
            "token_f1": token_f1(answer, wanted),
            "rougeL": rouge_l(answer, wanted),
        }

    @override
    def summary(self, predictions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        judged = [row for row in predictions if "exact_match" in row]
        names = ("exact_match", "token_f1", "rougeL")
        return {name: fmean(row[name] for row in judged) for name in names} if judged else {}

    @override
    def export_options(self) -> dict[str, Any]:
        return {"chat_template": self.template.export_template, "stop_ids": self.template.stop_ids}

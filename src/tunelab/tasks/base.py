"""The interfaces of a task and of its running scores, and the scores of each source of a mixture."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunelab.data.data_sources import DataSplits
from tunelab.data.examples import Example, MicroBatch
from tunelab.data.exchanges import LabelledExchanges
from tunelab.data.protocols import Record
from tunelab.errors import ConfigError, DataError
from tunelab.language.translation import translate
from tunelab.tasks.metrics.directions import register_directions
from tunelab.tasks.registry import TaskDescription


class Scores(nn.Module, ABC):
    """Running scores of one split.  States are sums and counts (or are gathered whole), so a value depends
    neither on the evaluation batch size nor on the number of ranks.

    Class attributes:
        higher_is_better: Each metric that `compute` gives, by its bare name.
    """

    higher_is_better: ClassVar[Mapping[str, bool]] = {}

    def __init_subclass__(cls) -> None:
        """Make the directions of the metrics known."""
        super().__init_subclass__()
        register_directions(cls.higher_is_better)

    @abstractmethod
    def update(self, logits: Tensor, micro: MicroBatch) -> None:
        """Take in the logits of one micro-batch, as `Task.logits` gave them."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Every score by its bare name (`loss`, `accuracy`, ...), over all ranks."""

    @abstractmethod
    def reset(self) -> None:
        """Forget everything."""

    def report(self) -> dict[str, Any]:
        """Tables too wide for a flat file (confusion matrix, per-class scores); plain JSON values."""
        return {}


class MetricInputs(NamedTuple):
    """What metrics of one's own are updated with, for N rows.

    Attributes:
        predictions: Class indices (N,), 0 or 1 for each label (N, C), numbers in the user's units (N,) or (N, C),
            rewards of the chosen answers (N,), or generated texts.
        targets: What is right, in the same form; the rewards of the rejected answers; reference texts.
        probabilities: Of each class or label, (N, C); None where there are none.
    """

    predictions: Any
    targets: Any
    probabilities: Any = None


class OwnScores(Protocol):
    """Scores of metrics of one's own, by the names in `score_names`."""

    score_names: Sequence[str]

    def compute(self, inputs: MetricInputs) -> dict[str, float]:
        """Every score over some rows."""

    def compute_answers(self, answers: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Every score of generated answers: lines of predictions.jsonl."""


class Task(ABC):
    """One kind of work.  Made once per run, fitted on the training split, then only read.

    Class attributes:
        name: As `data.task` in the configs.
        head: Which Auto class loads the model: "causal" or "sequence".
        description: Monitored score, headline scores.
        score_names: Bare names that `Scores.compute` gives.
        answer_names: Bare names of the scores of generated answers; empty where nothing is generated.
    """

    name: ClassVar[str]
    head: ClassVar[str]
    description: ClassVar[TaskDescription]
    score_names: Sequence[str]
    answer_names: Sequence[str] = ()
    needs_reference: ClassVar[bool] = False  # whether `add_reference` runs the untrained model
    scores_untrained: ClassVar[bool] = False  # whether scores of the model before training say something
    limit: int | None = None  # longest sequence in tokens
    too_long: str = "drop"  # what happens to a longer one; "truncate_prompt" shortens it
    own_metrics: OwnScores | None = None  # scores of metrics of one's own, see `metrics.own_metrics`
    metrics_of_answers: ClassVar[bool] = False  # whether these score generated answers rather than logits
    metric_inputs_text: ClassVar[str] = "nothing: it has no `metric_inputs`"  # what they are updated with, in words
    truncated_count: int = 0  # records shortened since this was last set to 0, for the data report
    too_long_count: int = 0  # sequences left out as they are longer than `limit`, likewise

    @property
    def packs_prompts(self) -> bool:
        """Whether prompts that are answered together lie end to end, so that no pads count."""
        return False

    def bound_generation(self, batch_tokens: int) -> bool:
        """Take the most tokens of a pass that answers prompts; whether the task then batches them by itself."""
        return False

    def fit(self, train: Sequence[Record]) -> None:
        """Learn what must be known from the training split alone: label names, weights, target scale."""

    def check_target(self, record: Record) -> None:
        """Refuse a record whose label or numbers cannot be learned, before `fit` reads them all.

        Raises:
            DataError: Saying what is wrong with it.
        """

    def record_texts(self, record: Record) -> Mapping[str, str]:
        """The texts that the model is given or learns, by what they are called; none where a task does not say."""
        return {}

    def expect_mixture(self) -> None:
        """Be ready for the records of several sources, before `fit`: each shows by its columns how it is laid out."""

    def set_tokenizer(self, tokenizer: PreTrainedTokenizerBase, limit: int | None) -> None:
        """Take the tokenizer and the longest allowed sequence, in tokens, before `encode` is called."""
        self.tokenizer = tokenizer
        self.limit = limit

    def head_options(self) -> dict[str, Any]:
        """Keyword arguments for `from_pretrained`: number of labels, their names, the problem type."""
        return {}

    @abstractmethod
    def content(self, record: Record) -> str:
        """The input text of a record: two records with equal content are duplicates, whatever their labels.

        Raises:
            DataError: If a column is missing or holds no text.
        """

    def named_columns(self) -> list[tuple[str, str]]:
        """The columns that settings name, each after its setting: ("data.text", "review")."""
        return []

    def columns_read(self, columns: Collection[str], filled: Collection[str], format: str = "") -> Collection[str]:
        """The columns of a record that are read; all, where a task does not say.

        Args:
            columns: Every column of the data.
            filled: Those that hold something in the record.
            format: Layout of the records of a source, where it has one of its own.
        """
        return filled

    def unread_advice(self, column: str, columns: Collection[str], format: str = "") -> str | None:
        """How to have a column read whose text belongs to what is asked; None where it may stay unread."""
        return None

    @property
    def has_classes(self) -> bool:
        """Whether records have classes, so that `stratum` is worth reading all of them."""
        return type(self).stratum is not Task.stratum

    def stratum(self, record: Record) -> str | None:
        """The class of a record for the label table of the data report; None where there are no classes."""
        return None

    def strata(self, record: Record) -> Sequence[str]:
        """The labels of a record that the folds of a cross-validation should share evenly; empty without classes."""
        return ()

    def data_summary(self, sources: DataSplits) -> dict[str, Any]:
        """Further entries of the data report, JSON values: what is read of records and learned from them."""
        return {}

    def target_text(self, record: Record) -> str:
        """The target of a record as text, for a reader; empty where tokens are the target."""
        return ""

    @abstractmethod
    def encode(self, record: Record, row: int) -> Example | None:
        """Turn a record into an example; None drops it (too long, nothing supervised).

        Raises:
            DataError: If the record cannot be used; the caller adds file and line.
        """

    def encode_all(self, record: Record, row: int) -> Sequence[Example]:
        """The examples of a record; none drops it.  More than one where its parts are learned in texts of their own.

        Raises:
            DataError: If the record cannot be used; the caller adds file and line.
        """
        example = self.encode(record, row)
        return [] if example is None else [example]

    def encode_many(self, records: Sequence[Record], first: int) -> Iterable[Sequence[Example] | DataError]:
        """The examples of each record, or why it cannot be used; many at once may cost less than one by one.

        A record is counted as truncated or too long when its examples are given, not before.

        Args:
            records: Rows of a split in their order.
            first: Index of the first.
        """
        for row, record in enumerate(records, start=first):
            try:
                examples = self.encode_all(record, row)
            except DataError as fault:
                yield fault
            else:
                yield examples

    def plain_exchanges(self, records: Sequence[Record]) -> LabelledExchanges | None:
        """Those of some records that are one question and one answer, encoded together as `encode_many` does it.

        Of these nothing is counted: none is cut or left out.  None where the task has no such records.
        """
        return None

    def tally(self) -> tuple[int, ...]:
        """What this task counts while it encodes, for the notes of a run."""
        return self.truncated_count, self.too_long_count

    def add_tally(self, more: tuple[int, ...]) -> None:
        """Add what another process counted that encodes a part of the records."""
        self.truncated_count, self.too_long_count = self.truncated_count + more[0], self.too_long_count + more[1]

    def keep_date(self, day: str | None) -> None:
        """Take the day that an earlier session of the run has fixed for its chat template, if any."""

    def encoding_notes(self) -> list[str]:
        """Notes on how records are written for the model, once the tokenizer is there."""
        return []

    def add_reference(
        self, model: PreTrainedModel, examples: Sequence[Example], micro_tokens: int
    ) -> Sequence[Example]:
        """The examples with the reference log-probabilities of the untrained model; called once, without gradient.

        Args:
            model: As it is before training, any adapter switched off.
            examples: Of one split.
            micro_tokens: Most tokens of one forward pass.
        """
        return examples

    @abstractmethod
    def padding_example(self) -> Example:
        """An example that teaches nothing (loss weight 0, row -1), for a rank left without rows in a step."""

    @abstractmethod
    def collate(self, examples: Sequence[Example]) -> MicroBatch:
        """Lay examples out as right-padded rows."""

    @abstractmethod
    def logits(self, model: PreTrainedModel, micro: MicroBatch) -> Tensor:
        """Scores of the model for a micro-batch: (N, V) at the N supervised positions, or (B, C)."""

    def logit_parts(self, model: PreTrainedModel, micro: MicroBatch) -> Iterator[tuple[Tensor, MicroBatch]]:
        """The logits of a micro-batch, each time with what they belong to: all of it, or a part of its targets.

        Of several parts the first alone has rows to predict.
        """
        yield self.logits(model, micro), micro

    def logits_and_loss(self, model: PreTrainedModel, micro: MicroBatch) -> tuple[Tensor, Tensor]:
        """The logits of a micro-batch and its training loss; no logits where the loss was computed part by part."""
        logits = self.logits(model, micro)
        return logits, self.loss_sum(logits, micro)

    @abstractmethod
    def loss_sum(self, logits: Tensor, micro: MicroBatch) -> Tensor:
        """Training loss summed over the micro-batch; the step divides by its `loss_weight`.  A float32 scalar.

        Rows below 0 in `micro.row_indices` are fillers and add exactly nothing, but keep the graph for the gradient
        sync.
        """

    @abstractmethod
    def scores(self) -> Scores:
        """Fresh scores for one split."""

    def metric_inputs(self, logits: Tensor, micro: MicroBatch) -> MetricInputs:
        """Predictions and targets of the records in a micro-batch, as metrics of one's own take them.

        Raises:
            ConfigError: If this task does not say.
        """
        raise ConfigError(
            translate("metrics of one's own need `metric_inputs` of the class data.task={name}", name=self.name)
        )

    def metric_example(self) -> MetricInputs:
        """Made-up rows of the same form, on which a metric is tried before anything is trained.

        Raises:
            ConfigError: If this task does not say.
        """
        raise ConfigError(
            translate("metrics of one's own need `metric_example` of the class data.task={name}", name=self.name)
        )

    def metric_arguments(self) -> Mapping[str, Any]:
        """Arguments that metrics of one's own get where their class takes them: the number of classes, ..."""
        return {}

    def step_scores(self) -> Scores | None:
        """Fresh scores for one training step, where they cost next to nothing."""
        return None

    @abstractmethod
    def predictions(
        self, model: PreTrainedModel, micro: MicroBatch, logits: Tensor, records: Sequence[Record]
    ) -> list[dict[str, Any]]:
        """One plain dict per sequence of the micro-batch, in its order; `row` is the record's index.

        Args:
            records: The records behind `micro.row_indices`, in the same order.
        """

    def has_prompt(self, record: Record) -> bool:
        """Whether a record has a prompt that can be answered by generation."""
        return False

    def generate_predictions(
        self, model: PreTrainedModel, rows: Sequence[int], records: Sequence[Record]
    ) -> list[dict[str, Any]]:
        """Predictions for records by generation alone, in their order.

        Args:
            model: The model that answers.
            rows: Index of each record within its split.
            records: Those with the prompts.
        """
        return []

    def encode_prompt(self, record: Record, row: int) -> Example:
        """An example to be answered, of a record that need not say what is right.

        Raises:
            DataError: If the record cannot be used.
            ConfigError: If this task has no prompts.
        """
        raise ConfigError(translate("a model of data.task={name} answers nothing", name=self.name))

    def answer_prompts(self, model: PreTrainedModel, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """The predictions of a trained model for encoded prompts, in their order: plain values."""
        raise ConfigError(translate("a model of data.task={name} answers nothing", name=self.name))

    def state(self) -> dict[str, Any]:
        """The state that `fit` and `set_tokenizer` have set, as plain values, to use the model without its data."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take what `state` gave, in place of `fit`; before `set_tokenizer`."""

    def summary(self, predictions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Scores that need the whole set of predictions, by bare name (exact match over generated answers)."""
        return {}

    def tables(self, predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Scores too wide for a flat file, from the whole set of predictions; plain JSON values."""
        return {}

    def finalize_model(self, model: PreTrainedModel) -> str | None:
        """Make the trained model speak for itself before it is exported; a warning for the user, if any."""
        return None

    def export_options(self) -> dict[str, Any]:
        """Keyword arguments of `export_model` that this task sets."""
        return {}


class SourceScores(nn.Module):
    """One set of running scores for each source.

    Args:
        make: Gives fresh scores.
        sources: The source of each record of the split; empty without a mix, and then nothing is counted.
        scored: Names of the sources that have an example in the split.
    """

    def __init__(self, make: Callable[[], Scores], sources: Sequence[str] = (), scored: Sequence[str] = ()) -> None:
        super().__init__()
        self.sources, self.names = sources, list(scored)
        self.per_source = nn.ModuleList(make() for _ in self.names)

    def update(self, logits: Tensor, micro: MicroBatch) -> None:
        """Take in a micro-batch, all of whose records come from one source.

        Raises:
            ValueError: If they come from several: their losses could not be separated.
        """
        if not self.names:
            return
        held = {self.sources[row] for row in micro.row_indices.tolist() if row >= 0}
        if len(held) > 1:
            raise ValueError(translate("a micro-batch mixes the sources {names}", names=", ".join(sorted(held))))
        for name in held:
            self._scores_of(name).update(logits, micro)

    def compute(self) -> dict[str, float]:
        """`NAME/loss` of each source, over all ranks."""
        return {f"{name}/loss": self._scores_of(name).compute()["loss"] for name in self.names}

    def reset(self) -> None:
        """Forget everything."""
        for name in self.names:
            self._scores_of(name).reset()

    def _scores_of(self, name: str) -> Scores:
        scores = self.per_source[self.names.index(name)]
        assert isinstance(scores, Scores)
        return scores

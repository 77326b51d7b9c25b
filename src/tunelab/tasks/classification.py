"""Classification of texts and text pairs: one label out of several, or any number of them; parsing and weighting
labels.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import chain
from math import isfinite
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel
from typing_extensions import override

from tunelab.config.schema import ClassificationDataConfig, DataConfig
from tunelab.data.data_sources import DataSplits, map_rows
from tunelab.data.examples import Example, MicroBatch
from tunelab.data.leakage import label_conflicts
from tunelab.data.protocols import Record
from tunelab.data.row_streams import HEAD_ROWS
from tunelab.errors import ConfigError, DataError
from tunelab.language.translation import translate
from tunelab.tasks.base import MetricInputs, Scores
from tunelab.tasks.metrics.label_metrics import MulticlassScores, MultilabelScores
from tunelab.tasks.registry import DESCRIPTIONS, TaskDescription
from tunelab.tasks.sequence import SequenceTask, column_value


class Classification(SequenceTask):
    """One label per record, or with `multilabel` a list of labels.

    Attributes:
        label_names: Class names in the order of the logits, known after `fit`.
        weights: Weight of each class in the training loss, known after `fit`.
    """

    name: ClassVar[str] = "classification"
    description: ClassVar[TaskDescription] = DESCRIPTIONS["classification"]
    data_config: ClassVar[type[DataConfig]] = ClassificationDataConfig
    metric_inputs_text: ClassVar[str] = (
        "(predictions, targets): class indices (N,), with data.multilabel 0 or 1 (N, C); with takes = 'probabilities' "
        "in its class, and for classes of torchmetrics, probabilities (N, C) in place of the first"
    )

    def __init__(
        self,
        text: str,
        label: str,
        text_pair: str | None = None,
        multilabel: bool = False,
        class_weights: str | Mapping[Any, float] = "none",
        threshold: float = 0.5,
        label_smoothing: float = 0.0,
        max_tokens: int | None = None,
        labels: Sequence[object] | None = None,
        streaming: bool = False,
    ) -> None:
        """Name the columns and choose the loss.

        Args:
            text: Column of the text.
            label: Column of the label, or of the list of labels.
            text_pair: Column of a second text, encoded after the first.
            multilabel: Whether any number of labels can apply.
            class_weights: "none", "balanced", or a weight per label; one that is not named weighs 1.  With
                `multilabel` a weight multiplies the loss where the label applies.
            threshold: Probability from which a label counts as predicted; `multilabel` only.
            label_smoothing: Probability moved from the right label to all labels, in [0, 1).
            max_tokens: Longest input, special tokens included; None leaves the limit to the model.
            labels: Names of all labels; None takes those of the training rows.
            streaming: Whether these are the first rows of a stream only.

        Raises:
            ConfigError: If a setting is outside what it can be.
        """
        super().__init__(text, text_pair, max_tokens)
        faults = []
        if isinstance(class_weights, str) and class_weights not in ("none", "balanced"):
            faults.append(
                translate(
                    'data.class_weights is {class_weights!r}; use "none", "balanced" or a weight per label',
                    class_weights=class_weights,
                )
            )
        if not 0 < threshold < 1:
            faults.append(
                translate(
                    "data.threshold is {threshold}; a probability lies between 0 and 1, try 0.5", threshold=threshold
                )
            )
        if not 0 <= label_smoothing < 1:
            faults.append(
                translate(
                    "data.label_smoothing is {label_smoothing}; it is a share of probability, try 0.1",
                    label_smoothing=label_smoothing,
                )
            )
        if faults:
            raise ConfigError.listing(faults)
        self.label = label
        self.multilabel = multilabel
        self.class_weights = class_weights
        self.threshold = threshold
        self.label_smoothing = label_smoothing
        self.label_names: list[str] = []
        self.weights: list[float] = []
        self.labels = None if labels is None else [parse_label(name) for name in labels]
        self.streaming = streaming
        rest = ("micro_f1",) if multilabel else ("mcc", "f1_all")
        self.score_names = ("loss", "accuracy", "f1", "precision", "recall", *rest)

    @override
    def named_columns(self) -> list[tuple[str, str]]:
        return [*super().named_columns(), ("data.label", self.label)]

    @override
    def check_target(self, record: Record) -> None:
        self.record_labels(record)

    @override
    def fit(self, train: Sequence[Record]) -> None:
        counts = Counter(label for record in train for label in self.record_labels(record))
        least = 1 if self.multilabel else 2
        names = set(counts) if self.labels is None else set(self.labels)
        if len(names) < least:
            raise DataError(
                translate(
                    "column {label!r} of the training split holds {value}; there must be at least "
                    "{least} to tell apart; is it the right column?",
                    label=self.label,
                    value=sorted(names) or "no labels",
                    least=least,
                )
                + (stream_advice() if self.streaming else "")
            )
        self.label_names = sort_labels(names)
        ordered = [counts[name] for name in self.label_names]
        if self.class_weights == "balanced" and (absent := [name for name in self.label_names if not counts[name]]):
            raise DataError(
                translate(
                    "data.class_weights=balanced: no training row has {names} of data.labels, so their weight would be "
                    "infinite; leave them out of data.labels, or take data.class_weights=none",
                    names=", ".join(map(repr, absent)),
                )
            )
        if isinstance(self.class_weights, Mapping):
            self.weights = explicit_weights(self.class_weights, self.label_names)
        elif self.class_weights == "none":
            self.weights = [1.0] * len(self.label_names)
        else:
            self.weights = (balanced_positive_weights if self.multilabel else balanced_weights)(ordered, len(train))

    @override
    def head_options(self) -> dict[str, Any]:
        return {
            "num_labels": len(self.label_names),
            "id2label": dict(enumerate(self.label_names)),
            "label2id": {name: index for index, name in enumerate(self.label_names)},
            "problem_type": "multi_label_classification" if self.multilabel else "single_label_classification",
        }

    def record_labels(self, record: Record) -> list[str]:
        """The labels of a record, one unless `multilabel`.

        Raises:
            DataError: If the column is missing or holds no label.
        """
        value = column_value(record, self.label)
        return parse_labels(value) if self.multilabel else [parse_label(value)]

    @override
    def stratum(self, record: Record) -> str | None:
        return "+".join(sorted(self.record_labels(record)))

    @override
    def strata(self, record: Record) -> Sequence[str]:
        return self.record_labels(record)

    @override
    def data_summary(self, sources: DataSplits) -> dict[str, Any]:
        def count(rows: Sequence[Record], first: int) -> Counter[str]:
            return Counter(chain.from_iterable(map(self.record_labels, rows)))

        counts = {
            name: sum(map_rows(count, split, self), Counter[str]())
            for name, split in sources.splits.items()
            if split.rows
        }
        labels = {name: dict(count.most_common()) for name, count in counts.items()}
        return {"labels": labels, "conflicts": label_conflicts(self, sources)}

    @override
    def target_text(self, record: Record) -> str:
        return f"{self.label}: {', '.join(self.record_labels(record)) or 'none'}"

    @override
    def encode(self, record: Record, row: int) -> Example | None:
        names = self.record_labels(record)
        for name in names:
            if name not in self.label_names:
                raise DataError(self._unknown_label(name))
        if self.multilabel:
            return Example(self.token_ids(record), [int(name in names) for name in self.label_names], 1.0, row)
        index = self.label_names.index(names[0])
        return Example(self.token_ids(record), index, self.weights[index], row)

    def _unknown_label(self, name: str) -> str:
        """What is wrong with a label that the model has no class for."""
        if self.labels is not None:
            listed = ", ".join(self.label_names)
            return translate("label {name!r} is none of data.labels ({listed})", name=name, listed=listed)
        return unknown_label_message(name, self.label_names) + (stream_advice() if self.streaming else "")

    @override
    def padding_example(self) -> Example:
        return Example([0], [0] * len(self.label_names) if self.multilabel else 0, 0.0, -1)

    @override
    def loss_sum(self, logits: Tensor, micro: MicroBatch) -> Tensor:
        taught = micro.row_indices >= 0
        scores, targets = logits[taught].float(), micro.targets[taught]
        weights = torch.tensor(self.weights, device=logits.device)  # (C,)
        if self.multilabel:
            soft = targets * (1 - self.label_smoothing) + self.label_smoothing / 2
            each = F.binary_cross_entropy_with_logits(scores, soft, pos_weight=weights, reduction="none")  # (B, C)
            return each.mean(dim=1).sum()
        return F.cross_entropy(scores, targets, weight=weights, reduction="sum", label_smoothing=self.label_smoothing)

    @override
    def scores(self) -> Scores:
        return (
            MultilabelScores(self.label_names, self.threshold)
            if self.multilabel
            else MulticlassScores(self.label_names)
        )

    @override
    def metric_inputs(self, logits: Tensor, micro: MicroBatch) -> MetricInputs:
        is_record = micro.row_indices >= 0
        scores, targets = logits[is_record], micro.targets[is_record]
        if self.multilabel:
            chosen = scores.float().sigmoid() >= self.threshold  # float32, as the predictions are decided
            return MetricInputs(chosen.long(), targets.long(), scores.double().sigmoid())
        return MetricInputs(scores.double().argmax(dim=-1), targets, scores.double().softmax(dim=-1))

    @override
    def metric_example(self) -> MetricInputs:
        width = len(self.label_names)
        if self.multilabel:
            true = torch.arange(4 * width).reshape(4, width) % 2
            return MetricInputs(true, true, 0.25 + true.double() / 2)
        true = torch.arange(2 * width) % width
        return MetricInputs(true, true, F.one_hot(true, width).double())

    @override
    def metric_arguments(self) -> Mapping[str, Any]:
        count = len(self.label_names)
        if self.multilabel:
            return {"task": "multilabel", "num_labels": count, "threshold": self.threshold}
        return {"task": "multiclass", "num_classes": count}

    @override
    def predictions(
        self, model: PreTrainedModel, micro: MicroBatch, logits: Tensor, records: Sequence[Record]
    ) -> list[dict[str, Any]]:
        is_record = micro.row_indices >= 0  # padding examples have none
        rows = []
        for row, record, answer in zip(
            micro.row_indices[is_record].tolist(), records, self.decode_logits(logits[is_record]), strict=True
        ):
            names = self.record_labels(record)
            label = sorted(names) if self.multilabel else names[0]
            rows.append({"row": row, **self.record_texts(record), "label": label, **answer})
        return rows

    @override
    def decode_logits(self, logits: Tensor) -> list[dict[str, Any]]:
        wide = logits.float()
        answers = []
        for probabilities in (wide.sigmoid() if self.multilabel else wide.softmax(dim=-1)).tolist():
            named = dict(zip(self.label_names, probabilities, strict=True))
            chosen = [name for name, probability in named.items() if probability >= self.threshold]
            best = max(named, key=named.__getitem__)
            answers.append({"prediction": chosen if self.multilabel else best, "probabilities": named})
        return answers

    @override
    def state(self) -> dict[str, Any]:
        return {"labels": list(self.label_names), "weights": list(self.weights)}

    @override
    def restore(self, state: Mapping[str, Any]) -> None:
        self.label_names, self.weights = list(state["labels"]), list(state["weights"])


def stream_advice() -> str:
    """What to do about a label that the first rows of a stream do not have."""
    return translate(
        "; of a stream that is the first {rows:,} [row|rows]: name all labels, data.labels=[A,B,C]",
        rows=HEAD_ROWS,
    )


MAX_LISTED_LABELS = 12  # names listed in a message before it stops with a count


def parse_label(value: object) -> str:
    """The name of one class: 1, 1.0 and "1" are the same label, and blanks around a name do not count.

    Raises:
        DataError: If the value is empty, a list, or a number that is no whole number.

    Example:
        >>> parse_label(" spam "), parse_label(3), parse_label(3.0), parse_label(True)
        ('spam', '3', '3', 'true')
    """
    if type(value) is str and (name := value.strip()):  # of a million rows most
        return name
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real) and isfinite(value):
        if float(value).is_integer():
            return str(int(float(value)))
        raise DataError(
            translate(
                "label {value!r} is a fraction, not a class; scores are learned with data=regression", value=value
            )
        )
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, list | tuple):
        raise DataError(
            translate("label is a list, {value!r}; lists of labels are learned with data.multilabel=true", value=value)
        )
    raise DataError(
        translate("label is empty ({value!r}); every record needs one, so drop the record or fill it in", value=value)
    )


def parse_labels(value: object) -> list[str]:
    """The names in one multi-label cell: a list, or its JSON text; an empty list means that no class applies.

    Raises:
        DataError: If the cell is neither, or names a label twice (as vectors of 0 and 1 do).

    Example:
        >>> parse_labels(["joy", 2]), parse_labels('["joy"]')
        (['joy', '2'], ['joy'])
    """
    cell = value
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except json.JSONDecodeError:
            cell = None
    if not isinstance(cell, list | tuple):
        raise DataError(
            translate(
                'labels are {value!r}, not a list; write ["a", "b"] (in a CSV: the same as JSON text)', value=value
            )
        )
    names = [parse_label(item) for item in cell]
    if len(set(names)) < len(names):
        raise DataError(
            translate("labels {value!r} name one twice; give the names that apply, not a 0 or 1 per class", value=value)
        )
    return names


def sort_labels(names: set[str]) -> list[str]:
    """Names sorted as text, or by value where every one is a whole number, so that 2 comes before 10."""
    try:
        return sorted(names, key=lambda name: (int(name), name))
    except ValueError:
        return sorted(names)


def unknown_label_message(name: str, known: Sequence[str]) -> str:
    """The message for a label that the training split does not have: the closest known names come first."""
    close = get_close_matches(name, known, n=MAX_LISTED_LABELS, cutoff=0.6)
    listed = [*close, *(other for other in known if other not in close)]
    more = (
        translate(" and {count} more", count=len(listed) - MAX_LISTED_LABELS) if len(listed) > MAX_LISTED_LABELS else ""
    )
    hint = translate("; did you mean {close!r}?", close=close[0]) if close else ""
    examples = ", ".join(repr(other) for other in listed[:MAX_LISTED_LABELS])
    return translate(
        "label {name!r} never occurs in the training split, so it cannot be learned{hint} (known: {examples}{more})",
        name=name,
        hint=hint,
        examples=examples,
        more=more,
    )


def balanced_weights(counts: Sequence[int], rows: int) -> list[float]:
    """Weights that give every class the same say: rows / (C * count), as scikit-learn's "balanced"."""
    return [rows / (len(counts) * count) for count in counts]


def balanced_positive_weights(counts: Sequence[int], rows: int) -> list[float]:
    """For labels that are on or off: how many records lack a label for each one that has it, at least 1 / count."""
    return [max(rows - count, 1) / count for count in counts]


def explicit_weights(weights: Mapping[object, float], labels: Sequence[str]) -> list[float]:
    """Weights named by hand, in the order of `labels`; a label that is not named weighs 1.

    Raises:
        ConfigError: If a name is no label of the training split, or a weight is not above 0.
    """
    named: dict[str, object] = {parse_label(key): weight for key, weight in weights.items()}
    faults = [
        translate("data.class_weights: {name}", name=unknown_label_message(name, labels))
        for name in named
        if name not in labels
    ]
    faults += [
        translate(
            "data.class_weights.{name} is {weight!r}; a weight is a number above 0, to leave a "
            "class out drop its records",
            name=name,
            weight=weight,
        )
        for name, weight in named.items()
        if not is_positive_number(weight)
    ]
    if faults:
        raise ConfigError.listing(faults)
    plain = {parse_label(key): float(weight) for key, weight in weights.items()}
    return [plain.get(name, 1.0) for name in labels]


def is_positive_number(value: object) -> bool:
    """Whether a value is a finite number above 0; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value > 0

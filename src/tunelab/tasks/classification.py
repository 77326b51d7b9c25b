"""Classification of texts and text pairs: one label out of several, or any number of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel
from typing_extensions import override

from tunelab.data.examples import Example, Micro
from tunelab.errors import ConfigError, DataError
from tunelab.tasks.base import Record, Scores
from tunelab.tasks.label_scores import ClassScores, MultilabelScores
from tunelab.tasks.labelled import Labelled, column, refuse
from tunelab.tasks.labels import (
    balanced,
    given_weights,
    in_order,
    label_name,
    label_names,
    positive_balance,
    unknown_label,
)


class Classification(Labelled):
    """One label per record, or with `multilabel` a list of labels.

    Attributes:
        labels: Class names in the order of the logits, known after `fit`.
        weights: Weight of each class in the training loss, known after `fit`.
    """

    name: ClassVar[str] = "classification"
    monitor: ClassVar[str] = "val/f1"
    mode: ClassVar[str] = "max"

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

        Raises:
            ConfigError: If a setting is outside what it can be.
        """
        super().__init__(text, text_pair, max_tokens)
        faults = []
        if isinstance(class_weights, str) and class_weights not in ("none", "balanced"):
            faults.append(f'data.class_weights is {class_weights!r}; use "none", "balanced" or a weight per label')
        if not 0 < threshold < 1:
            faults.append(f"data.threshold is {threshold}; a probability lies between 0 and 1, try 0.5")
        if not 0 <= label_smoothing < 1:
            faults.append(f"data.label_smoothing is {label_smoothing}; it is a share of probability, try 0.1")
        if faults:
            raise ConfigError.listing(faults)
        self.label = label
        self.multilabel = multilabel
        self.class_weights = class_weights
        self.threshold = threshold
        self.label_smoothing = label_smoothing
        self.labels: list[str] = []
        self.weights: list[float] = []
        rest = ("micro_f1",) if multilabel else ("mcc",)
        self.score_names = ("loss", "accuracy", "f1", "precision", "recall", *rest)

    @override
    def named_columns(self) -> list[tuple[str, str]]:
        return [*super().named_columns(), ("data.label", self.label)]

    @override
    def fit(self, train: Sequence[Record]) -> None:
        counts: Counter[str] = Counter()
        faults = []
        for place, record in enumerate(train):
            try:
                counts.update(self.names(record))
            except DataError as fault:
                faults.append(f"training record {place + 1}: {fault}")
        refuse(faults)
        least = 1 if self.multilabel else 2
        if len(counts) < least:
            raise DataError(
                f"column {self.label!r} of the training split holds {sorted(counts) or 'no labels'}; there must be "
                f"at least {least} to tell apart; is it the right column?"
            )
        self.labels = in_order(set(counts))
        ordered = [counts[name] for name in self.labels]
        if isinstance(self.class_weights, Mapping):
            self.weights = given_weights(self.class_weights, self.labels)
        elif self.class_weights == "none":
            self.weights = [1.0] * len(self.labels)
        else:
            self.weights = (positive_balance if self.multilabel else balanced)(ordered, len(train))

    @override
    def head_options(self) -> dict[str, Any]:
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {name: index for index, name in enumerate(self.labels)},
            "problem_type": "multi_label_classification" if self.multilabel else "single_label_classification",
        }

    def names(self, record: Record) -> list[str]:
        """The labels of a record, one unless `multilabel`.

        Raises:
            DataError: If the column is missing or holds no label.
        """
        value = column(record, self.label)
        return label_names(value) if self.multilabel else [label_name(value)]

    @override
    def stratum(self, record: Record) -> str | None:
        return "+".join(sorted(self.names(record)))

    @override
    def strata(self, record: Record) -> Sequence[str]:
        return self.names(record)

    @override
    def encode(self, record: Record, row: int) -> Example | None:
        names = self.names(record)
        for name in names:
            if name not in self.labels:
                raise DataError(unknown_label(name, self.labels))
        if self.multilabel:
            return Example(self.ids(record), [int(name in names) for name in self.labels], 1.0, row)
        index = self.labels.index(names[0])
        return Example(self.ids(record), index, self.weights[index], row)

    @override
    def filler(self) -> Example:
        return Example([0], [0] * len(self.labels) if self.multilabel else 0, 0.0, -1)

    @override
    def loss_sum(self, logits: Tensor, micro: Micro) -> Tensor:
        taught = micro.rows >= 0
        scores, wanted = logits[taught].float(), micro.targets[taught]
        weights = torch.tensor(self.weights, device=logits.device)  # (C,)
        if self.multilabel:
            soft = wanted * (1 - self.label_smoothing) + self.label_smoothing / 2
            each = F.binary_cross_entropy_with_logits(scores, soft, pos_weight=weights, reduction="none")  # (B, C)
            return each.mean(dim=1).sum()
        return F.cross_entropy(scores, wanted, weight=weights, reduction="sum", label_smoothing=self.label_smoothing)

    @override
    def scores(self) -> Scores:
        return MultilabelScores(self.labels, self.threshold) if self.multilabel else ClassScores(self.labels)

    @override
    def predictions(
        self, model: PreTrainedModel, micro: Micro, logits: Tensor, records: Sequence[Record]
    ) -> list[dict[str, Any]]:
        real = micro.rows >= 0  # a filler has no record
        found = []
        for row, record, said in zip(micro.rows[real].tolist(), records, self.spoken(logits[real]), strict=True):
            names = self.names(record)
            label = sorted(names) if self.multilabel else names[0]
            found.append({"row": row, **self.told(record), "label": label, **said})
        return found

    @override
    def spoken(self, logits: Tensor) -> list[dict[str, Any]]:
        wide = logits.float()
        found = []
        for probabilities in (wide.sigmoid() if self.multilabel else wide.softmax(dim=-1)).tolist():
            named = dict(zip(self.labels, probabilities, strict=True))
            chosen = [name for name, probability in named.items() if probability >= self.threshold]
            best = max(named, key=named.__getitem__)
            found.append({"prediction": chosen if self.multilabel else best, "probabilities": named})
        return found

    @override
    def state(self) -> dict[str, Any]:
        return {"labels": list(self.labels), "weights": list(self.weights)}

    @override
    def restore(self, state: Mapping[str, Any]) -> None:
        self.labels, self.weights = list(state["labels"]), list(state["weights"])

"""Regression of texts and text pairs: one number or several."""

from collections.abc import Mapping, Sequence
from math import isfinite
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel
from typing_extensions import override

from tunelab.config.schema import DataConfig, RegressionDataConfig
from tunelab.data.data_sources import DataSplits
from tunelab.data.examples import Example, MicroBatch
from tunelab.data.protocols import Record
from tunelab.data.row_streams import HEAD_ROWS
from tunelab.data.summary import quantiles
from tunelab.errors import ConfigError, DataError
from tunelab.language.translation import translate
from tunelab.models.heads import fold_target_scaling
from tunelab.tasks.base import MetricInputs, Scores
from tunelab.tasks.metrics.directions import REGRESSION_METRICS
from tunelab.tasks.metrics.regression_metrics import RegressionScores
from tunelab.tasks.registry import DESCRIPTIONS, TaskDescription
from tunelab.tasks.sequence import SequenceTask, column_value

LARGEST_TARGET = 1e18  # the square of an error, summed over many rows, must stay below 3.4e38


def parse_number(value: object, name: str) -> float:
    """The number in a cell of the column `name`.

    Raises:
        DataError: If it is no finite number.

    Example:
        >>> parse_number(" 3.5e-1 ", "score")
        0.35
    """
    if isinstance(value, bool) or not isinstance(value, Real | str):
        raise DataError(
            translate(
                "column {name!r} holds {value!r}, not a number; drop the record or fill it in", name=name, value=value
            )
        )
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise DataError(
            translate("column {name!r} holds {value!r}, not a number; use a dot for decimals", name=name, value=value)
        ) from None
    if not isfinite(number):
        raise DataError(
            translate(
                "column {name!r} holds {value!r}; nothing can be learned from it, so drop the record",
                name=name,
                value=value,
            )
        )
    if abs(number) > LARGEST_TARGET:
        raise DataError(
            translate(
                "column {name!r} holds {value!r}; beyond {largest_target:g} its square error leaves "
                "the numbers of single precision, so give the column another unit or drop the record",
                name=name,
                value=value,
                largest_target=LARGEST_TARGET,
            )
        )
    return number


class Regression(SequenceTask):
    """Scores of texts.  The model learns standardised targets; every score and prediction is in the user's units.

    Attributes:
        targets: Columns of the targets, C of them, in the order of the logits.
        mean, std: Of each target over the training split, known after `fit`; 0 and 1 without `standardise`.
    """

    name: ClassVar[str] = "regression"
    description: ClassVar[TaskDescription] = DESCRIPTIONS["regression"]
    data_config: ClassVar[type[DataConfig]] = RegressionDataConfig
    metric_inputs_text: ClassVar[str] = "(predictions, targets): numbers in your units, (N,), of several targets (N, C)"
    score_names = tuple(REGRESSION_METRICS)

    def __init__(
        self,
        text: str,
        target: str | Sequence[str],
        text_pair: str | None = None,
        standardise: bool = True,
        max_tokens: int | None = None,
        streaming: bool = False,
    ) -> None:
        """Name the columns.

        Args:
            text: Column of the text.
            target: Column of the number to learn, or several.
            text_pair: Column of a second text, encoded after the first.
            standardise: Whether targets are shifted and scaled to mean 0 and deviation 1 inside, so that one learning
                rate suits every unit.
            max_tokens: Longest input, special tokens included; None leaves the limit to the model.
            streaming: Whether the rows that fix shift and scale are the first of a stream only.

        Raises:
            ConfigError: If no target is named, or one twice.
        """
        super().__init__(text, text_pair, max_tokens)
        self.targets = [target] if isinstance(target, str) else [str(name) for name in target]
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise ConfigError(
                translate("data.target is {targets}; name at least one column, each once", targets=self.targets)
            )
        self.standardise, self.streaming = standardise, streaming
        self.mean = [0.0] * len(self.targets)
        self.std = [1.0] * len(self.targets)

    @override
    def named_columns(self) -> list[tuple[str, str]]:
        return [*super().named_columns(), *(("data.target", name) for name in self.targets)]

    @override
    def check_target(self, record: Record) -> None:
        self.record_targets(record)

    @override
    def fit(self, train: Sequence[Record]) -> None:
        rows = [self.record_targets(record) for record in train]
        if not rows:
            raise DataError(translate("the training split holds no records, so there is nothing to learn"))
        if self.standardise:
            table = torch.tensor(rows, dtype=torch.float64)  # (records, C)
            bounds = zip(self.targets, table.amin(dim=0).tolist(), table.amax(dim=0).tolist(), strict=True)
            faults = [
                translate(
                    "target {name!r} is {low} in every record, so there is nothing to learn; is it the right column?",
                    name=name,
                    low=low,
                )
                for name, low, high in bounds
                if low == high
            ]
            if faults and self.streaming:
                faults.append(
                    translate(
                        "of a stream these are its first {rows:,} [row|rows]; where others come later, shuffle the "
                        "file, or set data.standardise=false",
                        rows=HEAD_ROWS,
                    )
                )
            if faults:
                raise DataError.listing(faults)
            self.mean = table.mean(dim=0).tolist()
            self.std = table.std(dim=0, correction=0).tolist()

    @override
    def head_options(self) -> dict[str, Any]:
        return {
            "num_labels": len(self.targets),
            "id2label": dict(enumerate(self.targets)),
            "label2id": {name: index for index, name in enumerate(self.targets)},
            "problem_type": "regression",
            "target_mean": list(self.mean),
            "target_std": list(self.std),
        }

    def record_targets(self, record: Record) -> list[float]:
        """The targets of a record in its own units, C of them.

        Raises:
            DataError: If a column is missing or holds no finite number.
        """
        return [parse_number(column_value(record, name), name) for name in self.targets]

    @override
    def data_summary(self, sources: DataSplits) -> dict[str, Any]:
        numbers = {
            name: [self.record_targets(row) for row in split.rows]
            for name, split in sources.splits.items()
            if split.rows
        }
        return {
            "targets": {
                target: {name: quantiles([row[column] for row in rows]) for name, rows in numbers.items()}
                for column, target in enumerate(self.targets)
            }
        }

    @override
    def target_text(self, record: Record) -> str:
        pairs = zip(self.targets, self.record_targets(record), strict=True)
        return ", ".join(f"{name}: {value:g}" for name, value in pairs)

    @override
    def finalize_model(self, model: PreTrainedModel) -> str | None:
        return fold_target_scaling(model, self.mean, self.std)

    @override
    def encode(self, record: Record, row: int) -> Example | None:
        own = zip(self.record_targets(record), self.mean, self.std, strict=True)
        return Example(self.token_ids(record), [(value - mean) / std for value, mean, std in own], 1.0, row)

    @override
    def padding_example(self) -> Example:
        return Example([0], [0.0] * len(self.targets), 0.0, -1)

    @override
    def loss_sum(self, logits: Tensor, micro: MicroBatch) -> Tensor:
        taught = micro.row_indices >= 0
        return (logits[taught].float() - micro.targets[taught]).square().mean(dim=1).sum()

    @override
    def scores(self) -> Scores:
        return RegressionScores(self.targets, self.mean, self.std)

    @override
    def metric_inputs(self, logits: Tensor, micro: MicroBatch) -> MetricInputs:
        is_record = micro.row_indices >= 0
        std, mean = (
            torch.tensor(numbers, dtype=torch.float64, device=logits.device) for numbers in (self.std, self.mean)
        )
        predicted, true = (part[is_record].double() * std + mean for part in (logits, micro.targets))
        return (
            MetricInputs(predicted.squeeze(1), true.squeeze(1))
            if len(self.targets) == 1
            else MetricInputs(predicted, true)
        )

    @override
    def metric_example(self) -> MetricInputs:
        true = torch.arange(1.0, 9.0, dtype=torch.float64)
        if len(self.targets) > 1:
            true = true[:, None].repeat(1, len(self.targets))
        return MetricInputs(true + 0.5 * true.cos(), true)

    @override
    def metric_arguments(self) -> Mapping[str, Any]:
        return {"num_outputs": len(self.targets)}

    @override
    def predictions(
        self, model: PreTrainedModel, micro: MicroBatch, logits: Tensor, records: Sequence[Record]
    ) -> list[dict[str, Any]]:
        rows = []
        is_record = micro.row_indices >= 0  # padding examples have none
        for row, record, answer in zip(
            micro.row_indices[is_record].tolist(), records, self.decode_logits(logits[is_record]), strict=True
        ):
            rows.append(
                {"row": row, **self.record_texts(record), "target": self._cell(self.record_targets(record)), **answer}
            )
        return rows

    @override
    def decode_logits(self, logits: Tensor) -> list[dict[str, Any]]:
        scales = list(zip(self.mean, self.std, strict=True))
        own = [[v * std + mean for v, (mean, std) in zip(row, scales, strict=True)] for row in logits.tolist()]
        return [{"prediction": self._cell(values)} for values in own]

    @override
    def state(self) -> dict[str, Any]:
        return {"mean": list(self.mean), "std": list(self.std)}

    @override
    def restore(self, state: Mapping[str, Any]) -> None:
        self.mean, self.std = list(state["mean"]), list(state["std"])

    def _cell(self, values: list[float]) -> float | dict[str, float]:
        """One number as itself, several by name."""
        return values[0] if len(values) == 1 else dict(zip(self.targets, values, strict=True))

"""The signals of a run that the doctor reads, and the finding it returns.  Pure: plain values in, plain values out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite
from statistics import mean, median
from typing import Any

from tunelab.language.translation import translate

CurvePoint = tuple[int, float]  # optimizer step, value


@dataclass(frozen=True)
class Finding:
    """One fault of a run, with its remedy.

    Attributes:
        verdict: Its name, as in docs/doctor.md.
        message: What is seen, in a sentence with the number.
        measure: What the value is of.
        value: The number.
        threshold: The value from which it is a finding.
        remedy: What to try, the likeliest cure first.
    """

    verdict: str
    message: str
    measure: str
    value: float
    threshold: float
    remedy: str

    def as_json(self) -> dict[str, str | float]:
        """The finding as `doctor.json` holds it."""
        return {
            "verdict": self.verdict,
            "says": self.message,
            "figure": self.measure,
            "value": self.value,
            "threshold": self.threshold,
            "attempt": self.remedy,
        }


@dataclass(frozen=True)
class RunSignals:
    """Curves, settings and status of a run so far.

    Attributes:
        curves: Rows of metrics.csv: `step`, `epoch` and the scores of each.
        settings: The resolved config.
        data: The data report.
        status: Of the manifest: `running`, `finished`, `early-stopped`, `diverged`, ...
        reason: Of the manifest: why it ended.
        monitor: Name of the score that picks the best checkpoint.
    """

    curves: Sequence[Mapping[str, float]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    status: str = "running"
    reason: str = ""
    monitor: str = "val/loss"

    @property
    def finished(self) -> bool:
        """Whether training went to its end, so that its last value is its result."""
        return self.status == "finished"

    def points(self, name: str) -> list[CurvePoint]:
        """The finite values of a curve."""
        return [(int(row["step"]), row[name]) for row in self.curves if name in row and isfinite(row[name])]

    def values(self, name: str) -> list[float]:
        """The finite values of a curve without their steps."""
        return [value for _, value in self.points(name)]

    def layer_values(self, figure: str) -> dict[str, list[float]]:
        """The values of a measure by part of the network, from the bottom up."""
        names = dict.fromkeys(name for row in self.curves for name in row)
        parts = [name.split("/")[1] for name in names if name.startswith("layers/") and name.endswith(f"/{figure}")]
        return {part: self.values(f"layers/{part}/{figure}") for part in sorted(parts, key=layer_order)}

    def epoch(self, step: int) -> int:
        """The epoch of a step, counted from 1."""
        return next((int(row["epoch"]) + 1 for row in self.curves if int(row["step"]) == step and "epoch" in row), 0)

    def config_value(self, name: str) -> Any:
        """A setting by its dotted name; None where there is no such setting."""
        value: Any = self.settings
        for key in name.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def layer_order(part: str) -> tuple[int, int]:
    """The sort key of a part of the network, from the bottom up."""
    return (1, int(part)) if part.isdigit() else ({"embeddings": 0, "last_norm": 2}.get(part, 3), 0)


def layer_name(part: str) -> str:
    """A part of the network in words."""
    if part.isdigit():
        return translate("layer {number}", number=part)
    return translate("the {part}", part=part.replace("_", " "))


def noise_level(values: Sequence[float]) -> float:
    """Standard deviation of single values around their trend, from second differences; 0 of fewer than three.

    After Gasser, Sroka and Jennen-Steinmetz (1986): a straight course has none, whatever its slope.
    """
    bends = [(after - now) - (now - before) for (before, now), (_, after) in pairwise(pairwise(values))]
    return (mean(bend * bend for bend in bends) / 6) ** 0.5 if bends else 0.0


def early_median(values: Sequence[float]) -> float:
    """The median of the first tenth."""
    return median(values[: max(1, len(values) // 10)])


def late_median(values: Sequence[float]) -> float:
    """The median of the last fifth."""
    return median(values[-max(1, len(values) // 5) :])

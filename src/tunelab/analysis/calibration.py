"""Calibration of probabilities: expected calibration error, reliability diagram, Brier score.  Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean

DEFAULT_BINS = 15  # as in Guo et al. 2017


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions of about the same confidence.

    Attributes:
        low, high: The confidences that it holds: above `low`, up to `high`.
        rows: How many.
        confidence: Their mean.
        accuracy: The share of them that was right.
    """

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


def reliability_bins(
    confidences: Sequence[float], hits: Sequence[bool], bins: int = DEFAULT_BINS
) -> list[ReliabilityBin]:
    """Predictions sorted into bins of equal width; empty bins are left out.

    Args:
        confidences: The probability of what was predicted, in [0, 1].
        hits: Whether it was right.
        bins: How many between 0 and 1.
    """
    held: dict[int, list[tuple[float, bool]]] = {}
    for confidence, hit in zip(confidences, hits, strict=True):
        held.setdefault(max(1, ceil(confidence * bins - 1e-12)), []).append((confidence, hit))
    return [
        ReliabilityBin(
            (at - 1) / bins, at / bins, len(members), fmean(c for c, _ in members), fmean(h for _, h in members)
        )
        for at, members in sorted(held.items())
    ]


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy, weighted by rows.

    Source: Naeini, Cooper, Hauskrecht 2015; Guo et al. 2017, On Calibration of Modern Neural Networks.
    """
    rows = sum(one.rows for one in bins)
    return sum(one.rows * abs(one.confidence - one.accuracy) for one in bins) / rows if rows else float("nan")


def brier_score(probabilities: Sequence[Sequence[float]], targets: Sequence[int]) -> float:
    """Mean squared distance between the probabilities (N, C) and the true class, in [0, 2] (Brier 1950)."""
    return fmean(
        sum((value - (place == right)) ** 2 for place, value in enumerate(row))
        for row, right in zip(probabilities, targets, strict=True)
    )

"""Scores over any choice of test rows, so that they can be resampled.  Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunelab.report.run_reader import Row

RowIndices = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class RowScore:
    """A score that can be computed over any rows.

    Attributes:
        name: As in metrics.json, without its split.
        lower: Whether it is better when it is lower.
        each: One value a row, whose mean is the score; empty where the score is no mean.
        over: The score over chosen rows.
    """

    name: str
    lower: bool
    each: FloatArray
    over: Callable[[RowIndices], float]

    @property
    def binary(self) -> bool:
        """Whether each row is right or wrong."""
        return bool(len(self.each)) and bool(np.isin(self.each, (0.0, 1.0)).all())


def row_scores(rows: Sequence[Row]) -> list[RowScore]:
    """What can be scored of predictions; the most telling first."""
    if not rows:
        return []
    first = rows[0]
    if isinstance(first.get("label"), list):
        return [mean_score("accuracy", [sorted(row["label"]) == sorted(row["prediction"]) for row in rows])]
    if "probabilities" in first:
        right, said = [str(row["label"]) for row in rows], [str(row["prediction"]) for row in rows]
        names = sorted({*right, *said, *first["probabilities"]})
        place = {name: at for at, name in enumerate(names)}
        known = len(first["probabilities"])
        table = np.array([place[a] * len(names) + place[b] for a, b in zip(right, said, strict=True)], dtype=np.int64)
        hits = mean_score("accuracy", [a == b for a, b in zip(right, said, strict=True)])
        nothing = np.zeros(0)
        return [hits, RowScore("f1", False, nothing, lambda chosen: macro_f1(table[chosen], len(names), known))]
    if isinstance(first.get("target"), int | float):
        gaps = np.array([float(row["prediction"]) - float(row["target"]) for row in rows])
        pairs = np.array([[float(row["prediction"]), float(row["target"])] for row in rows])
        pearson = RowScore("pearson", False, np.zeros(0), lambda chosen: pearson_correlation(pairs[chosen]))
        return [mean_score("mse", gaps**2, lower=True), mean_score("mae", np.abs(gaps), lower=True), pearson]
    if isinstance(first.get("margin"), int | float):
        return [
            mean_score("accuracy", [row["margin"] > 0 for row in rows]),
            mean_score("margin", [row["margin"] for row in rows]),
        ]
    names = [name for name in ("exact_match", "token_f1", "rougeL") if all(name in row for row in rows)]
    found = [mean_score(name, [row[name] for row in rows]) for name in names]
    if all("choice" in row and "label" in row for row in rows):
        found.insert(0, mean_score("accuracy", [row["choice"] == row["label"] for row in rows]))
    return found


def mean_score(name: str, values: Sequence[float] | FloatArray, *, lower: bool = False) -> RowScore:
    """A score that is the mean of one value a row."""
    each = np.asarray(values, dtype=np.float64)
    return RowScore(name, lower, each, lambda chosen: float(each[chosen].mean()))


def macro_f1(cells: RowIndices, names: int, known: int) -> float:
    """Macro F1 of rows given as `right * names + said`: the mean over the classes that the model knows."""
    table = np.bincount(cells, minlength=names * names).reshape(names, names)
    hits, real, guessed = table.diagonal(), table.sum(axis=1), table.sum(axis=0)
    below = real + guessed
    each = np.divide(2.0 * hits, below, out=np.zeros(names), where=below > 0)
    return float(each.sum() / max(known, 1))


def pearson_correlation(pairs: FloatArray) -> float:
    """Pearson's correlation of pairs, (N, 2); nan where one side is constant."""
    left, right = pairs[:, 0] - pairs[:, 0].mean(), pairs[:, 1] - pairs[:, 1].mean()
    below = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / below if below else float("nan")

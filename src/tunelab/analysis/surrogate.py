"""A Gaussian process fitted to the trials: predicted score and its uncertainty anywhere in the space.

Squared-exponential kernel with a length for each setting and observation noise, fitted by the marginal likelihood
(Rasmussen and Williams 2006, algorithm 2.1 and equation 5.9); leave-one-out errors follow in closed form (5.12).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

from tunelab.analysis.configurations import ABSENT, Setting, is_number

FloatArray = NDArray[np.float64]
MAX_POINTS = 400  # points that it is fitted to; the fit takes their third power
INITIAL_LENGTHS = (0.3, 1.0)  # lengths that the fit begins from, in units of the whole range
CATEGORY_DISTANCE = 0.7  # distance of two values that have no order


@dataclass(frozen=True)
class InputColumns:
    """Settings as columns of numbers: one for a number, one for each value that has no order.

    Attributes:
        settings: In order.
        labels: Values of a setting without an order; empty of numbers.
    """

    settings: tuple[Setting, ...]
    labels: tuple[tuple[str, ...], ...]

    @property
    def setting_of_column(self) -> list[int]:
        """The index of the setting that each column belongs to."""
        return [at for at, labels in enumerate(self.labels) for _ in range(max(1, len(labels)))]

    def encode_row(self, params: Mapping[str, Any]) -> list[float]:
        """One configuration as numbers, (columns,)."""
        encoded: list[float] = []
        for setting, labels in zip(self.settings, self.labels, strict=True):
            value = params.get(setting.name, ABSENT)
            if labels:
                encoded += [CATEGORY_DISTANCE * (str(value) == label) for label in labels]
            else:
                encoded.append(setting.to_unit(float(value)))
        return encoded

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> FloatArray:
        """Configurations as numbers, (N, columns)."""
        return np.array([self.encode_row(params) for params in rows], dtype=np.float64).reshape(
            len(rows), len(self.setting_of_column)
        )

    def sample(self, many: int, seed: int = 0) -> FloatArray:
        """Configurations drawn uniformly over the space, (N, columns)."""
        dice = np.random.default_rng(seed)
        columns: list[FloatArray] = []
        for labels in self.labels:
            if labels:
                columns += list(CATEGORY_DISTANCE * np.eye(len(labels))[dice.integers(0, len(labels), many)].T)
            else:
                columns.append(dice.random(many))
        return np.stack(columns, axis=1)


def input_columns(settings: Sequence[Setting], rows: Sequence[Mapping[str, Any]]) -> InputColumns:
    """The columns for these settings; a setting that some rows lack is one without an order."""
    labels = []
    for setting in settings:
        values = [params.get(setting.name, ABSENT) for params in rows]
        ordered = setting.numeric and all(is_number(value) and (not setting.log or value > 0) for value in values)
        labels.append(() if ordered else tuple(dict.fromkeys(map(str, values))))
    return InputColumns(tuple(settings), tuple(labels))


@dataclass(frozen=True)
class Surrogate:
    """A fitted Gaussian process.

    Attributes:
        input_columns: How settings become numbers.
        inputs: Places of the trials, (N, columns).
        mean, std: Of the costs, by which they were standardised.
        lengths: Of each column.
        noise: Variance of the noise, relative to the signal's.
        weights: Solved system, (N,).
        factor: Cholesky factor of the covariance, (N, N), lower.
        scale: Variance of the signal, in standardised units.
        explained: Share of the variance that leave-one-out predictions explain; below 0 is worse than the mean.
    """

    input_columns: InputColumns
    inputs: FloatArray
    mean: float
    std: float
    lengths: FloatArray
    noise: float
    weights: FloatArray
    factor: FloatArray
    scale: float
    explained: float

    def predict(self, places: FloatArray) -> FloatArray:
        """Mean cost at positions, (M, columns) to (M,)."""
        cross = rbf_kernel(places, self.inputs, self.lengths)
        return np.asarray(self.mean + self.std * (cross @ self.weights), dtype=np.float64)

    def mean_and_std(self, places: FloatArray) -> tuple[float, float]:
        """Mean cost over positions, and the standard deviation of that mean under the process."""
        cross = rbf_kernel(places, self.inputs, self.lengths).mean(axis=0)
        solved = solve_triangular(self.factor, cross, lower=True)
        own = float(rbf_kernel(places, places, self.lengths).mean()) - float(solved @ solved)
        middle = self.mean + self.std * float(cross @ self.weights)
        return middle, self.std * math.sqrt(max(0.0, self.scale * own))


def rbf_kernel(one: FloatArray, other: FloatArray, lengths: FloatArray) -> FloatArray:
    """The squared-exponential kernel between positions, (N, columns) and (M, columns) to (N, M)."""
    a, b = one / lengths, other / lengths
    gaps = (a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2 * a @ b.T
    return np.asarray(np.exp(-0.5 * np.maximum(gaps, 0.0)), dtype=np.float64)


def fit_surrogate(columns: InputColumns, rows: Sequence[Mapping[str, Any]], costs: Sequence[float]) -> Surrogate:
    """A Gaussian process fitted to trials.  Costs far above the rest are clipped: one diverged run must not bend it.

    Raises:
        ValueError: With fewer than four trials, or where all costs are equal: there is nothing to fit.
    """
    every = -(-len(rows) // MAX_POINTS)
    rows, values = rows[::every], clip_outliers(np.asarray(costs, dtype=np.float64))[::every]
    if len(values) < 4 or not values.std() > 0:
        raise ValueError("a surface needs four trials of different scores")
    known, centre, spread = columns.encode(rows), float(values.mean()), float(values.std())
    standardized, owner = (values - centre) / spread, np.array(columns.setting_of_column)
    squares = np.stack(
        [
            ((known[:, None, owner == at] - known[None, :, owner == at]) ** 2).sum(-1)
            for at in range(len(columns.settings))
        ]
    )

    def loss(theta: FloatArray) -> tuple[float, FloatArray]:
        rates, noise = np.exp(-2 * theta[:-1]), math.exp(theta[-1])
        like = np.exp(-0.5 * np.tensordot(rates, squares, axes=1))
        whole = like + (noise + 1e-8) * np.eye(len(standardized))
        try:
            factor = cho_factor(whole, lower=True)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(theta)
        solved, count = cho_solve(factor, standardized), len(standardized)
        scale = float(standardized @ solved) / count  # the best one for this shape, in closed form
        value = 0.5 * count * math.log(scale) + float(np.log(np.diag(factor[0])).sum())
        inner = cho_solve(factor, np.eye(count)) - np.outer(solved, solved) / scale
        slopes = np.array(
            [0.5 * float((inner * like * one).sum()) * rate for one, rate in zip(squares, rates, strict=True)]
        )
        slopes = np.append(slopes, 0.5 * noise * float(np.trace(inner)))
        prior = 0.5 * float(((theta[:-1] - 0.3) ** 2).sum()) / 1.5**2  # lengths of the order of the range
        slopes[:-1] += (theta[:-1] - 0.3) / 1.5**2
        return value + prior, slopes

    bounds = [(math.log(0.05), math.log(30.0))] * len(columns.settings) + [(math.log(1e-5), math.log(10.0))]
    tries = [
        minimize(
            loss, np.array([math.log(start)] * len(columns.settings) + [math.log(0.05)]), jac=True, bounds=bounds,
            method="L-BFGS-B", options={"maxiter": 60},
        )
        for start in INITIAL_LENGTHS
    ]  # fmt: skip
    theta = min(tries, key=lambda fit: float(fit.fun)).x
    lengths: FloatArray = np.exp(theta[:-1])[owner]
    noise = math.exp(float(theta[-1]))
    whole = rbf_kernel(known, known, lengths) + (noise + 1e-8) * np.eye(len(standardized))
    factor: FloatArray = np.asarray(np.linalg.cholesky(whole), dtype=np.float64)
    solved, inverse = cho_solve((factor, True), standardized), cho_solve((factor, True), np.eye(len(standardized)))
    misses = solved / np.diag(inverse)  # leave-one-out residuals
    scale = float(standardized @ solved) / len(standardized)
    explained = 1.0 - float((misses**2).mean())
    return Surrogate(columns, known, centre, spread, lengths, noise, solved, factor, scale, explained)


def clip_outliers(costs: FloatArray) -> FloatArray:
    """Costs clipped at three times the interquartile range."""
    low, high = np.quantile(costs, [0.25, 0.75])
    return np.minimum(costs, high + 3 * (high - low)) if high > low else costs

"""One number that makes probabilities mean what they say.  Pure.

Shape letters: N rows, C classes.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, softmax

from tunelab.effects.calibration import calibration_error, reliability

Figures = NDArray[np.float64]
WIDEST = 4.0  # a temperature lies between exp(-4) and exp(4)


def fit_temperature(logits: Figures, wanted: NDArray[np.int64], *, several: bool = False) -> float:
    """The temperature under which what came true is likeliest; above 1 where the model is over-confident.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks.

    Args:
        logits: (N, C).
        wanted: Class indices (N,), or with `several` 0 and 1, (N, C).
        several: Whether each row can have any number of labels.
    """

    def cost(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        if several:
            return -float(np.where(wanted > 0, log_expit(scaled), log_expit(-scaled)).mean())
        return -float(log_softmax(scaled, axis=1)[np.arange(len(wanted)), wanted].mean())

    found = minimize_scalar(cost, bounds=(-WIDEST, WIDEST), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def expected_error(
    logits: Figures,
    wanted: NDArray[np.int64],
    temperature: float = 1.0,
    *,
    several: bool = False,
    threshold: float = 0.5,
) -> float:
    """Expected calibration error of what is decided from logits, over 15 bins of equal width, in [0, 1].

    With `several` every yes or no counts by itself.
    """
    if several:
        chance = expit(logits / temperature).ravel()
        yes = chance >= threshold
        hits, confidences = yes == (wanted.ravel() > 0), np.where(yes, chance, 1 - chance)
    else:
        chances = softmax(logits / temperature, axis=1)
        hits, confidences = chances.argmax(axis=1) == wanted, chances.max(axis=1)
    return calibration_error(reliability(confidences.tolist(), hits.tolist()))

"""Combine outputs of several models: mean, vote, fitted weights, stacking, temperature; and select members.  Pure.

Shape letters: K members, N rows, C classes or targets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_expit, log_softmax, softmax
from torch import Tensor
from torch.nn import functional as F

from tunelab.analysis.calibration import expected_calibration_error, reliability_bins

FloatArray = NDArray[np.float64]
EM_MAX_ROUNDS = 2000  # of expectation maximisation; it stops long before that
EM_TOLERANCE = 1e-10  # change of the mean log-likelihood below which weights have settled


def weighted_mean(predictions: FloatArray, weights: Sequence[float] | FloatArray | None = None) -> FloatArray:
    """Weighted mean over members: (K, N, C) to (N, C)."""
    shares = (
        np.full(len(predictions), 1 / len(predictions)) if weights is None else np.asarray(weights, dtype=np.float64)
    )
    mean: FloatArray = np.tensordot(shares, predictions, 1)
    return mean


def majority_vote(predictions: FloatArray) -> FloatArray:
    """One vote a member, for its likeliest class: probabilities (K, N, C) to (N, C) that sum to 1.

    A tie goes to the class with the higher mean probability.  One vote in a hundred is shared out by that mean, so that
    no class gets a probability of 0, which would make the loss of a single wrong row infinite.
    """
    votes = np.eye(predictions.shape[2])[predictions.argmax(axis=2)].mean(axis=0)
    probabilities: FloatArray = 0.99 * votes + 0.01 * predictions.mean(axis=0)
    return probabilities


def multilabel_vote(predictions: FloatArray, threshold: float) -> FloatArray:
    """One vote a member on each label by itself: (K, N, C) to a number that reaches `threshold` with a majority.

    A tie is decided by the mean probability.
    """
    share = (predictions >= threshold).mean(axis=0)
    majority = threshold + (1 - threshold) * (2 * share - 1)
    mean = predictions.mean(axis=0)
    votes: FloatArray = np.where(share > 0.5, majority, np.where(share < 0.5, threshold * 2 * share, mean))
    return votes


def mixture_weights(likelihood: FloatArray) -> FloatArray:
    """Weights of a mixture under which what came true is likeliest, (K,), none below 0, together 1.

    The log-likelihood is concave in the weights, so expectation maximisation (Dempster, Laird, Rubin 1977) ends at the
    one best value from any start; it begins at equal weights.

    Args:
        likelihood: The probability that each member gave to what came true, (N, K).
    """
    weights = np.full(likelihood.shape[1], 1 / likelihood.shape[1])
    positive = np.maximum(likelihood, 1e-300)
    previous = -np.inf
    for _ in range(EM_MAX_ROUNDS):
        mixture = positive @ weights
        log_likelihood = float(np.log(mixture).mean())
        if log_likelihood - previous < EM_TOLERANCE:
            break
        previous = log_likelihood
        weights = weights * (positive / mixture[:, None]).mean(axis=0)
        weights = weights / weights.sum()
    return weights


def least_squares_weights(predictions: FloatArray, targets: FloatArray) -> FloatArray:
    """Weights of the mean that comes closest to the targets, (K,), none below 0, together 1.

    Args:
        predictions: Numbers of each member, (K, M).
        targets: True numbers, (M,).
    """
    members = len(predictions)
    if members == 1:
        return np.ones(1)
    residuals = predictions - targets  # weights sum to 1, so the error of the mean is the mean of the errors
    covariance = residuals @ residuals.T / residuals.shape[1]
    scale = float(np.trace(covariance)) / members or 1.0
    solution = minimize(
        lambda weights: float(weights @ covariance @ weights) / scale,
        np.full(members, 1 / members),
        jac=lambda weights: 2 * covariance @ weights / scale,
        bounds=[(0.0, 1.0)] * members,
        constraints=[{"type": "eq", "fun": lambda weights: weights.sum() - 1, "jac": np.ones_like}],
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    clipped = np.clip(solution.x, 0, None)
    weights: FloatArray = clipped / clipped.sum()
    return weights


def disagreement(predictions: FloatArray) -> float:
    """Mean share of rows on which two members decide differently, over all pairs (Skalak 1996); of numbers, nan."""
    if predictions.shape[2] < 2 or len(predictions) < 2:
        return float("nan")
    choices = predictions.argmax(axis=2)  # (K, N)
    pairs = [(one != other).mean() for at, one in enumerate(choices) for other in choices[at + 1 :]]
    return float(np.mean(pairs))


PENALTY_STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)  # pull towards the plain mean that cross-validation chooses from
STACKING_FOLDS = 5

LossFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class StackingModel:
    """The model on top: output c is the sum over members of `weights[k, c] * input[k, n, c]`, plus `bias[c]`.

    Attributes:
        weights: (K, C).
        bias: (C,).
        strength: Of the pull towards the plain mean of the members.
    """

    weights: FloatArray
    bias: FloatArray
    strength: float

    def __call__(self, inputs: FloatArray) -> FloatArray:
        """Inputs (K, N, C) to outputs (N, C)."""
        outputs: FloatArray = np.einsum("kc,knc->nc", self.weights, inputs) + self.bias
        return outputs


def class_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy: outputs (N, C) against class indices (N,)."""
    return F.cross_entropy(outputs, targets)


def multilabel_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy: outputs (N, C) against 0 and 1, (N, C)."""
    return F.binary_cross_entropy_with_logits(outputs, targets)


def squared_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error: outputs and targets (N, C)."""
    return F.mse_loss(outputs, targets)


def fit_stacking(inputs: FloatArray, targets: NDArray[np.generic], loss: LossFunction) -> StackingModel:
    """Fit on validation rows (Wolpert 1992), pulled towards the plain mean as strongly as cross-validation says.

    Without the pull a few hundred rows would be memorized.

    Args:
        inputs: Log-probabilities, logits or standardised numbers, (K, N, C).
        targets: As `loss` takes it.
        loss: Convex in the outputs.
    """
    all_inputs, all_targets = torch.from_numpy(inputs), torch.from_numpy(targets)
    order = torch.from_numpy(np.random.default_rng(0).permutation(all_inputs.shape[1]))
    folds = min(STACKING_FOLDS, len(order))
    costs = []
    for strength in PENALTY_STRENGTHS:
        cost = 0.0
        for fold in range(folds if folds > 1 else 0):
            held_out = order[fold::folds]
            rest = order[torch.arange(len(order)) % folds != fold]
            weights, bias = solve_stacking(all_inputs[:, rest], all_targets[rest], loss, strength)
            cost += float(loss(apply_stacking(weights, bias, all_inputs[:, held_out]), all_targets[held_out])) * len(
                held_out
            )
        costs.append(cost)
    strength = PENALTY_STRENGTHS[int(np.argmin(costs))]
    weights, bias = solve_stacking(all_inputs, all_targets, loss, strength)
    return StackingModel(weights.numpy(), bias.numpy(), strength)


def apply_stacking(weights: Tensor, bias: Tensor, inputs: Tensor) -> Tensor:
    """Outputs of a stacking model, (N, C), on tensors."""
    return torch.einsum("kc,knc->nc", weights, inputs) + bias


def solve_stacking(inputs: Tensor, targets: Tensor, loss: LossFunction, strength: float) -> tuple[Tensor, Tensor]:
    """Weights (K, C) and bias (C,) that minimise loss plus `strength` times their squared distance from the mean."""
    members, _, width = inputs.shape
    uniform = torch.full((members, width), 1 / members, dtype=inputs.dtype)
    weights, bias = uniform.clone().requires_grad_(), torch.zeros(width, dtype=inputs.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights, bias], max_iter=200, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        penalty = (weights - uniform).square().sum() + bias.square().sum()
        cost = loss(apply_stacking(weights, bias, inputs), targets) + strength * penalty / width
        cost.backward()
        return cost

    with torch.enable_grad():
        optimizer.step(closure)
    return weights.detach(), bias.detach()


MAX_LOG_TEMPERATURE = 4.0  # a temperature lies between exp(-4) and exp(4)


def fit_temperature(logits: FloatArray, targets: NDArray[np.int64], *, multilabel: bool = False) -> float:
    """The temperature under which what came true is likeliest; above 1 where the model is over-confident.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks.

    Args:
        logits: (N, C).
        targets: Class indices (N,), or with `multilabel` 0 and 1, (N, C).
        multilabel: Whether each row can have any number of labels.
    """

    def cost(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        if multilabel:
            return -float(np.where(targets > 0, log_expit(scaled), log_expit(-scaled)).mean())
        return -float(log_softmax(scaled, axis=1)[np.arange(len(targets)), targets].mean())

    solution = minimize_scalar(
        cost, bounds=(-MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(solution.x))


def temperature_calibration_error(
    logits: FloatArray,
    targets: NDArray[np.int64],
    temperature: float = 1.0,
    *,
    multilabel: bool = False,
    threshold: float = 0.5,
) -> float:
    """Expected calibration error of what is decided from logits, over 15 bins of equal width, in [0, 1].

    With `multilabel` every yes or no counts by itself.
    """
    if multilabel:
        chance = expit(logits / temperature).ravel()
        yes = chance >= threshold
        hits, confidences = yes == (targets.ravel() > 0), np.where(yes, chance, 1 - chance)
    else:
        chances = softmax(logits / temperature, axis=1)
        hits, confidences = chances.argmax(axis=1) == targets, chances.max(axis=1)
    return expected_calibration_error(reliability_bins(confidences.tolist(), hits.tolist()))


def forward_selection(
    costs: Sequence[float], joint_cost: Callable[[Sequence[int]], float], max_members: int
) -> list[int]:
    """Greedy ensemble selection, without repetition (Caruana et al. 2004).

    It begins with the best single model, adds whichever lowers the cost of all together most, and takes the best
    of the sets that it passed through, from two members on.

    Args:
        costs: Of each model by itself, on validation.
        joint_cost: Cost of the ensemble of several.
        max_members: Members at most.

    Returns:
        Indices of the members, in the order in which they were added.
    """
    chosen = [min(range(len(costs)), key=lambda index: costs[index])]
    best, lowest_cost = list(chosen), float("inf")
    while len(chosen) < min(max_members, len(costs)):
        candidates = [index for index in range(len(costs)) if index not in chosen]
        cost_with = {index: joint_cost([*chosen, index]) for index in candidates}
        chosen.append(min(candidates, key=lambda index: cost_with[index]))
        if cost_with[chosen[-1]] < lowest_cost:
            best, lowest_cost = list(chosen), cost_with[chosen[-1]]
    return best


def greedy_soup_selection(
    scores: Sequence[float], joint_score: Callable[[Sequence[int]], float]
) -> tuple[list[int], float]:
    """The weights to average: from the best on, each is kept if it does not lower the score of the average.

    Source: Wortsman et al. 2022, Model soups.

    Args:
        scores: Of each model by itself on validation; higher is better.
        joint_score: Score of the average of several.

    Returns:
        Indices of the members, best first, and their score together.
    """
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    chosen, best = order[:1], scores[order[0]]
    for index in order[1:]:
        score = joint_score([*chosen, index])
        if score >= best:
            chosen, best = [*chosen, index], score
    return chosen, best

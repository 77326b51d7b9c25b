"""What several models say of the same rows, as one.  Pure.

Shape letters: K members, N rows, C classes or targets.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Figures = NDArray[np.float64]
ROUNDS = 2000  # of expectation maximisation; it stops long before that
STILL = 1e-10  # change of the mean log-likelihood below which weights have settled


def mean(said: Figures, weights: Sequence[float] | Figures | None = None) -> Figures:
    """Weighted mean over members: (K, N, C) to (N, C)."""
    shares = np.full(len(said), 1 / len(said)) if weights is None else np.asarray(weights, dtype=np.float64)
    found: Figures = np.tensordot(shares, said, 1)
    return found


def vote(said: Figures) -> Figures:
    """One vote a member, for its likeliest class: probabilities (K, N, C) to (N, C) that sum to 1.

    A tie goes to the class with the higher mean probability.  One vote in a hundred is shared out by that mean, so that
    no class gets a probability of 0, which would make the loss of a single wrong row infinite.
    """
    votes = np.eye(said.shape[2])[said.argmax(axis=2)].mean(axis=0)
    found: Figures = 0.99 * votes + 0.01 * said.mean(axis=0)
    return found


def vote_each(said: Figures, threshold: float) -> Figures:
    """One vote a member on each label by itself: (K, N, C) to a number that reaches `threshold` with a majority.

    A tie is decided by the mean probability.
    """
    share = (said >= threshold).mean(axis=0)
    more = threshold + (1 - threshold) * (2 * share - 1)
    found: Figures = np.where(share > 0.5, more, np.where(share < 0.5, threshold * 2 * share, said.mean(axis=0)))
    return found


def mixture_weights(likelihood: Figures) -> Figures:
    """Weights of a mixture under which what came true is likeliest, (K,), none below 0, together 1.

    The log-likelihood is concave in the weights, so expectation maximisation (Dempster, Laird, Rubin 1977) ends at the
    one best value from any start; it begins at equal weights.

    Args:
        likelihood: The probability that each member gave to what came true, (N, K).
    """
    shares = np.full(likelihood.shape[1], 1 / likelihood.shape[1])
    kept = np.maximum(likelihood, 1e-300)
    before = -np.inf
    for _ in range(ROUNDS):
        mixed = kept @ shares
        now = float(np.log(mixed).mean())
        if now - before < STILL:
            break
        before = now
        shares = shares * (kept / mixed[:, None]).mean(axis=0)
        shares = shares / shares.sum()
    return shares


def least_squares_weights(said: Figures, wanted: Figures) -> Figures:
    """Weights of the mean that come closest to what is wanted, (K,), none below 0, together 1.

    Args:
        said: Numbers of each member, (K, M).
        wanted: What is right, (M,).
    """
    members = len(said)
    if members == 1:
        return np.ones(1)
    gaps = said - wanted  # weights sum to 1, so the error of the mean is the mean of the errors
    products = gaps @ gaps.T / gaps.shape[1]
    scale = float(np.trace(products)) / members or 1.0
    found = minimize(
        lambda shares: float(shares @ products @ shares) / scale,
        np.full(members, 1 / members),
        jac=lambda shares: 2 * products @ shares / scale,
        bounds=[(0.0, 1.0)] * members,
        constraints=[{"type": "eq", "fun": lambda shares: shares.sum() - 1, "jac": np.ones_like}],
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    shares = np.clip(found.x, 0, None)
    settled: Figures = shares / shares.sum()
    return settled


def disagreement(said: Figures) -> float:
    """Mean share of rows on which two members decide differently, over all pairs (Skalak 1996); of numbers, nan."""
    if said.shape[2] < 2 or len(said) < 2:
        return float("nan")
    choices = said.argmax(axis=2)  # (K, N)
    pairs = [(one != other).mean() for at, one in enumerate(choices) for other in choices[at + 1 :]]
    return float(np.mean(pairs))

"""Where a trial that was ended early would have come, judged by the trials that ran to their end.

A loss after one epoch says nothing next to a loss after ten.  What a sampler is shown instead is the end that the other
trials lead one to expect: the line through (their score at that step, their result).  Its slope stays between 0 and 1:
the lead of one trial over another shrinks while both go on learning, and does not turn round.
"""

from collections.abc import Sequence
from math import isfinite, sqrt
from statistics import NormalDist, mean, median

from optuna.trial import FrozenTrial


def foreseen(trial: FrozenTrial, whole: Sequence[FrozenTrial]) -> float | None:
    """The expected result of a pruned trial; None if it never had a finite score.

    Args:
        trial: It reported scores, and was ended.
        whole: Trials with a result.
    """
    scores: dict[int, float] = {step: score for step, score in trial.intermediate_values.items() if isfinite(score)}
    if not scores:
        return None
    step = max(scores)
    score = scores[step]
    peers: list[tuple[float, float]] = [
        (known, other.values[0])
        for other in whole
        if isfinite(known := other.intermediate_values.get(step, float("nan")))
    ]
    if not peers:
        return score
    middle, end = mean(x for x, _ in peers), mean(y for _, y in peers)
    spread = sum((x - middle) ** 2 for x, _ in peers)
    slope = sum((x - middle) * (y - end) for x, y in peers) / spread if len(peers) > 2 and spread > 0 else 1.0
    return end + min(1.0, max(0.0, slope)) * (score - middle)


def half_ranked(values: Sequence[float], *, minimize: bool) -> list[float]:
    """The values with their bad half replaced by where its ranks would lie in a normal distribution.

    A Gaussian process spends its length scales on the largest differences.  With losses of 0.9, 1.0 and 6.0 these are
    the ones that nobody cares about.  The good half stays as it is (Song et al. 2024, The Vizier Gaussian process
    bandit algorithm, section 4.2).
    """
    if not values:
        return []
    sign = 1.0 if minimize else -1.0
    costs: list[float] = [sign * value for value in values]
    centre = median(costs)
    good = [cost for cost in costs if cost <= centre]
    scale = sqrt(mean((cost - centre) ** 2 for cost in good))
    if scale == 0:
        return list(values)
    order = sorted(cost for cost in costs if cost > centre)
    normal = NormalDist()

    def warped(cost: float) -> float:
        if cost <= centre:
            return cost
        place = order.index(cost) + (order.count(cost) + 1) / 2  # from 1; equal values share their mean place
        return centre + scale * normal.inv_cdf(0.5 + 0.5 * place / (len(order) + 1))

    return [sign * warped(cost) for cost in costs]

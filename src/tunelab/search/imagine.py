"""What a learning sampler is shown: every trial, each setting of the space, and values that can be compared.

Optuna's samplers leave out trials without a value.  A Gaussian process then proposes a diverging learning rate again
and again, since it never hears of it, and two engines propose the same next trial.  Here both count as the worst value
seen so far: constant imputation for failures, the constant liar of Ginsbourger et al. (2010) for running trials.  A
pruned trial counts as what it would likely have become.
"""

from collections.abc import Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from tunelab.search.dimension import Dimension, Scalar
from tunelab.search.foreseen import foreseen, half_ranked
from tunelab.search.space import Params, Space


def imagined(
    trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection], sampler: BaseSampler, space: Space
) -> Params:
    """The configuration that a sampler proposes after these trials.

    Args:
        trials: Every trial of the study.
        directions: Of the objectives.
        sampler: Learns from them.
        space: What may be proposed.
    """
    blank = optuna.create_study(directions=list(directions), sampler=sampler)
    blank.add_trials(shown(trials, directions, sampler, space))
    trial = blank.ask()
    params = {key: found.suggest(trial, key) for key, found in space.always.items()}
    for condition in space.when:
        if condition.met(params):
            dimensions = condition.dimensions.items()
            params |= {key: found.suggest(trial, f"{condition.named}.{key}") for key, found in dimensions}
    return params


def shown(
    trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection], sampler: BaseSampler, space: Space
) -> list[FrozenTrial]:
    """The trials as a sampler should see them, all of them with values."""
    whole = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    if not whole:
        return []
    worst = [
        max(values) if way is StudyDirection.MINIMIZE else min(values)
        for way, values in zip(directions, zip(*(trial.values for trial in whole), strict=True), strict=True)
    ]
    found = [(trial, valued(trial, whole, worst)) for trial in trials if trial.params and space.holds(trial.params)]
    gaussian = isinstance(sampler, GPSampler)
    columns: list[Sequence[float]] = list(zip(*(values for _, values in found), strict=True))
    if gaussian:
        columns = [
            half_ranked(column, minimize=way is StudyDirection.MINIMIZE)
            for way, column in zip(directions, columns, strict=True)
        ]
    kinds, middles = laid_flat(space)
    rows = []
    for (trial, _), values in zip(found, zip(*columns, strict=True), strict=True):
        params = flat(trial.params, space)
        params = middles | params if gaussian else params  # it knows no settings that come and go
        rows.append(create_trial(params=params, distributions={key: kinds[key] for key in params}, values=values))
    return rows


def valued(trial: FrozenTrial, whole: Sequence[FrozenTrial], worst: Sequence[float]) -> Sequence[float]:
    """The values that a trial counts with."""
    if trial.state is TrialState.COMPLETE:
        return list[float](trial.values)
    if trial.state is TrialState.PRUNED and len(worst) == 1 and (end := foreseen(trial, whole)) is not None:
        return [end]
    return worst


def flat(params: Params, space: Space) -> Params:
    """A configuration with each setting that comes and goes under a name of its own."""
    named = dict(params)
    for condition in space.when:
        if condition.met(params):
            named |= {f"{condition.named}.{key}": named.pop(key) for key in condition.dimensions}
    return named


def laid_flat(space: Space) -> tuple[dict[str, BaseDistribution], Params]:
    """The distribution of every setting, and the middle of those that come and go, by the names of `flat`."""
    trial = optuna.create_study(sampler=RandomSampler(seed=0)).ask()
    sometimes: dict[str, Dimension] = {
        f"{condition.named}.{key}": found for condition in space.when for key, found in condition.dimensions.items()
    }
    for key, found in (dict(space.always) | sometimes).items():
        found.suggest(trial, key)
    return trial.distributions, {key: middle(trial.distributions[key]) for key in sometimes}


def middle(kind: BaseDistribution) -> Scalar:
    """The value half-way through a range, on its own scale; the first of several values."""
    if isinstance(kind, CategoricalDistribution):
        return kind.choices[0]
    assert isinstance(kind, FloatDistribution | IntDistribution)
    between = (kind.low * kind.high) ** 0.5 if kind.log else (kind.low + kind.high) / 2
    return round(between) if isinstance(kind, IntDistribution) else between

"""Samplers by name (grid, random, QMC, TPE, GP, CMA-ES, NSGA-II), and how failed, running and pruned trials are imputed
for those that learn.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from statistics import NormalDist, mean, median
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from tunelab.search.space import Choice, Dimension, Params, Scalar, Space

GP_MAX_DIMENSIONS = 6  # settings up to which a Gaussian process is a fair choice
GP_MAX_TRIALS = 100  # trials up to which it stays quick: its time grows with their cube
MODEL_BASED = ("tpe", "gp")  # they need nothing but the trials and their values
STARTUP_TRIALS = 10  # trials that `auto` spreads evenly before it looks where the good ones are


@dataclass(frozen=True)
class SamplerPair:
    """Who proposes.

    Attributes:
        direct: Asked by the study itself: it keeps what it must remember there.
        learner: Shown what happened and then asked; None where `direct` does all.
        explored: Trials before the learner takes over.
    """

    direct: BaseSampler
    learner: BaseSampler | None = None
    explored: int = 0


def make_samplers(name: str, space: Space, *, seed: int, trials: int | None, options: Mapping[str, Any]) -> SamplerPair:
    """The samplers behind a name of `search.sampler`.

    Args:
        name: As in `search.sampler`.
        space: What varies; `bayes` and `auto` choose by it.
        seed: Of this engine; two engines on one study must differ, or they propose the same.
        trials: The budget; None if it is not known.
        options: More arguments of the sampler; a wrong one raises TypeError.
    """
    chosen = resolve_sampler(name, space, trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        made = SAMPLER_FACTORIES[chosen](seed, trials, dict(options), bool(space.when))
        if chosen not in MODEL_BASED:
            return SamplerPair(made)
        if name != "auto" or chosen == "tpe":  # even draws know no settings that come and go, nor choices
            return SamplerPair(make_random(seed, trials, {}, False), made)
        few = STARTUP_TRIALS if trials is None else max(4, min(STARTUP_TRIALS, trials // 4))
        return SamplerPair(make_qmc(seed, trials, {}, False), made, few)


def resolve_sampler(name: str, space: Space, trials: int | None) -> str:
    """The sampler behind `bayes` and `auto`: a Gaussian process where it can be, else TPE.

    On few numbers and few trials a Gaussian process found better ones in every test of ours; it knows no settings
    that come and go, and choices without order only badly.
    """
    if name not in ("bayes", "auto"):
        return name
    known = space.all().values()
    numbers = not any(isinstance(found, Choice) for found in known)
    fair = (
        numbers and not space.when and len(known) <= GP_MAX_DIMENSIONS and (trials is None or trials <= GP_MAX_TRIALS)
    )
    return "gp" if fair else "tpe"


def make_random(seed: int, trials: int | None, options: dict[str, Any], conditional: bool) -> BaseSampler:
    """Independent draws."""
    return optuna.samplers.RandomSampler(seed=seed, **options)


def make_qmc(seed: int, trials: int | None, options: dict[str, Any], conditional: bool) -> BaseSampler:
    """Scrambled Sobol points: draws that keep their distance (Bergstra & Bengio 2012, section 3)."""
    return optuna.samplers.QMCSampler(seed=seed, **{"scramble": True, "warn_independent_sampling": False, **options})


def make_tpe(seed: int, trials: int | None, options: dict[str, Any], conditional: bool) -> BaseSampler:
    """Tree-structured Parzen estimators (Bergstra et al. 2011); grouped where settings come and go."""
    few = {} if trials is None else {"n_startup_trials": max(4, min(STARTUP_TRIALS, trials // 3))}
    group = {"group": True} if conditional else {}
    return optuna.samplers.TPESampler(
        seed=seed,
        **{"multivariate": True, "constant_liar": False, **few, **group, **options},
    )


def make_gp(seed: int, trials: int | None, options: dict[str, Any], conditional: bool) -> BaseSampler:
    """A Gaussian process with expected improvement (Snoek et al. 2012)."""
    few = {} if trials is None else {"n_startup_trials": max(4, min(STARTUP_TRIALS, trials // 3))}
    return optuna.samplers.GPSampler(seed=seed, **{"warn_independent_sampling": False, **few, **options})


def make_cmaes(seed: int, trials: int | None, options: dict[str, Any], conditional: bool) -> BaseSampler:
    """Covariance matrix adaptation, for numbers only (Hansen & Ostermeier 2001)."""
    return optuna.samplers.CmaEsSampler(seed=seed, **{"warn_independent_sampling": False, **options})


def make_evolution(seed: int, trials: int | None, options: dict[str, Any], conditional: bool) -> BaseSampler:
    """NSGA-II: crossing and mutation of the best, also for several objectives (Deb et al. 2002)."""
    size = 50 if trials is None else max(6, min(50, trials // 4))
    return optuna.samplers.NSGAIISampler(seed=seed, **{"population_size": size, **options})


SamplerFactory = Callable[[int, int | None, dict[str, Any], bool], BaseSampler]
SAMPLER_FACTORIES: Mapping[str, SamplerFactory] = {
    "random": make_random,
    "grid": make_random,  # the engine lists the points itself
    "qmc": make_qmc,
    "tpe": make_tpe,
    "gp": make_gp,
    "cmaes": make_cmaes,
    "evolution": make_evolution,
}


def suggest_with_imputation(
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
    blank.add_trials(impute_trials(trials, directions, sampler, space))
    trial = blank.ask()
    params = {key: found.suggest(trial, key) for key, found in space.always.items()}
    for condition in space.when:
        if condition.met(params):
            dimensions = condition.dimensions.items()
            params |= {key: found.suggest(trial, f"{condition.named}.{key}") for key, found in dimensions}
    return params


def impute_trials(
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
    found = [
        (trial, imputed_values(trial, whole, worst)) for trial in trials if trial.params and space.holds(trial.params)
    ]
    gaussian = isinstance(sampler, GPSampler)
    columns: list[Sequence[float]] = list(zip(*(values for _, values in found), strict=True))
    if gaussian:
        columns = [
            warp_worse_half(column, minimize=way is StudyDirection.MINIMIZE)
            for way, column in zip(directions, columns, strict=True)
        ]
    kinds, middles = flat_distributions(space)
    rows = []
    for (trial, _), values in zip(found, zip(*columns, strict=True), strict=True):
        params = flatten_conditional(trial.params, space)
        params = middles | params if gaussian else params  # it knows no settings that come and go
        rows.append(create_trial(params=params, distributions={key: kinds[key] for key in params}, values=values))
    return rows


def imputed_values(trial: FrozenTrial, whole: Sequence[FrozenTrial], worst: Sequence[float]) -> Sequence[float]:
    """The values that a trial counts with."""
    if trial.state is TrialState.COMPLETE:
        return list[float](trial.values)
    if trial.state is TrialState.PRUNED and len(worst) == 1 and (end := extrapolate_result(trial, whole)) is not None:
        return [end]
    return worst


def flatten_conditional(params: Params, space: Space) -> Params:
    """A configuration with each setting that comes and goes under a name of its own."""
    named = dict(params)
    for condition in space.when:
        if condition.met(params):
            named |= {f"{condition.named}.{key}": named.pop(key) for key in condition.dimensions}
    return named


def flat_distributions(space: Space) -> tuple[dict[str, BaseDistribution], Params]:
    """The distribution of every setting, and the middle of those that come and go, by the names of `flat`."""
    trial = optuna.create_study(sampler=RandomSampler(seed=0)).ask()
    sometimes: dict[str, Dimension] = {
        f"{condition.named}.{key}": found for condition in space.when for key, found in condition.dimensions.items()
    }
    for key, found in (dict(space.always) | sometimes).items():
        found.suggest(trial, key)
    return trial.distributions, {key: midpoint(trial.distributions[key]) for key in sometimes}


def midpoint(kind: BaseDistribution) -> Scalar:
    """The value half-way through a range, on its own scale; the first of several values."""
    if isinstance(kind, CategoricalDistribution):
        return kind.choices[0]
    assert isinstance(kind, FloatDistribution | IntDistribution)
    between = (kind.low * kind.high) ** 0.5 if kind.log else (kind.low + kind.high) / 2
    return round(between) if isinstance(kind, IntDistribution) else between


def extrapolate_result(trial: FrozenTrial, whole: Sequence[FrozenTrial]) -> float | None:
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


def warp_worse_half(values: Sequence[float], *, minimize: bool) -> list[float]:
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

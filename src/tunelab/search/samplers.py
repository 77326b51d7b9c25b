"""Samplers by name (grid, random, QMC, TPE, GP, CMA-ES, NSGA-II), and the imputation of failed, running and pruned
trials for model-based samplers.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import isclass, signature
from math import isfinite, sqrt
from statistics import NormalDist, mean, median
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from tunelab.config.instantiate import import_target, target_faults
from tunelab.config.schema import TargetConfig
from tunelab.errors import ConfigError, first_line
from tunelab.language.translation import translate
from tunelab.search.space import Choice, Dimension, Params, Scalar, Space

GP_MAX_DIMENSIONS = 6  # settings up to which a Gaussian process is chosen
GP_MAX_TRIALS = 100  # trials up to which it is fast: its time grows with their cube
MODEL_BASED = ("tpe", "gp")  # samplers that need the trials and their values only
STARTUP_TRIALS = 10  # quasi-random trials of `auto` before the model-based sampler


@dataclass(frozen=True)
class SamplerPair:
    """The samplers of a search.

    Attributes:
        initial: The sampler of the study itself, which may keep a state there.
        model_based: Fitted to imputed trials for each suggestion; None where `initial` suggests every trial.
        startup_trials: Number of trials that `initial` suggests before `model_based` does.
    """

    initial: BaseSampler
    model_based: BaseSampler | None = None
    startup_trials: int = 0


def make_samplers(name: str, space: Space, *, seed: int, trials: int | None, options: Mapping[str, Any]) -> SamplerPair:
    """The samplers of `search.sampler`.

    Args:
        name: As in `search.sampler`, or the dotted name of a class.
        space: The settings that vary; `bayes` and `auto` choose by it.
        seed: Seed of this engine; two engines on one study need two seeds, or they suggest the same.
        trials: The budget; None if it is not known.
        options: More arguments of the sampler; a wrong one raises TypeError.
    """
    if "." in name:
        return SamplerPair(make_own_sampler(name, seed, options))
    resolved = resolve_sampler(name, space, trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        sampler = SAMPLER_FACTORIES[resolved](seed, trials, dict(options), bool(space.conditions))
        if resolved not in MODEL_BASED:
            return SamplerPair(sampler)
        if name != "auto" or resolved == "tpe":  # QMC supports neither conditional settings nor choices
            return SamplerPair(make_random(seed, trials, {}, False), sampler)
        startup = STARTUP_TRIALS if trials is None else max(4, min(STARTUP_TRIALS, trials // 4))
        return SamplerPair(make_qmc(seed, trials, {}, False), sampler, startup)


def resolve_sampler(name: str, space: Space, trials: int | None) -> str:
    """The sampler that `bayes` and `auto` stand for: a Gaussian process where it fits the space, else TPE.

    With few numeric settings and few trials a Gaussian process did better in every benchmark of ours; it does not
    support conditional settings, and unordered choices only badly.
    """
    if name not in ("bayes", "auto"):
        return name
    dimensions = space.all_dimensions().values()
    numeric = not any(isinstance(dimension, Choice) for dimension in dimensions)
    few = len(dimensions) <= GP_MAX_DIMENSIONS and (trials is None or trials <= GP_MAX_TRIALS)
    return "gp" if numeric and not space.conditions and few else "tpe"


def own_sampler_faults(name: str, options: Mapping[str, Any]) -> list[str]:
    """Faults of a sampler that `search.sampler` names by its dotted name, and of its arguments."""
    if faults := target_faults(TargetConfig(target=name, arguments=options), "search.sampler"):
        return faults
    kind = import_target(name)
    if not isclass(kind) or not issubclass(kind, BaseSampler):
        return [translate("search.sampler={name} is no sampler; derive it from optuna.samplers.BaseSampler", name=name)]
    return []


def make_own_sampler(name: str, seed: int, options: Mapping[str, Any]) -> BaseSampler:
    """A sampler of a package outside, with the seed of this engine where its class takes one.

    Raises:
        ConfigError: If it refuses its arguments.
    """
    kind = import_target(name)
    seeds = {"seed": seed} if "seed" in signature(kind).parameters else {}
    try:
        sampler = kind(**{**seeds, **options})
    except (TypeError, ValueError) as fault:
        raise ConfigError(
            translate(
                "search.sampler={name} refuses search.sampler_options: {fault}", name=name, fault=first_line(fault)
            )
        ) from fault
    assert isinstance(sampler, BaseSampler)  # own_sampler_faults has seen to it
    return sampler


def make_random(seed: int, trials: int | None, options: dict[str, Any], conditional: bool) -> BaseSampler:
    """Independent draws."""
    return optuna.samplers.RandomSampler(seed=seed, **options)


def make_qmc(seed: int, trials: int | None, options: dict[str, Any], conditional: bool) -> BaseSampler:
    """Scrambled Sobol points, spread evenly over the space (Bergstra & Bengio 2012, section 3)."""
    return optuna.samplers.QMCSampler(seed=seed, **{"scramble": True, "warn_independent_sampling": False, **options})


def make_tpe(seed: int, trials: int | None, options: dict[str, Any], conditional: bool) -> BaseSampler:
    """Tree-structured Parzen estimators (Bergstra et al. 2011); grouped for conditional settings."""
    startup = {} if trials is None else {"n_startup_trials": max(4, min(STARTUP_TRIALS, trials // 3))}
    group = {"group": True} if conditional else {}
    return optuna.samplers.TPESampler(
        seed=seed,
        **{"multivariate": True, "constant_liar": False, **startup, **group, **options},
    )


def make_gp(seed: int, trials: int | None, options: dict[str, Any], conditional: bool) -> BaseSampler:
    """A Gaussian process with expected improvement (Snoek et al. 2012)."""
    startup = {} if trials is None else {"n_startup_trials": max(4, min(STARTUP_TRIALS, trials // 3))}
    return optuna.samplers.GPSampler(seed=seed, **{"warn_independent_sampling": False, **startup, **options})


def make_cmaes(seed: int, trials: int | None, options: dict[str, Any], conditional: bool) -> BaseSampler:
    """Covariance matrix adaptation, for numeric settings only (Hansen & Ostermeier 2001)."""
    return optuna.samplers.CmaEsSampler(seed=seed, **{"warn_independent_sampling": False, **options})


def make_evolution(seed: int, trials: int | None, options: dict[str, Any], conditional: bool) -> BaseSampler:
    """NSGA-II: crossover and mutation of the best, also for several objectives (Deb et al. 2002)."""
    size = 50 if trials is None else max(6, min(50, trials // 4))
    return optuna.samplers.NSGAIISampler(seed=seed, **{"population_size": size, **options})


SamplerFactory = Callable[[int, int | None, dict[str, Any], bool], BaseSampler]
SAMPLER_FACTORIES: Mapping[str, SamplerFactory] = {
    "random": make_random,
    "grid": make_random,  # the proposer lists the points itself
    "qmc": make_qmc,
    "tpe": make_tpe,
    "gp": make_gp,
    "cmaes": make_cmaes,
    "evolution": make_evolution,
}


def suggest_with_imputation(
    trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection], sampler: BaseSampler, space: Space
) -> Params:
    """The configuration that a model-based sampler suggests after imputed trials.

    Args:
        trials: Every trial of the study.
        directions: Directions of the objectives.
        sampler: Fitted to the trials.
        space: The settings that vary.
    """
    blank = optuna.create_study(directions=list(directions), sampler=sampler)
    blank.add_trials(impute_trials(trials, directions, sampler, space))
    trial = blank.ask()
    params = {key: dimension.suggest(trial, key) for key, dimension in space.unconditional.items()}
    for condition in space.conditions:
        if condition.holds_for(params):
            dimensions = condition.dimensions.items()
            params |= {key: dimension.suggest(trial, f"{condition.label}.{key}") for key, dimension in dimensions}
    return params


def impute_trials(
    trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection], sampler: BaseSampler, space: Space
) -> list[FrozenTrial]:
    """The trials with a value for each: its own, an extrapolated one (pruned) or the worst (failed, running).

    For a Gaussian process the worse half of the values is warped, and conditional settings that a trial lacks are set
    to the middle of their dimension.
    """
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    if not complete:
        return []
    worst = [
        max(values) if direction is StudyDirection.MINIMIZE else min(values)
        for direction, values in zip(directions, zip(*(t.values for t in complete), strict=True), strict=True)
    ]
    usable = [trial for trial in trials if trial.params and space.contains(trial.params)]
    gaussian = isinstance(sampler, GPSampler)
    columns: list[Sequence[float]] = list(zip(*(imputed_values(t, complete, worst) for t in usable), strict=True))
    if gaussian:
        columns = [
            warp_worse_half(column, minimize=direction is StudyDirection.MINIMIZE)
            for direction, column in zip(directions, columns, strict=True)
        ]
    distributions, midpoints = flat_distributions(space)
    rows = []
    for trial, values in zip(usable, zip(*columns, strict=True), strict=True):
        params = flatten_conditional(trial.params, space)
        params = midpoints | params if gaussian else params  # it needs a value for every setting
        kinds = {key: distributions[key] for key in params}
        rows.append(create_trial(params=params, distributions=kinds, values=values))
    return rows


def imputed_values(trial: FrozenTrial, complete: Sequence[FrozenTrial], worst: Sequence[float]) -> Sequence[float]:
    """The values of a trial; those of one that is not complete are imputed."""
    if trial.state is TrialState.COMPLETE:
        return list[float](trial.values)
    if (
        trial.state is TrialState.PRUNED
        and len(worst) == 1
        and (result := extrapolate_result(trial, complete)) is not None
    ):
        return [result]
    return worst


def flatten_conditional(params: Params, space: Space) -> Params:
    """A configuration with each conditional setting renamed to `condition.key`."""
    flat = dict(params)
    for condition in space.conditions:
        if condition.holds_for(params):
            flat |= {f"{condition.label}.{key}": flat.pop(key) for key in condition.dimensions}
    return flat


def flat_distributions(space: Space) -> tuple[dict[str, BaseDistribution], Params]:
    """The distribution of every setting, and the midpoint of conditional ones, by names of `flatten_conditional`."""
    trial = optuna.create_study(sampler=RandomSampler(seed=0)).ask()
    conditional: dict[str, Dimension] = {
        f"{condition.label}.{key}": dimension
        for condition in space.conditions
        for key, dimension in condition.dimensions.items()
    }
    for key, dimension in (dict(space.unconditional) | conditional).items():
        dimension.suggest(trial, key)
    return trial.distributions, {key: midpoint(trial.distributions[key]) for key in conditional}


def midpoint(kind: BaseDistribution) -> Scalar:
    """The midpoint of a range, on its own scale; the first value of a choice."""
    if isinstance(kind, CategoricalDistribution):
        return kind.choices[0]
    assert isinstance(kind, FloatDistribution | IntDistribution)
    middle = (kind.low * kind.high) ** 0.5 if kind.log else (kind.low + kind.high) / 2
    return round(middle) if isinstance(kind, IntDistribution) else middle


def extrapolate_result(trial: FrozenTrial, complete: Sequence[FrozenTrial]) -> float | None:
    """The expected result of a pruned trial; None if it reported no finite score.

    It is a regression of the results of complete trials on their scores at the step where this one ended.
    """
    scores: dict[int, float] = {step: score for step, score in trial.intermediate_values.items() if isfinite(score)}
    if not scores:
        return None
    step = max(scores)
    score = scores[step]
    peers: list[tuple[float, float]] = [
        (at_step, other.values[0])
        for other in complete
        if isfinite(at_step := other.intermediate_values.get(step, float("nan")))
    ]
    if not peers:
        return score
    mean_score, mean_result = mean(x for x, _ in peers), mean(y for _, y in peers)
    variance = sum((x - mean_score) ** 2 for x, _ in peers)
    covariance = sum((x - mean_score) * (y - mean_result) for x, y in peers)
    slope = covariance / variance if len(peers) > 2 and variance > 0 else 1.0
    return mean_result + min(1.0, max(0.0, slope)) * (score - mean_score)


def warp_worse_half(values: Sequence[float], *, minimize: bool) -> list[float]:
    """The values, those of the worse half replaced by the normal quantiles of their ranks.

    A Gaussian process fits the largest differences.  With losses of 0.9, 1.0 and 6.0 these are the irrelevant ones.
    The better half is unchanged (Song et al. 2024, The Vizier Gaussian process bandit algorithm, section 4.2).
    """
    if not values:
        return []
    sign = 1.0 if minimize else -1.0
    costs: list[float] = [sign * value for value in values]
    centre = median(costs)
    better = [cost for cost in costs if cost <= centre]
    scale = sqrt(mean((cost - centre) ** 2 for cost in better))
    if scale == 0:
        return list(values)
    worse = sorted(cost for cost in costs if cost > centre)
    normal = NormalDist()

    def warped(cost: float) -> float:
        if cost <= centre:
            return cost
        rank = worse.index(cost) + (worse.count(cost) + 1) / 2  # from 1; ties share their mean rank
        return centre + scale * normal.inv_cdf(0.5 + 0.5 * rank / (len(worse) + 1))

    return [sign * warped(cost) for cost in costs]

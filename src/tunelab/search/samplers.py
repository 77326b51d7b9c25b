"""Who proposes the next configuration, by name."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler

from tunelab.search.dimension import Choice
from tunelab.search.space import Space

SMALL = 6  # settings up to which a Gaussian process is a fair choice
FEW = 100  # trials up to which it stays quick: its time grows with their cube
LEARNERS = ("tpe", "gp")  # they need nothing but the trials and their values
EXPLORED = 10  # trials that `auto` spreads evenly before it looks where the good ones are


@dataclass(frozen=True)
class Samplers:
    """Who proposes.

    Attributes:
        direct: Asked by the study itself: it keeps what it must remember there.
        learner: Shown what happened and then asked; None where `direct` does all.
        explored: Trials before the learner takes over.
    """

    direct: BaseSampler
    learner: BaseSampler | None = None
    explored: int = 0


def make_samplers(name: str, space: Space, *, seed: int, trials: int | None, options: Mapping[str, Any]) -> Samplers:
    """The samplers behind a name of `search.sampler`.

    Args:
        name: As in `search.sampler`.
        space: What varies; `bayes` and `auto` choose by it.
        seed: Of this engine; two engines on one study must differ, or they propose the same.
        trials: The budget; None if it is not known.
        options: More arguments of the sampler; a wrong one raises TypeError.
    """
    chosen = resolve(name, space, trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        made = MAKERS[chosen](seed, trials, dict(options), bool(space.when))
        if chosen not in LEARNERS:
            return Samplers(made)
        if name != "auto" or chosen == "tpe":  # even draws know no settings that come and go, nor choices
            return Samplers(make_random(seed, trials, {}, False), made)
        few = EXPLORED if trials is None else max(4, min(EXPLORED, trials // 4))
        return Samplers(make_qmc(seed, trials, {}, False), made, few)


def resolve(name: str, space: Space, trials: int | None) -> str:
    """The sampler behind `bayes` and `auto`: a Gaussian process where it can be, else TPE.

    On few numbers and few trials a Gaussian process found better ones in every test of ours; it knows no settings
    that come and go, and choices without order only badly.
    """
    if name not in ("bayes", "auto"):
        return name
    known = space.all().values()
    numbers = not any(isinstance(found, Choice) for found in known)
    fair = numbers and not space.when and len(known) <= SMALL and (trials is None or trials <= FEW)
    return "gp" if fair else "tpe"


def make_random(seed: int, trials: int | None, options: dict[str, Any], conditional: bool) -> BaseSampler:
    """Independent draws."""
    return optuna.samplers.RandomSampler(seed=seed, **options)


def make_qmc(seed: int, trials: int | None, options: dict[str, Any], conditional: bool) -> BaseSampler:
    """Scrambled Sobol points: draws that keep their distance (Bergstra & Bengio 2012, section 3)."""
    return optuna.samplers.QMCSampler(seed=seed, **{"scramble": True, "warn_independent_sampling": False, **options})


def make_tpe(seed: int, trials: int | None, options: dict[str, Any], conditional: bool) -> BaseSampler:
    """Tree-structured Parzen estimators (Bergstra et al. 2011); grouped where settings come and go."""
    few = {} if trials is None else {"n_startup_trials": max(4, min(EXPLORED, trials // 3))}
    group = {"group": True} if conditional else {}
    return optuna.samplers.TPESampler(
        seed=seed,
        **{"multivariate": True, "constant_liar": False, **few, **group, **options},
    )


def make_gp(seed: int, trials: int | None, options: dict[str, Any], conditional: bool) -> BaseSampler:
    """A Gaussian process with expected improvement (Snoek et al. 2012)."""
    few = {} if trials is None else {"n_startup_trials": max(4, min(EXPLORED, trials // 3))}
    return optuna.samplers.GPSampler(seed=seed, **{"warn_independent_sampling": False, **few, **options})


def make_cmaes(seed: int, trials: int | None, options: dict[str, Any], conditional: bool) -> BaseSampler:
    """Covariance matrix adaptation, for numbers only (Hansen & Ostermeier 2001)."""
    return optuna.samplers.CmaEsSampler(seed=seed, **{"warn_independent_sampling": False, **options})


def make_evolution(seed: int, trials: int | None, options: dict[str, Any], conditional: bool) -> BaseSampler:
    """NSGA-II: crossing and mutation of the best, also for several objectives (Deb et al. 2002)."""
    size = 50 if trials is None else max(6, min(50, trials // 4))
    return optuna.samplers.NSGAIISampler(seed=seed, **{"population_size": size, **options})


Maker = Callable[[int, int | None, dict[str, Any], bool], BaseSampler]
MAKERS: Mapping[str, Maker] = {
    "random": make_random,
    "grid": make_random,  # the engine lists the points itself
    "qmc": make_qmc,
    "tpe": make_tpe,
    "gp": make_gp,
    "cmaes": make_cmaes,
    "evolution": make_evolution,
}

"""The next trial of a study: initial trials, then the grid or the sampler, never the same configuration twice."""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from tunelab.search.samplers import SamplerPair, suggest_with_imputation
from tunelab.search.space import Params, Space
from tunelab.search.trial_outcome import NEVER_STARTED

MAX_RANDOM_DRAWS = 200  # random draws after which a continuous space counts as exhausted
MAX_LISTED = 20_000  # configurations up to which the untried ones are listed
DUPLICATE_OF = "duplicate of"  # user attribute of a suggestion that was never run


def params_key(params: Mapping[str, Any]) -> str:
    """A configuration as comparable text; 1 and 1.0 are equal."""
    return json.dumps({k: float(v) if type(v) is int else v for k, v in sorted(params.items())})


@dataclass
class SamplerProposer:
    """Suggests trials: initial ones, then the grid or the samplers.

    Attributes:
        study: The trials so far.
        space: The settings that vary.
        samplers: Suggest configurations.
        initial_trials: Configurations to try before any other, each with its origin.
        grid: Whether to list the space point by point.
        seed: Seed of random draws, used where the sampler repeats itself.
    """

    study: optuna.Study
    space: Space
    samplers: SamplerPair
    initial_trials: Sequence[tuple[Params, str]] = ()
    grid: bool = False
    seed: int = 0

    def next(self, trials: Sequence[FrozenTrial]) -> tuple[Trial, Params] | None:
        """The next trial and its configuration; None once everything was tried.  Call it under the study lock.

        Args:
            trials: Every trial of the study.
        """
        if any(trial.state is TrialState.WAITING for trial in trials):
            trial = self.study.ask()
            return trial, self.space.suggest(trial)
        seen = {params_key(trial.params): trial.number for trial in trials if trial.params and was_tried(trial)}
        for params, origin in self.initial_trials:
            if params_key(params) not in seen:
                return self._enqueue(params, origin)
        if self.grid:
            return next(
                (self._enqueue(params, "grid") for params in self.space.grid() if params_key(params) not in seen), None
            )
        if self.samplers.model_based is not None and len(seen) >= self.samplers.startup_trials:
            params = suggest_with_imputation(
                counted_trials(trials), self.study.directions, self.samplers.model_based, self.space
            )
            if params_key(params) not in seen:
                return self._enqueue(params, "sampler")
            other = self._random_untried(seen)
            return None if other is None else self._enqueue(other, "at random, since the sampler repeated itself")
        trial = self.study.ask()
        params = self.space.suggest(trial)
        twin = seen.get(params_key(params))
        if twin is None and self.space.contains(params):
            return trial, params
        trial.set_user_attr(DUPLICATE_OF, "nothing: a value of another condition" if twin is None else twin)
        self.study.tell(trial, state=TrialState.FAIL)
        other = self._random_untried(seen)
        why = "proposed a value of another condition" if twin is None else f"repeated trial {twin}"
        return None if other is None else self._enqueue(other, f"at random, since the sampler {why}")

    def has_pending(self, trials: Sequence[FrozenTrial]) -> bool:
        """False: suggestions do not depend on running trials."""
        return False

    def _enqueue(self, params: Params, origin: str) -> tuple[Trial, Params]:
        self.study.enqueue_trial(params, user_attrs={"origin": origin})
        trial = self.study.ask()
        return trial, self.space.suggest(trial)

    def _random_untried(self, seen: Iterable[str]) -> Params | None:
        known = set(seen)
        rng = random.Random(f"{self.seed} {len(known)}")
        if self.space.size() is not None:
            left = [params for params in islice(self.space.grid(), MAX_LISTED) if params_key(params) not in known]
            return rng.choice(left) if left else None
        blank = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=rng.randrange(2**31)))
        for _ in range(MAX_RANDOM_DRAWS):
            params = self.space.suggest(blank.ask())
            if self.space.contains(params) and params_key(params) not in known:
                return params
        return None


def requeue_failed(study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[int]:
    """Enqueue each failed trial again, once; returns their numbers.  Call it under the study lock."""
    retried = {trial.user_attrs.get("retry of") for trial in trials}
    failed = [t for t in trials if t.state is TrialState.FAIL and t.params and was_tried(t) and t.number not in retried]
    for trial in failed:
        study.enqueue_trial(trial.params, user_attrs={"retry of": trial.number, "origin": f"retry of {trial.number}"})
    return [trial.number for trial in failed]


def counted_trials(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that count towards `search.trials`: without repeated suggestions and retried failures."""
    retried = {trial.user_attrs.get("retry of") for trial in trials}
    return [t for t in trials if was_tried(t) and t.number not in retried and t.state is not TrialState.WAITING]


def was_tried(trial: FrozenTrial) -> bool:
    """Whether a trial was started; others are repeated suggestions, or their engine died before."""
    return DUPLICATE_OF not in trial.user_attrs and trial.user_attrs.get("kind") != NEVER_STARTED

"""The next trial of a study: initial trials first, then the grid or the sampler, never the same configuration twice."""

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

MAX_RANDOM_DRAWS = 200  # draws at random before a space without end counts as exhausted
MAX_LISTED = 20_000  # configurations up to which the untried ones are listed
DUPLICATE_OF = "duplicate of"  # trials of this attribute were never run


def params_key(params: Mapping[str, Any]) -> str:
    """A configuration as one comparable text; 1 and 1.0 are the same number."""
    return json.dumps({k: float(v) if type(v) is int else v for k, v in sorted(params.items())})


@dataclass
class SamplerProposer:
    """Proposes, and never the same twice.

    Attributes:
        study: What was tried.
        space: What may be tried.
        samplers: Who proposes.
        owed: Configurations to try before any other, with where they come from.
        grid: Whether to go through the space point by point.
        seed: Of draws at random, where the sampler repeats itself.
    """

    study: optuna.Study
    space: Space
    samplers: SamplerPair
    owed: Sequence[tuple[Params, str]] = ()
    grid: bool = False
    seed: int = 0

    def next(self, trials: Sequence[FrozenTrial]) -> tuple[Trial, Params] | None:
        """The next trial and its configuration; None once everything was tried.  Call it under the study's claim.

        Args:
            trials: Every trial of the study.
        """
        if any(trial.state is TrialState.WAITING for trial in trials):
            trial = self.study.ask()
            return trial, self.space.suggest(trial)
        seen = {params_key(trial.params): trial.number for trial in trials if trial.params and was_tried(trial)}
        for params, origin in self.owed:
            if params_key(params) not in seen:
                return self._asked(params, origin)
        if self.grid:
            return next(
                (self._asked(params, "grid") for params in self.space.grid() if params_key(params) not in seen), None
            )
        if self.samplers.learner is not None and len(seen) >= self.samplers.explored:
            params = suggest_with_imputation(
                counted_trials(trials), self.study.directions, self.samplers.learner, self.space
            )
            if params_key(params) not in seen:
                return self._asked(params, "sampler")
            other = self._untried(seen)
            return None if other is None else self._asked(other, "at random, since the sampler repeated itself")
        trial = self.study.ask()
        params = self.space.suggest(trial)
        twin = seen.get(params_key(params))
        if twin is None and self.space.holds(params):
            return trial, params
        trial.set_user_attr(DUPLICATE_OF, "nothing: a value of another condition" if twin is None else twin)
        self.study.tell(trial, state=TrialState.FAIL)
        other = self._untried(seen)
        why = "proposed a value of another condition" if twin is None else f"repeated trial {twin}"
        return None if other is None else self._asked(other, f"at random, since the sampler {why}")

    def waits(self, trials: Sequence[FrozenTrial]) -> bool:
        """Never: what is proposed does not hang on trials that run."""
        return False

    def _asked(self, params: Params, origin: str) -> tuple[Trial, Params]:
        self.study.enqueue_trial(params, user_attrs={"origin": origin})
        trial = self.study.ask()
        return trial, self.space.suggest(trial)

    def _untried(self, seen: Iterable[str]) -> Params | None:
        known, dice = set(seen), random.Random(f"{self.seed} {len(set(seen))}")
        if self.space.size() is not None:
            left = [params for params in islice(self.space.grid(), MAX_LISTED) if params_key(params) not in known]
            return dice.choice(left) if left else None
        blank = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=dice.randrange(2**31)))
        for _ in range(MAX_RANDOM_DRAWS):
            params = self.space.suggest(blank.ask())
            if self.space.holds(params) and params_key(params) not in known:
                return params
        return None


def requeue_failed(study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[int]:
    """Queue failed trials anew, each once; the numbers of those that were.  Call it under the study's claim."""
    before = {trial.user_attrs.get("retry of") for trial in trials}
    failed = [t for t in trials if t.state is TrialState.FAIL and t.params and was_tried(t)]
    found = [trial for trial in failed if trial.number not in before]
    for trial in found:
        study.enqueue_trial(trial.params, user_attrs={"retry of": trial.number, "origin": f"retry of {trial.number}"})
    return [trial.number for trial in found]


def counted_trials(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that count towards `search.trials`: neither repeated proposals nor those that were tried anew."""
    again = {trial.user_attrs.get("retry of") for trial in trials}
    return [t for t in trials if was_tried(t) and t.number not in again and t.state is not TrialState.WAITING]


def was_tried(trial: FrozenTrial) -> bool:
    """Whether a trial is more than a number that was given away: some are repeated proposals, or were never started."""
    return DUPLICATE_OF not in trial.user_attrs and trial.user_attrs.get("kind") != NEVER_STARTED

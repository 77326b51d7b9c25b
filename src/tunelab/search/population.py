"""Population based training (Jaderberg et al. 2017): rates that change while a model trains, found in one go.

Every member of a population trains for a stage.  Then the worst ones take over the checkpoint of one of the best, and
its settings, a little changed; all train on for the next stage.  Each stage of a member is a trial of its own, so what
holds for trials holds for stages: they resume, fail alone and may run on any engine.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from tunelab.search.dimension import Choice, Dimension, Scalar
from tunelab.search.folder import StudyFolder
from tunelab.search.proposals import tried
from tunelab.search.space import Params, Space
from tunelab.search.stages import Stages

GENERATION, MEMBER, PARENT = "generation", "member", "parent trial"  # what a study notes of each stage


@dataclass(frozen=True)
class Population:
    """Proposes the stages of a population.

    Attributes:
        study: What was tried.
        folder: Its files: a stage begins with the checkpoint of another.
        space: What may be tried.
        stages: How many, and how settings change between them.
        owed: Configurations that the first members begin with, with where they come from.
        seed: Of every draw.  All engines share it: which stage comes next is decided under the study's claim.
    """

    study: optuna.Study
    folder: StudyFolder
    space: Space
    stages: Stages
    owed: Sequence[tuple[Params, str]] = ()
    seed: int = 0

    def next(self, trials: Sequence[FrozenTrial]) -> tuple[Trial, Params] | None:
        """The next stage and its settings; None where a generation must end first, or everything was tried."""
        if any(trial.state is TrialState.WAITING for trial in trials):
            trial = self.study.ask()
            return trial, self.space.suggest(trial)
        rows = self._generations(trials)
        for generation, row in enumerate(rows):
            missing = [member for member in range(self.stages.population) if member not in row]
            if not missing:
                continue
            if generation == 0:
                return self._begun(missing[0])
            if any(not trial.state.is_finished() for trial in rows[generation - 1].values()):
                return None
            return self._gone_on(generation, missing[0], rows[generation - 1])
        return None

    def waits(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether a generation is at work that another follows."""
        rows = self._generations(trials)
        return any(not t.state.is_finished() for row in rows[:-1] for t in row.values())

    def _generations(self, trials: Sequence[FrozenTrial]) -> list[dict[int, FrozenTrial]]:
        rows: list[dict[int, FrozenTrial]] = [{} for _ in range(self.stages.generations)]
        for trial in trials:
            if GENERATION in trial.user_attrs and tried(trial):
                rows[trial.user_attrs[GENERATION]][trial.user_attrs[MEMBER]] = trial
        return rows

    def _begun(self, member: int) -> tuple[Trial, Params]:
        if member < len(self.owed):
            return self._asked(0, member, *self.owed[member])
        return self._asked(0, member, self._drawn(self._dice(0, member)), f"member {member} begins")

    def _gone_on(self, generation: int, member: int, row: Mapping[int, FrozenTrial]) -> tuple[Trial, Params] | None:
        order = ranking(row, self.study.direction)
        if not order:
            return None  # nobody is left to learn from
        few = min(self.stages.exchanged, len(order) // 2)
        stays = member in order[: len(order) - few]
        dice = self._dice(generation, member)
        parent = row[member] if stays else row[dice.choice(order[: max(1, few)])]
        params = dict(parent.params) if stays else self._changed(parent.params, dice)
        origin = f"member {member} {'goes on' if stays else 'takes over'} from trial {parent.number}"
        return self._asked(generation, member, params, origin, parent.number)

    def _asked(
        self, generation: int, member: int, params: Mapping[str, Any], origin: str, parent: int | None = None
    ) -> tuple[Trial, Params]:
        last = generation == self.stages.generations - 1
        stage = [] if last else [f"trial.until={(generation + 1) / self.stages.generations:.6g}"]
        facts: dict[str, Any] = {GENERATION: generation, MEMBER: member, "origin": origin}
        if parent is not None:
            stage.append(f"trial.parent={self.folder.trial(parent)}")
            facts[PARENT] = parent
        self.study.enqueue_trial(dict(params), user_attrs={**facts, "stage": stage})
        trial = self.study.ask()
        return trial, self.space.suggest(trial)

    def _changed(self, params: Mapping[str, Scalar], dice: random.Random) -> Params:
        fresh = self._drawn(dice)
        return {
            key: fresh[key]
            if dice.random() < self.stages.resampled
            else nudged(self.space.always[key], value, self.stages.factor, dice)
            for key, value in params.items()
        }

    def _drawn(self, dice: random.Random) -> Params:
        sampler = optuna.samplers.RandomSampler(seed=dice.randrange(2**31))
        return self.space.suggest(optuna.create_study(sampler=sampler).ask())

    def _dice(self, generation: int, member: int) -> random.Random:
        return random.Random(f"{self.seed} {generation} {member}")


def ranking(row: Mapping[int, FrozenTrial], direction: StudyDirection) -> list[int]:
    """The members of a generation, best first, by their newest score; those that failed are left out."""
    sign = -1.0 if direction is StudyDirection.MAXIMIZE else 1.0
    costs = {}
    for member, trial in row.items():
        if trial.state is TrialState.COMPLETE and trial.value is not None:
            curve = trial.intermediate_values
            newest = curve[max(curve)] if curve else trial.value
            costs[member] = sign * newest if math.isfinite(newest) else math.inf
    return sorted(costs, key=lambda member: (costs[member], member))


def nudged(known: Dimension, value: Scalar, factor: float, dice: random.Random) -> Scalar:
    """A setting a little off: a number by a factor up or down, a choice one place on, within what may be tried."""
    up = dice.random() < 0.5
    if isinstance(known, Choice):
        place = known.place(value) + (1 if up else -1)
        return known.values[min(max(place, 0), len(known.values) - 1)]
    assert isinstance(value, int | float)
    if known.low > 0:
        moved = value * factor if up else value / factor
    else:  # a factor would never leave 0
        moved = value + (1 if up else -1) * (factor - 1) * (known.high - known.low) / 2
    if known.integer:
        moved = round(moved) if round(moved) != value else value + (1 if up else -1)
    return min(max(moved, known.low), known.high)


def schedule_of(trials: Sequence[FrozenTrial], number: int) -> list[dict[str, Any]]:
    """The settings that the weights of a trial were trained with, stage by stage; empty without population training."""
    by_number = {trial.number: trial for trial in trials}
    found: list[dict[str, Any]] = []
    at: int | None = number if GENERATION in by_number[number].user_attrs else None
    while at is not None:
        trial = by_number[at]
        found.insert(0, {"stage": trial.user_attrs[GENERATION], "trial": at, "params": dict(trial.params)})
        at = trial.user_attrs.get(PARENT)
    return found

"""Population based training (Jaderberg et al. 2017): settings that change while a model trains, found in one go.

Every member of a population trains for a stage.  Then the worst ones take over the checkpoint of one of the best, and
its settings, perturbed; all train on for the next stage.  Each stage of a member is a trial of its own, so what holds
for trials holds for stages: they resume, fail alone and may run on any engine.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import optuna
from omegaconf import DictConfig
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from tunelab.errors import ConfigError
from tunelab.search.search_config import SearchConfig, SearchRequest
from tunelab.search.space import Choice, Dimension, Params, Scalar, Space
from tunelab.search.study_folder import StudyFolder
from tunelab.search.suggest import was_tried

CHANGEABLE_KEYS = (
    "lr",
    "optimizer.",
    "regularization.",
    "scheduler.",
    "trainer.gradient_clip_val",
    "data.label_smoothing",
)
NO_EARLY_STOPPING = "callbacks.early_stopping=false"  # a member that stopped would take the population's place


@dataclass(frozen=True)
class PbtConfig:
    """How a population trains: `search.sampler_options` of `search=pbt`.

    Attributes:
        population: Members.
        generations: Stages of each.
        replaced: Share of the members that take over from as many of the best after each stage.
        factor: By how much a setting that was taken over is changed, up or down.
        resampled: Chance that it is drawn anew instead.
    """

    population: int
    generations: int
    replaced: float = 0.25
    factor: float = 1.2
    resampled: float = 0.1

    @property
    def exchanged(self) -> int:
        """Members that take over after a stage."""
        return max(1, math.ceil(self.replaced * self.population))


def parse_pbt_config(plan: SearchConfig) -> PbtConfig:
    """The stages that a plan describes.

    Raises:
        ConfigError: Naming everything that cannot be.
    """
    options = dict(plan.sampler_options)
    known = [found.name for found in fields(PbtConfig) if found.name != "generations"]
    faults = [
        f"search.sampler_options.{name} is unknown; search=pbt has {', '.join(known)}"
        for name in options
        if name not in known
    ]
    size = int(options.pop("population", 4))
    numbers = {name: float(value) for name, value in options.items() if name in known}
    if size < 2:
        faults.append(
            f"search.sampler_options.population={size} must be at least 2; one alone has nobody to learn from"
        )
    if plan.trials is None or size < 1 or plan.trials % size or plan.trials < 2 * size:
        faults.append(
            f"search.trials={plan.trials} must be a multiple of the population ({size}), at least twice as large: each "
            "stage of each member is a trial"
        )
    for name, low, high in (("replaced", 0.0, 0.5), ("resampled", 0.0, 1.0), ("factor", 1.0, math.inf)):
        if name in numbers and not low <= numbers[name] <= high:
            faults.append(f"search.sampler_options.{name}={numbers[name]:g} must be between {low:g} and {high:g}")
    if plan.retry is not None:
        faults.append("search.retry: the next stage replaces a member that failed; leave it out with search=pbt")
    if len(plan.objectives) > 1:
        faults.append("search=pbt ranks members by one score; name one in search.objectives")
    if faults:
        raise ConfigError.listing(faults)
    assert plan.trials is not None
    return PbtConfig(size, plan.trials // size, **numbers)


def check_pbt(plan: SearchConfig, request: SearchRequest, config: DictConfig) -> None:
    """Refuse what cannot change while a model trains, before anything starts; nothing to do for other samplers.

    Raises:
        ConfigError: Naming every fault.
    """
    if plan.sampler != "pbt":
        return
    stages, faults = parse_pbt_config(plan), list[str]()
    if fixed := [key for key in request.space.all() if not is_changeable(key)]:
        faults.append(
            f"search=pbt changes settings while a model trains, and {', '.join(fixed)} cannot change then; "
            f"it can vary {', '.join(name.removesuffix('.') for name in CHANGEABLE_KEYS)}. Search the rest before"
        )
    if request.space.when:
        faults.append("search=pbt knows no conditions; take search.space.when out")
    checks = validations_per_run(config)
    if checks is not None and stages.generations > checks:
        faults.append(
            f"search=pbt has {stages.generations} stages (trials / population), and a run {checks:g} validations to "
            "end one at; raise max_epochs, lower trainer.val_check_interval or raise the population"
        )
    if faults:
        raise ConfigError.listing(faults)


def is_changeable(key: str) -> bool:
    """Whether a setting may change between two stages."""
    return any(key.startswith(name) if name.endswith(".") else key == name for name in CHANGEABLE_KEYS)


def validations_per_run(config: Mapping[str, Any] | DictConfig) -> float | None:
    """Validations of one run; None where settings alone do not tell."""
    epochs, every = config["max_epochs"], config["trainer"].get("val_check_interval")
    if not isinstance(epochs, int) or epochs < 1 or not isinstance(every, float) or every <= 0:
        return None
    return epochs // every if every > 1 else epochs * math.floor(1 / every + 1e-9)


GENERATION, MEMBER, PARENT = "generation", "member", "parent trial"  # what a study notes of each stage


@dataclass(frozen=True)
class PopulationProposer:
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
    stages: PbtConfig
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
            if GENERATION in trial.user_attrs and was_tried(trial):
                rows[trial.user_attrs[GENERATION]][trial.user_attrs[MEMBER]] = trial
        return rows

    def _begun(self, member: int) -> tuple[Trial, Params]:
        if member < len(self.owed):
            return self._asked(0, member, *self.owed[member])
        return self._asked(0, member, self._drawn(self._dice(0, member)), f"member {member} begins")

    def _gone_on(self, generation: int, member: int, row: Mapping[int, FrozenTrial]) -> tuple[Trial, Params] | None:
        order = rank_members(row, self.study.direction)
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
            else perturb(self.space.always[key], value, self.stages.factor, dice)
            for key, value in params.items()
        }

    def _drawn(self, dice: random.Random) -> Params:
        sampler = optuna.samplers.RandomSampler(seed=dice.randrange(2**31))
        return self.space.suggest(optuna.create_study(sampler=sampler).ask())

    def _dice(self, generation: int, member: int) -> random.Random:
        return random.Random(f"{self.seed} {generation} {member}")


def rank_members(row: Mapping[int, FrozenTrial], direction: StudyDirection) -> list[int]:
    """The members of a generation, best first, by their newest score; those that failed are left out."""
    sign = -1.0 if direction is StudyDirection.MAXIMIZE else 1.0
    costs = {}
    for member, trial in row.items():
        if trial.state is TrialState.COMPLETE and trial.value is not None:
            curve = trial.intermediate_values
            newest = curve[max(curve)] if curve else trial.value
            costs[member] = sign * newest if math.isfinite(newest) else math.inf
    return sorted(costs, key=lambda member: (costs[member], member))


def perturb(known: Dimension, value: Scalar, factor: float, dice: random.Random) -> Scalar:
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


def settings_schedule(trials: Sequence[FrozenTrial], number: int) -> list[dict[str, Any]]:
    """The settings that the weights of a trial were trained with, stage by stage; empty without population training."""
    by_number = {trial.number: trial for trial in trials}
    found: list[dict[str, Any]] = []
    at: int | None = number if GENERATION in by_number[number].user_attrs else None
    while at is not None:
        trial = by_number[at]
        found.insert(0, {"stage": trial.user_attrs[GENERATION], "trial": at, "params": dict(trial.params)})
        at = trial.user_attrs.get(PARENT)
    return found

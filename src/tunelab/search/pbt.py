"""Population based training (Jaderberg et al. 2017): one search finds a schedule of settings.

Every member of a population trains for one stage.  Then the worst members copy the checkpoint of one of the best and
its settings, perturbed; all train on for the next stage.  Each stage of a member is a trial of its own, so stages
resume, fail and run on any engine as trials do.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import optuna
from omegaconf import DictConfig
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from tunelab.config.blocks import Block, Range
from tunelab.config.quoting import path_word
from tunelab.config.schema import SearchConfig
from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.runs.study_folder import StudyFolder
from tunelab.search.search_config import SearchRequest
from tunelab.search.space import Choice, Dimension, Params, Scalar, Space
from tunelab.search.suggest import was_tried

CHANGEABLE_KEYS = (
    "lr",
    "optimizer.",
    "regularization.",
    "scheduler.",
    "trainer.gradient_clip_val",
    "data.label_smoothing",
)
NO_EARLY_STOPPING = "callbacks.early_stopping=false"  # a member that stops early has no next stage


@dataclass(frozen=True, kw_only=True)
class PbtOptions(Block):
    """`search.sampler_options` of `search=pbt`."""

    population: Annotated[int, Range(2, 10**6)] = 4  # a single member has none to copy
    replaced_fraction: Annotated[float, Range(0, 0.5)] = 0.25
    perturbation_factor: Annotated[float, Range(1, 10**6)] = 1.2
    resample_probability: Annotated[float, Range(0, 1)] = 0.1


@dataclass(frozen=True)
class PbtConfig:
    """Settings of population-based training.

    Attributes:
        population: Number of members.
        generations: Number of stages.
        replaced_fraction: Share of the members that are replaced by copies of the best after each stage.
        perturbation_factor: Factor by which a copied setting is perturbed, up or down.
        resample_probability: Probability that it is drawn at random instead.
    """

    population: int
    generations: int
    replaced_fraction: float = 0.25
    perturbation_factor: float = 1.2
    resample_probability: float = 0.1

    @property
    def replaced_members(self) -> int:
        """Number of members that are replaced after a stage."""
        return max(1, math.ceil(self.replaced_fraction * self.population))


def parse_pbt_config(search: SearchConfig) -> PbtConfig:
    """The options of a search with `sampler=pbt`.

    Raises:
        ConfigError: Naming every fault.
    """
    faults = list[str]()
    options = PbtOptions.parse(search.sampler_options, "search.sampler_options", faults)
    size = options.population
    if search.trials is None or size < 1 or search.trials % size or search.trials < 2 * size:
        faults.append(
            translate(
                "search.trials={trials} must be a multiple of the population ({size}), at least "
                "twice as large: each stage of each member is a trial",
                trials=search.trials,
                size=size,
            )
        )
    if search.retry is not None:
        faults.append(
            translate("search.retry: the next stage replaces a member that failed; leave it out with search=pbt")
        )
    if len(search.objectives) > 1:
        faults.append(translate("search=pbt ranks members by one score; name one in search.objectives"))
    if faults:
        raise ConfigError.listing(faults)
    assert search.trials is not None
    shares = options.replaced_fraction, options.perturbation_factor, options.resample_probability
    return PbtConfig(size, search.trials // size, *shares)


def check_pbt(search: SearchConfig, request: SearchRequest, config: DictConfig) -> None:
    """Check that every varying setting can change while a model trains; other samplers pass.

    Raises:
        ConfigError: Naming every fault.
    """
    if search.sampler != "pbt":
        return
    pbt, faults = parse_pbt_config(search), list[str]()
    if unchangeable := [key for key in request.space.all_dimensions() if not is_changeable(key)]:
        faults.append(
            translate(
                "search=pbt changes settings while a model trains, and {names} cannot change then; "
                "it can vary {changeable}. Search the rest before",
                names=", ".join(unchangeable),
                changeable=", ".join(name.removesuffix(".") for name in CHANGEABLE_KEYS),
            )
        )
    if request.space.conditions:
        faults.append(translate("search=pbt does not support conditional settings; remove search.space.when"))
    validations = validations_per_run(config)
    if validations is not None and pbt.generations > validations:
        faults.append(
            translate(
                "search=pbt has {generations} [stage|stages] (trials / population), and a run has "
                "{validations:g} [validation|validations] to end one at; raise max_epochs, lower "
                "trainer.val_check_interval or raise the population",
                generations=pbt.generations,
                validations=validations,
            )
        )
    if faults:
        raise ConfigError.listing(faults)


def is_changeable(key: str) -> bool:
    """Whether a setting may change between two stages."""
    return any(key.startswith(name) if name.endswith(".") else key == name for name in CHANGEABLE_KEYS)


def validations_per_run(config: Mapping[str, Any] | DictConfig) -> float | None:
    """Number of validations of one run; None where the config alone does not determine it."""
    epochs, every = config["max_epochs"], config["trainer"].get("val_check_interval")
    if not isinstance(epochs, int) or epochs < 1 or not isinstance(every, float) or every <= 0:
        return None
    return epochs // every if every > 1 else epochs * math.floor(1 / every + 1e-9)


GENERATION, MEMBER, PARENT = "generation", "member", "parent trial"  # user attributes of the trial of a stage


@dataclass(frozen=True)
class PopulationProposer:
    """Suggests the stages of a population.

    Attributes:
        study: The trials so far.
        folder: Its files: a stage starts from the checkpoint of another.
        space: The settings that vary.
        pbt: Number of stages, and how settings change between them.
        initial_trials: Configurations that the first members start with, each with its origin.
        seed: Seed of every draw.  All engines share it: which stage comes next is decided under the study lock.
    """

    study: optuna.Study
    folder: StudyFolder
    space: Space
    pbt: PbtConfig
    initial_trials: Sequence[tuple[Params, str]] = ()
    seed: int = 0

    def next(self, trials: Sequence[FrozenTrial]) -> tuple[Trial, Params] | None:
        """The next stage and its settings; None where a generation must end first, or all stages have started."""
        if any(trial.state is TrialState.WAITING for trial in trials):
            trial = self.study.ask()
            return trial, self.space.suggest(trial)
        rows = self._generations(trials)
        for generation, row in enumerate(rows):
            missing = [member for member in range(self.pbt.population) if member not in row]
            if not missing:
                continue
            if generation == 0:
                return self._first_stage(missing[0])
            if any(not trial.state.is_finished() for trial in rows[generation - 1].values()):
                return None
            return self._next_stage(generation, missing[0], rows[generation - 1])
        return None

    def has_pending(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether a running generation will be followed by another."""
        rows = self._generations(trials)
        return any(not t.state.is_finished() for row in rows[:-1] for t in row.values())

    def _generations(self, trials: Sequence[FrozenTrial]) -> list[dict[int, FrozenTrial]]:
        rows: list[dict[int, FrozenTrial]] = [{} for _ in range(self.pbt.generations)]
        for trial in trials:
            if GENERATION in trial.user_attrs and was_tried(trial):
                rows[trial.user_attrs[GENERATION]][trial.user_attrs[MEMBER]] = trial
        return rows

    def _first_stage(self, member: int) -> tuple[Trial, Params]:
        if member < len(self.initial_trials):
            return self._enqueue(0, member, *self.initial_trials[member])
        return self._enqueue(
            0, member, self._random_params(self._rng(0, member)), translate("member {member} begins", member=member)
        )

    def _next_stage(self, generation: int, member: int, row: Mapping[int, FrozenTrial]) -> tuple[Trial, Params] | None:
        order = rank_members(row, self.study.direction)
        if not order:
            return None  # every member failed
        replaced = min(self.pbt.replaced_members, len(order) // 2)
        stays = member in order[: len(order) - replaced]
        rng = self._rng(generation, member)
        parent = row[member] if stays else row[rng.choice(order[: max(1, replaced)])]
        params = dict(parent.params) if stays else self._perturbed(parent.params, rng)
        origin = translate(
            "member {member} {value} from trial {number}",
            member=member,
            value="goes on" if stays else "takes over",
            number=parent.number,
        )
        return self._enqueue(generation, member, params, origin, parent.number)

    def _enqueue(
        self, generation: int, member: int, params: Mapping[str, Any], origin: str, parent: int | None = None
    ) -> tuple[Trial, Params]:
        last = generation == self.pbt.generations - 1
        stage = [] if last else [f"trial.until={(generation + 1) / self.pbt.generations:.6g}"]
        facts: dict[str, Any] = {GENERATION: generation, MEMBER: member, "origin": origin}
        if parent is not None:
            stage.append(path_word("trial.parent", self.folder.trial_folder(parent)))
            facts[PARENT] = parent
        self.study.enqueue_trial(dict(params), user_attrs={**facts, "stage": stage})
        trial = self.study.ask()
        return trial, self.space.suggest(trial)

    def _perturbed(self, params: Mapping[str, Scalar], rng: random.Random) -> Params:
        drawn = self._random_params(rng)
        return {
            key: drawn[key]
            if rng.random() < self.pbt.resample_probability
            else perturb(self.space.unconditional[key], value, self.pbt.perturbation_factor, rng)
            for key, value in params.items()
        }

    def _random_params(self, rng: random.Random) -> Params:
        sampler = optuna.samplers.RandomSampler(seed=rng.randrange(2**31))
        return self.space.suggest(optuna.create_study(sampler=sampler).ask())

    def _rng(self, generation: int, member: int) -> random.Random:
        return random.Random(f"{self.seed} {generation} {member}")


def rank_members(row: Mapping[int, FrozenTrial], direction: StudyDirection) -> list[int]:
    """The members of a generation, best first by their newest score; failed ones are left out."""
    sign = -1.0 if direction is StudyDirection.MAXIMIZE else 1.0
    costs = {}
    for member, trial in row.items():
        if trial.state is TrialState.COMPLETE and trial.value is not None:
            curve = trial.intermediate_values
            newest = curve[max(curve)] if curve else trial.value
            costs[member] = sign * newest if math.isfinite(newest) else math.inf
    return sorted(costs, key=lambda member: (costs[member], member))


def perturb(dimension: Dimension, value: Scalar, factor: float, rng: random.Random) -> Scalar:
    """A perturbed setting: a number times or divided by a factor, a choice moved to a neighbour."""
    up = rng.random() < 0.5
    if isinstance(dimension, Choice):
        index = dimension.index_of(value) + (1 if up else -1)
        return dimension.values[min(max(index, 0), len(dimension.values) - 1)]
    assert isinstance(value, int | float)
    if dimension.low > 0:
        moved = value * factor if up else value / factor
    else:  # a factor would never move it away from 0
        moved = value + (1 if up else -1) * (factor - 1) * (dimension.high - dimension.low) / 2
    if dimension.integer:
        moved = round(moved) if round(moved) != value else value + (1 if up else -1)
    return min(max(moved, dimension.low), dimension.high)


def settings_schedule(trials: Sequence[FrozenTrial], number: int) -> list[dict[str, Any]]:
    """The settings that a trial's weights were trained with, one entry per stage; empty without population training."""
    by_number = {trial.number: trial for trial in trials}
    schedule: list[dict[str, Any]] = []
    at: int | None = number if GENERATION in by_number[number].user_attrs else None
    while at is not None:
        trial = by_number[at]
        schedule.insert(0, {"stage": trial.user_attrs[GENERATION], "trial": at, "params": dict(trial.params)})
        at = trial.user_attrs.get(PARENT)
    return schedule

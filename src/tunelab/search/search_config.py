"""The configuration of a search: the `search` block typed, its objectives, the space and the fixed overrides of the
command line, and every check that comes before the first trial.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from tunelab.config.constraints import CHOICES as LEGAL
from tunelab.config.constraints import RANGES, choice_fault, range_fault
from tunelab.config.overrides import override_key, separate_faulty
from tunelab.errors import ConfigError
from tunelab.search.samplers import resolve_sampler
from tunelab.search.space import Choice, Dimension, Space, build_space
from tunelab.tasks.metrics.directions import metric_direction
from tunelab.tasks.registry import describe_task

SAMPLERS = ("grid", "random", "qmc", "tpe", "gp", "bayes", "cmaes", "evolution", "pbt", "auto")
PRUNERS = ("none", "median", "hyperband", "asha", "auto")
EXECUTORS = ("local", "submitit", "ray")


@dataclass(frozen=True)
class SearchConfig:
    """How to search; the space is apart.

    Attributes:
        sampler: Proposes configurations.
        pruner: Ends hopeless trials early.
        trials: Finished trials that the study shall hold; None leaves it to the grid or to `hours`.
        hours: Time after which no trial starts; None for no limit.
        slots: Trials that run at a time.
        devices_per_trial: Accelerators that a slot holds.
        isolation: `process` or `inline`.
        executor: What starts the processes.
        storage: Path or database address of the study; None keeps a journal in its folder.
        trial_timeout: Seconds after which a trial is ended; None for no limit.
        retry: `failed` runs failed trials anew; None leaves them.
        objectives: Scores to optimise; empty takes the monitored one.
        constraints: Largest allowed value by score; a trial above it is never best.
        warm_start: Earlier study folders and config files whose best configurations are tried first.
        default_trial: Whether the configuration without any search is trial 0.
        keep: Trials whose checkpoints stay; None for all.
        seed: Of the proposals.
        judge: Whether the winner is scored on the test split, once, at the end.
        sampler_options: More arguments of the sampler.
        pruner_options: More arguments of the pruner.
        executor_options: Arguments of the executor.
    """

    sampler: str
    pruner: str
    trials: int | None
    hours: float | None
    slots: int
    devices_per_trial: int
    isolation: str
    executor: str
    storage: str | None
    trial_timeout: float | None
    retry: str | None
    objectives: tuple[str, ...]
    constraints: Mapping[str, float]
    warm_start: tuple[str, ...]
    default_trial: bool
    keep: int | None
    seed: int
    judge: bool
    sampler_options: Mapping[str, Any]
    pruner_options: Mapping[str, Any]
    executor_options: Mapping[str, Any]


def parse_search_config(search: Mapping[str, Any]) -> SearchConfig:
    """The plan that a checked `search` block describes."""
    return SearchConfig(
        sampler=str(search["sampler"]),
        pruner=str(search["pruner"]),
        trials=None if search["trials"] is None else int(search["trials"]),
        hours=None if search["hours"] is None else float(search["hours"]),
        slots=int(search["slots"]),
        devices_per_trial=int(search["devices_per_trial"]),
        isolation=str(search["isolation"]),
        executor=str(search["executor"]),
        storage=None if search["storage"] is None else str(search["storage"]),
        trial_timeout=None if search["trial_timeout"] is None else float(search["trial_timeout"]),
        retry=None if search["retry"] is None else str(search["retry"]),
        objectives=tuple(map(str, search["objectives"] or ())),
        constraints={str(name): float(value) for name, value in (search["constraints"] or {}).items()},
        warm_start=tuple(map(str, search["warm_start"] or ())),
        default_trial=bool(search["default_trial"]),
        keep=None if search["keep"] is None else int(search["keep"]),
        seed=int(search["seed"]),
        judge=bool(search["judge"]),
        sampler_options=dict(search["sampler_options"] or {}),
        pruner_options=dict(search["pruner_options"] or {}),
        executor_options=dict(search["executor_options"] or {}),
    )


def resolve_objectives(config: DictConfig, plan: SearchConfig) -> tuple[list[str], list[str]]:
    """Names and directions (`min` or `max`) of the objectives.

    Args:
        config: Names the monitored score, or leaves it to the task.
        plan: May name others, each with its direction in front where nothing else says it: `max:val/kappa`.

    Raises:
        ConfigError: If nothing says which way a score is better.
    """
    if not plan.objectives:
        name = str(config.monitor)
        if name == "auto":
            name = describe_task(str(config.data.task)).monitor
        mode = metric_direction(name) if config.mode == "auto" else str(config.mode)
        if mode is None:
            raise ConfigError(f"monitor={name}: nothing says which way this score is better; set mode=min or mode=max")
        return [name], [mode]
    names, modes, faults = list[str](), list[str](), list[str]()
    for objective in plan.objectives:
        prefix, _, rest = objective.partition(":")
        name, mode = (rest, prefix) if prefix in ("min", "max") and rest else (objective, metric_direction(objective))
        if mode is None:
            faults.append(f"search.objectives: nothing says which way {name} is better; write min:{name} or max:{name}")
        else:
            names.append(name)
            modes.append(mode)
    if faults:
        raise ConfigError.listing(faults)
    return names, modes


SPACE_PREFIX = "search.space.params."
SEARCH_BLOCKS = ("search", "trial")  # blocks that speak of the search, not of a training


@dataclass(frozen=True)
class SearchRequest:
    """A search, as it was asked for.

    Attributes:
        fixed: Overrides that every trial has.
        space: What varies.
        notes: What is worth knowing before it starts.
        default: The configuration without a search; None where it lies outside the space.
        outside: The settings whose value without a search lies outside the space.
        arguments: The overrides as they were typed, what varies among them.
        standard: The value of every varying setting without a search.
    """

    fixed: tuple[str, ...]
    space: Space
    notes: tuple[str, ...]
    default: Mapping[str, Any] | None
    outside: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    standard: Mapping[str, Any] = field(default_factory=dict)


def parse_request(config: DictConfig, arguments: Sequence[str]) -> SearchRequest:
    """The request that a command line makes.

    Args:
        config: As composed without what varies.
        arguments: The task overrides of the command line.

    Raises:
        ConfigError: Naming every fault at once.
    """
    found = OverridesParser.create().parse_overrides(list(arguments))
    fixed, varied = list[str](), dict[str, Any]()
    for override in found:
        key, line = override.key_or_group, str(override.input_line)
        if override.is_sweep_override():
            varied[key.removeprefix(SPACE_PREFIX)] = line.partition("=")[2]
        elif key.partition(".")[0].partition("/")[0] not in SEARCH_BLOCKS:
            fixed.append(line)
    described = OmegaConf.to_container(config.search.space, resolve=True)
    assert isinstance(described, dict)
    params = {**(described["params"] or {}), **varied}
    when = dict(described["when"] or {})
    standard = {
        key: default_value(config, key) for key in [*params, *(k for block in when.values() for k in block or {})]
    }
    try:
        space = build_space(params, when, standard)
    except ValueError as fault:
        raise ConfigError.listing(str(fault).splitlines()) from fault
    if faults := illegal_values(space):
        raise ConfigError.listing(faults)
    base = {key: standard[key] for key in space.always}
    inner = {key: standard[key] for key in space.at(base)}
    default = inner if space.holds(inner) else None
    outside = tuple(f"{key}={inner[key]}" for key, known in space.at(base).items() if not known.holds(inner[key]))
    return SearchRequest(tuple(fixed), space, tuple(space_notes(space)), default, outside, tuple(arguments), standard)


def default_value(config: DictConfig, key: str) -> Any:
    """The value of a setting, or the option of a group, without a search."""
    chosen = OmegaConf.select(config, "hydra.runtime.choices") or {}
    if key in chosen:
        return chosen[key]
    value = OmegaConf.select(config, key, default=None)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def illegal_values(space: Space) -> list[str]:
    """Values that no run would accept."""
    faults = []
    for key, found in space.all().items():
        ends = found.values if isinstance(found, Choice) else (found.low, found.high)
        if key in RANGES:
            faults += [fault for end in ends if (fault := range_fault(key, end, *RANGES[key]))]
        if key in LEGAL:
            faults += [fault for end in ends if (fault := choice_fault(key, end))]
    return faults


def space_notes(space: Space) -> list[str]:
    """What the space does that may surprise, in words."""
    known = space.all()
    notes = [f"{key}: {found.told()}" for key, found in known.items()]
    if "batch_size" in known and "lr" not in known:
        notes.append("batch_size varies and lr does not: the best lr moves with the batch size, so vary both")
    if longer := sorted({"max_steps", "max_epochs"} & set(known)):
        notes.append(
            f"{' and '.join(longer)} varies: longer runs mostly win; early stopping finds the length by itself"
        )
    if "seed" in known:
        notes.append("seed varies: its best value means nothing; its spread is the noise that others must beat")
    return notes


MIN_TRIALS_TO_PRUNE = 12  # trials from which ending some early pays for the care it takes
SAMPLERS_WITHOUT_PRUNING = ("cmaes", "evolution")  # samplers that leave a pruned trial out of their generations


def check_search_config(plan: SearchConfig) -> SearchConfig:
    """The plan itself.

    Raises:
        ConfigError: Naming everything that cannot be honoured.
    """
    faults = []
    for key, value, legal in (
        ("sampler", plan.sampler, SAMPLERS),
        ("pruner", plan.pruner, PRUNERS),
        ("executor", plan.executor, EXECUTORS),
        ("isolation", plan.isolation, ("process", "inline")),
        ("retry", plan.retry or "failed", ("failed",)),
    ):
        if value not in legal:
            faults.append(f"search.{key}={value} is unknown; choose one of {', '.join(legal)}")
    for key, number in (("trials", plan.trials), ("slots", plan.slots), ("hours", plan.hours)):
        if number is not None and number <= 0:
            faults.append(f"search.{key}={number} must be above 0")
    if plan.trial_timeout is not None and plan.trial_timeout <= 0:
        faults.append(f"search.trial_timeout={plan.trial_timeout:g} must be above 0 seconds, or null for no limit")
    if len(plan.objectives) > 1 and plan.pruner not in ("none", "auto"):
        faults.append(
            f"search.pruner={plan.pruner} compares one score and search.objectives names {len(plan.objectives)}; "
            "set search.pruner=none"
        )
    if len(plan.objectives) > 1 and plan.sampler == "cmaes":
        faults.append("search=cmaes knows one objective; take search=evolution for several")
    if plan.isolation == "inline" and (plan.slots > 1 or plan.executor != "local"):
        faults.append("search.isolation=inline runs one trial at a time in this process; leave search.slots at 1")
    if faults:
        raise ConfigError.listing(faults)
    return plan


def with_budget(plan: SearchConfig, request: SearchRequest) -> SearchConfig:
    """The plan with its budget.

    Raises:
        ConfigError: If a grid has no end, or nothing limits the search.
    """
    size = request.space.size()
    if plan.sampler == "grid":
        if size is None:
            try:
                next(request.space.grid())
            except ValueError as fault:
                raise ConfigError(str(fault)) from fault
        plan = replace(plan, trials=plan.trials if plan.trials is not None else size)
    if plan.trials is None and plan.hours is None:
        raise ConfigError("nothing ends this search; give search.trials=N or search.hours=H")
    alone = len(plan.objectives) < 2
    sampler = resolve_sampler(plan.sampler, request.space, plan.trials)
    return replace(plan, pruner=resolve_pruner(plan.pruner, sampler, plan.trials) if alone else "none")


def resolve_pruner(pruner: str, sampler: str, trials: int | None) -> str:
    """The pruner behind `auto`: few trials are better all run to their end, and so are those of some samplers.

    TPE gains most from many trials, a Gaussian process from ones it can trust (measured in bench/search).
    """
    if pruner != "auto":
        return pruner
    if sampler in SAMPLERS_WITHOUT_PRUNING or (trials is not None and trials < MIN_TRIALS_TO_PRUNE):
        return "none"
    return "asha" if sampler == "tpe" else "hyperband"


def validate_space(config: DictConfig, request: SearchRequest) -> None:
    """Compose every option and both ends of every range once.

    Args:
        config: As Hydra composed it; knows where its files lie.
        request: What will be searched.

    Raises:
        ConfigError: Naming what no trial could start with.
    """
    sources = config.hydra.runtime.config_sources
    conf = next(Path(source.path) for source in sources if source.provider == "main")
    fixed = [override for override in request.fixed if not override_key(override).startswith(("hydra", "experiment"))]
    faults: list[str] = []
    for key, found in request.space.always.items():
        for text in texts_to_try(found):
            inner = [(c.dimensions, text) for c in request.space.when if c.key == key and found.text(c.value) == text]
            beside = [f"{k}={texts_to_try(d)[0]}" for dimensions, _ in inner for k, d in dimensions.items()]
            faults += separate_faulty([*fixed, f"{key}={text}", *beside], conf)[0]
    if faults:
        raise ConfigError.listing(list(dict.fromkeys(faults)))


def texts_to_try(found: Dimension) -> list[str]:
    """The values to try: every option, or both ends."""
    return list(found.texts) if isinstance(found, Choice) else [found.text(found.low), found.text(found.high)]

"""The configuration of a search: the typed `search` block, objectives, space and fixed overrides of the command line,
and the checks before the first trial.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from tunelab.config.blocks import JsonBlock
from tunelab.config.override_text import primary_config, searchpath_overrides
from tunelab.config.overrides import SPACE_PREFIX, override_key, separate_faulty, strip_flags
from tunelab.config.schema import MetricsConfig, PrunerName, SearchConfig, value_fault
from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.search.samplers import own_sampler_faults, resolve_sampler
from tunelab.search.space import Choice, Dimension, Space, build_space
from tunelab.tasks.metrics.directions import metric_direction
from tunelab.tasks.registry import describe_task


def parse_search_config(search: JsonBlock) -> SearchConfig:
    """The block `search`, typed and checked.

    Raises:
        ConfigError: Naming every fault.
    """
    faults = list[str]()
    config = SearchConfig.parse(search, "search", faults)
    if faults := faults + search_faults(config):
        raise ConfigError.listing(faults)
    return config


def resolve_objectives(config: DictConfig, search: SearchConfig) -> tuple[list[str], list[str]]:
    """Names and directions (`min` or `max`) of the objectives.

    Args:
        config: Names the monitored score, or leaves it to the task.
        search: May name others, each with its direction in front where nothing else says it: `max:val/kappa`.

    Raises:
        ConfigError: If nothing says which way a score is better.
    """
    faults = list[str]()
    metrics = MetricsConfig.parse(plain_metrics(config), "metrics", faults)
    if faults:
        raise ConfigError.listing(faults)

    def direction(name: str) -> str | None:
        if not metrics.targets:
            return metric_direction(name)
        from tunelab.tasks.metrics.own_metrics import own_direction  # torch, which a search does without

        return own_direction(metrics, name)

    if not search.objectives:
        task = describe_task(str(config.data.task))  # a class from outside makes the directions of its metrics known
        name = task.monitor if config.monitor == "auto" else str(config.monitor)
        mode = direction(name) if config.mode == "auto" else str(config.mode)
        if mode is None:
            raise ConfigError(
                translate(
                    "monitor={name}: nothing says which way this score is better; set mode=min or mode=max", name=name
                )
            )
        return [name], [mode]
    names, modes = list[str](), list[str]()
    for objective in search.objectives:
        prefix, colon, name = map(str.strip, objective.rpartition(":"))
        mode = prefix if colon else direction(name)
        if not name or (colon and prefix not in ("min", "max")):
            faults.append(
                translate(
                    "search.objectives: {objective!r} is no score; write its name, or min:NAME or "
                    "max:NAME, such as max:val/f1",
                    objective=objective,
                )
            )
        elif mode is None:
            faults.append(
                translate(
                    "search.objectives: nothing says which way {name} is better; write min:{name} or max:{name}",
                    name=name,
                )
            )
        elif name in names:
            faults.append(translate("search.objectives names {name} twice; one score is one objective", name=name))
        else:
            names.append(name)
            modes.append(mode)
    if faults:
        raise ConfigError.listing(faults)
    return names, modes


def plain_metrics(config: DictConfig) -> JsonBlock:
    """The block `metrics` as plain values; empty where the config has none."""
    block = OmegaConf.to_container(config.metrics, resolve=True) if config.get("metrics") else {}
    assert isinstance(block, dict)
    return {str(name): value for name, value in block.items()}


SEARCH_BLOCKS = ("search", "trial")  # blocks of the search, not of a training


@dataclass(frozen=True)
class SearchRequest:
    """The search that a command line requests.

    Attributes:
        fixed_overrides: Overrides of every trial.
        space: The settings that vary.
        notes: Remarks on the space, printed before the search starts.
        default_configuration: Default value of each varying setting; None where it lies outside the space.
        defaults_outside_space: The settings whose default lies outside the space.
        arguments: All overrides as typed, varying ones included.
        default_values: Default value of every setting of the space, conditional ones included.
    """

    fixed_overrides: tuple[str, ...]
    space: Space
    notes: tuple[str, ...]
    default_configuration: Mapping[str, Any] | None
    defaults_outside_space: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    default_values: Mapping[str, Any] = field(default_factory=dict)


def parse_request(config: DictConfig, arguments: Sequence[str]) -> SearchRequest:
    """The search that a command line requests.

    Args:
        config: The composed config, without the overrides that vary.
        arguments: The task overrides of the command line.

    Raises:
        ConfigError: Naming every fault at once.
    """
    fixed, varied = list[str](), dict[str, Any]()
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        key, line = override.key_or_group, str(override.input_line)
        if override.is_sweep_override():
            varied[key.removeprefix(SPACE_PREFIX)] = line.partition("=")[2]
        elif key.partition(".")[0].partition("/")[0] not in SEARCH_BLOCKS:
            fixed.append(line)
    block = OmegaConf.to_container(config.search.space, resolve=True)
    assert isinstance(block, dict)
    params = {**(block["params"] or {}), **varied}
    when = dict(block["when"] or {})
    defaults = {
        key: default_value(config, key) for key in [*params, *(k for inner in when.values() for k in inner or {})]
    }
    try:
        space = build_space(params, when, defaults)
    except ValueError as fault:
        raise ConfigError.listing(str(fault).splitlines()) from fault
    if faults := illegal_values(space):
        raise ConfigError.listing(faults)
    active = space.active_dimensions({key: defaults[key] for key in space.unconditional})
    default = {key: defaults[key] for key in active}
    outside = tuple(
        f"{key}={default[key]}" for key, dimension in active.items() if not dimension.contains(default[key])
    )
    return SearchRequest(
        fixed_overrides=tuple(fixed),
        space=space,
        notes=tuple(space_notes(space)),
        default_configuration=default if space.contains(default) else None,
        defaults_outside_space=outside,
        arguments=tuple(arguments),
        default_values=defaults,
    )


LOW_RANK_ADAPTERS = ("lora", "dora", "rslora", "qlora")


def default_space(config: DictConfig, arguments: Sequence[str]) -> str | None:
    """The name of the space that is searched where nothing varies; None where something does, or the search is a grid.

    Args:
        config: The composed config.
        arguments: The task overrides of the command line.
    """
    varied = any(override.is_sweep_override() for override in OverridesParser.create().parse_overrides(list(arguments)))
    if varied or config.search.space.params or config.search.sampler == "grid":
        return None
    if config.adapter.kind in LOW_RANK_ADAPTERS:
        return "lora"
    return "classification" if config.data.task == "classification" else "sft"


def with_default_space(config: DictConfig, arguments: Sequence[str]) -> tuple[DictConfig, list[str], str | None]:
    """A search with the default space of its task and adapter where nothing varies.

    Args:
        config: The composed config; knows where its files lie.
        arguments: The task overrides of the command line.

    Returns:
        The config, the arguments that give it, and the name of the space; None where it was not needed.
    """
    name = default_space(config, arguments)
    if name is None:
        return config, list(arguments), None
    sources = config.hydra.runtime.config_sources
    conf = next(Path(source.path) for source in sources if source.provider == "main")
    space = OmegaConf.load(conf / "search" / "space" / f"{name}.yaml")
    with open_dict(config):
        config.search.space = space
    return config, [*arguments, f"search/space={name}"], name


def default_value(config: DictConfig, key: str) -> Any:
    """The default value of a setting, or the default option of a config group."""
    choices = OmegaConf.select(config, "hydra.runtime.choices") or {}
    if key in choices:
        return choices[key]
    value = OmegaConf.select(config, key, default=None)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def illegal_values(space: Space) -> list[str]:
    """Faults of values that no run would accept."""
    faults = []
    for key, dimension in space.all_dimensions().items():
        ends = dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high)
        faults += [fault for end in ends if (fault := value_fault(key, end))]
    return faults


def space_notes(space: Space) -> list[str]:
    """One line for each dimension, and a warning for each setting that should not vary, or not alone."""
    dimensions = space.all_dimensions()
    notes = [f"{key}: {dimension.describe()}" for key, dimension in dimensions.items()]
    if "batch_size" in dimensions and "lr" not in dimensions:
        notes.append(
            translate("batch_size varies and lr does not: the best lr moves with the batch size, so vary both")
        )
    if longer := sorted({"max_steps", "max_epochs"} & set(dimensions)):
        notes.append(
            translate(
                "{names} varies: longer runs mostly win; early stopping finds the length by itself",
                names=translate(" and ").join(longer),
            )
        )
    if "seed" in dimensions:
        notes.append(
            translate("seed varies: its best value means nothing; its spread is the noise that others must beat")
        )
    return notes


MIN_TRIALS_TO_PRUNE = 12  # with fewer trials all are better run to their end
SAMPLERS_WITHOUT_PRUNING = ("cmaes", "evolution")  # they leave a pruned trial out of their generations


def search_faults(config: SearchConfig) -> list[str]:
    """Keys of the block `search` that contradict each other."""
    faults, count = list[str](), len(config.objectives)
    if "." in config.sampler:
        faults += own_sampler_faults(config.sampler, config.sampler_options)
    if count > 1 and config.pruner not in ("none", "auto"):
        faults.append(
            translate(
                "search.pruner={pruner} compares one score and search.objectives names {count}; set search.pruner=none",
                pruner=config.pruner,
                count=count,
            )
        )
    if count > 1 and config.sampler == "cmaes":
        faults.append(translate("search=cmaes knows one objective; take search=evolution for several"))
    if config.isolation == "inline" and (config.parallel_trials > 1 or config.executor != "local"):
        faults.append(
            translate(
                "search.isolation=inline runs one trial at a time in this process; leave search.parallel_trials at 1"
            )
        )
    return faults


def with_budget(search: SearchConfig, request: SearchRequest) -> SearchConfig:
    """The config with `trials` of a grid and `pruner` resolved.

    Raises:
        ConfigError: If a grid holds a continuous range, or nothing limits the search.
    """
    size = request.space.size()
    if search.sampler == "grid":
        if size is None:
            try:
                next(request.space.grid())
            except ValueError as fault:
                raise ConfigError(str(fault)) from fault
        search = replace(search, trials=search.trials if search.trials is not None else size)
    if search.trials is None and search.hours is None:
        raise ConfigError(translate("nothing ends this search; give search.trials=N or search.hours=H"))
    alone = len(search.objectives) < 2
    sampler = resolve_sampler(search.sampler, request.space, search.trials)
    return replace(search, pruner=resolve_pruner(search.pruner, sampler, search.trials) if alone else "none")


def resolve_pruner(pruner: PrunerName, sampler: str, trials: int | None) -> PrunerName:
    """The pruner that `auto` stands for: none for few trials and for samplers that cannot use pruned ones.

    TPE gains most from many trials, a Gaussian process from reliable ones (measured in bench/search).
    """
    if pruner != "auto":
        return pruner
    if sampler in SAMPLERS_WITHOUT_PRUNING or (trials is not None and trials < MIN_TRIALS_TO_PRUNE):
        return "none"
    return "asha" if sampler == "tpe" else "hyperband"


def validate_space(config: DictConfig, request: SearchRequest) -> None:
    """Compose the config once with every option and with both ends of every range.

    Args:
        config: As Hydra composed it; knows where its files lie.
        request: Holds the space and the fixed overrides.

    Raises:
        ConfigError: Naming every value that no trial could start with.
    """
    sources = config.hydra.runtime.config_sources
    conf = next(Path(source.path) for source in sources if source.provider == "main")
    places = searchpath_overrides(config.hydra)
    fixed = [
        override
        for override in strip_flags([*places, *request.fixed_overrides])
        if override_key(override) == "hydra.searchpath" or not override_key(override).startswith("hydra")
    ]
    faults: list[str] = []
    for key, dimension in request.space.unconditional.items():
        for text in texts_to_try(dimension):
            met = [c for c in request.space.conditions if c.key == key and dimension.text(c.value) == text]
            conditional = [f"{k}={texts_to_try(d)[0]}" for condition in met for k, d in condition.dimensions.items()]
            faults += separate_faulty([*fixed, f"{key}={text}", *conditional], conf, primary_config(places))[0]
    if faults:
        raise ConfigError.listing(list(dict.fromkeys(faults)))


def texts_to_try(dimension: Dimension) -> list[str]:
    """The values to compose with: every option, or both ends of a range."""
    if isinstance(dimension, Choice):
        return list(dimension.texts)
    return [dimension.text(dimension.low), dimension.text(dimension.high)]

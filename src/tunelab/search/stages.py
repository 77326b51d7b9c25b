"""What population based training needs to know beforehand, and what it cannot do."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import DictConfig

from tunelab.errors import ConfigError
from tunelab.search.plan import Plan
from tunelab.search.request import Request

CHANGEABLE = ("lr", "optimizer.", "regularization.", "scheduler.", "trainer.gradient_clip_val", "data.label_smoothing")
FREE_OF_STOPPING = "callbacks.early_stopping=false"  # a member that stopped would take the population's place


@dataclass(frozen=True)
class Stages:
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


def stages_of(plan: Plan) -> Stages:
    """The stages that a plan describes.

    Raises:
        ConfigError: Naming everything that cannot be.
    """
    options = dict(plan.sampler_options)
    known = [found.name for found in fields(Stages) if found.name != "generations"]
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
    return Stages(size, plan.trials // size, **numbers)


def check_stages(plan: Plan, request: Request, config: DictConfig) -> None:
    """Refuse what cannot change while a model trains, before anything starts; nothing to do for other samplers.

    Raises:
        ConfigError: Naming every fault.
    """
    if plan.sampler != "pbt":
        return
    stages, faults = stages_of(plan), list[str]()
    if fixed := [key for key in request.space.all() if not changeable(key)]:
        faults.append(
            f"search=pbt changes settings while a model trains, and {', '.join(fixed)} cannot change then; "
            f"it can vary {', '.join(name.removesuffix('.') for name in CHANGEABLE)}. Search the rest before"
        )
    if request.space.when:
        faults.append("search=pbt knows no conditions; take search.space.when out")
    checks = validations(config)
    if checks is not None and stages.generations > checks:
        faults.append(
            f"search=pbt has {stages.generations} stages (trials / population), and a run {checks:g} validations to "
            "end one at; raise max_epochs, lower trainer.val_check_interval or raise the population"
        )
    if faults:
        raise ConfigError.listing(faults)


def changeable(key: str) -> bool:
    """Whether a setting may change between two stages."""
    return any(key.startswith(name) if name.endswith(".") else key == name for name in CHANGEABLE)


def validations(config: Mapping[str, Any] | DictConfig) -> float | None:
    """Validations of one run; None where settings alone do not tell."""
    epochs, every = config["max_epochs"], config["trainer"].get("val_check_interval")
    if not isinstance(epochs, int) or epochs < 1 or not isinstance(every, float) or every <= 0:
        return None
    return epochs // every if every > 1 else epochs * math.floor(1 / every + 1e-9)

"""The optimizer and the schedule of a run from the blocks `optimizer` and `scheduler`, and warnings about them."""

from collections.abc import Callable, Sequence
from inspect import isclass, signature
from typing import Any, cast

import torch
from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from tunelab.config import instantiate
from tunelab.config.schema import RegularizationConfig, RunConfig, TargetConfig
from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.models.freezing import parameter_depths
from tunelab.models.mup import hidden_matrices
from tunelab.optim.param_groups import build_param_groups, trainable_parameters
from tunelab.optim.schedules import one_cycle, warmup_steps


def optimizer_builder(model: PreTrainedModel, settings: RunConfig) -> Callable[[list[nn.Parameter]], Optimizer]:
    """A function that builds the optimizer, once the model is on its device."""
    block = settings.optimizer

    def make(parameters: list[nn.Parameter]) -> Optimizer:
        arguments: dict[str, Any] = {}
        if "hidden" in signature(instantiate.import_target(block.target)).parameters:
            depths = parameter_depths(model)
            arguments["hidden"] = hidden_matrices(trainable_parameters(model), depths.by_name, depths.layers)
        if "lr" in signature(instantiate.import_target(block.target)).parameters and "lr" not in block.arguments:
            arguments["lr"] = settings.lr
        if takes_one_kernel(block, parameters):
            arguments["fused"] = True
        make_optimizer = instantiate.make_factory(block, **arguments)
        return cast(Optimizer, make_optimizer(build_param_groups(model, settings)))

    return make


def takes_one_kernel(block: TargetConfig, parameters: Sequence[nn.Parameter]) -> bool:
    """Whether a step of Adam can go through one kernel, where PyTorch by itself takes a dozen passes over the weights.

    The step is the same to rounding.  On a GPU PyTorch already handles many weights at once.
    """
    chosen = {"fused", "foreach", "capturable", "differentiable"}.intersection(block.arguments)
    adam = block.target in ("torch.optim.Adam", "torch.optim.AdamW")
    return adam and not chosen and all(p.device.type == "cpu" and p.is_floating_point() for p in parameters)


def check_optimizer_requirements(block: TargetConfig, accelerator: str = "auto") -> None:
    """Stop a run whose optimizer cannot work here, before data and weights are read.

    Args:
        block: Of the optimizer.
        accelerator: What the run trains on.

    Raises:
        ConfigError: Naming the package, or the GPU, that is missing.
    """
    name, instead = block.name, translate("optimizer=adamw takes the same steps with four times the memory")
    if package := instantiate.missing_package(block.target):
        raise ConfigError(
            translate(
                "{name} needs the package {package}, which is not installed: pip install {package}; {instead}",
                name=name,
                package=package,
                instead=instead,
            )
        )
    if block.target.startswith("bitsandbytes.") and (accelerator == "cpu" or not torch.cuda.is_available()):
        lost = (
            translate("and there is none here")
            if accelerator != "cpu"
            else translate("and trainer.accelerator=cpu uses none")
        )
        raise ConfigError(
            translate(
                "{name} keeps its memory in 8 bit by kernels for a CUDA GPU, {lost}; {instead}",
                name=name,
                lost=lost,
                instead=instead,
            )
        )


def build_schedule(block: TargetConfig, total: int) -> Callable[[int], float]:
    """The factor on the peak rate, from the optimizer step.

    A schedule with a memory is returned as the object it is, so that its memory is saved with a run.
    """
    made = instantiate.make_factory(block, total=total)
    if isclass(instantiate.import_target(block.target)):
        return cast(Callable[[int], float], made())
    return lambda step: float(cast(float, made(step)))


def follows_plateau(block: TargetConfig) -> bool:
    """Whether a schedule follows the scores of validations."""
    return hasattr(instantiate.import_target(block.target), "observe")


def averaging_notes(optimizer: TargetConfig, regularization: RegularizationConfig) -> list[str]:
    """Notes for the user where two averages of the weights are configured.

    Args:
        optimizer: Its block.
        regularization: Its block.
    """
    if optimizer.name != "ScheduleFreeAdamW":
        return []
    averages = [
        f"regularization.{name}={value:g}"
        for name, value, neutral in (("ema", regularization.ema, 0), ("swa_start", regularization.swa_start, 1))
        if value != neutral
    ]
    return [
        translate("{one} is what is validated and exported, in place of schedule_free_adamw's own average", one=one)
        for one in averages
    ]


def schedule_notes(optimizer: TargetConfig, scheduler: TargetConfig, total: int) -> list[str]:
    """Notes for the user where a schedule is possible but may surprise.

    Args:
        optimizer: Its block.
        scheduler: Its block.
        total: Optimizer steps of the run.
    """
    curve, notes = scheduler.name, []
    if optimizer.name == "ScheduleFreeAdamW" and curve != "constant":
        notes.append(
            translate(
                "optimizer=schedule_free_adamw averages its steps, which takes the place of a "
                "falling rate; with scheduler={curve} it gets both and may learn too little; "
                "scheduler=constant is its own",
                curve=curve,
            )
        )
    if (rise := warmup_steps(scheduler.number("warmup"), total)) > total:
        start = scheduler.number("start")
        top = one_cycle(total - 1, total=total, warmup=rise, start=start) if curve == "one_cycle" else total / rise
        notes.append(
            translate(
                "scheduler.warmup={rise} [step|steps] is longer than the run of {total}: the rate never "
                "gets beyond {top:.0%} of its peak",
                rise=rise,
                total=total,
                top=top,
            )
        )
        return notes
    span = total - rise
    if curve == "cosine_restarts" and 2 * (cycles := int(scheduler.number("cycles"))) > max(span, 2):
        notes.append(
            translate(
                "scheduler.cycles={cycles} in the {span} [step|steps] after the warm-up: a cycle needs two "
                "steps or more, else its restart falls between steps and the curve is another one; "
                "take at most {most}",
                cycles=cycles,
                span=span,
                most=max(1, span // 2),
            )
        )
    if curve == "stepwise" and (every := warmup_steps(scheduler.number("every"), total)) >= span:
        notes.append(
            translate(
                "scheduler.every={every} [step|steps], and {span} come after the warm-up: the rate never drops",
                every=every,
                span=span,
            )
        )
    return notes

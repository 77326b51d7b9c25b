"""What a plan lacks or contradicts: sizes it where it is left open, and refuses what cannot be."""

from dataclasses import replace

from tunelab.errors import ConfigError
from tunelab.search.plan import EXECUTORS, PRUNERS, SAMPLERS, Plan
from tunelab.search.request import Request
from tunelab.search.samplers import resolve

WORTH_PRUNING = 12  # trials from which ending some early pays for the care it takes
WHOLE = ("cmaes", "evolution")  # samplers that leave a pruned trial out of their generations


def checked(plan: Plan) -> Plan:
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


def sized(plan: Plan, request: Request) -> Plan:
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
    sampler = resolve(plan.sampler, request.space, plan.trials)
    return replace(plan, pruner=budgeted(plan.pruner, sampler, plan.trials) if alone else "none")


def budgeted(pruner: str, sampler: str, trials: int | None) -> str:
    """The pruner behind `auto`: few trials are better all run to their end, and so are those of some samplers.

    TPE gains most from many trials, a Gaussian process from ones it can trust (measured in bench/search).
    """
    if pruner != "auto":
        return pruner
    if sampler in WHOLE or (trials is not None and trials < WORTH_PRUNING):
        return "none"
    return "asha" if sampler == "tpe" else "hyperband"

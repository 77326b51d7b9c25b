"""What a search is asked for: the keys of conf/search, typed and checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SAMPLERS = ("grid", "random", "qmc", "tpe", "gp", "bayes", "cmaes", "evolution", "pbt", "auto")
PRUNERS = ("none", "median", "hyperband", "asha", "auto")
EXECUTORS = ("local", "submitit", "ray")


@dataclass(frozen=True)
class Plan:
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


def plan_of(search: Mapping[str, Any]) -> Plan:
    """The plan that a checked `search` block describes."""
    return Plan(
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

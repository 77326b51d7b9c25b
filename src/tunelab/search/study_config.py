"""What `search.json` records of a study (space, fixed overrides, objectives, limits), and whether a later command is
compatible with it.
"""

import uuid
from collections.abc import Sequence
from typing import Any

import optuna

from tunelab.errors import ConfigError
from tunelab.runs.atomic_files import write_json
from tunelab.search.search_config import SearchConfig, SearchRequest
from tunelab.search.space import space_as_dict
from tunelab.search.study_folder import StudyFolder

IGNORED_OVERRIDES = (
    "logger",
    "name",
    "hydra",
    "callbacks.save_every",
    "callbacks.throughput",
    "trainer.enable_progress_bar",
)
STORAGE_VARIABLE = (
    "TUNELAB_STORAGE"  # environment variable: a database address holds a password, so no file of ours holds it
)


def check_compatible(
    folder: StudyFolder,
    study: optuna.Study,
    plan: SearchConfig,
    request: SearchRequest,
    objectives: Sequence[str],
    modes: Sequence[str],
) -> None:
    """Hold a command against those that came before it, and note its terms for trials and later commands.

    Args:
        folder: The study's files.
        study: Optuna's record of it.
        plan: How to search.
        request: What is searched.
        objectives: Names of the scores.
        modes: Which way each is better, `min` or `max`.

    Raises:
        ConfigError: If it asks for something else, or the database belongs to another folder.
    """
    before = read_recorded_config(folder)
    token, theirs = before.get("token") or uuid.uuid4().hex, study.user_attrs.get("folder")
    if theirs not in (None, token):
        raise ConfigError(
            f"the study '{study.study_name}' of search.storage belongs to another folder than {folder.root}; engines "
            "of one study must share its folder too, or give a hydra.sweep.dir whose last name is new"
        )
    now = make_study_config(folder, study.study_name, plan, request, objectives, modes)
    faults = incompatibilities(before, now)
    if faults:
        raise ConfigError.listing([*faults, f"begin a new study with the best of this one: {new_study_hint(folder)}"])
    write_json(folder.request, {"token": token, **now})
    if theirs is None:
        study.set_user_attr("folder", token)


def read_recorded_config(folder: StudyFolder) -> dict[str, Any]:
    """The terms that earlier commands left; empty for a new study."""
    try:
        found = folder.read_request()
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def make_study_config(
    folder: StudyFolder,
    name: str,
    plan: SearchConfig,
    request: SearchRequest,
    objectives: Sequence[str],
    modes: Sequence[str],
) -> dict[str, Any]:
    """The terms of a command as plain values."""
    address = plan.storage is not None and "://" in plan.storage
    return {
        "storage": None if address else plan.storage or str(folder.journal),
        "name": name,
        "pruner": plan.pruner,
        "pruner_options": dict(plan.pruner_options),
        "objectives": list(objectives),
        "modes": list(modes),
        "monitored": not plan.objectives,
        "constraints": dict(plan.constraints),
        "stages": [plan.trials, plan.sampler_options] if plan.sampler == "pbt" else None,
        "fixed": list(request.fixed),
        "space": {key: found.told() for key, found in request.space.all().items()},
        "dimensions": space_as_dict(request.space),
        "arguments": list(request.arguments),
        "default": request.default,
    }


def incompatibilities(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What makes the trials of two commands incomparable, in words; empty for a new study."""
    if not before:
        return []
    faults = [
        f"{what} {'was' if name != 'stages' else 'were'} {before.get(name)} and is now {now[name]}"
        for name, what in (("objectives", "the objective"), ("constraints", "the limit"), ("stages", "stages of pbt"))
        if before.get(name) != now[name]
    ]
    for key in sorted({*before["space"], *now["space"]}):
        old, new = before["space"].get(key), now["space"].get(key)
        if old != new:
            faults.append(f"{key} varied over {old or 'nothing'} and now over {new or 'nothing'}")
    old_fixed, new_fixed = relevant_overrides(before["fixed"]), relevant_overrides(now["fixed"])
    for key in sorted({*old_fixed, *new_fixed}):
        old, new = old_fixed.get(key, "not given"), new_fixed.get(key, "not given")
        if old != new:
            faults.append(f"{key} was {old} in the study's trials and is now {new}")
    return faults


def relevant_overrides(fixed: Sequence[str]) -> dict[str, str]:
    """The overrides that change what a trial learns or how it is scored, by key."""
    pairs = [override.partition("=") for override in fixed]
    return {key: value for key, _, value in pairs if not key.lstrip("+~").startswith(IGNORED_OVERRIDES)}


def new_study_hint(folder: StudyFolder) -> str:
    """How to search on under other terms."""
    return f"hydra.sweep.dir=NEW search.warm_start=[{folder.root}]"

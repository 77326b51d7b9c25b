"""The configuration of a study in `search.json` (space, fixed overrides, objectives, limits), and the check that a
later command is compatible with it.
"""

import json
import shlex
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

from tunelab.config.quoting import path_text
from tunelab.config.renames import rename_key, rename_overrides
from tunelab.config.resource_paths import expand_home, resolve_path
from tunelab.config.schema import SearchConfig
from tunelab.config.stored_files import STUDY_FILE_ADVICE, shape_faults_explained
from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.runs import console
from tunelab.runs.atomic_files import write_json
from tunelab.runs.entry_script import own_script, script_record
from tunelab.runs.file_digests import sha256_file
from tunelab.runs.redact import redact
from tunelab.runs.study_folder import StudyFolder
from tunelab.search.search_config import SearchRequest
from tunelab.search.space import space_as_dict

IGNORED_OVERRIDES = (
    "logger",
    "name",
    "lang",
    "hydra",
    "callbacks.save_every",
    "callbacks.throughput",
    "trainer.enable_progress_bar",
)
STORAGE_VARIABLE = (
    "TUNELAB_STORAGE"  # environment variable for a database address, which no file holds: it has a password
)


def check_compatible(
    folder: StudyFolder,
    study: optuna.Study,
    search: SearchConfig,
    request: SearchRequest,
    objectives: Sequence[str],
    modes: Sequence[str],
) -> None:
    """Check a command against the recorded configuration of its study, and record its own.

    Args:
        folder: The study's files.
        study: The study of Optuna.
        search: The `search` block.
        request: Space and fixed overrides.
        objectives: Names of the scores.
        modes: Direction of each, `min` or `max`.

    Raises:
        ConfigError: If they differ in what makes trials comparable, or the database belongs to another folder.
    """
    before = read_recorded_config(folder)
    known = before.get("folder_id") or before.get("token")  # the second is its old name
    token, recorded_token = known or uuid.uuid4().hex, study.user_attrs.get("folder")
    if recorded_token not in (None, token):
        raise ConfigError(
            translate(
                "the study '{study_name}' of search.storage belongs to another folder than {root}; "
                "engines of one study must share its folder too, or give a hydra.sweep.dir whose "
                "last name is new",
                study_name=study.study_name,
                root=folder.root,
            )
        )
    now = redact(make_study_config(folder, study.study_name, search, request, objectives, modes))
    with shape_faults_explained(folder.study_config, STUDY_FILE_ADVICE):
        faults = [*incompatibilities(redact(before), now), *changed_data(folder)]
    if faults:
        raise ConfigError.listing(
            [
                *faults,
                translate(
                    "begin a new study with the best of this one: hydra.sweep.dir=NEW {warm_start}",
                    warm_start=shlex.quote(f"search.warm_start=[{path_text(folder.root)}]"),
                ),
            ]
        )
    if before and before.get("script") != now["script"]:
        console.say(
            translate(
                "the script that starts trials is another than that of the earlier trials of this study: where it "
                "changes what is trained, their scores do not compare"
            )
        )
    write_json(folder.study_config, {"folder_id": token, **now})
    if recorded_token is None:
        study.set_user_attr("folder", token)


def changed_data(folder: StudyFolder) -> list[str]:
    """The data files that changed since a trial of the study was trained: its scores and later ones do not compare."""
    digests, faults = dict[Path, str](), dict[str, str]()
    for file in sorted(folder.root.glob("*/run.json")):
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
            files, directory = dict(manifest["data"].get("files") or {}), Path(str(manifest["directory"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # a trial that never began to train
        for name, digest in files.items():
            place = resolve_path(name) if name.startswith(("package:", "generated:")) else directory / expand_home(name)
            if place is None or not place.is_file():
                continue
            if place not in digests:
                digests[place] = sha256_file(place)
            if digests[place] != digest:
                faults.setdefault(name, f"{name} changed since trial {file.parent.name} of this study was trained")
    return list(faults.values())


def read_recorded_config(folder: StudyFolder) -> dict[str, Any]:
    """The recorded configuration; empty for a new study.

    Raises:
        ConfigError: If the file is damaged: trials of another configuration would be mixed with those of this one.
    """
    try:
        return folder.read_study_config()
    except FileNotFoundError:
        return {}


def make_study_config(
    folder: StudyFolder,
    name: str,
    search: SearchConfig,
    request: SearchRequest,
    objectives: Sequence[str],
    modes: Sequence[str],
) -> dict[str, Any]:
    """The study configuration of a command, as plain values."""
    is_address = search.storage is not None and "://" in search.storage
    return {
        "storage": None if is_address else search.storage or str(folder.journal),
        "name": name,
        "pruner": search.pruner,
        "pruner_options": dict(search.pruner_options),
        "objectives": list(objectives),
        "modes": list(modes),
        "monitored": not search.objectives,
        "constraints": dict(search.constraints),
        "stages": [search.trials, search.sampler_options] if search.sampler == "pbt" else None,
        "fixed": list(request.fixed_overrides),
        "space": {key: dimension.describe() for key, dimension in request.space.all_dimensions().items()},
        "dimensions": space_as_dict(request.space),
        "arguments": list(request.arguments),
        "default": request.default_configuration,
        "script": script_record(own_script()),
    }


def incompatibilities(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The differences that make the trials of two commands incomparable; none for a new study."""
    if not before:
        return []
    before = {**before, "stages": rename_stages(before.get("stages")), "fixed": rename_overrides(before["fixed"])}
    faults = [
        translate(
            "{what} {value} {before} and is now {now}",
            what=what,
            value="was" if name != "stages" else "were",
            before=before.get(name),
            now=now[name],
        )
        for name, what in (
            ("objectives", translate("the objective")),
            ("constraints", translate("the limit")),
            ("stages", translate("stages of pbt")),
        )
        if before.get(name) != now[name]
    ]
    for key in sorted({*before["space"], *now["space"]}):
        # compared by values: the description of an older version may be worded differently
        old, new = (without_condition(config["dimensions"].get(key)) for config in (before, now))
        if old != new:
            old_text, new_text = (config["space"].get(key, "nothing") for config in (before, now))
            faults.append(
                translate(
                    "{key} varied over {old_text} and now over {new_text}",
                    key=key,
                    old_text=old_text,
                    new_text=new_text,
                )
            )
    old_fixed, new_fixed = relevant_overrides(before["fixed"]), relevant_overrides(now["fixed"])
    for key in sorted({*old_fixed, *new_fixed}):
        before_text, now_text = old_fixed.get(key, translate("not given")), new_fixed.get(key, translate("not given"))
        if before_text != now_text:
            faults.append(
                translate(
                    "{key} was {before_text} in the study's trials and is now {now_text}",
                    key=key,
                    before_text=before_text,
                    now_text=now_text,
                )
            )
    return faults


def without_condition(dimension: Mapping[str, Any] | None) -> dict[str, Any]:
    """A recorded dimension without the condition under which it varies."""
    return {name: value for name, value in (dimension or {}).items() if name != "when"}


def rename_stages(stages: Any) -> Any:
    """The stages of a pbt study, its options under the names of today."""
    if not isinstance(stages, list) or len(stages) != 2 or not isinstance(stages[1], dict):
        return stages
    above = "search.sampler_options."
    return [stages[0], {rename_key(f"{above}{name}").removeprefix(above): v for name, v in stages[1].items()}]


def relevant_overrides(fixed: Sequence[str]) -> dict[str, str]:
    """The overrides that may change the scores of a trial, by key."""
    pairs = [override.partition("=") for override in fixed]
    return {key: value for key, _, value in pairs if not key.lstrip("+~").startswith(IGNORED_OVERRIDES)}

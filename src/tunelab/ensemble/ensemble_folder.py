"""The run folder of an ensemble: manifest, scores, predictions, `ensemble.json`, and an export if one model results."""

import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from math import isfinite
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from tunelab.config.schema import TrialConfig
from tunelab.data.data_sources import DataSplits
from tunelab.ensemble.ensemble_members import MemberSource
from tunelab.ensemble.ensemble_scores import EnsembleResult
from tunelab.language.translation import translate
from tunelab.runs.atomic_files import write_json
from tunelab.runs.file_digests import sha256_file
from tunelab.runs.manifest import finish_manifest, start_manifest
from tunelab.runs.redact import redact
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.components import RunComponents
from tunelab.training.evaluate_run import EvalOutcome
from tunelab.training.lifecycle import base_model_location, write_export
from tunelab.training.load_run import TrainedRun, weights_hash

ENSEMBLE_FILE = "ensemble.json"


def write_ensemble_folder(
    root: Path,
    method: str,
    result: EnsembleResult,
    model: TrainedRun,
    sources: DataSplits,
    members: Sequence[MemberSource],
    started: float,
) -> RunDirectory:
    """Leave manifest, config, scores, tables, predictions and `ensemble.json`; where one model results, an export.

    Args:
        root: The folder; there must be no run in it.
        method: As on the command line.
        result: Scores, members and gains.
        model: Of a soup the averaged model, else the first member.
        sources: The splits.
        members: Those that were considered.
        started: `time.monotonic()` when the work began.
    """
    settings = replace(model.settings, name="ensemble", resume=None, trial=TrialConfig(key_order=("id", "study")))
    facts = ensemble_facts(root, method, result, members)
    scores = {f"val/{name}": value for name, value in result.validation.scores.items()}
    scores |= {f"test/{name}": value for name, value in result.test.scores.items()}
    if "calibration" in result.facts:
        scores |= {f"test/{name}": result.facts["calibration"]["ensemble"][name] for name in ("ece", "ece_calibrated")}
    command = [Path(sys.executable).name, *sys.argv]
    with RunDirectory.create(root) as folder:
        manifest = start_manifest(
            command=command,
            overrides=[],
            config=settings.as_dict(),
            seed=settings.seed,
            data={"files": sources.file_hashes, "notes": sources.notes},
            model={
                "path": base_model_location(settings),
                "parameters": sum(p.numel() for p in model.model.parameters()),
            },
        )
        manifest["ensemble"] = facts
        folder.write_manifest(manifest)
        folder.write_config(OmegaConf.to_yaml(OmegaConf.create(redact(settings.as_dict()))))
        write_json(folder.task_state, result.task.state(), exact=True)
        folder.write_scores(scores)
        folder.write_score_tables({"test": result.test.tables})
        folder.write_predictions(result.test.predictions)
        write_json(root / ENSEMBLE_FILE, facts)
        if method in ("soup", "greedy_soup"):
            components = RunComponents(
                settings, model.task, sources, model.tokenizer, {}, row_counts(sources), adapter=model.adapter
            )
            # last: a head that gives the user's units is changed for good
            write_export(components, folder, EvalOutcome(scores), [f"{shlex.join(command[1:])}  # an ensemble"])
        results = {"predictions_sha256": sha256_file(folder.predictions)}
        folder.write_manifest(
            finish_manifest(manifest, "finished", None, time.monotonic() - started, None, scores, results=results)
            | {"ensemble": facts}
        )
    return folder


def row_counts(sources: DataSplits) -> dict[str, dict[str, int | float]]:
    """Rows of each split."""
    return {name: {"rows": len(split.rows)} for name, split in sources.splits.items()}


def ensemble_facts(root: Path, method: str, result: EnsembleResult, members: Sequence[MemberSource]) -> dict[str, Any]:
    """`ensemble.json`: method, members, where they lie, their weights, gains with intervals, what else was fitted."""
    weights: Sequence[float | None] = result.weights or [None] * len(result.names)
    by_name = {member.name: member for member in members}
    return {
        "method": method,
        "members": [
            {"run": name, **member_location(root, by_name[name]), "weight": weight}
            for name, weight in zip(result.names, weights, strict=True)
        ],
        "best_single": result.best_single,
        "gains": {name: asdict(gain) for name, gain in result.gains.items()},
        **result.facts,
    }


def member_location(root: Path, member: MemberSource) -> dict[str, str | None]:
    """The location of a member and the hash of its weights, for loading the ensemble."""
    folder = member.folder.root.resolve()
    return {
        "folder": str(folder),
        "beside": os.path.relpath(folder, root.resolve()),  # serves where both have been moved
        "checkpoint": None if member.checkpoint is None else member.checkpoint.name,
        "weights_sha256": weights_hash(member.checkpoint or member.folder.best) if has_weights(member) else None,
    }


def has_weights(member: MemberSource) -> bool:
    """Whether a member's checkpoint is still there; else its export was loaded."""
    return (member.checkpoint or member.folder.best).is_file()


def gain_sentence(result: EnsembleResult) -> str:
    """A sentence on whether the ensemble is better than the best single run."""
    name = result.facts["primary"]
    gain = result.gains[name]
    if not isfinite(gain.gain):
        return f"test/{name} is no number, so nothing can be said of a gain"
    figures = translate(
        "test/{name} {ensemble:.4g} against {single:.4g} of the best single run ({best_single})",
        name=name,
        ensemble=gain.ensemble,
        single=gain.single,
        best_single=result.best_single,
    )
    interval = translate(
        "gain {gain:+.4g}, 95 % interval {low:+.4g} to {high:+.4g}", gain=gain.gain, low=gain.low, high=gain.high
    )
    if gain.low > 0:
        return translate("the ensemble is better: {figures}; {interval}", figures=figures, interval=interval)
    if gain.high < 0:
        return translate("the ensemble is worse: {figures}; {interval}", figures=figures, interval=interval)
    return translate(
        "no difference is proven: {figures}; {interval}, which holds 0", figures=figures, interval=interval
    )

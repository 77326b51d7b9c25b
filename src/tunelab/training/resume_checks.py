"""What must be as it was when a run goes on: its base weights, its data, its length.  Checked before a file changes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tunelab.config.schema import RunConfig
from tunelab.errors import ConfigError, DataError
from tunelab.language.translation import translate
from tunelab.runs.base_weights import base_change, needs_base
from tunelab.runs.checkpoint import read_checkpoint
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.components import RunComponents, count_planned_steps


def check_resume(components: RunComponents, folder: RunDirectory) -> list[str]:
    """Check that a run can go on with these settings; nothing is written.

    Returns:
        Notes for the user: what is other than before, and allowed.

    Raises:
        ConfigError: If the base weights changed, or the run is longer already than it is to become.
        DataError: If a file of the data changed.
    """
    settings, manifest = components.settings, folder.read_manifest()
    check_same_files((manifest.get("data") or {}).get("files") or {}, components.sources.file_hashes, folder)
    notes = []
    if needs_base(settings.as_dict()) and (change := model_change(manifest, components)):
        path = settings.model.path
        if not settings.allow_changed_base:
            raise ConfigError(
                translate(
                    "resume={root}: the base weights in {path} changed since the run began ({change}), "
                    "so its adapter would go on in another model. Put the former weights back, or start "
                    "a new run; allow_changed_base=true goes on all the same",
                    root=folder.root,
                    path=path,
                    change=change,
                )
            )
        notes.append(
            translate("the base weights in {path} changed since the run began ({change})", path=path, change=change)
        )
    if folder.last.exists():
        checkpoint = read_checkpoint(folder.last, values_only=True)
        check_length(settings, checkpoint, folder)
        notes += length_notes(components, manifest)
        notes += lost_best_notes(checkpoint, folder)
    return notes


def check_same_files(before: Mapping[str, Any], now: Mapping[str, str], folder: RunDirectory) -> None:
    """Refuse data that changed since the run began: what it learned or scored before could not be compared.

    Raises:
        DataError: Naming the files.
    """
    changed = [name for name, digest in now.items() if before.get(name) not in (None, digest)]
    if changed:
        raise DataError(
            translate(
                "cannot resume {root}: {names} changed since the run began, and its scores of before "
                "and after could not be compared. Put the former data back, or start a new run; "
                "tunelab evaluate {root} --data FILE scores the run on other rows",
                root=folder.root,
                names=", ".join(changed),
            )
        )


def model_change(manifest: Mapping[str, Any], components: RunComponents) -> str | None:
    """How the base model differs from that of the run's first session: its files, or its revision on a hub."""
    before, now = (manifest.get("model") or {}).get("revision"), getattr(components.model.config, "_commit_hash", None)
    if before and now and before != now:
        return translate("revision {now} now, {before} then", now=now, before=before)
    return base_change(manifest)


def check_length(settings: RunConfig, checkpoint: Mapping[str, Any], folder: RunDirectory) -> None:
    """Refuse fewer epochs or steps than are done.

    Raises:
        ConfigError: Naming both numbers.
    """
    steps, faults = int(checkpoint["global_step"]), list[str]()
    epochs = int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["started"])
    if settings.max_epochs < epochs:
        faults.append(
            translate(
                "max_epochs={max_epochs}, and the run has begun {epochs} [epoch|epochs]",
                max_epochs=settings.max_epochs,
                epochs=epochs,
            )
        )
    if settings.max_steps is not None and settings.max_steps < steps:
        faults.append(
            translate(
                "max_steps={max_steps}, and the run has done {steps} [step|steps]",
                max_steps=settings.max_steps,
                steps=steps,
            )
        )
    if faults:
        raise ConfigError(
            translate(
                "resume={root}: {names}. What is learned cannot be taken back: give at least as "
                "much, or start a new run with less",
                root=folder.root,
                names=translate("; ").join(faults),
            )
        )


def length_notes(components: RunComponents, manifest: Mapping[str, Any]) -> list[str]:
    """A note where the run becomes longer or shorter than planned: the schedule is that of the new length."""
    settings, config = components.settings, manifest.get("config") or {}
    epochs, most = config.get("max_epochs"), config.get("max_steps")
    if not isinstance(epochs, int) or (epochs, most) == (settings.max_epochs, settings.max_steps):
        return []
    planned = count_planned_steps(replace(settings, max_epochs=epochs, max_steps=most), components.epoch_rows)
    total = count_planned_steps(settings, components.epoch_rows)
    if planned == total:
        return []
    return [
        translate(
            "planned {planned} [step|steps] before and {total} now: from here on the learning rate "
            "follows the schedule of {total} [step|steps]",
            planned=planned,
            total=total,
        )
    ]


def lost_best_notes(checkpoint: Mapping[str, Any], folder: RunDirectory) -> list[str]:
    """A note where the best checkpoint is gone: the best of before cannot come back."""
    states = checkpoint.get("callbacks") or {}
    best: Mapping[str, Any] = next((state for name, state in states.items() if name.startswith("BestCheckpoint[")), {})
    if folder.best.exists() or best.get("score") is None:
        return []
    return [
        translate(
            "checkpoints/best.ckpt is gone, with the best weights so far (step {step}, score "
            "{score:.6g}); the best is now chosen among what comes, and the scores of this run "
            "are those of that",
            step=best["step"],
            score=best["score"],
        )
    ]

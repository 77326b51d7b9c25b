"""Whether the base model of a run still has the weights that the run was trained on."""

from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from tunelab.config.resource_paths import resolve_path
from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.runs.file_digests import sha256_folder

# Loading goes through many hands (members of ensembles, soups); the one who allows it stands at the command line.
_allowed: ContextVar[bool] = ContextVar("changed_base_allowed", default=False)


def allow_changed_base(allowed: bool) -> None:
    """Let runs of this process be loaded on other base weights than they were trained on, or not."""
    _allowed.set(allowed)


def is_changed_base_allowed() -> bool:
    """Whether it was allowed."""
    return _allowed.get()


def needs_base(config: Mapping[str, Any]) -> bool:
    """Whether results of a run depend on the base weights after training: part of the model, or its reference."""
    kind = (config.get("adapter") or {}).get("kind", "full")
    return kind != "full" or (config.get("data") or {}).get("task") == "preference"


def base_change(manifest: Mapping[str, Any]) -> str | None:
    """How the base weights of a run differ from those of its training; None where they are the same or not here.

    Args:
        manifest: Of the run.
    """
    model = manifest.get("model") or {}
    before = model.get("sha256")
    place = resolve_path(str(model.get("path"))) if before else None
    if place is None or not place.is_dir():
        return None
    try:
        now = sha256_folder(place)
    except ConfigError:  # there is no model at all: loading it says so
        return None
    return (
        None if now == before else translate("sha256 {now} now, {before} then", now=now[:12], before=str(before)[:12])
    )


def check_base_weights(manifest: Mapping[str, Any], run: Path) -> str | None:
    """Refuse to use a run on other base weights than it was trained on.

    Args:
        manifest: Of the run.
        run: Its folder.

    Returns:
        A note, where the weights changed and that is allowed.

    Raises:
        ConfigError: If they changed.
    """
    if not needs_base(manifest.get("config") or {}) or (change := base_change(manifest)) is None:
        return None
    path = manifest["model"]["path"]
    if is_changed_base_allowed():
        return translate(
            "the base weights in {path} changed since the training of {run} ({change})",
            path=path,
            run=run,
            change=change,
        )
    merged = (
        translate("; or use {run}, which holds all weights", run=run / "export")
        if (run / "export" / "config.json").is_file()
        else ""
    )
    raise ConfigError(
        translate(
            "{run} is no model by itself: it was trained on the base weights in {path}, which "
            "changed since ({change}), so it would answer as another model. Put the former "
            "weights back{merged}; --allow-changed-base uses these",
            run=run,
            path=path,
            change=change,
            merged=merged,
        )
    )

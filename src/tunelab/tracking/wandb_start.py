"""Start a W&B run: where it goes, what it is called, and the one line that says how to look at it."""

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tunelab.console import is_main_process
from tunelab.tracking.redact import redact
from tunelab.tracking.wandb_mode import Choice, choose_mode, read_netrc
from tunelab.tracking.weights_and_biases import WandbRun


def make_wandb(
    config: Mapping[str, Any],
    *,
    folder: Path,
    run_config: Mapping[str, Any],
    name: str,
    monitor: str,
    mode: str,
    resume_from_step: int | None = None,
    tell: Callable[[str], None] = print,
) -> WandbRun | None:
    """Start a W&B run as `choose_mode` decides; on the main process only.

    Args:
        config: The logger block: mode, project, entity, group, job_type, tags, notes.
        folder: The run folder; everything goes to `wandb` in it.
        run_config: The resolved config of the run; secrets are taken out.
        name: What the run is called unless `config` has a name.
        monitor: The score that the best checkpoint follows; the run's summary keeps its best value.
        mode: `min` or `max`: which value of `monitor` is best.
        resume_from_step: Not None when the run goes on: it keeps its W&B id.
        tell: Receives the one line that says how to look at an offline run.

    Returns:
        The logger; None if W&B is disabled, or on another process than the main one.

    Raises:
        ConfigError: If the asked mode is unknown.
    """
    choice = choose_mode(os.environ, read_netrc(os.environ), config, hosts=_hosts())
    if choice.mode == "disabled" or not is_main_process():
        return None
    start = {
        "project": config.get("project") or os.environ.get("WANDB_PROJECT") or "tunelab",
        "entity": config.get("entity"),
        "group": config.get("group"),
        "job_type": config.get("job_type"),
        "tags": _tags(config.get("tags")),
        "notes": config.get("notes"),
        "name": config.get("name") or name,
        "id": config.get("id") or _identity(folder, keep=resume_from_step is not None),
        "config": redact(run_config),
    }
    start = {key: value if key == "config" else redact(value) for key, value in start.items() if value is not None}
    run = WandbRun(folder, mode=choice.mode, start=start, monitor=monitor, best=mode)
    run.begin()
    if run.mode == "offline" and run.experiment is not None:
        tell(_offline_hint(choice, folder / "wandb"))
    return run


def _offline_hint(choice: Choice, folder: Path) -> str:
    look = f"look with: wandb leet {folder}"
    if choice.explicit and choice.mode == "offline":
        return f"W&B is offline; {look}"
    reason = choice.reason if choice.mode == "offline" else "no answer from the server"
    return f"W&B is offline ({reason}); {look} | upload with: wandb login && wandb sync {folder}/offline-run-*"


def _hosts() -> tuple[str, ...]:
    """Hosts whose login wandb would use: the configured server and, where it is a front, the one behind it."""
    import wandb  # as above

    try:
        server = str(wandb.setup().settings.base_url)
    except Exception:  # a broken settings file of wandb: WANDB_API_KEY is still looked at
        return ()
    try:
        from wandb.sdk.lib.urls import forge_upstream_url  # not part of wandb's public interface

        servers = (server, forge_upstream_url(server))
    except ImportError:
        servers = (server, server)
    return tuple(dict.fromkeys(urlsplit(address).netloc for address in servers))


def _identity(folder: Path, *, keep: bool) -> str:
    """The id of this run folder's W&B run: a fresh one, or the one it had when the run goes on."""
    note = folder / "wandb" / "id.txt"
    if keep and note.is_file() and (known := note.read_text(encoding="utf-8").strip()):
        return known
    fresh = secrets.token_hex(4)  # from the system: the seeded generators stay untouched
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(fresh + "\n", encoding="utf-8")
    return fresh


def _tags(value: str | Sequence[str] | None) -> list[str] | None:
    if not value:
        return None
    return [value] if isinstance(value, str) else [str(tag) for tag in value]

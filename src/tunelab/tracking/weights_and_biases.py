"""Weights & Biases as a Lightning logger that never asks, never waits for long and never stops a training."""

import logging
import os
import secrets
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from tunelab.console import is_main_process
from tunelab.tracking.redact import redact
from tunelab.tracking.wandb_mode import Choice, choose_mode, read_netrc

STEP = "trainer/global_step"  # the metric on every x axis: wandb's own step restarts at 0 when a run goes on
_FAILED = ("failed", "crashed", "preempted", "interrupted")
_START_LIMIT = 20  # seconds until a server that does not answer is given up
_FINISH_LIMIT = 60.0  # seconds that uploading the rest may take at the end
_told = logging.getLogger(__name__)


class WandbRun(Logger):
    """One W&B run below `<folder>/wandb`.

    Lightning's own WandbLogger is not used: it sets WANDB_MODE for the whole process, decides where checkpoints
    go, and leaves the run open, so that the next one in the same process is merged into it.

    Args:
        folder: The run folder.
        mode: `online` or `offline`.
        start: What `wandb.init` is called with, besides mode, dir and settings.
        monitor: The score whose best value the run summary keeps.
        best: `min` or `max`.
    """

    def __init__(self, folder: Path, *, mode: str, start: Mapping[str, Any], monitor: str, best: str) -> None:
        super().__init__()
        self.folder = folder
        self.mode = mode
        self._start = dict(start)
        self._monitor = monitor
        self._best = best
        self._run: Any = None
        self._warned = False
        self._data_folder_before: str | None = None

    @property
    @override
    def name(self) -> str | None:
        return None  # a name would become part of the checkpoint path

    @property
    @override
    def version(self) -> str | None:
        return str(self._start["id"])

    @property
    @override
    def save_dir(self) -> str | None:
        return str(self.folder)

    @property
    def experiment(self) -> Any:
        """The `wandb.Run`; None before `begin`, after `finish` and where wandb could not start."""
        return self._run

    def begin(self) -> None:
        """Start the run: offline where no server answers, and none at all where wandb cannot start."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._data_folder_before = os.environ.get("WANDB_DATA_DIR")
        data = self.folder / "wandb" / "data"  # else tables wait for upload in the home folder and get lost
        data.mkdir(parents=True, exist_ok=True)
        os.environ["WANDB_DATA_DIR"] = str(data)
        modes: list[Literal["online", "offline"]] = ["online", "offline"] if self.mode == "online" else ["offline"]
        for mode in modes:
            try:
                self._run = self._initialise(mode)
            except Exception as fault:  # whatever wandb meets, the training goes on
                consequence = "going on offline" if mode != modes[-1] else "going on without it"
                _told.warning("W&B could not start %s (%s); %s", mode, _first_line(fault), consequence)
            else:
                self.mode = mode
                return

    def _initialise(self, mode: Literal["online", "offline"]) -> Any:
        import wandb  # half a second that runs without wandb need not pay

        settings = wandb.Settings(
            console="off",  # the terminal is not copied into the run: it may show what redaction took out
            silent=True,
            init_timeout=_START_LIMIT,
            finish_timeout=_FINISH_LIMIT,
            x_disable_meta=redact(sys.argv) != sys.argv,  # the metadata hold the command line
        )
        run = wandb.init(mode=mode, dir=str(self.folder), settings=settings, resume="allow", **self._start)
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        run.define_metric(self._monitor, step_metric=STEP, step_sync=True, summary=self._best)
        return run

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self._run is not None:
            values = dict(metrics) if step is None else {**metrics, STEP: step}
            self._guard("log", lambda: self._run.log(values))

    @override
    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        pass  # the run starts with the whole resolved config

    @rank_zero_only
    def finish(self, status: str) -> None:
        """Close the run; without this the next run of the process would be merged into it.

        Args:
            status: `success`, `failed`, `preempted` or `interrupted`; kept in the run's summary.
        """
        if self._run is not None:
            run, self._run = self._run, None
            self._guard("summary", lambda: run.summary.update({"status": status}))
            if status == "preempted":
                self._guard("preempting", run.mark_preempting)
            self._guard("finish", lambda: run.finish(exit_code=int(status in _FAILED)))
        if self._data_folder_before is None:
            os.environ.pop("WANDB_DATA_DIR", None)
        else:
            os.environ["WANDB_DATA_DIR"] = self._data_folder_before

    def _guard(self, what: str, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as fault:  # a tracker must not end a training; metrics.csv holds the same curves
            if not self._warned:
                self._warned = True
                _told.warning("W&B %s failed (%s); training goes on, metrics.csv is complete", what, _first_line(fault))


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


def _first_line(fault: Exception) -> str:
    text = str(fault).strip().splitlines()
    return redact(f"{type(fault).__name__}: {text[0]}" if text else type(fault).__name__)  # type: ignore[no-any-return]

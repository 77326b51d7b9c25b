"""Where the numbers of a run go: the curves file always, and what the logger block asks for."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from tunelab.errors import ConfigError
from tunelab.tracking.curves import CurveLogger
from tunelab.tracking.weights_and_biases import WandbRun, make_wandb

KINDS = ("csv", "wandb", "tensorboard", "none")


def check_loggers(config: Mapping[str, Any]) -> list[str]:
    """Every fault of a logger block, each as one sentence with a way out; loads nothing."""
    kind = str(config.get("kind") or "csv")
    faults = []
    if kind not in KINDS:
        faults.append(f"logger.kind is {kind!r}, which is no logger here; choose one of {', '.join(KINDS)}")
    if kind == "tensorboard" and find_spec("tensorboard") is None:
        faults.append("logger=tensorboard needs the package tensorboard; pip install tensorboard, or use logger=csv")
    return faults


def build_loggers(
    config: Mapping[str, Any],
    *,
    folder: Path,
    run_config: Mapping[str, Any],
    name: str,
    monitor: str,
    mode: str,
    resume_from_step: int | None,
    tell: Callable[[str], None] = print,
) -> list[Logger]:
    """Build and start the loggers of a run.

    Args:
        config: The logger block of the config; `kind` says which.
        folder: The run folder.
        run_config: The resolved config, as plain values.
        name: What the run is called in a tracker.
        monitor: The score that the best checkpoint follows.
        mode: `min` or `max`.
        resume_from_step: Optimizer steps already done when the run goes on; None for a new one.
        tell: Receives lines for the user.

    Returns:
        The curves file first, then at most one other.  Close them with `finish_loggers`.

    Raises:
        ConfigError: If the block cannot be honoured.
    """
    if faults := check_loggers(config):
        raise ConfigError.listing(faults)
    loggers: list[Logger] = [CurveLogger(folder, resume_from_step=resume_from_step)]
    kind = str(config.get("kind") or "csv")
    if kind == "tensorboard":
        # Events after the resumed step come from a run that was cut off: TensorBoard then hides them.
        loggers.append(TensorBoardLogger(folder, name="tensorboard", version="", purge_step=resume_from_step))
    if kind == "wandb":
        run = make_wandb(
            config,
            folder=folder,
            run_config=run_config,
            name=name,
            monitor=monitor,
            mode=mode,
            resume_from_step=resume_from_step,
            tell=tell,
        )
        if run is not None:
            loggers.append(run)
    return loggers


@rank_zero_only
def finish_loggers(loggers: Sequence[Logger], status: str) -> None:
    """Close every logger; to be called in a `finally`, also after a fault.

    Args:
        loggers: What `build_loggers` gave.
        status: `success`, `failed`, `preempted` or `interrupted`.
    """
    for logger in loggers:
        if isinstance(logger, WandbRun):
            logger.finish(status)
        else:
            logger.finalize(status)

"""The loggers of a run, built from the logger block, and the run's name in a tracker."""

from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from tunelab.config.instantiate import make_factory
from tunelab.config.schema import LoggerConfig, TargetConfig
from tunelab.errors import ConfigError, first_line
from tunelab.language.translation import translate
from tunelab.runs.console import is_main_process
from tunelab.runs.redact import redact
from tunelab.tracking.csv_logger import CurveLogger
from tunelab.tracking.trackio_logger import TrackioRun
from tunelab.tracking.wandb_logger import WandbRun
from tunelab.tracking.wandb_start import start_wandb

OPTIONAL_KINDS = ("tensorboard", "trackio")  # kinds that need a package of their own name


def logger_faults(config: LoggerConfig) -> list[str]:
    """Requirements of a tracker that this machine lacks, with a way out; imports no tracker."""
    return [
        translate("logger={kind} needs the package {kind}; pip install {kind}, or use logger=csv", kind=kind)
        for kind in config.chosen_kinds()
        if kind in OPTIONAL_KINDS and find_spec(kind) is None
    ]


def build_loggers(
    config: LoggerConfig,
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
        config: The logger block of the config.
        folder: The run directory.
        run_config: The resolved config, as plain values.
        name: The run's name in a tracker.
        monitor: The score that the best checkpoint follows.
        mode: `min` or `max`.
        resume_from_step: Optimizer steps already done when the run is resumed; None for a new one.
        tell: Receives lines for the user.

    Returns:
        The CSV logger first, then the trackers, then loggers of one's own.  Close them with `finish_loggers`.

    Raises:
        ConfigError: If the block has a fault.
    """
    if faults := logger_faults(config):
        raise ConfigError.listing(faults)
    loggers: list[Logger] = [CurveLogger(folder, resume_from_step=resume_from_step)]
    kinds = config.chosen_kinds()
    if "tensorboard" in kinds:
        from tunelab.tracking.tensorboard_logger import TensorBoard  # imports an extra

        loggers.append(
            TensorBoard(str(folder), run_config=run_config, monitor=monitor, resume_from_step=resume_from_step)
        )
    if "trackio" in kinds and is_main_process():
        loggers.append(
            TrackioRun(
                project=config.project or "tunelab",
                name=config.name or name,
                group=config.group,
                run_config=run_config,
                resume=resume_from_step is not None,
                tell=tell,
            )
        )
    if "wandb" in kinds:
        run = start_wandb(
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
    return loggers + [build_own_logger(name, target, run_config) for name, target in config.targets.items()]


def build_own_logger(name: str, target: TargetConfig, run_config: Mapping[str, Any]) -> Logger:
    """A logger of one's own, which gets the settings of the run as Lightning's loggers do: by `log_hyperparams`.

    Raises:
        ConfigError: If it refuses its arguments, or is no logger.
    """
    try:
        logger = make_factory(target)()
    except (TypeError, ValueError, ImportError) as fault:
        raise ConfigError(
            translate(
                "logger.{name}: {target} refuses its arguments: {fault}",
                name=name,
                target=target.target,
                fault=first_line(fault),
            )
        ) from fault
    if not isinstance(logger, Logger):
        raise ConfigError(
            translate(
                "logger.{name}: {target} is no Lightning logger (lightning.pytorch.loggers.Logger)",
                name=name,
                target=target.target,
            )
        )
    if is_main_process():
        logger.log_hyperparams(redact(dict(run_config)))
    return logger


@rank_zero_only
def finish_loggers(loggers: Sequence[Logger], status: str) -> None:
    """Close every logger; to be called in a `finally`, also after an error.

    Args:
        loggers: The result of `build_loggers`.
        status: `success`, `failed`, `preempted` or `interrupted`.
    """
    for logger in loggers:
        if isinstance(logger, WandbRun | TrackioRun):
            logger.finish(status)
        else:
            logger.finalize(status)


MAX_TITLE_LENGTH = 120  # characters; W&B takes 128

# Overrides that say where a run is written or how it is watched, not what it tries.
_UNINFORMATIVE_PREFIXES = (
    "hydra.",
    "logger",
    "trial.",
    "search",
    "callbacks",
    "name=",
    "lang=",
    "save=",
    "resume=",
    "test=",
    "eval.",
)


def run_title(place: str, overrides: Sequence[str], shared: Collection[str] = ()) -> str:
    """The name of a run: its place, then the overrides that set it apart.

    Args:
        place: Run directory or number of the trial; always first, so that no two runs share a name.
        overrides: The overrides of its command line.
        shared: Overrides that every run beside it has too, such as those of all trials of a study.

    Returns:
        At most 120 characters, cut between overrides.
    """
    title = place
    for override in overrides:
        if override in shared or override.lstrip("+~").startswith(_UNINFORMATIVE_PREFIXES):
            continue
        if len(title) + len(override) + 2 > MAX_TITLE_LENGTH:
            return f"{title} …"
        title = f"{title} {override}"
    return title

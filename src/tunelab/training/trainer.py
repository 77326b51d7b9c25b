"""Lightning's trainer of a run, its callbacks, and the score they follow."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.loggers import Logger
from typing_extensions import override

from tunelab.config import instantiate
from tunelab.config.schema import CallbacksConfig, RunConfig, TrainerConfig, TrialConfig
from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.models.device_placement import resolve_precision
from tunelab.optim.factory import follows_plateau
from tunelab.runs.checkpoint import read_checkpoint, write_checkpoint
from tunelab.runs.launcher import is_one_slurm_task, launched_by
from tunelab.runs.run_dir import RunDirectory
from tunelab.tasks.base import Task
from tunelab.tasks.metrics.directions import metric_direction
from tunelab.training.callbacks.checkpointing import BestCheckpoint, LastCheckpoint, SnapshotCheckpoints
from tunelab.training.callbacks.doctor_monitor import DoctorCallback
from tunelab.training.callbacks.early_stopping import EarlyStopping
from tunelab.training.callbacks.layer_statistics import ActivationMonitor, GradientHistograms, LayerMonitor
from tunelab.training.callbacks.loss_spikes import Spikes
from tunelab.training.callbacks.progress import progress_callback
from tunelab.training.callbacks.reduce_on_plateau import ReduceOnPlateau
from tunelab.training.callbacks.resource_monitors import MemoryMonitor, Throughput
from tunelab.training.callbacks.search_trial import KeepOptimizerSettings, Pruning, ScoreReporter, StopAtStageEnd
from tunelab.training.sharded_strategy import ShardedStrategy


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoint files for Lightning: written atomically, read as plain types only and verified."""

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        write_checkpoint(Path(path), checkpoint)

    @override
    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path), map_location)


def resolve_monitor(settings: RunConfig, task: Task, sources: Sequence[str] = ()) -> tuple[str, str]:
    """The score to follow and its better direction: as set, else the task's own.

    Args:
        settings: Names the score, or leaves it to the task.
        task: Knows its scores.
        sources: Those of a mix that have validation rows: each has a loss of its own.

    Raises:
        ConfigError: If no such score will be logged.
    """
    own = task.own_metrics.score_names if task.own_metrics is not None else ()
    of_answers = [*task.answer_names, *(own if task.metrics_of_answers else ())]
    answers = [f"val/{name}" for name in of_answers if name not in task.score_names]
    of_rows = [*task.score_names, *(() if task.metrics_of_answers else own)]
    known = [f"val/{name}" for name in of_rows] + [f"val/{name}/loss" for name in sources] + answers
    monitor = task.description.monitor if settings.monitor == "auto" else settings.monitor
    if monitor not in known:
        raise ConfigError(
            translate(
                "monitor={monitor}: no such score is logged in validation; choose one of {names}",
                monitor=monitor,
                names=", ".join(known),
            )
        )
    if monitor in answers and (settings.eval.generate is False or settings.eval.generate_rows == 0):
        raise ConfigError(
            translate(
                "monitor={monitor} is a score of generated answers, and eval.generate={generate} "
                "with eval.generate_rows={generate_rows} generates none in validation; set "
                "eval.generate=auto and eval.generate_rows=200",
                monitor=monitor,
                generate=settings.eval.generate,
                generate_rows=settings.eval.generate_rows,
            )
        )
    mode = metric_direction(monitor) if settings.mode == "auto" else settings.mode
    if mode is None:
        raise ConfigError(
            translate(
                "monitor={monitor}: nothing says which way this score is better; set mode=min or "
                "mode=max, or name it in `higher_is_better` of the class that computes it",
                monitor=monitor,
            )
        )
    return monitor, mode


def build_callbacks(
    settings: RunConfig, folder: RunDirectory, monitor: str, mode: str, *, validates: bool
) -> list[Callback]:
    """Early stopping, then checkpoints: the best first, so that `last.ckpt` knows it."""
    config = settings.callbacks
    callbacks: list[Callback] = []
    if settings.trainer.enable_progress_bar:
        callbacks.append(progress_callback(monitor if validates else None))
    if config.throughput:
        callbacks.append(Throughput())
    if every := settings.logger.gradients:
        callbacks.append(GradientHistograms(every))
    callbacks += build_monitors(config)
    if validates and config.doctor:
        callbacks.append(DoctorCallback(folder))
    if validates and config.early_stopping:
        callbacks.append(EarlyStopping(monitor, mode=mode, patience=config.patience, min_delta=config.min_delta))
    if validates and settings.trial.id is not None:
        callbacks += build_trial_callbacks(settings, monitor)
    if follows_plateau(settings.scheduler):
        if not validates:
            raise ConfigError(
                translate("scheduler=plateau follows validations, and there are none; set data.split.validation")
            )
        callbacks.append(ReduceOnPlateau(monitor, mode))
    callbacks += build_configured_callbacks(config)
    if validates:
        callbacks.append(BestCheckpoint(folder.best, monitor=monitor, mode=mode))
    if count := config.snapshots:
        callbacks.append(SnapshotCheckpoints(folder.checkpoints, count, settings.scheduler.number("warmup")))
    return [*callbacks, LastCheckpoint(folder.last, every=config.save_every, validates=validates)]


def build_configured_callbacks(config: CallbacksConfig) -> list[Callback]:
    """The callbacks that the config names by `callbacks.NAME={_target_: ...}`, in their order.

    Raises:
        ConfigError: If one refuses its arguments, or is no callback.
    """
    built = []
    for name, target in config.targets.items():
        try:
            callback = instantiate.make_factory(target)()
        except (TypeError, ValueError, MisconfigurationException) as fault:
            raise ConfigError(
                translate(
                    "callbacks.{name}: {target} refuses its arguments: {fault}",
                    name=name,
                    target=target.target,
                    fault=fault,
                )
            ) from fault
        if not isinstance(callback, Callback):
            raise ConfigError(
                translate("callbacks.{name}: {target} is no Lightning callback", name=name, target=target.target)
            )
        built.append(callback)
    return built


def build_trial_callbacks(settings: RunConfig, monitor: str) -> list[Callback]:
    """The callbacks of a run that is a trial of a search: they report its scores, and end it at its stage."""
    callbacks: list[Callback] = [Pruning(partial(connect_to_search, settings.trial), monitor)]
    if settings.trial.until is not None:
        callbacks.append(StopAtStageEnd(settings.trial.until))
    if settings.trial.parent is not None:
        callbacks.append(KeepOptimizerSettings(["weight_decay", *settings.optimizer.arguments]))
    return callbacks


def build_monitors(config: CallbacksConfig) -> list[Callback]:
    """The callbacks that measure a run without changing it."""
    units, sizes = config.dead_units, config.activations
    return [
        *([MemoryMonitor()] if config.memory else []),
        *([Spikes()] if config.spikes else []),
        *([LayerMonitor()] if config.layers else []),
        *([ActivationMonitor(units=units, sizes=sizes)] if units or sizes else []),
    ]


def connect_to_search(trial: TrialConfig) -> ScoreReporter:
    """A reporter that sends the scores of this trial to its search."""
    from tunelab.search.pruners import TrialReporter  # optuna, which a run by itself does without

    assert trial.study is not None and trial.id is not None  # a search gives both
    return TrialReporter(Path(trial.study), trial.id).report


def build_trainer(
    settings: RunConfig,
    root: Path,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger],
    *,
    checkpoints: bool | None = None,
) -> L.Trainer:
    """Lightning's trainer, its own clipping, samplers and checkpoints switched off: ours replace them."""
    own = {"gradient_clip_val", "precision", "enable_progress_bar", "fsdp"}
    arguments: dict[str, Any] = {
        key: value for key, value in settings.trainer.as_dict().items() if key not in own and value is not None
    }
    if settings.trainer.strategy == "fsdp":
        arguments["strategy"] = ShardedStrategy(settings.trainer.fsdp)
    if settings.trainer.check_val_every_n_epoch is None:
        arguments["check_val_every_n_epoch"] = None  # null means something here: the interval counts across epochs
    # Lightning takes one task of SLURM for all processes of the run
    environment = [LightningEnvironment()] if launched_by() is None and is_one_slurm_task() else []
    try:
        trainer = L.Trainer(
            **arguments,
            enable_checkpointing=checkpoints,
            precision=resolve_precision(settings.trainer.precision),
            max_epochs=-1 if settings.data.streaming else settings.max_epochs,
            max_steps=-1 if settings.max_steps is None else settings.max_steps,
            callbacks=list(callbacks),
            logger=list(loggers),
            plugins=[AtomicCheckpointIO(), *environment],
            default_root_dir=root,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_model_summary=False,
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        )
    except (MisconfigurationException, ValueError, TypeError) as fault:
        raise ConfigError(
            translate("trainer: Lightning refuses these settings: {fault}; see conf/trainer", fault=fault)
        ) from fault
    # with max_steps Lightning takes a run that ended with its epoch for one that stopped within it: resumed, that would
    # end the epoch a second time, count a step too many and see other rows
    trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
    return trainer


def device_faults(trainer: TrainerConfig) -> list[str]:
    """Faults of the configured devices on this machine; checked before any data are read."""
    accelerator, devices, gpus = trainer.accelerator, trainer.devices, torch.cuda.device_count()
    if accelerator == "cuda" and not gpus:
        build = translate(
            "torch {version}, CUDA {value}",
            version=torch.__version__,
            value=torch.version.cuda or "left out of this build",
        )
        return [
            translate(
                "trainer.accelerator=cuda: torch sees no CUDA GPU here ({build}); take auto, which falls back to cpu",
                build=build,
            )
        ]
    if accelerator == "gpu" and not gpus and not torch.backends.mps.is_available():
        return [translate("trainer.accelerator=gpu: torch sees no GPU here; take auto, which falls back to cpu")]
    if accelerator == "mps" and not torch.backends.mps.is_available():
        return [
            translate("trainer.accelerator=mps: torch sees no GPU of a Mac here; take auto, which falls back to cpu")
        ]
    if accelerator != "cpu" and gpus and isinstance(devices, int) and devices > gpus:
        return [
            translate(
                "trainer.devices={devices}: this machine has {gpus} [GPU|GPUs]; take at most as many, or auto for all",
                devices=devices,
                gpus=gpus,
            )
        ]
    return []

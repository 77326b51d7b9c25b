"""The stages of one run: check, build, train, evaluate, write, export."""

import shlex
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, cast

import lightning as L
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from tunelab.config.override_text import searchpath_overrides
from tunelab.config.quoting import path_word
from tunelab.config.resource_paths import resolve_path
from tunelab.config.resume import resume_config
from tunelab.config.schema import RunConfig
from tunelab.config.validate import validate_config
from tunelab.errors import ConfigError, Diverged, TuneLabError
from tunelab.language.translation import configure_language, translate
from tunelab.runs import console, resource_usage
from tunelab.runs.checkpoint import copy_parent_checkpoints
from tunelab.runs.console import silence_libraries
from tunelab.runs.redact import redact
from tunelab.runs.resource_usage import EnergyMeter
from tunelab.runs.run_dir import RunDirectory
from tunelab.runs.run_status import COMPLETE_STATUSES, PREEMPTED, RunStatus
from tunelab.runs.study_folder import StudyFolder
from tunelab.tracking.loggers import build_loggers, finish_loggers, logger_faults, run_title
from tunelab.training.components import (
    RunComponents,
    build_components,
    build_datamodule,
    build_module,
    module_faults,
    report_stream,
)
from tunelab.training.evaluate import make_train_sample
from tunelab.training.evaluate_run import EvalOutcome, evaluate_best_checkpoint
from tunelab.training.final_results import answer_group_tables, log_results
from tunelab.training.generation_eval import make_generation_evaluator
from tunelab.training.lifecycle import (
    LeftAtOnce,
    check_run_space,
    completed_status,
    failure_status,
    first_session_overrides,
    left_at_once,
    minimal_manifest,
    raise_if_pruned,
    read_resume_step,
    rehearse_export,
    write_final_manifest,
    write_results,
    write_start_manifest,
)
from tunelab.training.lost_processes import ProcessLost, ProcessWatch
from tunelab.training.out_of_memory import explain_out_of_memory, is_out_of_memory
from tunelab.training.processes import agree_on_folder, launcher_faults
from tunelab.training.resume_checks import check_resume
from tunelab.training.run_diagnosis import diagnose_finished_run
from tunelab.training.run_header import print_run_header
from tunelab.training.sharded_strategy import share_model
from tunelab.training.trainer import build_callbacks, build_trainer, device_faults, resolve_monitor


def run(config: DictConfig) -> float | None:
    """Do the run that the command line describes, in the folder that Hydra made for it.

    Returns:
        The value of the monitored score, which a search optimises.
    """
    hydra = HydraConfig.get()
    overrides = list(hydra.overrides.task)
    configure_language(config.get("lang"))
    settings = validate_config(resume_config(config, overrides) if config.resume else config)
    folder = Path(hydra.runtime.output_dir)
    if settings.find is not None:
        from tunelab.training.finders.run_finder import run_finder  # few need it, nor what is below

        run_finder(settings, folder)
        return None
    if settings.cv.folds is not None and settings.cv.fold is None:
        from tunelab.training.cross_validation import cross_validate

        beside = searchpath_overrides(cast(DictConfig, hydra))
        return cross_validate(settings, folder, overrides, beside=beside)
    return fine_tune(settings, folder, overrides=overrides)


def fine_tune(
    settings: RunConfig, root: Path, *, overrides: Sequence[str] = (), callbacks: Sequence[Callback] = ()
) -> float | None:
    """Do one run.

    Args:
        settings: What to do; checked.
        root: The run folder; made here, or gone on with where `settings.resume` is set.
        overrides: What the command line changed, for the record.
        callbacks: More callbacks for Lightning, before ours.

    Returns:
        The value of the monitored score at the best checkpoint; None without a validation split.

    Raises:
        ConfigError, DataError: If the settings or the data are at fault; nothing was trained.
        Diverged: If the loss or a weight became NaN or Inf.
        SystemExit: 128 + N after stop signal N, with a `last.ckpt` to go on from.
    """
    meter = EnergyMeter().start()
    resource_usage.reset_peak_memory()
    silence_libraries()
    faults = [
        *logger_faults(settings.logger),
        *device_faults(settings.trainer),
        *launcher_faults(settings.trainer),
        *module_faults(settings.module),
    ]
    if faults:
        raise ConfigError.listing(faults)
    root = agree_on_folder(root)
    is_main = console.is_main_process()
    folder = open_run_directory(root, resume=bool(settings.resume)) if is_main else RunDirectory(root)
    session = RunSession(settings, folder, overrides, is_main)
    session.watch = ProcessWatch(folder, partial(close_alone, session)) if is_main else None
    try:
        train_and_evaluate(session, callbacks)
    except BaseException as fault:
        explained = explain_out_of_memory(fault, settings) if is_out_of_memory(fault) else fault
        explained = left_at_once(explained, session.trainer) or explained
        if session.watch is not None:
            explained = session.watch.cause_of(explained, str(failure_status(explained).reason)) or explained
        session.status = failure_status(explained)
        session.leaves_at_once = isinstance(explained, LeftAtOnce)
        if is_main and session.leaves_at_once:
            console.say(str(session.status.reason))
        if is_main and session.status.status == PREEMPTED and not is_started_by_another(settings):
            words = path_word("resume", console.short_path(folder.root))
            console.show_command(translate("stopped; continue with"), f"{console.train_command()} {shlex.quote(words)}")
        if is_main and is_unforeseen(explained):
            keep_traceback(folder, explained)
        if not is_main and session.status.status == "failed":
            leave_rank_error(session, explained)
        if explained is fault:
            raise
        raise explained from fault
    finally:
        if session.watch is not None:
            session.watch.is_over.set()
        close_session(session, meter)
    if is_main:
        print_results(folder, session.outcome, session.hints)
    return session.status.score


def is_started_by_another(settings: RunConfig) -> bool:
    """Whether a run is a trial or a fold, which the command that started it resumes."""
    return settings.trial.id is not None or settings.cv.fold is not None


def is_unforeseen(fault: BaseException) -> bool:
    """Whether an error says nothing to a user without its traceback."""
    return isinstance(fault, Exception) and not isinstance(fault, TuneLabError)


def keep_traceback(folder: RunDirectory, fault: BaseException) -> None:
    """Write the traceback of an error into the run folder, as another training may take as long to fail again."""
    with suppress(TuneLabError, OSError):
        folder.write_traceback("".join(traceback.format_exception(fault)))
        fault.add_note(
            translate("where it happened is in {traceback}; --debug prints it as well", traceback=folder.traceback)
        )


def leave_rank_error(session: "RunSession", fault: BaseException) -> None:
    """Leave the error of a process beside the main one where that looks for it."""
    with suppress(TuneLabError, OSError):
        text = "".join(traceback.format_exception(fault))
        session.folder.write_rank_error(console.process_rank(), str(session.status.reason), text)


def close_alone(session: "RunSession", fault: ProcessLost) -> None:
    """Write that a run failed whose main process waits for another that is gone, and release its folder."""
    session.status = failure_status(fault)
    if session.manifest:
        seconds, trainer = time.monotonic() - session.started, session.trainer
        write_final_manifest(session.folder, session.manifest, session.status, trainer, session.outcome, seconds, {})
    session.folder.close()


@dataclass
class RunSession:
    """The work of one process on a run, as far as it has come.

    Attributes:
        folder: Written by the main process alone.
        overrides: What the command line changed.
        started: `time.monotonic()` when it began.
        manifest: As this session opened it; empty on other processes, and before the model is built.
        components: Task, data and model; None before they are built.
        outcome: The final scores.
        status: How the run ended.
        leaves_at_once: Whether a second Ctrl-C ended it, so that nothing more is worked out.
        watch: Of the other processes, in the main one.
        hints: How to open what the trackers keep.
    """

    settings: RunConfig
    folder: RunDirectory
    overrides: Sequence[str]
    is_main: bool
    started: float = field(default_factory=time.monotonic)
    manifest: dict[str, Any] = field(default_factory=dict)
    components: RunComponents | None = None
    loggers: list[Logger] = field(default_factory=list)
    trainer: L.Trainer | None = None
    outcome: EvalOutcome = field(default_factory=EvalOutcome)
    status: RunStatus = field(default_factory=lambda: RunStatus("failed", "it never started"))
    leaves_at_once: bool = False
    watch: ProcessWatch | None = None
    hints: list[str] = field(default_factory=list)


def train_and_evaluate(session: RunSession, callbacks: Sequence[Callback]) -> None:
    """Build everything, train, evaluate the best checkpoint, write scores and export."""
    settings, folder = session.settings, session.folder
    if session.is_main:
        if not settings.resume:  # one that goes on is checked first: a refused one is left as it was
            write_settings(session)
        if not folder.exists():  # from here on a run that is killed can be resumed
            folder.write_manifest(minimal_manifest(settings, session.overrides))
    components = build_components(settings)
    validation_sources = [part.name for part in components.portions.get("validation", ())]
    monitor, mode = resolve_monitor(settings, components.task, validation_sources)
    resumed_at, recovered = prepare_resume(session)  # first: a damaged checkpoint gives way to the one before it
    notes = check_resume(components, folder) if settings.resume else []
    if session.is_main and settings.save:
        rehearse_export(components)
    session.components = components
    if session.is_main:
        if settings.resume:
            write_settings(session)
        components.adapter.notes.extend(notes)
        session.manifest = write_start_manifest(
            components, folder, session.overrides, resumed_at=resumed_at, recovered=recovered
        )
        print_run_header(components, folder, session.overrides)
        check_run_space(components, folder)
    session.loggers = build_loggers(
        settings.logger,
        folder=folder.root,
        run_config=settings.as_dict(),
        name=tracker_name(settings, folder.root, first_session_overrides(session.manifest, session.overrides)),
        monitor=monitor,
        mode=mode,
        resume_from_step=resumed_at,
        tell=session.hints.append,
    )
    validates = bool(components.examples["validation"])
    own_callbacks = build_callbacks(settings, folder, monitor, mode, validates=validates)
    session.trainer = trainer = build_trainer(settings, folder.root, [*callbacks, *own_callbacks], session.loggers)
    if session.watch is not None:
        session.watch.attach(trainer)
    share_model(trainer, components.model, resolve_path(settings.model.path))
    module, data = build_module(components, components.model), build_datamodule(components)
    module.generation_check = make_generation_evaluator(components)
    module.train_sample = make_train_sample(settings, components.task, components.examples, packed=components.packed)

    checkpoint = None if resumed_at is None else folder.last
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    raise_if_pruned(trainer)
    if session.is_main and trainer.global_step == resumed_at:
        console.say(
            translate(
                "note: nothing was left to train after step {step}; to train on, raise max_steps and max_epochs, or "
                "callbacks.patience where early stopping ended the run",
                step=resumed_at,
            )
        )
    if session.is_main and data.stream is not None:
        session.manifest["data"]["stream"] = data.stream.counts
        report_stream(components.task, data.stream.counts)
    if not folder.best.exists():  # nothing was validated: the last weights are all there is
        trainer.save_checkpoint(folder.best, weights_only=True)
    session.outcome = evaluate_best_checkpoint(components, module, data, trainer, folder)
    refuse_nonfinite_score(session, monitor)
    session.status = completed_status(trainer, session.outcome, monitor)
    if session.is_main:
        write_results(components, folder, session.outcome, session.overrides, session.loggers, trainer)


def refuse_nonfinite_score(session: RunSession, monitor: str) -> None:
    """Leave a run as diverged whose monitored score is no finite number at its end; its scores are still written.

    Raises:
        Diverged: Naming the score.
    """
    score = session.outcome.scores.get(monitor)
    if score is None or isfinite(score):
        return
    if session.is_main:
        session.folder.write_scores(session.outcome.scores)
    raise Diverged(
        translate(
            "{monitor} is {score} at the end, so no checkpoint is known to be good and none is "
            "exported: the outputs or the targets leave the range of numbers, or the score is "
            "undefined for these rows. Try a lower lr, look at the targets, or set "
            "monitor=val/loss",
            monitor=monitor,
            score=score,
        )
    )


def write_settings(session: RunSession) -> None:
    """Write the settings into the run folder, secrets blacked out."""
    settings = session.settings.as_dict()
    session.folder.write_config(OmegaConf.to_yaml(OmegaConf.create(redact(settings))))


def prepare_resume(session: RunSession) -> tuple[int | None, str | None]:
    """Optimizer steps in the checkpoint to resume from, None for a run from the beginning; and what was damaged."""
    parent = session.settings.trial.parent
    if session.is_main and parent is not None:
        copy_parent_checkpoints(Path(str(parent)), session.folder)
    if not session.settings.resume and parent is None:
        return None, None
    return read_resume_step(session.folder, is_main=session.is_main)


def close_session(session: RunSession, meter: EnergyMeter) -> None:
    """Write how the run ended, hand its results to the trackers, and close them and the folder.

    Args:
        session: Finished or failed.
        meter: Of its energy.
    """
    folder, settings, outcome = session.folder, session.settings, session.outcome
    if session.is_main:
        if not session.manifest and not settings.resume:  # a manifest that is there already says more
            session.manifest = minimal_manifest(settings, session.overrides)
        if session.manifest:
            seconds, energy = time.monotonic() - session.started, meter.stop()
            write_final_manifest(folder, session.manifest, session.status, session.trainer, outcome, seconds, energy)
            if settings.callbacks.doctor and not session.leaves_at_once:
                diagnose_finished_run(folder)
    try:
        # with a closed manifest, which a report of the run reads
        if session.is_main and session.components is not None and session.status.status in COMPLETE_STATUSES:
            log_results(session.components, folder, outcome, session.loggers)
    finally:
        finish_loggers(session.loggers, session.status.logger_status)
        if session.is_main:
            folder.close()


def print_results(folder: RunDirectory, outcome: EvalOutcome, hints: Sequence[str] = ()) -> None:
    """Print the final scores, the files of the run, and how to open what trackers keep of it."""
    console.show_scores(console.scores_by_split(outcome.scores))
    for title, rows in answer_group_tables(outcome.tables).items():
        console.show_groups(title, rows)
    files = {
        folder.metrics: translate("scores of the best checkpoint"),
        folder.predictions: translate("predictions on the test split"),
        folder.export: translate("the model for transformers"),
    }
    listed = {path: what for path, what in files.items() if path.exists()}
    console.show_folder(translate("run folder"), folder.root, listed)
    for hint in hints:
        console.say(hint)
    console.show_command(translate("HTML report"), f"tunelab report {shlex.quote(console.short_path(folder.root))}")


def tracker_name(settings: RunConfig, root: Path, overrides: Sequence[str]) -> str:
    """The name of a run in trackers: its folder, of a trial its study too, and the overrides that set it apart."""
    study = settings.trial.study if settings.trial.id is not None else None
    above = Path(str(study)).name if study is not None else settings.name
    shared = StudyFolder(Path(str(study))).shared_overrides() if study is not None else []
    return run_title(root.name if above == "default" else f"{above}/{root.name}", overrides, shared)


def open_run_directory(root: Path, *, resume: bool) -> RunDirectory:
    """The run folder under this process's lock: a new one, or the one to go on with."""
    return RunDirectory.open(root, write=True) if resume else RunDirectory.create(root)

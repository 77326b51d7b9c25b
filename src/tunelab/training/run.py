"""The story of one run: check, build, train, evaluate, write, export."""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from tunelab.config.resume import resume_config
from tunelab.config.schema import RunConfig
from tunelab.config.validate import validate_config
from tunelab.errors import ConfigError
from tunelab.runs import console, resource_usage
from tunelab.runs.checkpoint import copy_parent_checkpoints
from tunelab.runs.console import silence_libraries
from tunelab.runs.redact import redact
from tunelab.runs.resource_usage import EnergyMeter
from tunelab.runs.run_dir import RunDirectory
from tunelab.runs.study_folder import StudyFolder
from tunelab.tracking.loggers import build_loggers, finish_loggers, logger_faults, run_title
from tunelab.training.components import build_components, build_datamodule, build_module
from tunelab.training.cross_validation import cross_validate
from tunelab.training.evaluate import make_train_sample
from tunelab.training.evaluate_run import EvalOutcome, evaluate_best_checkpoint
from tunelab.training.final_results import answer_group_tables, log_results
from tunelab.training.finders.run_finder import run_finder
from tunelab.training.generation_eval import make_generation_evaluator
from tunelab.training.lifecycle import (
    COMPLETE_STATUSES,
    RunStatus,
    completed_status,
    failure_status,
    first_session_overrides,
    minimal_manifest,
    print_run_summary,
    raise_if_pruned,
    read_resume_step,
    scores_by_split,
    write_final_manifest,
    write_results,
    write_start_manifest,
)
from tunelab.training.out_of_memory import explain_out_of_memory, is_out_of_memory
from tunelab.training.run_diagnosis import diagnose_finished_run
from tunelab.training.trainer import build_callbacks, build_trainer, device_faults, resolve_monitor


def run(config: DictConfig) -> float | None:
    """Do the run that the command line describes, in the folder that Hydra made for it.

    Returns:
        The value of the monitored score, which a search optimises.
    """
    hydra = HydraConfig.get()
    overrides = list(hydra.overrides.task)
    settings = validate_config(resume_config(config, overrides) if config.resume else config)
    folder = Path(hydra.runtime.output_dir)
    if settings.find is not None:
        run_finder(settings, folder)
        return None
    if settings.cv.folds is not None and settings.cv.fold is None:
        beside = [word for word in hydra.overrides.hydra if word.startswith("hydra.searchpath")]
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
        SystemExit: 143 or 130 after a signal, with a `last.ckpt` to go on from.
    """
    started, meter = time.monotonic(), EnergyMeter().start()
    resource_usage.reset_peak_memory()
    silence_libraries()
    if faults := [*logger_faults(settings.logger), *device_faults(settings.trainer)]:
        raise ConfigError.listing(faults)
    main = console.is_main_process()
    folder = open_run_directory(root, resume=bool(settings.resume)) if main else RunDirectory(root)
    loggers: list[Logger] = []
    ending, outcome, trainer = RunStatus("failed", "it never started"), EvalOutcome(), None
    card: dict[str, Any] = {}
    try:
        if main:
            console.show_config(settings.as_dict(), overrides)
            folder.write_config(OmegaConf.to_yaml(OmegaConf.create(redact(settings.as_dict()))))
        prepared = build_components(settings)
        monitor, mode = resolve_monitor(
            settings, prepared.task, [p.name for p in prepared.portions.get("validation", ())]
        )
        if main and settings.trial.parent is not None:
            copy_parent_checkpoints(Path(str(settings.trial.parent)), folder)
        done = read_resume_step(folder) if settings.resume or settings.trial.parent is not None else None
        if main:
            card = write_start_manifest(prepared, folder, overrides, done)
            print_run_summary(prepared, folder)
        loggers = build_loggers(
            settings.logger,
            folder=root,
            run_config=settings.as_dict(),
            name=tracker_name(settings, root, first_session_overrides(card, overrides)),
            monitor=monitor,
            mode=mode,
            resume_from_step=done,
            tell=console.say,
        )
        validates = bool(prepared.examples["validation"])
        ours = build_callbacks(settings, folder, monitor, mode, validates=validates)
        trainer = build_trainer(settings, root, [*callbacks, *ours], loggers)
        module, data = build_module(prepared, prepared.model), build_datamodule(prepared)
        module.generation_check = make_generation_evaluator(prepared)
        module.train_sample = make_train_sample(settings, prepared.task, prepared.examples, packed=prepared.packed)
        trainer.fit(module, datamodule=data, ckpt_path=None if done is None else folder.last, weights_only=True)
        raise_if_pruned(trainer)
        if not folder.best.exists():  # nothing was validated: the last weights are all there is
            trainer.save_checkpoint(folder.best, weights_only=True)
        outcome = evaluate_best_checkpoint(prepared, module, data, trainer, folder)
        ending = completed_status(trainer, outcome, monitor)
        if main:
            write_results(prepared, folder, outcome, overrides, loggers, trainer)
    except BaseException as fault:
        worded = explain_out_of_memory(fault, settings) if is_out_of_memory(fault) else fault
        ending = failure_status(worded)
        if worded is fault:
            raise
        raise worded from fault
    finally:
        if main:
            if not card and not settings.resume:  # a card that is there already says more
                card = minimal_manifest(settings, overrides)
            if card:
                write_final_manifest(folder, card, ending, trainer, outcome, time.monotonic() - started, meter.stop())
                if settings.callbacks.doctor:
                    diagnose_finished_run(folder)
        try:
            if main and ending.status in COMPLETE_STATUSES:  # with a closed card, which a report of the run reads
                log_results(prepared, folder, outcome, loggers)
        finally:
            finish_loggers(loggers, ending.for_loggers)
            if main:
                folder.close()
    if main:
        console.show_scores(scores_by_split(outcome.scores))
        for title, rows in answer_group_tables(outcome.tables).items():
            console.show_groups(title, rows)
        console.show_paths({"run folder": folder.root, "scores": folder.metrics, "export": folder.export})
        console.say(f"what it learned, as a page: tunelab report {shlex.quote(str(folder.root))}")
    return ending.score


def tracker_name(settings: RunConfig, root: Path, overrides: Sequence[str]) -> str:
    """How trackers list a run: after its folder, a trial after its study too, and after what sets it apart."""
    study = settings.trial.study if settings.trial.id is not None else None
    above = Path(str(study)).name if study is not None else settings.name
    shared = StudyFolder(Path(str(study))).shared_overrides() if study is not None else []
    return run_title(root.name if above == "default" else f"{above}/{root.name}", overrides, shared)


def open_run_directory(root: Path, *, resume: bool) -> RunDirectory:
    """The run folder under this process's lock: a new one, or the one to go on with."""
    return RunDirectory.open(root, write=True) if resume else RunDirectory.create(root)

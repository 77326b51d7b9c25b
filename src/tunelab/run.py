"""The story of one run: check, prepare, train, score, record, export."""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from tunelab import console, peak_memory
from tunelab.assemble import make_data, make_module, prepare
from tunelab.closing import COMPLETE, Ending, by_split, close, failed, finish_folder, how_it_ended, leave_if_pruned
from tunelab.energy import EnergyMeter
from tunelab.equipment import device_faults, make_callbacks, make_trainer, objective
from tunelab.errors import ConfigError
from tunelab.inherit import inherit
from tunelab.opening import begin_card, show_work, started_with, steps_done, unprepared_card
from tunelab.quiet import silence_vendors
from tunelab.record import RunFolder
from tunelab.resume import resumed
from tunelab.search.study_folder import StudyFolder
from tunelab.settings import Run, check
from tunelab.tracking.loggers import build_loggers, check_loggers, finish_loggers
from tunelab.tracking.redact import redact
from tunelab.tracking.title import title
from tunelab.training.cross_validation import cross_validate
from tunelab.training.eval_module import make_train_sample
from tunelab.training.evaluate import EvalOutcome, evaluate_best_checkpoint
from tunelab.training.final_results import answer_group_tables, log_results
from tunelab.training.finders.run_finder import run_finder
from tunelab.training.generation_eval import make_generation_evaluator
from tunelab.training.out_of_memory import explain_out_of_memory, is_out_of_memory
from tunelab.training.run_diagnosis import diagnose_finished_run


def run(config: DictConfig) -> float | None:
    """Do the run that the command line describes, in the folder that Hydra made for it.

    Returns:
        The value of the monitored score, which a search optimises.
    """
    hydra = HydraConfig.get()
    overrides = list(hydra.overrides.task)
    settings = check(resumed(config, overrides) if config.resume else config)
    folder = Path(hydra.runtime.output_dir)
    if settings.find is not None:
        run_finder(settings, folder)
        return None
    if settings.cv["folds"] is not None and settings.cv["fold"] is None:
        beside = [word for word in hydra.overrides.hydra if word.startswith("hydra.searchpath")]
        return cross_validate(settings, folder, overrides, beside=beside)
    return fine_tune(settings, folder, overrides=overrides)


def fine_tune(
    settings: Run, root: Path, *, overrides: Sequence[str] = (), callbacks: Sequence[Callback] = ()
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
        Diverged: If training left the finite numbers.
        SystemExit: 143 or 130 after a signal, with a `last.ckpt` to go on from.
    """
    started, meter = time.monotonic(), EnergyMeter().start()
    peak_memory.begin()
    silence_vendors()
    if faults := [*check_loggers(settings.logger), *device_faults(settings.trainer)]:
        raise ConfigError.listing(faults)
    main = console.is_main_process()
    folder = open_folder(root, resume=bool(settings.resume)) if main else RunFolder(root)
    loggers: list[Logger] = []
    ending, outcome, trainer = Ending("failed", "it never started"), EvalOutcome(), None
    card: dict[str, Any] = {}
    try:
        if main:
            console.show_config(settings.plain, overrides)
            folder.write_config(OmegaConf.to_yaml(OmegaConf.create(redact(settings.plain))))
        prepared = prepare(settings)
        monitor, mode = objective(settings, prepared.task, [p.name for p in prepared.portions.get("validation", ())])
        if main and settings.trial.get("parent") is not None:
            inherit(Path(str(settings.trial["parent"])), folder)
        done = steps_done(folder) if settings.resume or settings.trial.get("parent") is not None else None
        if main:
            card = begin_card(prepared, folder, overrides, done)
            show_work(prepared, folder)
        loggers = build_loggers(
            settings.logger,
            folder=root,
            run_config=settings.plain,
            name=name_of(settings, root, started_with(card, overrides)),
            monitor=monitor,
            mode=mode,
            resume_from_step=done,
            tell=console.say,
        )
        validates = bool(prepared.examples["validation"])
        ours = make_callbacks(settings, folder, monitor, mode, validates=validates)
        trainer = make_trainer(settings, root, [*callbacks, *ours], loggers)
        module, data = make_module(prepared, prepared.model), make_data(prepared)
        module.val_answers = make_generation_evaluator(prepared)
        module.train_sample = make_train_sample(settings, prepared.task, prepared.examples, flat=prepared.flat)
        trainer.fit(module, datamodule=data, ckpt_path=None if done is None else folder.last, weights_only=True)
        leave_if_pruned(trainer)
        if not folder.best.exists():  # nothing was validated: the last weights are all there is
            trainer.save_checkpoint(folder.best, weights_only=True)
        outcome = evaluate_best_checkpoint(prepared, module, data, trainer, folder)
        ending = how_it_ended(trainer, outcome, monitor)
        if main:
            finish_folder(prepared, folder, outcome, overrides, loggers, trainer)
    except BaseException as fault:
        worded = explain_out_of_memory(fault, settings) if is_out_of_memory(fault) else fault
        ending = failed(worded)
        if worded is fault:
            raise
        raise worded from fault
    finally:
        if main:
            if not card and not settings.resume:  # a card that is there already says more
                card = unprepared_card(settings, overrides)
            if card:
                close(folder, card, ending, trainer, outcome, time.monotonic() - started, meter.stop())
                if settings.callbacks["doctor"]:
                    diagnose_finished_run(folder)
        try:
            if main and ending.status in COMPLETE:  # with a closed card, which a report of the run reads
                log_results(prepared, folder, outcome, loggers)
        finally:
            finish_loggers(loggers, ending.for_loggers)
            if main:
                folder.close()
    if main:
        console.show_scores(by_split(outcome.scores))
        for title, rows in answer_group_tables(outcome.tables).items():
            console.show_groups(title, rows)
        console.show_paths({"run folder": folder.root, "scores": folder.metrics, "export": folder.export})
        console.say(f"what it learned, as a page: tunelab report {shlex.quote(str(folder.root))}")
    return ending.score


def name_of(settings: Run, root: Path, overrides: Sequence[str]) -> str:
    """How trackers list a run: after its folder, a trial after its study too, and after what sets it apart."""
    study = settings.trial["study"] if settings.trial["id"] is not None else None
    above = Path(str(study)).name if study is not None else settings.name
    shared = StudyFolder(Path(str(study))).shared_words() if study is not None else []
    return title(root.name if above == "default" else f"{above}/{root.name}", overrides, shared)


def open_folder(root: Path, *, resume: bool) -> RunFolder:
    """The run folder under this process's lock: a new one, or the one to go on with."""
    return RunFolder.open(root, write=True) if resume else RunFolder.create(root)

"""The story of one run: check, prepare, train, score, record, export."""

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from tunelab import console
from tunelab.assemble import Prepared, make_callbacks, make_data, make_module, make_trainer, objective, prepare
from tunelab.callbacks.best_checkpoint import BestCheckpoint
from tunelab.data.places import locate
from tunelab.quiet import silence_vendors
from tunelab.errors import Diverged, TuneLabError
from tunelab.export import export_model
from tunelab.model_card import model_card
from tunelab.record import RunFolder
from tunelab.resume import resumed
from tunelab.run_card import close_card, open_card, sha256_folder
from tunelab.scoring import Outcome, score
from tunelab.settings import Run, check
from tunelab.tracking.loggers import build_loggers, check_loggers, finish_loggers

ENDINGS = {143: "SIGTERM", 130: "SIGINT"}  # exit status of a run that left at a safe point, and why


@dataclass
class Ending:
    """How a run ended, for its card."""

    status: str = "finished"
    reason: str | None = None
    score: float | None = None


def run(config: DictConfig) -> float | None:
    """Do one run and return the score a search optimises.

    Raises:
        ConfigError, DataError: If the settings or the data are at fault; nothing was trained.
        Diverged: If training left the finite numbers.
        SystemExit: 143 or 130 after a signal, with a `last.ckpt` to go on from.
    """
    started = time.monotonic()
    silence_vendors()
    hydra = HydraConfig.get()
    root, overrides = Path(hydra.runtime.output_dir), list(hydra.overrides.task)
    settings = check(resumed(config, overrides) if config.resume else config)
    check_loggers(settings.logger)
    main = os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("NODE_RANK", "0") == "0"
    if not main:
        folder = RunFolder(root)
    else:
        folder = RunFolder.open(root, write=True) if settings.resume else RunFolder.create(root)
    loggers: list[Logger] = []
    ending, outcome, prepared, trainer = Ending(), Outcome(), None, None
    card: dict[str, Any] = {}
    try:
        if main:
            console.show_config(settings.plain, overrides)
            folder.write_config(OmegaConf.to_yaml(OmegaConf.create(settings.plain)))
        prepared = prepare(settings)
        monitor, mode = objective(settings, prepared.task)
        if main:
            card = begin_card(prepared, folder, overrides)
            show_work(prepared, folder)
        done = steps_done(folder) if settings.resume else None
        loggers = build_loggers(
            settings.logger,
            folder=root,
            run_config=settings.plain,
            name=root.name if settings.name == "default" else f"{settings.name}/{root.name}",
            monitor=monitor,
            mode=mode,
            resume_from_step=done,
            tell=console.say,
        )
        validates = bool(prepared.examples["validation"])
        callbacks = make_callbacks(settings, folder, monitor, mode, validates=validates)
        trainer = make_trainer(settings, root, callbacks, loggers)
        module, data = make_module(prepared, prepared.model), make_data(prepared)
        trainer.fit(module, datamodule=data, ckpt_path=folder.last if done is not None else None)
        if not folder.best.exists():  # nothing was validated: the last weights are all there is
            trainer.save_checkpoint(folder.best, weights_only=True)
        trained = {"train/loss": float(trainer.callback_metrics.get("train/loss_epoch", float("nan")))}
        outcome = score(prepared, module, data, trainer, folder)
        outcome.scores = trained | outcome.scores
        ending = how_it_ended(trainer, outcome, monitor)
        if main:
            finish_folder(prepared, folder, outcome, overrides, loggers, trainer)
    except BaseException as fault:
        ending = failed(fault)
        raise
    finally:
        finish_loggers(loggers, {"finished": "success", "early-stopped": "success"}.get(ending.status, ending.status))
        if main:
            if card:
                best = best_of(trainer)
                seconds = time.monotonic() - started
                folder.write_card(close_card(card, ending.status, ending.reason, seconds, best, outcome.scores))
            folder.close()
    if main:
        console.show_scores(by_split(outcome.scores))
        console.show_paths({"run folder": folder.root, "scores": folder.metrics, "export": folder.export})
    return ending.score


def begin_card(prepared: Prepared, folder: RunFolder, overrides: list[str]) -> dict[str, Any]:
    """Write the card of a run that starts, so that even a killed one says what it was."""
    settings = prepared.settings
    place = locate(str(settings.model["path"]))
    base = {"path": settings.model["path"], "sha256": sha256_folder(place) if place else None}
    card = open_card(
        command=[Path(sys.executable).name, *sys.argv],
        overrides=overrides,
        config=settings.plain,
        seed=settings.seed,
        data={"files": prepared.sources.files, "notes": prepared.sources.notes},
        model=base,
        earlier=folder.read_card() if settings.resume else None,
    )
    folder.write_card(card)
    return card


def show_work(prepared: Prepared, folder: RunFolder) -> None:
    """Tell what is about to be trained on what; the same goes into the data report."""
    model = prepared.model
    sizes = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "depth": getattr(model.config, "num_hidden_layers", None),
        "width": getattr(model.config, "hidden_size", None),
        "heads": getattr(model.config, "num_attention_heads", None),
        "vocabulary": model.config.get_text_config().vocab_size,
        "rows": "end to end" if prepared.flat else "padded, sorted by length",
    }
    console.show_model({"name": prepared.settings.model["path"], "family": model.config.model_type, **sizes})
    console.show_data(prepared.counts)
    for note in prepared.sources.notes:
        console.say(f"  {note}")
    folder.write_report({"splits": prepared.counts, "notes": prepared.sources.notes, "files": prepared.sources.files})


def steps_done(folder: RunFolder) -> int | None:
    """Optimizer steps in the checkpoint to go on from; None where the run never reached one."""
    from tunelab.checkpoint_io import read_checkpoint

    if not folder.last.exists():
        console.say(f"{folder.root} has no checkpoint yet: starting from the beginning")
        return None
    steps = int(read_checkpoint(folder.last)["global_step"])
    console.say(f"going on after step {steps}")
    return steps


def how_it_ended(trainer: L.Trainer, outcome: Outcome, monitor: str) -> Ending:
    """Finished, or stopped early and why."""
    stopper = next((found for found in trainer.callbacks if isinstance(found, EarlyStopping)), None)
    score = outcome.scores.get(monitor)
    if stopper and stopper.stopped_epoch:
        reason = f"{monitor} has not improved for {stopper.patience} validations, by epoch {stopper.stopped_epoch + 1}"
        return Ending("early-stopped", reason, score)
    return Ending(score=score)


def failed(fault: BaseException) -> Ending:
    """What the card says of a run that an exception ended."""
    if isinstance(fault, Diverged):
        return Ending("diverged", str(fault))
    if isinstance(fault, SystemExit) and fault.code in ENDINGS:
        return Ending("pre-empted", f"{ENDINGS[fault.code]}; resume goes on from checkpoints/last.ckpt")
    if isinstance(fault, KeyboardInterrupt):
        return Ending("pre-empted", "interrupted; resume goes on from checkpoints/last.ckpt")
    reason = str(fault) if isinstance(fault, TuneLabError) else f"{type(fault).__name__}: {fault}"
    return Ending("failed", reason)


def best_of(trainer: L.Trainer | None) -> dict[str, Any] | None:
    """Where the best checkpoint stands."""
    found = [c for c in trainer.callbacks if isinstance(c, BestCheckpoint)] if trainer else []
    if not found or found[0].score is None:
        return None
    return {"step": found[0].step, "monitor": found[0].monitor, "value": found[0].score}


def finish_folder(
    prepared: Prepared,
    folder: RunFolder,
    outcome: Outcome,
    overrides: list[str],
    loggers: list[Logger],
    trainer: L.Trainer,
) -> None:
    """Leave scores, tables and the export; trackers get the final scores too."""
    folder.write_scores(outcome.scores)
    folder.write_tables(outcome.tables)
    for logger in loggers[1:]:  # not the curves: these scores belong to no step
        logger.log_metrics({name: value for name, value in outcome.scores.items() if value == value}, trainer.global_step)
    if prepared.settings.save:
        write_export(prepared, folder, outcome, overrides)


def write_export(prepared: Prepared, folder: RunFolder, outcome: Outcome, overrides: list[str]) -> None:
    """Leave the best model as plain transformers loads it."""
    settings, task = prepared.settings, prepared.task
    text = model_card(
        name=f"{settings.name}-{folder.root.name}",
        task=task.name,
        base_model=str(settings.model["path"]),
        data={"name": Path(str(settings.data["train"])).stem, "files": prepared.sources.files, "splits": prepared.counts},
        settings={key: value for key, value in settings.plain.items() if key not in {"data", "logger"}},
        scores=outcome.scores,
        command=" ".join(["python", "train.py", *overrides]),
    )
    if warning := task.finish(prepared.model):
        console.say(warning)
    export_model(prepared.model, prepared.tokenizer, folder.export, card=text, **task.export_options())


def by_split(scores: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """`split/score` names as a table: split, then score."""
    table: dict[str, dict[str, float]] = {}
    for name, value in scores.items():
        split, _, bare = name.partition("/")
        table.setdefault(split, {})[bare] = value
    return table

"""After training: how it ended, and what it leaves."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from tunelab import console, peak_memory
from tunelab.assemble import Prepared, fresh_adapter
from tunelab.callbacks.best_checkpoint import BestCheckpoint
from tunelab.callbacks.early_stopping import EarlyStopping
from tunelab.callbacks.pruning import Pruning
from tunelab.config.resource_paths import resolve_path
from tunelab.data.mixture import list_sources
from tunelab.errors import Diverged, Pruned, TuneLabError
from tunelab.export import export_model
from tunelab.model_card import model_card
from tunelab.models.adapter_export import merge_adapter_weights, write_peft_adapter
from tunelab.models.adapters import AdaptedModel
from tunelab.models.freezing import load_trainable_state, trainable_state
from tunelab.record import RunFolder
from tunelab.run_card import close_card, sha256_file
from tunelab.settings import Run
from tunelab.training.evaluate import EvalOutcome

COMPLETE = ("finished", "early-stopped")  # statuses of a run that has all its scores
ENDINGS = {143: "SIGTERM", 130: "SIGINT"}  # exit status of a run that left at a safe point, and why


@dataclass
class Ending:
    """How a run ended, for its card."""

    status: str = "finished"
    reason: str | None = None
    score: float | None = None

    @property
    def for_loggers(self) -> str:
        """The status as trackers know it."""
        return {"pre-empted": "preempted", "failed": "failed", "diverged": "failed"}.get(self.status, "success")


def how_it_ended(trainer: L.Trainer, outcome: EvalOutcome, monitor: str) -> Ending:
    """Finished, or stopped early and why."""
    stopper = next((found for found in callbacks_of(trainer) if isinstance(found, EarlyStopping)), None)
    score = outcome.scores.get(monitor)
    if stopper and stopper.ended:
        reason = f"{monitor} has not improved for {stopper.patience} validations, by epoch {stopper.stopped_epoch + 1}"
        return Ending("early-stopped", reason, score)
    return Ending(score=score)


def leave_if_pruned(trainer: L.Trainer) -> None:
    """Leave a run here that its search has ended.

    Raises:
        Pruned: If it has.
    """
    for found in callbacks_of(trainer):
        if isinstance(found, Pruning) and found.pruned:
            raise Pruned(f"ended by the search after validation {found.validations}: other trials were better by then")


def failed(fault: BaseException) -> Ending:
    """What the card says of a run that an exception ended."""
    if isinstance(fault, Diverged | Pruned):
        return Ending("diverged" if isinstance(fault, Diverged) else "pruned", str(fault))
    if isinstance(fault, SystemExit) and fault.code in ENDINGS:
        return Ending("pre-empted", f"{ENDINGS[fault.code]}; resume goes on from checkpoints/last.ckpt")
    if isinstance(fault, KeyboardInterrupt):
        return Ending("pre-empted", "interrupted; resume goes on from checkpoints/last.ckpt")
    reason = str(fault) if isinstance(fault, TuneLabError) else f"{type(fault).__name__}: {fault}"
    return Ending("failed", reason)


def callbacks_of(trainer: L.Trainer) -> list[Callback]:
    """The trainer's callbacks, in their order."""
    found: list[Callback] = getattr(trainer, "callbacks")  # noqa: B009  # set by a connector, unknown to type checkers
    return found


def close(
    folder: RunFolder,
    card: Mapping[str, Any],
    ending: Ending,
    trainer: L.Trainer | None,
    outcome: EvalOutcome,
    seconds: float,
    energy: Mapping[str, float | None],
) -> None:
    """Write how a run ended onto its card, and what a repetition of it must give."""
    results = dict(outcome.results)
    if outcome.results and folder.predictions.is_file():
        results["predictions_sha256"] = sha256_file(folder.predictions)
    best = best_of(trainer)
    folder.write_card(
        close_card(
            card,
            ending.status,
            ending.reason,
            seconds,
            best,
            outcome.scores,
            results=results,
            energy=energy,
            memory=peak_memory.peaks(card["sessions"]),
        )
    )


def best_of(trainer: L.Trainer | None) -> dict[str, Any] | None:
    """Where the best checkpoint stands."""
    found = [c for c in callbacks_of(trainer) if isinstance(c, BestCheckpoint)] if trainer else []
    if not found or found[0].score is None:
        return None
    return {"step": found[0].step, "monitor": found[0].monitor, "value": found[0].score}


def finish_folder(
    prepared: Prepared,
    folder: RunFolder,
    outcome: EvalOutcome,
    overrides: Sequence[str],
    loggers: Sequence[Logger],
    trainer: L.Trainer,
) -> None:
    """Leave scores, tables and the export; trackers get the final scores too."""
    curves = folder.read_curves()
    kept = {"train/loss": "train/loss_epoch", "last/loss": "val/loss"}  # of the last weights, not of the best
    ends = {name: [row[curve] for row in curves if curve in row][-1:] for name, curve in kept.items()}
    outcome.scores = {name: found[0] for name, found in ends.items() if found} | outcome.scores
    folder.write_scores(outcome.scores)
    folder.write_tables(outcome.tables)
    for logger in loggers[1:]:  # not the curves: these scores belong to no step
        logger.log_metrics(
            {name: value for name, value in outcome.scores.items() if value == value}, trainer.global_step
        )
    if prepared.settings.save:
        write_export(prepared, folder, outcome, overrides)


def write_export(
    prepared: Prepared, folder: RunFolder, outcome: EvalOutcome, overrides: Sequence[str], target: Path | None = None
) -> None:
    """Leave the best model as plain transformers loads it, in the run's `export/` unless a target is given."""
    settings, task = prepared.settings, prepared.task
    text = model_card(
        name=f"{settings.name}-{folder.root.name}",
        task=task.name,
        base_model=str(settings.model["path"]),
        data={
            "name": " + ".join(s.name or Path(str(s.settings["train"])).stem for s in list_sources(settings.data)),
            "files": prepared.sources.files,
            "splits": prepared.counts,
        },
        settings={key: value for key, value in settings.plain.items() if key not in {"data", "logger"}},
        scores=outcome.scores,
        command=shlex.join(["python", "train.py", *overrides]),
    )
    plain = merge_adapter_weights(exportable(prepared), prepared.tokenizer)
    if warning := task.finish(plain.model):
        console.say(warning)
    options = task.export_options()
    if options.get("chat_template"):
        options["chat_template"] = plain.template(options["chat_template"])
    export_model(
        plain.model,
        plain.tokenizer,
        target or folder.export,
        card=text,
        beside=lambda part: write_peft_adapter(prepared.adapter, plain.model, part / "adapter", base_of(settings)),
        **options,
    )


def exportable(prepared: Prepared) -> AdaptedModel:
    """What is merged into plain weights: the trained adapter, on an unpacked base where training had it in 4 bit."""
    if prepared.adapter.kind != "qlora":
        return prepared.adapter
    settings = replace(prepared.settings, adapter={**prepared.settings.adapter, "kind": "lora"})
    unpacked = fresh_adapter(settings, prepared.task, prepared.tokenizer)
    load_trainable_state(unpacked.model, trainable_state(prepared.model, prepared.model.state_dict()))
    return unpacked


def base_of(settings: Run) -> str:
    """Where the base model lies, as a path or hub id that other programs understand."""
    place = resolve_path(str(settings.model["path"]))
    return str(place.absolute() if place else settings.model["path"])


def by_split(scores: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """`split/score` names as a table: split, then score."""
    table: dict[str, dict[str, float]] = {}
    for name, value in scores.items():
        split, _, bare = name.partition("/")
        if split == "last":  # in metrics.json: a column for one number would say little
            continue
        table.setdefault(split, {})[bare] = value
    return table

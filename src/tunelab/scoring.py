"""After training: the scores of the best checkpoint, each split looked at once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import lightning as L
from transformers import PreTrainedModel

from tunelab.asking import SMALL, asked_rows
from tunelab.assemble import Prepared, fresh_model, make_module
from tunelab.checkpoint_io import read_checkpoint, weights_sha256
from tunelab.data.token_store import rows_of
from tunelab.datamodule import StepData
from tunelab.module import FineTuner
from tunelab.record import RunFolder


@dataclass
class Outcome:
    """What a run has to show.

    Attributes:
        scores: By flat name, such as `test/exact_match`.
        tables: By split: confusion matrix, per-class scores.
        results: sha256 of the weights that were scored, known to the main process.
    """

    scores: dict[str, float] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)
    results: dict[str, str | None] = field(default_factory=dict)


def score(prepared: Prepared, module: FineTuner, data: StepData, trainer: L.Trainer, folder: RunFolder) -> Outcome:
    """Load the best weights; score validation, the base model and the test split, in this order.

    Nothing here is logged as a curve: these are single numbers, not steps.
    """
    outcome = Outcome()
    best = read_checkpoint(folder.best)
    module.load_state_dict(best["state_dict"])
    if trainer.is_global_zero:
        outcome.results["weights_sha256"] = weights_sha256(best["state_dict"])
    loggers, trainer.loggers = trainer.loggers, []
    if prepared.examples["validation"]:
        outcome.scores |= flat(trainer.validate(module, datamodule=data, verbose=False))
    if prepared.examples["test"] and prepared.settings.test:
        if wants_base(prepared.settings.eval["base"], prepared, module.model):
            untrained = make_module(prepared, fresh_model(prepared.settings, prepared.task, prepared.tokenizer))
            # both read the same rows, so both need the same attention
            untrained.model.set_attn_implementation(module.model.config._attn_implementation)
            untrained.test_name = "base"
            test_once(prepared, untrained, data, trainer, folder, outcome)
        test_once(prepared, module, data, trainer, folder, outcome)
    trainer.loggers = loggers
    return outcome


def test_once(
    prepared: Prepared, module: FineTuner, data: StepData, trainer: L.Trainer, folder: RunFolder, outcome: Outcome
) -> None:
    """Score one model on the test split, and leave its predictions in the run folder."""
    mine: list[dict[str, Any]] = []
    module.test_records = prepared.sources.splits["test"].rows
    module.keep_predictions = mine.extend
    module.test_rows = chosen = test_rows(prepared)
    outcome.scores |= flat(trainer.test(module, datamodule=data, verbose=False))
    sources = prepared.sources.splits["test"].sources
    if len(set(sources)) > 1:
        for row in mine:
            row["source"] = sources[row["row"]]
    folder.write_predictions_part(trainer.global_rank, mine)
    trainer.strategy.barrier()
    if trainer.is_global_zero:
        rows = set(rows_of(prepared.examples["test"])) if chosen is None else chosen
        merged = folder.merge_predictions(rows)
        summary = prepared.task.summary(merged)
        outcome.scores |= {f"{module.test_name}/{name}": value for name, value in summary.items()}
        tables = module.test_report | prepared.task.tables(merged)
        if tables or module.test_name == "test":
            outcome.tables[module.test_name] = tables
        if module.test_name == "base":
            os.replace(
                folder.predictions, folder.base_predictions
            )  # a run killed before its own test must not show the base model's answers
    trainer.strategy.barrier()


def test_rows(prepared: Prepared) -> frozenset[int] | None:
    """The test rows that are answered; None where predictions of all are kept."""
    count = prepared.settings.eval["test_rows"]
    return None if count is None or not prepared.task.answer_names else asked_rows(prepared, "test", int(count))


def wants_base(wanted: Any, prepared: Prepared, model: PreTrainedModel) -> bool:
    """Whether to score the model before training; a new head has nothing to say, so only answers count."""
    if wanted == "auto":
        return prepared.task.speaks_untrained and sum(p.numel() for p in model.parameters()) <= SMALL
    return bool(wanted)


def flat(found: list[Mapping[str, float]]) -> dict[str, float]:
    """The scores of a trainer call as one dict of plain numbers."""
    return {name: float(value) for part in found for name, value in part.items()}

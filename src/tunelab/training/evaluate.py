"""Evaluation of a trained model: the best checkpoint after training, or a run on any file."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import lightning as L
import torch
from transformers import PreTrainedModel

from tunelab.config.schema import RunConfig
from tunelab.data.data_sources import DataSplits, Split, encode_split
from tunelab.data.examples import Example
from tunelab.data.readers import Records, read_records
from tunelab.data.token_store import row_indices
from tunelab.errors import TuneLabError
from tunelab.models.soft_prompt import prepend_soft_prompt, soft_prompt_ids
from tunelab.models.unpadded_attention import micro_to_device
from tunelab.runs.atomic_files import Row, read_json_lines, write_json_lines
from tunelab.runs.checkpoint import read_checkpoint, weights_sha256
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.components import RunComponents, build_adapter, build_datamodule, build_model, build_module
from tunelab.training.datamodule import BatchDataModule
from tunelab.training.device_placement import add_reference_logprobs
from tunelab.training.generation_eval import SMALL_MODEL_PARAMETERS, rows_to_generate
from tunelab.training.load_run import TrainedRun
from tunelab.training.module import FineTuner


@dataclass
class EvalOutcome:
    """What a run has to show.

    Attributes:
        scores: By flat name, such as `test/exact_match`.
        tables: By split: confusion matrix, per-class scores.
        results: sha256 of the weights that were scored, known to the main process.
    """

    scores: dict[str, float] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)
    results: dict[str, str | None] = field(default_factory=dict)


def evaluate_best_checkpoint(
    prepared: RunComponents, module: FineTuner, data: BatchDataModule, trainer: L.Trainer, folder: RunDirectory
) -> EvalOutcome:
    """Load the best weights; score validation, the base model and the test split, in this order.

    Nothing here is logged as a curve: these are single numbers, not steps.
    """
    outcome = EvalOutcome()
    best = read_checkpoint(folder.best)
    module.load_state_dict(best["state_dict"])
    if trainer.is_global_zero:
        outcome.results["weights_sha256"] = weights_sha256(best["state_dict"])
    loggers, trainer.loggers = trainer.loggers, []
    if prepared.examples["validation"]:
        outcome.scores |= flatten_metrics(trainer.validate(module, datamodule=data, verbose=False))
    if prepared.examples["test"] and prepared.settings.test:
        if evaluates_base(prepared.settings.eval["base"], prepared, module.model):
            untrained = build_module(prepared, build_model(prepared.settings, prepared.task, prepared.tokenizer))
            # both read the same rows, so both need the same attention
            untrained.model.set_attn_implementation(module.model.config._attn_implementation)
            untrained.test_name = "base"
            evaluate_test_split(prepared, untrained, data, trainer, folder, outcome)
        evaluate_test_split(prepared, module, data, trainer, folder, outcome)
    trainer.loggers = loggers
    return outcome


def evaluate_test_split(
    prepared: RunComponents,
    module: FineTuner,
    data: BatchDataModule,
    trainer: L.Trainer,
    folder: RunDirectory,
    outcome: EvalOutcome,
) -> None:
    """Score one model on the test split, and leave its predictions in the run folder."""
    mine: list[dict[str, Any]] = []
    module.test_records = prepared.sources.splits["test"].rows
    module.keep_predictions = mine.extend
    module.test_rows = chosen = generated_test_rows(prepared)
    outcome.scores |= flatten_metrics(trainer.test(module, datamodule=data, verbose=False))
    sources = prepared.sources.splits["test"].sources
    if len(set(sources)) > 1:
        for row in mine:
            row["source"] = sources[row["row"]]
    folder.write_predictions_part(trainer.global_rank, mine)
    trainer.strategy.barrier()
    if trainer.is_global_zero:
        rows = set(row_indices(prepared.examples["test"])) if chosen is None else chosen
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


def generated_test_rows(prepared: RunComponents) -> frozenset[int] | None:
    """The test rows that are answered; None where predictions of all are kept."""
    count = prepared.settings.eval["test_rows"]
    return None if count is None or not prepared.task.answer_names else rows_to_generate(prepared, "test", int(count))


def evaluates_base(wanted: Any, prepared: RunComponents, model: PreTrainedModel) -> bool:
    """Whether to score the model before training; a new head has nothing to say, so only answers count."""
    if wanted == "auto":
        return prepared.task.scores_untrained and sum(p.numel() for p in model.parameters()) <= SMALL_MODEL_PARAMETERS
    return bool(wanted)


def flatten_metrics(found: list[Mapping[str, float]]) -> dict[str, float]:
    """The scores of a trainer call as one dict of plain numbers."""
    return {name: float(value) for part in found for name, value in part.items()}


SPLIT_USES = {"train": "training", "validation": "choosing the best checkpoint", "test": "its test scores"}


@dataclass
class EvalResult:
    """What a file says of a model.

    Attributes:
        scores: By bare name.
        tables: Confusion matrix and per-class scores, where there are any.
        counts: The line of the data report.
        predictions: One dict per row, in the order of rows.
    """

    scores: dict[str, float]
    tables: dict[str, Any]
    counts: dict[str, int | float]
    predictions: list[dict[str, Any]]


def read_eval_split(settings: RunConfig, source: str) -> tuple[Records, Split]:
    """The records of a file, read as the run read its own.

    Raises:
        DataError: If the file cannot be read.
    """
    data = settings.data
    same = source in {str(data.get(name)) for name in SPLIT_USES}
    records = read_records(
        source,
        encoding=str(data["encoding"]),
        on_bad=str(data["on_bad"]),
        quoting=str(data["quoting"]),
        header=data.get("header") if same else None,
    )
    return records, Split(records.rows, [records.location(i) for i in range(len(records.rows))])


def evaluate_split(trained: TrainedRun, split: Split) -> EvalResult:
    """Score a model, in the batches, the order and the precision of training's test pass.

    Raises:
        DataError: Naming every record that cannot be used.
    """
    settings, task, model = trained.settings, trained.task, trained.model
    encoded, counts = encode_split(split, task)
    examples: Sequence[Example] = list(encoded)
    if task.needs_reference:
        base = build_adapter(settings, task, trained.tokenizer).model
        base.set_attn_implementation(model.config._attn_implementation)
        examples = list(add_reference_logprobs(settings, task, base, {"test": examples})["test"])
    examples = prepend_soft_prompt(examples, soft_prompt_ids(model))
    empty = Split()
    sources = DataSplits({"train": empty, "validation": empty, "test": split}, {}, [])
    prepared = RunComponents(
        settings, task, sources, trained.tokenizer, {"test": examples}, {"test": counts}, adapter=trained.adapter
    )
    scores, chosen = task.scores().to(model.device), generated_test_rows(prepared)
    found: list[dict[str, Any]] = []
    with trained.use():
        for step in build_datamodule(prepared).loader("test"):
            for cpu in step.micro_batches:
                micro = micro_to_device(cpu, model.device)
                logits = task.logits(model, micro)
                scores.update(logits, micro)
                rows = [row for row in micro.row_indices.tolist() if row >= 0 and (chosen is None or row in chosen)]
                asked = [split.rows[row] for row in rows]
                if chosen is None:
                    found += task.predictions(model, micro, logits, asked)
                elif rows:
                    found += task.generate_predictions(model, rows, asked)
        flat, tables = scores.compute(), scores.report()
    tables |= task.tables(found)
    found.sort(key=lambda row: int(row["row"]))
    # in single precision, as Lightning keeps what a test pass logs
    numbers = {name: float(torch.tensor(value, dtype=torch.float32)) for name, value in flat.items()}
    numbers |= {name: float(value) for name, value in task.summary(found).items()}
    return EvalResult(numbers, tables, counts, found)


def record_evaluation(folder: RunDirectory, records: Records) -> list[str]:
    """What is to be said of the file: whether the run has seen it, and how often it was looked at; counts this look.

    A file that is looked at until a score pleases no longer tests anything.
    """
    card = folder.read_manifest()
    config = card["config"]["data"]
    shas = card["data"]["files"]
    uses = [
        why for name, why in SPLIT_USES.items() if config.get(name) and shas.get(str(config[name])) == records.sha256
    ]
    told = [f"the run used this very file for {' and '.join(uses)}"] if uses else []
    past = read_json_lines(folder.evaluations_log) if folder.evaluations_log.is_file() else []
    time = datetime.now(UTC).isoformat(timespec="seconds")
    now: Row = {"time": time, "sha256": records.sha256, "data": records.source}
    count = 1 + sum(look["sha256"] == records.sha256 for look in past)
    try:
        write_json_lines(folder.evaluations_log, [*past, now])
    except TuneLabError as fault:
        told.append(f"this look is not counted: {fault}")
    return [*told, f"look {count} at this file with this run; a choice made by it needs another file to be tested"]

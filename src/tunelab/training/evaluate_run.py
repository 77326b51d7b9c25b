"""Evaluation of a trained model: the best checkpoint after training, and a run on any split or file."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from tunelab.config.resource_paths import resolve_path
from tunelab.config.schema import RunConfig
from tunelab.config.stored_files import shape_faults_explained
from tunelab.data.columns import without_columns
from tunelab.data.data_sources import DataSplits, Split, encode_split
from tunelab.data.examples import Example, MicroBatch
from tunelab.data.readers import Records, read_records
from tunelab.data.token_store import row_indices
from tunelab.errors import TuneLabError
from tunelab.language.translation import message, translate
from tunelab.models.device_placement import TrainingPlacement
from tunelab.models.sharding import is_sharded
from tunelab.models.soft_prompt import prepend_soft_prompt, soft_prompt_ids
from tunelab.models.unpadded_attention import micro_to_device
from tunelab.runs.atomic_files import Row, read_json_lines, write_json_lines
from tunelab.runs.checkpoint import read_checkpoint, weights_sha256
from tunelab.runs.run_dir import RunDirectory
from tunelab.tasks.metrics.own_metrics import attach_metrics, full_scores
from tunelab.training.components import (
    RunComponents,
    add_reference_logprobs,
    build_adapter,
    build_model,
    build_module,
    build_test_loader,
)
from tunelab.training.evaluate import (
    EvalResult,
    ModelOutputs,
    OutputCollector,
    PredictionCollector,
    evaluate,
    evaluate_task,
    summarize_predictions,
)
from tunelab.training.generation_eval import SMALL_MODEL_PARAMETERS, generated_test_rows
from tunelab.training.load_run import TrainedRun
from tunelab.training.processes import row_share

if TYPE_CHECKING:  # all of Lightning, which `tunelab evaluate` does without
    import lightning as L

    from tunelab.training.datamodule import BatchDataModule
    from tunelab.training.module import FineTuner


@dataclass
class EvalOutcome:
    """The final scores of a run, on all its splits.

    Attributes:
        scores: By flat name, such as `test/exact_match`.
        tables: By split: confusion matrix, per-class scores.
        weight_hashes: sha256 of the weights that were scored, known to the main process.
    """

    scores: dict[str, float] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)
    weight_hashes: dict[str, str | None] = field(default_factory=dict)


def evaluate_best_checkpoint(
    components: RunComponents, module: "FineTuner", data: "BatchDataModule", trainer: "L.Trainer", folder: RunDirectory
) -> EvalOutcome:
    """Load the best weights; score validation, the base model and the test split, in this order.

    Nothing here is logged as a curve: these are single numbers, not steps.
    """
    from tunelab.training.sharded_strategy import share_model

    outcome = EvalOutcome()
    shared = is_sharded(module.model)
    best = trainer.strategy.load_checkpoint(folder.best) if shared else read_checkpoint(folder.best)
    module.load_state_dict(best["state_dict"])
    if trainer.is_global_zero or shared:
        outcome.weight_hashes["weights_sha256"] = weights_sha256(best["state_dict"])
    loggers, trainer.loggers = trainer.loggers, []
    if components.examples["validation"]:
        outcome.scores |= flatten_metrics(trainer.validate(module, datamodule=data, verbose=False))
    if components.examples["test"] and components.settings.test:
        if evaluates_base(components.settings.eval.base, components, module.model):
            settings, task = components.settings, components.task
            base_model = build_model(settings, task, components.tokenizer)
            # both read the same rows, so both need the same attention
            base_model.set_attn_implementation(module.model.config._attn_implementation)
            share_model(trainer, base_model, resolve_path(settings.model.path))
            base = build_module(components, base_model)
            base.test_prefix = "base"
            evaluate_test_split(components, base, data, trainer, folder, outcome)
        evaluate_test_split(components, module, data, trainer, folder, outcome)
    trainer.loggers = loggers
    return outcome


def evaluate_test_split(
    components: RunComponents,
    module: "FineTuner",
    data: "BatchDataModule",
    trainer: "L.Trainer",
    folder: RunDirectory,
    outcome: EvalOutcome,
) -> None:
    """Score one model on the test split, on all ranks, and leave its predictions in the run folder."""
    task, split, prefix = components.task, components.sources.splits["test"], module.test_prefix
    generated_rows = generated_test_rows(components)
    collector = PredictionCollector(task, module.model, split.rows, generated_rows)
    module.test_predictions = collector
    outcome.scores |= flatten_metrics(trainer.test(module, datamodule=data, verbose=False))
    if len(set(split.sources)) > 1:
        for prediction in collector.predictions:
            prediction["source"] = split.sources[prediction["row"]]
    folder.write_predictions_part(trainer.global_rank, collector.predictions if row_share(trainer).is_first else [])
    trainer.strategy.barrier()
    if trainer.is_global_zero:
        rows = set(row_indices(components.examples["test"])) if generated_rows is None else generated_rows
        scores, tables = summarize_predictions(task, folder.merge_predictions(rows))
        outcome.scores |= {f"{prefix}/{name}": value for name, value in scores.items()}
        tables = module.test_tables | tables
        if tables or prefix == "test":
            outcome.tables[prefix] = tables
        if prefix == "base":  # a run killed before its own test must not leave the base model's answers as its own
            os.replace(folder.predictions, folder.base_predictions)
    trainer.strategy.barrier()


def evaluates_base(choice: Any, components: RunComponents, model: PreTrainedModel) -> bool:
    """Whether to score the model before training; a new head predicts nothing yet, so only answers count."""
    if choice == "auto":
        small = sum(p.numel() for p in model.parameters()) <= SMALL_MODEL_PARAMETERS
        return components.task.scores_untrained and small
    return bool(choice)


def flatten_metrics(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The scores of a trainer call as one dict of plain numbers."""
    return {name: float(value) for part in metrics for name, value in part.items()}


def encode_examples(trained: TrainedRun, split: Split) -> tuple[Sequence[Example], dict[str, int | float]]:
    """The examples of a split as a model reads them, and the line of the data report.

    Raises:
        DataError: Naming every record that cannot be used.
    """
    settings, task, model = trained.settings, trained.task, trained.model
    encoded, counts = encode_split(split, task)
    examples: Sequence[Example] = list(encoded)
    if task.needs_reference:
        base = build_adapter(settings, task, trained.tokenizer).model
        base.set_attn_implementation(model.config._attn_implementation)
        examples = list(
            add_reference_logprobs(
                TrainingPlacement.from_config(settings.trainer), task, base, {"test": examples}, settings.micro_tokens
            )["test"]
        )
    return prepend_soft_prompt(examples, soft_prompt_ids(model)), counts


def components_with_test_split(trained: TrainedRun, split: Split, examples: Sequence[Example]) -> RunComponents:
    """A trained run with a split in the place of its test split."""
    sources = DataSplits({"train": Split(), "validation": Split(), "test": split}, {}, [])
    kept = {"test": examples}
    return RunComponents(trained.settings, trained.task, sources, trained.tokenizer, kept, {}, adapter=trained.adapter)


def eval_micro_batches(trained: TrainedRun, components: RunComponents) -> Iterator[MicroBatch]:
    """The micro-batches of training's own test pass, on the model's device."""
    for batch in build_test_loader(components):
        for micro in batch.micro_batches:
            yield micro_to_device(micro, trained.model.device)


def evaluate_split(trained: TrainedRun, split: Split) -> EvalResult:
    """Scores of a model on a split, in the batches, the order and the precision of training's test pass.

    Raises:
        DataError: Naming every record that cannot be used.
        ConfigError: If a metric of the run's own cannot be had.
    """
    task, model = trained.task, trained.model
    attach_metrics(task, trained.settings.metrics)
    examples, counts = encode_examples(trained, split)
    components = components_with_test_split(trained, split, examples)
    scores = full_scores(task).to(model.device)
    collector = PredictionCollector(task, model, split.rows, generated_test_rows(components))
    with trained.inference():
        evaluate_task(eval_micro_batches(trained, components), task, model, scores, collector)
        collector.finish()
        values, tables = scores.compute(), scores.report()
    predictions = sorted(collector.predictions, key=lambda row: int(row["row"]))
    more_scores, more_tables = summarize_predictions(task, predictions)
    # in single precision, as Lightning keeps what a test pass logs
    numbers = {name: float(torch.tensor(value, dtype=torch.float32)) for name, value in values.items()}
    return EvalResult(numbers | more_scores, tables | more_tables, predictions, counts=counts)


def model_outputs(trained: TrainedRun, split: Split) -> ModelOutputs:
    """The outputs on a split of a model that gives one row of logits per record."""
    components = components_with_test_split(trained, split, encode_examples(trained, split)[0])
    collector = OutputCollector()
    with trained.inference():
        evaluate(eval_micro_batches(trained, components), partial(trained.task.logits, trained.model), collector)
    return collector.outputs()


SPLIT_USES = {
    "train": message("training"),
    "validation": message("choosing the best checkpoint"),
    "test": message("its test scores"),
}


def read_eval_split(settings: RunConfig, source: str, on_bad: str | None = None) -> tuple[Records, Split]:
    """The records of a file, read as the run read its own, but for what `on_bad` says.

    Raises:
        DataError: If the file cannot be read.
    """
    data = settings.data
    same = source in (data.train, data.validation, data.test)
    records = read_records(
        source,
        encoding=data.encoding,
        on_bad=on_bad or data.on_bad,
        quoting=data.quoting,
        header=data.header if same else None,
    )
    rows = without_columns(records.rows, data.ignored)
    return records, Split(rows, [records.location(i) for i in range(len(rows))])


def record_evaluation(folder: RunDirectory, records: Records) -> list[str]:
    """Count an evaluation of the run on a file; notes on whether the run used the file, and how often it was evaluated.

    Once a model is selected by its score on a file, that score is too optimistic.
    """
    manifest = folder.read_manifest()
    with shape_faults_explained(folder.manifest):
        config, shas = manifest["config"]["data"], manifest["data"]["files"]
        uses = [
            why
            for name, why in SPLIT_USES.items()
            if config.get(name) and shas.get(str(config[name])) == records.sha256
        ]
    notes = (
        [translate("the run used this very file for {names}", names=translate(" and ").join(map(translate, uses)))]
        if uses
        else []
    )
    past = read_json_lines(folder.evaluations_log) if folder.evaluations_log.is_file() else []
    time = datetime.now(UTC).isoformat(timespec="seconds")
    now: Row = {"time": time, "sha256": records.sha256, "data": records.source}
    count = 1 + sum(look.get("sha256") == records.sha256 for look in past)
    try:
        write_json_lines(folder.evaluations_log, [*past, now])
    except TuneLabError as fault:
        notes.append(translate("this evaluation could not be recorded: {fault}", fault=fault))
    advice = translate("if you select a model by it, report the final score on another file")
    return [*notes, translate("evaluation {count} of this run on this file; {advice}", count=count, advice=advice)]

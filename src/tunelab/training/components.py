"""The components of a run from its config: task, data, model, module."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from math import ceil
from typing import Any

import lightning as L
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunelab.config.schema import RunConfig
from tunelab.data.batching import SourceRange, source_ranges
from tunelab.data.data_sources import DataSplits, dropped_notes, encode_split, import_formats, read_splits
from tunelab.data.examples import Example
from tunelab.data.folds import FoldSpec
from tunelab.data.token_store import row_indices
from tunelab.errors import ConfigError
from tunelab.models.adapters import AdaptedModel, attach_adapter, check_adapter_requirements, is_partial_checkpoint
from tunelab.models.architecture import check_layer_settings, context_limit, load_architecture
from tunelab.models.heads import ensure_pad_token, input_embeddings
from tunelab.models.load_model import load_model, load_tokenizer
from tunelab.models.soft_prompt import prepend_soft_prompt, soft_prompt_ids
from tunelab.optim.factory import build_schedule, check_optimizer_requirements, optimizer_builder
from tunelab.optim.param_groups import frozen_at_step, unfreezing_steps
from tunelab.regularization.model_support import check_model_support
from tunelab.regularization.regularizer import Regularizer
from tunelab.runs import console
from tunelab.tasks.base import SourceScores, Task
from tunelab.tasks.registry import import_task
from tunelab.training.datamodule import BatchDataModule
from tunelab.training.device_placement import add_reference_logprobs, choose_packing, select_training_device
from tunelab.training.loss import TrainingLoss
from tunelab.training.module import FineTuner
from tunelab.training.nonfinite import NonFiniteGuard

# Pads that take as long as one pass more.  Measured on a CPU with a small encoder: 50 tokens, both ways; a GPU
# waits for the launches of a pass as long as it computes thousands of tokens, so there none is opened to save pads.
PASS_COST = {"cpu": 64}


@dataclass
class EncodedData:
    """The data as the model will see it; no weights are needed to know that.

    Attributes:
        examples: Of each split.
        counts: One line of counts for each split.
        portions: With `data.mix`, where the examples of each source stand in each split.
    """

    settings: RunConfig
    task: Task
    sources: DataSplits
    tokenizer: PreTrainedTokenizerBase
    examples: dict[str, Sequence[Example]]
    counts: dict[str, dict[str, int | float]]
    portions: dict[str, list[SourceRange]] = field(default_factory=dict, kw_only=True)

    @property
    def epoch_rows(self) -> int:
        """Examples that one epoch sees, a repeated one as often as it comes."""
        weighted = sum(portion.rows_per_epoch for portion in self.portions.get("train", ()))
        return weighted or len(self.examples["train"])


@dataclass
class RunComponents(EncodedData):
    """The encoded data and the model of a run, before any training."""

    adapter: AdaptedModel

    @property
    def model(self) -> PreTrainedModel:
        """The model that is trained."""
        return self.adapter.model

    @property
    def packed(self) -> bool:
        """Whether rows are packed."""
        return bool(getattr(self.task, "packed", False))


def build_task(settings: RunConfig) -> Task:
    """The task that `data.task` names, with those keys of the block that it takes."""
    import_formats(settings.data)
    kind: type[Task] = import_task(settings.data.task)
    values: dict[str, Any] = {**settings.data.as_dict(), "max_new_tokens": settings.eval.max_new_tokens}
    if smoothing := settings.regularization.label_smoothing:
        values["label_smoothing"] = smoothing
    return kind(**{name: values[name] for name in signature(kind).parameters if name in values})


def encode_data(settings: RunConfig) -> EncodedData:
    """Read the data and encode every split.

    Raises:
        DataError: If records cannot be used.
        ConfigError: If the tokenizer or the architecture cannot be read.
    """
    task = build_task(settings)
    sources = read_splits(settings.data, task, seed=settings.seed, fold=FoldSpec.from_config(settings.cv))
    task.fit(sources.splits["train"].rows)
    tokenizer = load_tokenizer(settings.model)
    attach_tokenizer(settings, task, tokenizer)
    encoded = {name: encode_split(split, task, name) for name, split in sources.splits.items()}
    examples = {name: split_examples for name, (split_examples, _) in encoded.items()}
    counts = {name: row for name, (_, row) in encoded.items()}
    sources.notes.extend(dropped_notes(counts, task))
    return EncodedData(
        settings, task, sources, tokenizer, examples, counts, portions=source_portions(sources, examples)
    )


def source_portions(sources: DataSplits, examples: Mapping[str, Sequence[Example]]) -> dict[str, list[SourceRange]]:
    """With several sources, where the examples of each stand in each split; else nothing.

    Raises:
        DataError: If a weight is so small that an epoch sees nothing of its source.
    """
    if not sources.weights:
        return {}
    return {
        name: source_ranges(
            [sources.splits[name].sources[row] for row in row_indices(split_examples)],
            sources.weights if name == "train" else {},
        )
        for name, split_examples in examples.items()
    }


def attach_tokenizer(settings: RunConfig, task: Task, tokenizer: PreTrainedTokenizerBase) -> None:
    """Hand a task its tokenizer, and the longest sequence that model and settings allow."""
    longest = context_limit(load_architecture(settings.model, tokenizer))
    if longest is not None:
        longest -= settings.adapter.length if settings.adapter.kind == "prompt" else 0
    bounds = [bound for bound in (longest, settings.data.max_tokens) if bound is not None]
    task.set_tokenizer(tokenizer, min(bounds, default=None))


def build_components(settings: RunConfig) -> RunComponents:
    """Read the data, encode every split, load the model.

    Raises:
        DataError: If records cannot be used.
        ConfigError: If model or tokenizer cannot be loaded.
    """
    check_adapter_requirements(settings.adapter, settings.data.task)
    check_optimizer_requirements(settings.optimizer, settings.trainer.accelerator)
    check_layer_settings(settings.model)
    encoded = encode_data(settings)
    task = encoded.task
    adapter = build_adapter(settings, task, encoded.tokenizer)
    model = adapter.model
    choose_packing(settings, task, model)
    encoded.examples = add_reference_logprobs(settings, task, model, encoded.examples)
    if lead := soft_prompt_ids(model):
        encoded.examples = {name: prepend_soft_prompt(examples, lead) for name, examples in encoded.examples.items()}
    return RunComponents(**vars(encoded), adapter=adapter)


def build_model(settings: RunConfig, task: Task, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model as it is before training, a new adapter in it; the same weights at every call."""
    return build_adapter(settings, task, tokenizer).model


def build_adapter(settings: RunConfig, task: Task, tokenizer: PreTrainedTokenizerBase) -> AdaptedModel:
    """The model as it is before training, and what trains in it; the same weights at every call."""
    L.seed_everything(settings.seed, verbose=False)  # before the model: a new head starts from random weights
    regularization, notes = settings.regularization, list[str]()
    model = load_model(
        settings.model,
        tokenizer,
        head=task.head,
        options=task.head_options(),
        dropout=regularization.dropout,
        attention_dropout=regularization.attention_dropout,
        four_bit=settings.adapter.kind == "qlora",
        notes=notes,
    )
    known = load_architecture(settings.model, tokenizer).get_text_config().vocab_size
    new_tokens = range(known, input_embeddings(model).shape[0])
    if task.head == "sequence":
        ensure_pad_token(tokenizer, model)
    adapter = attach_adapter(model, settings.adapter, new_tokens=new_tokens)
    adapter.notes = notes
    model.train()  # transformers hands models over with dropout switched off
    return adapter


def build_datamodule(components: RunComponents) -> BatchDataModule:
    """The loaders of a run."""
    settings = components.settings
    return BatchDataModule(
        components.examples,
        components.task,
        batch_size=settings.batch_size,
        eval_batch_size=settings.eval.batch_size,
        micro_tokens=settings.micro_tokens,
        seed=settings.seed,
        packed=components.packed,
        workers=settings.data.workers,
        source_ranges=components.portions,
        pass_cost=PASS_COST.get(select_training_device(settings.trainer.accelerator).type),
    )


def build_module(components: RunComponents, model: PreTrainedModel) -> FineTuner:
    """The training step around a model.

    Raises:
        ConfigError: If the model gives a method of regularization nothing to work on.
    """
    settings, task = components.settings, components.task
    # counted here: Lightning's own count would load the data before a resumed run has restored its place in it
    total = count_planned_steps(settings, components.epoch_rows)
    regularization = settings.regularization
    check_model_support(model, regularization, head=components.task.head)
    regularizer = Regularizer(model, regularization, total)
    return FineTuner(
        model,
        task,
        optimizer=optimizer_builder(model, settings),
        schedule=build_schedule(settings.scheduler, total),
        clip=float(settings.trainer.gradient_clip_val),
        seed=settings.seed,
        by_source={
            name: SourceScores(task.scores, components.sources.splits[name].sources, [part.name for part in ranges])
            for name, ranges in components.portions.items()
            if name != "train"
        },
        partial=is_partial_checkpoint(model, settings.adapter.kind),
        frozen_at_step=frozen_at_step(model, unfreezing_steps(model, settings, total)),
        loss=TrainingLoss(task, model, regularization),
        regularizer=regularizer,
        guard=NonFiniteGuard.from_config(settings.callbacks, model, regularizer, report=console.say),
    )


def count_planned_steps(settings: RunConfig, rows: int) -> int:
    """Optimizer steps of a run over `rows` training examples that nothing stops early.

    Raises:
        ConfigError: If validations would be further apart than an epoch is long, so that none would ever come.
    """
    epoch = ceil(rows / settings.batch_size)
    limit, every = settings.trainer.limit_train_batches, settings.trainer.val_check_interval
    if limit is not None:
        epoch = min(epoch, limit) if isinstance(limit, int) else int(epoch * limit)
    if isinstance(every, int) and every > epoch and settings.trainer.check_val_every_n_epoch is not None:
        raise ConfigError(
            f"trainer.val_check_interval={every} steps, and an epoch has {epoch}: nothing would ever be validated. "
            f"Take at most {epoch}, a share of an epoch such as 1.0, or count across epochs with "
            "trainer.check_val_every_n_epoch=null"
        )
    return min(epoch * settings.max_epochs, settings.max_steps or epoch * settings.max_epochs)

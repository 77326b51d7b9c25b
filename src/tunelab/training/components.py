"""The components of a run from its config: task, data, model, module."""

import copy
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import isclass, signature
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunelab.config import instantiate
from tunelab.config.cross_checks import whole_logits_reason
from tunelab.config.schema import (
    OUR_MODULE,
    CausalDataConfig,
    DataConfig,
    LabelledDataConfig,
    RunConfig,
    TargetConfig,
    TrainerConfig,
)
from tunelab.data.batching import SourceRange
from tunelab.data.data_sources import (
    MAX_FAULTS_LISTED,
    DataSplits,
    EncodedBlock,
    drop_counts,
    encode_block,
    encode_splits,
    import_formats,
    map_records,
    read_splits,
)
from tunelab.data.examples import Example, MicroBatch
from tunelab.data.folds import FoldSpec
from tunelab.data.loader import BatchLoader
from tunelab.data.protocols import Record
from tunelab.data.readers import short_name
from tunelab.data.row_streams import open_stream
from tunelab.data.stream_loader import StepPlanner, StreamLoader
from tunelab.data.summary import summarize_data
from tunelab.data.unknown_tokens import UnknownShare
from tunelab.errors import ConfigError, first_line
from tunelab.language.translation import translate
from tunelab.models.adapters import AdaptedModel, adapter_disabled, check_adapter_requirements, is_partial_checkpoint
from tunelab.models.architecture import check_layer_settings, sequence_limit
from tunelab.models.device_placement import TrainingPlacement, place_model, select_training_device
from tunelab.models.load_model import load_adapted_model, load_tokenizer, small_likeness
from tunelab.models.packing_support import available_kernels, enable_packing
from tunelab.models.pretrained_layers import checkpoint_activations
from tunelab.models.sharding import has_values
from tunelab.models.soft_prompt import prepend_soft_prompt, soft_prompt_ids
from tunelab.models.tensor_parallel import split_faults
from tunelab.models.unpadded_texts import enable_unpadded_texts
from tunelab.optim.factory import build_schedule, check_optimizer_requirements, optimizer_builder
from tunelab.optim.param_groups import frozen_at_step, unfreezing_steps
from tunelab.regularization.loss_penalties import LossPenalties
from tunelab.regularization.model_support import check_model_support
from tunelab.regularization.regularizer import Regularizer
from tunelab.runs import console
from tunelab.runs.manifest import read_template_date
from tunelab.tasks.base import SourceScores, Task
from tunelab.tasks.causal import CausalTask
from tunelab.tasks.instruction import Instruction
from tunelab.tasks.metrics.own_metrics import attach_metrics
from tunelab.tasks.registry import import_task
from tunelab.tasks.sequence import SequenceTask
from tunelab.training.data_cache import CacheEntry, entry_lock, find_entry, large_files, load_entry, store_entry
from tunelab.training.loss import TrainingLoss
from tunelab.training.nonfinite import NonFiniteGuard

if TYPE_CHECKING:  # all of Lightning, which predicting does without
    from tunelab.training.datamodule import BatchDataModule
    from tunelab.training.module import FineTuner

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
        unknown: How much of each split the tokenizer does not know; None where it has no token for that.
        near_empty: Rows of each split with a text that says nothing.
        entry: Where the data of large files are kept for the next start.
    """

    settings: RunConfig
    task: Task
    sources: DataSplits
    tokenizer: PreTrainedTokenizerBase
    examples: dict[str, Sequence[Example]]
    counts: dict[str, dict[str, int | float]]
    portions: dict[str, list[SourceRange]] = field(default_factory=dict, kw_only=True)
    unknown: dict[str, UnknownShare | None] = field(default_factory=dict, kw_only=True)
    near_empty: dict[str, "array[int]"] = field(default_factory=dict, kw_only=True)
    entry: CacheEntry | None = field(default=None, kw_only=True)

    @property
    def epoch_rows(self) -> int:
        """Examples that one epoch sees, a repeated one as often as it comes."""
        if self.settings.data.streaming:  # one epoch is the whole run
            return (self.settings.max_steps or 1) * self.settings.batch_size
        weighted = sum(portion.rows_per_epoch for portion in self.portions.get("train", ()))
        return weighted or len(self.examples["train"])


@dataclass
class RunComponents(EncodedData):
    """The encoded data and the model of a run, before any training.

    Attributes:
        adapter: The model that is trained, and what trains in it.
        reference: A copy of it, for pairs of a stream, whose log-probabilities before training are taken as they come.
    """

    adapter: AdaptedModel
    reference: PreTrainedModel | None = None

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
    task = kind(**{name: values[name] for name in signature(kind).parameters if name in values})
    if isinstance(task, CausalTask):
        task.chunked_loss = settings.memory.chunked_loss if whole_logits_reason(settings) is None else False
    return task


def encode_data(settings: RunConfig) -> EncodedData:
    """Read the data and encode every split; those of large files are taken from the last start where they are the same.

    Raises:
        DataError: If records cannot be used.
        ConfigError: If the tokenizer or the architecture cannot be read.
    """
    task = build_task(settings)
    if settings.resume:
        task.keep_date(read_template_date(settings.resume))
    files = [] if settings.data.streaming else large_files(settings)
    if not files:
        return prepare_data(settings, task)
    tokenizer, longest = load_tokenizer_and_limit(settings)
    entry = find_entry(settings, task, tokenizer, longest, files)
    if entry is None:
        return prepare_data(settings, task, tokenizer=(tokenizer, longest))
    with entry_lock(entry):
        if (kept := load_entry(entry)) is not None:
            state, values = kept
            if settings.data.mix is not None:
                task.expect_mixture()
            task.restore(state)
            attach_metrics(task, settings.metrics)
            task.set_tokenizer(tokenizer, longest)
            return EncodedData(settings, task, tokenizer=tokenizer, **values, entry=entry)
        encoded = prepare_data(settings, task, cache=entry.root, tokenizer=(tokenizer, longest))
        names = ("sources", "examples", "counts", "portions", "unknown", "near_empty")
        state = task.state()
        if "template" in state:  # that of the tokenizer or the settings, found anew
            state["template"] = ""
        store_entry(entry, (state, {name: getattr(encoded, name) for name in names}))
    encoded.entry = entry
    return encoded


def load_tokenizer_and_limit(settings: RunConfig) -> tuple[PreTrainedTokenizerBase, int | None]:
    """The tokenizer of a run, and the tokens that a row may have; None without a limit."""
    tokenizer = load_tokenizer(settings.model)
    limit = sequence_limit(settings.model, settings.adapter, tokenizer, max_tokens=settings.data.max_tokens)
    return tokenizer, limit


def prepare_data(
    settings: RunConfig,
    task: Task,
    *,
    cache: Path | None = None,
    tokenizer: tuple[PreTrainedTokenizerBase, int | None] | None = None,
) -> EncodedData:
    """Read the data and encode every split.

    Args:
        settings: The run.
        task: Not fitted yet.
        cache: Folder for copies of large files, in place of that of the settings.
        tokenizer: What `load_tokenizer_and_limit` gives, where that is known already.

    Raises:
        DataError: If records cannot be used.
        ConfigError: If the tokenizer or the architecture cannot be read.
    """
    data = settings.data if cache is None else replace(settings.data, cache=str(cache))
    sources = read_splits(data, task, seed=settings.seed, fold=FoldSpec.from_config(settings.cv))
    if type(task).check_target is not Task.check_target:
        map_records(task.check_target, sources.splits["train"])
    task.fit(sources.splits["train"].rows)
    attach_metrics(task, settings.metrics)
    words, longest = tokenizer or load_tokenizer_and_limit(settings)
    task.set_tokenizer(words, longest)
    skip_bad = settings.data.on_bad == "skip"
    encoded = encode_splits(sources, task, words, settings.data.max_unknown, skip_bad=skip_bad)
    sources.notes.extend([*encoded.notes, *task.encoding_notes()])
    return EncodedData(
        settings,
        task,
        sources,
        words,
        encoded.examples,
        encoded.counts,
        portions=encoded.portions,
        unknown=encoded.unknown,
        near_empty=encoded.near_empty,
    )


def build_data_report(encoded: EncodedData) -> dict[str, Any]:
    """The data report of a run or a preview."""
    if encoded.entry is not None and encoded.entry.report is not None:
        return encoded.entry.report
    shares = {name: known.share for name, known in encoded.unknown.items() if known is not None and known.tokens}
    report = summarize_data(
        encoded.task,
        encoded.sources,
        encoded.examples,
        encoded.counts,
        threshold=encoded.settings.data.near_threshold,
        unknown=shares,
        near_empty=encoded.near_empty or None,
    )
    if encoded.entry is not None:
        encoded.entry.keep_report(report)
    return report


def build_components(settings: RunConfig) -> RunComponents:
    """Read the data, encode every split, load the model.

    Raises:
        DataError: If records cannot be used.
        ConfigError: If model or tokenizer cannot be loaded.
    """
    check_optimizer_requirements(settings.optimizer, settings.trainer.accelerator)
    check_adapter_requirements(settings.adapter, settings.data.task)
    check_layer_settings(settings.model)
    encoded = encode_data(settings)
    task = encoded.task
    adapter = build_adapter(settings, task, encoded.tokenizer, without_values=reads_slices(settings))
    model = adapter.model
    check_split(model, settings.trainer)
    placement = TrainingPlacement.from_config(settings.trainer)
    choose_packing(placement, task, model, settings.data, settings.model.attention)
    reference = copy.deepcopy(model) if settings.data.streaming and task.needs_reference else None
    if settings.memory.chunked_loss is True and (reason := whole_loss_reason(settings, task, model)):
        raise ConfigError(translate("memory.chunked_loss=true: {reason}; take memory.chunked_loss=auto", reason=reason))
    if settings.checkpoints_activations:
        checkpoint_activations(model)
    encoded.examples = add_reference_logprobs(placement, task, model, encoded.examples, settings.micro_tokens)
    if lead := soft_prompt_ids(model):
        encoded.examples = {name: prepend_soft_prompt(examples, lead) for name, examples in encoded.examples.items()}
    return RunComponents(**vars(encoded), adapter=adapter, reference=reference)


def check_split(model: PreTrainedModel, trainer: TrainerConfig) -> None:
    """Check that a model's layers can be split between as many devices as `trainer.fsdp.tensor_parallel` says.

    Raises:
        ConfigError: Naming all that stands against it.
    """
    width = trainer.fsdp.tensor_parallel if trainer.strategy == "fsdp" else 1
    if width > 1 and (faults := split_faults(model, width)):
        raise ConfigError.listing(
            [translate("trainer.fsdp.tensor_parallel={width}: {fault}", width=width, fault=fault) for fault in faults]
        )


def choose_packing(
    placement: TrainingPlacement, task: Task, model: PreTrainedModel, data: DataConfig, attention: str
) -> None:
    """Choose the rows of a task, and give the model the attention they need.

    Raises:
        ConfigError: If the settings demand what this model cannot do.
    """
    packing = data.packing if isinstance(data, CausalDataConfig | LabelledDataConfig) else "auto"
    kind = placement.device.type
    if isinstance(task, SequenceTask) and task.can_pack():
        texts = enable_unpadded_texts(model, packing=packing, attention=attention, saves=kind == "cpu")
        task.packed = texts is not None
        if texts is not None:
            task.unpadded[model] = texts
    if isinstance(task, CausalTask):
        likeness = model if has_values(model) else small_likeness(model)
        task.packed = enable_packing(
            likeness,
            packing=packing,
            attention=attention,
            kernels=available_kernels(kind, half=placement.precision.startswith("bf16")),
            loops=kind != "cuda",
            at_work=lambda: placement.hold(likeness),
        )
        if likeness is not model:
            model.set_attn_implementation(likeness.config._attn_implementation)


def describe_packing(components: RunComponents) -> str:
    """Whether rows are packed; if they are padded, why."""
    if components.packed:
        return translate("on")
    settings, task = components.settings, components.task
    chosen = getattr(settings.data, "packing", None)
    if chosen is None or (isinstance(task, SequenceTask) and not task.can_pack()):
        reason = translate("data.task={task} lays out its own rows", task=task.name)
    elif chosen is False:
        reason = "data.packing=false"
    elif settings.model.attention != "auto":
        reason = f"model.attention={settings.model.attention}"
    elif select_training_device(settings.trainer.accelerator).type != "cpu":
        reason = translate("no attention on this device is exact for it and saves time")
    else:
        reason = translate("it would not be exact with {family}", family=components.model.config.model_type)
    return translate("off, rows are padded: {reason}", reason=reason)


def whole_loss_reason(settings: RunConfig, task: Task, model: PreTrainedModel) -> str | None:
    """Why the logits of all positions stand at once where a run computes its loss; None where they come in parts."""
    if not isinstance(task, CausalTask):
        return whole_logits_reason(settings)
    if isinstance(task, Instruction) and not task.learns_by_position():
        return translate("data.task={name} has a loss or scores of its own", name=task.name)
    if not computes_own_loss(settings.module):
        return translate("module._target_={target} has a loss of its own", target=settings.module.target)
    tried = model if has_values(model) else small_likeness(model)
    return whole_logits_reason(settings) or task.supervised_head(tried).whole_reason() or None


def computes_own_loss(config: TargetConfig) -> bool:
    """Whether the training step that `module` names takes the loss as ours does, without a look at the logits."""
    from tunelab.training.module import FineTuner

    kind = instantiate.import_target(config.target, "module")
    return getattr(kind, "compute_loss", None) is FineTuner.compute_loss


def add_reference_logprobs(
    placement: TrainingPlacement,
    task: Task,
    model: PreTrainedModel,
    examples: Mapping[str, Sequence[Example]],
    micro_tokens: int,
) -> dict[str, Sequence[Example]]:
    """Examples of every split, with log-probabilities of the untrained model where the task needs them.

    The model comes from `build_model`, never from a checkpoint, so a run that goes on gets the same numbers.
    """
    if not task.needs_reference:
        return dict(examples)
    with placement.hold(model), adapter_disabled(model):
        model.eval()  # no dropout; `hold` puts the mode back
        return {
            name: task.add_reference(model, split_examples, micro_tokens) for name, split_examples in examples.items()
        }


def reads_slices(settings: RunConfig) -> bool:
    """Whether each process of a run reads its own part of the weights, and none ever holds the whole model."""
    return settings.trainer.strategy == "fsdp" and settings.trainer.fsdp.load == "slices"


def build_model(settings: RunConfig, task: Task, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model as a run has it before training, a new adapter in it; the same weights at every call."""
    return build_adapter(settings, task, tokenizer, without_values=reads_slices(settings)).model


def build_adapter(
    settings: RunConfig, task: Task, tokenizer: PreTrainedTokenizerBase, *, without_values: bool = False
) -> AdaptedModel:
    """The model as it is before training, and what trains in it; the same weights at every call."""
    return load_adapted_model(
        settings.model,
        settings.adapter,
        settings.regularization,
        tokenizer,
        head=task.head,
        options=task.head_options(),
        seed=settings.seed,
        without_values=without_values,
    )


def build_test_loader(components: RunComponents) -> BatchLoader:
    """The loader of the test split as one process of training has it, without Lightning."""
    settings, task = components.settings, components.task
    return BatchLoader(
        components.examples["test"],
        collate=task.collate,
        filler=task.padding_example(),
        batch_size=settings.eval.batch_size,
        micro_tokens=settings.micro_tokens,
        packed=components.packed,
        seed=settings.seed,
        shuffle=False,
        source_ranges=components.portions.get("test", ()),
        workers=settings.data.workers,
        pass_cost=pass_cost(settings),
    )


def pass_cost(settings: RunConfig) -> int | None:
    """Pads that take as long as one pass more on the device of a run; None where a pass costs more than any pads."""
    return PASS_COST.get(select_training_device(settings.trainer.accelerator).type)


def build_datamodule(components: RunComponents) -> "BatchDataModule":
    """The loaders of a run."""
    from tunelab.training.datamodule import BatchDataModule

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
        pass_cost=pass_cost(settings),
        open_stream=partial(build_stream, components) if settings.data.streaming else None,
    )


def build_stream(components: RunComponents, planner: StepPlanner) -> StreamLoader:
    """The loader of a run that streams its training rows."""
    settings, task, lead = components.settings, components.task, soft_prompt_ids(components.model)
    data, head = settings.data, components.sources.splits["train"]
    if components.reference is not None:
        collate = partial(collate_pairs, components.reference, task, TrainingPlacement.from_config(settings.trainer))
        planner = replace(planner, collate=collate)

    def encode(rows: Sequence[Record]) -> EncodedBlock:
        block = encode_block(rows, 0, task=task, to_store=False)
        return block._replace(examples=list(prepend_soft_prompt(block.examples, lead))) if lead else block

    return StreamLoader(
        open_stream(data, data.ignored),
        encode,
        planner,
        columns=frozenset(name for row in head.rows for name in row),
        name=short_name(str(data.train)),
        steps=settings.max_steps or 1,
        batch_size=settings.batch_size,
        seed=settings.seed,
        shuffle_rows=data.shuffle_rows,
        skip_bad=data.on_bad == "skip",
        limit=data.limit,
        report=partial(report_stream, task),
    )


@torch.no_grad()
def collate_pairs(
    reference: PreTrainedModel, task: Task, placement: TrainingPlacement, examples: list[Example]
) -> MicroBatch:
    """A micro-batch of pairs as they come from a stream, with the log-probabilities that the reference gives them."""
    new = [example for example in examples if example.reference_logprobs is None]  # a filler has them
    if new:
        place_model(reference.eval(), placement.device)
        if placement.precision == "64-true":
            reference.double()
        with placement.autocast(), adapter_disabled(reference):
            tokens = sum(example.padded_length(packed=False) for example in new)
            known = iter(task.add_reference(reference, new, tokens))
        examples = [next(known) if example.reference_logprobs is None else example for example in examples]
    return task.collate(examples)


def report_stream(task: Task, counts: Mapping[str, int], faults: Sequence[str] = ()) -> None:
    """Say how many rows of a stream were dropped so far, for each reason, and name some that cannot be used."""
    reasons = drop_counts({name: count for name, count in counts.items() if count}, task) or translate("none")
    console.say(translate("stream: {rows:,} [row|rows] read, dropped: {reasons}", rows=counts["rows"], reasons=reasons))
    for fault in faults[:MAX_FAULTS_LISTED]:
        console.say(translate("skipped: {fault}", fault=fault))


def build_module(components: RunComponents, model: PreTrainedModel) -> "FineTuner":
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
    return make_module(
        settings.module,
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
        loss=TrainingLoss(task, model, regularization, in_parts=computes_own_loss(settings.module)),
        regularizer=regularizer,
        penalties=LossPenalties.from_config(regularization, model, total),
        guard=NonFiniteGuard.from_config(settings.callbacks, model, regularizer, report=console.say),
        step_in_backward=settings.memory.step_in_backward,
    )


def module_faults(config: TargetConfig) -> list[str]:
    """Faults of the block `module`: no subclass of ours, or arguments that it does not take."""
    from tunelab.training.module import FineTuner

    if faults := instantiate.target_faults(config, "module", runtime=signature(FineTuner).parameters):
        return faults
    kind = instantiate.import_target(config.target, "module")
    if not isclass(kind) or not issubclass(kind, FineTuner):
        return [
            translate(
                "module._target_={target} is no subclass of {our_module}, whose steps, checkpoints "
                "and scores a run is made of; derive it from that class, and hand on to it what its "
                "__init__ does not know",
                target=config.target,
                our_module=OUR_MODULE,
            )
        ]
    return []


def make_module(config: TargetConfig, model: PreTrainedModel, task: Task, **runtime: object) -> "FineTuner":
    """The training step that the block `module` names.

    Raises:
        ConfigError: If its class does not take what it is called with.
    """
    from tunelab.training.module import FineTuner

    try:
        made = instantiate.import_target(config.target, "module")(model, task, **runtime, **config.arguments)
    except TypeError as fault:
        raise ConfigError(
            translate(
                "module: {target} cannot be made: {fault}; its __init__ must take *args and "
                "**kwargs, and hand them on to super().__init__",
                target=config.target,
                fault=first_line(fault),
            )
        ) from fault
    assert isinstance(made, FineTuner)  # module_faults has seen to it
    return made


def count_epoch_steps(settings: RunConfig, rows: int) -> int:
    """Optimizer steps of an epoch of `rows` training examples."""
    steps, limit = ceil(rows / settings.batch_size), settings.trainer.limit_train_batches
    if limit is None:
        return steps
    return min(steps, limit) if isinstance(limit, int) else int(steps * limit)


def count_planned_steps(settings: RunConfig, rows: int) -> int:
    """Optimizer steps of a run over `rows` training examples that nothing stops early.

    Raises:
        ConfigError: If validations would be further apart than an epoch is long, so that none would ever come.
    """
    epoch, every = count_epoch_steps(settings, rows), settings.trainer.val_check_interval
    if isinstance(every, int) and every > epoch and settings.trainer.check_val_every_n_epoch is not None:
        raise ConfigError(
            translate(
                "trainer.val_check_interval={every} [step|steps], and an epoch has {epoch}: nothing would "
                "ever be validated. Take at most {epoch}, a share of an epoch such as 1.0, or count "
                "across epochs with trainer.check_val_every_n_epoch=null",
                every=every,
                epoch=epoch,
            )
        )
    return min(epoch * settings.max_epochs, settings.max_steps or epoch * settings.max_epochs)

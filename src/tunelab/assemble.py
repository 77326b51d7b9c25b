"""From checked settings to the objects of a run: task, data, model, module."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from math import ceil

import lightning as L
from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunelab import build
from tunelab.data.examples import Example
from tunelab.data.prepare import Sources, encode_split, read_splits
from tunelab.datamodule import StepData
from tunelab.errors import ConfigError
from tunelab.models.architecture import context_limit
from tunelab.models.document_attention import use_documents
from tunelab.models.load import load_model, load_tokenizer
from tunelab.module import FineTuner
from tunelab.optim.groups import decay_groups
from tunelab.settings import Run
from tunelab.tasks.base import Task
from tunelab.tasks.classification import Classification
from tunelab.tasks.instruction import Instruction
from tunelab.tasks.pooling import ensure_pad
from tunelab.tasks.regression import Regression

TASKS: Mapping[str, type[Task]] = {kind.name: kind for kind in (Instruction, Classification, Regression)}


@dataclass
class Prepared:
    """What a run works with, before any training.

    Attributes:
        examples: Of each split.
        counts: The data report: one line of counts for each split.
    """

    settings: Run
    task: Task
    sources: Sources
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    examples: dict[str, list[Example]]
    counts: dict[str, dict[str, int | float]]

    @property
    def flat(self) -> bool:
        """Whether rows are laid end to end."""
        return bool(getattr(self.task, "flat", False))


def make_task(settings: Run) -> Task:
    """The task that `data.task` names, with those keys of the block that it takes."""
    kind = TASKS[str(settings.data["task"])]
    given = {**settings.data, "max_new_tokens": settings.eval["max_new_tokens"]}
    return kind(**{name: given[name] for name in signature(kind).parameters if name in given})


def prepare(settings: Run) -> Prepared:
    """Read the data, load the model, encode every split.

    Raises:
        DataError: If records cannot be used.
        ConfigError: If model or tokenizer cannot be loaded.
    """
    task = make_task(settings)
    sources = read_splits(settings.data, task, seed=settings.seed)
    task.fit(sources.splits["train"].rows)
    tokenizer = load_tokenizer(settings.model)
    model = fresh_model(settings, task, tokenizer)
    if isinstance(task, Instruction) and settings.model["attention"] == "auto":
        task.flat = use_documents(model)
    bounds = [bound for bound in (context_limit(model.config), settings.data["max_tokens"]) if bound is not None]
    task.use(tokenizer, min(bounds, default=None))
    encoded = {name: encode_split(split, task) for name, split in sources.splits.items()}
    return Prepared(
        settings,
        task,
        sources,
        tokenizer,
        model,
        {name: found for name, (found, _) in encoded.items()},
        {name: counts for name, (_, counts) in encoded.items()},
    )


def fresh_model(settings: Run, task: Task, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model as it is before training; the same weights at every call."""
    L.seed_everything(settings.seed, verbose=False)  # before the model: a new head starts from random weights
    model = load_model(
        settings.model,
        tokenizer,
        head=task.head,
        options=task.head_options(),
        dropout=settings.regularization["dropout"],
    )
    if task.head == "sequence":
        ensure_pad(tokenizer, model)
    freeze(model, settings.adapter["freeze"])
    model.train()  # transformers hands models over with dropout switched off
    return model


def freeze(model: PreTrainedModel, patterns: Sequence[str]) -> None:
    """Keep the parameters as they are whose name holds one of `patterns`.

    Raises:
        ConfigError: If a pattern meets no parameter, or nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    if lost := [pattern for pattern in patterns if not any(pattern in name for name in names)]:
        raise ConfigError(
            f"adapter.freeze={lost}: no parameter has that in its name; there is {', '.join(names[:6])}, ..."
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(pattern in name for pattern in patterns))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"adapter.freeze={list(patterns)} leaves nothing to train; name fewer parts")


def make_data(prepared: Prepared) -> StepData:
    """The loaders of a run."""
    settings = prepared.settings
    return StepData(
        prepared.examples,
        prepared.task,
        batch_size=settings.batch_size,
        eval_batch_size=int(settings.eval["batch_size"]),
        micro_tokens=settings.micro_tokens,
        seed=settings.seed,
        flat=prepared.flat,
        workers=int(settings.data["workers"]),
    )


def make_module(prepared: Prepared, model: PreTrainedModel) -> FineTuner:
    """The training step around a model."""
    settings = prepared.settings
    optimizer = build.make(settings.optimizer)
    # counted here: asking Lightning's trainer would load the data before a resumed run has restored its place in it
    schedule = build.make(settings.scheduler, total=planned_steps(settings, len(prepared.examples["train"])))

    def make_optimizer(parameters: list[nn.Parameter]) -> Optimizer:
        made: Optimizer = optimizer(decay_groups(parameters, float(settings.regularization["weight_decay"])))
        return made

    return FineTuner(
        model,
        prepared.task,
        optimizer=make_optimizer,
        schedule=lambda step: float(schedule(step)),
        clip=float(settings.trainer["gradient_clip_val"] or 0),
        seed=settings.seed,
    )


def planned_steps(settings: Run, rows: int) -> int:
    """Optimizer steps of a run over `rows` training examples that nothing stops early."""
    epoch = ceil(rows / settings.batch_size)
    limit = settings.trainer["limit_train_batches"]
    if limit is not None:
        epoch = min(epoch, limit) if isinstance(limit, int) else int(epoch * limit)
    return min(epoch * settings.max_epochs, settings.max_steps or epoch * settings.max_epochs)

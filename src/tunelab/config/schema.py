"""The settings of a run: every block with the type, the legal values and the neutral default of each key.

The comments in conf/ say what a key does; this says what it may be.  A default here is what a run folder means that was
written before the key existed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import PurePath
from typing import Annotated, Literal, Self

from typing_extensions import override

from tunelab.config.blocks import (
    NOT_SET,
    Block,
    IfMissing,
    JsonBlock,
    JsonValue,
    NullIsDefault,
    OnlyFor,
    OrTarget,
    Range,
    UnknownKeyFault,
    accepts_null,
    block_fields,
    convert,
    literals,
    missing_fault,
    options_of,
    plain,
    unwrap,
    yaml_text,
)
from tunelab.language.translation import message, translate

PrunerName = Literal["none", "median", "hyperband", "asha", "auto"]
SOURCE_NAME = re.compile(r"[^\s/=,:]+")  # of a data mixture; a part of a score's name: val/NAME/loss
SamplerName = (
    Literal["grid", "random", "qmc", "tpe", "gp", "bayes", "cmaes", "evolution", "pbt", "auto"] | str
)  # or a class of Optuna's samplers by its dotted name
TrackerName = Literal["csv", "none", "tensorboard", "trackio", "wandb"]
OWN_LOGGER = "own"  # name of a logger of one's own that the block `logger` names by itself
LOW_RANK_KINDS = ("lora", "dora", "rslora", "qlora")
KEEP_TOGETHER_LIKENESS = 0.8  # of near duplicates that data.near_duplicates=keep_together never parts
OUR_MODULE = "tunelab.training.module.FineTuner"  # the training step, unless `module` names a subclass

Count = Annotated[int, Range(1, 2**20)]
Share = Annotated[float, Range(0, 1)]
OnBad = Literal["error", "skip", "clean"]
Quoting = Literal["auto", "minimal", "none"]
TooLong = Literal["drop", "truncate_prompt", "truncate_answer", "error"]
TrainOn = Literal["answers", "last_answer", "all"]
RecordFormatName = Literal["auto", "alpaca", "messages", "sharegpt", "prompt_completion", "text"] | str
TRAIN_FILE = Annotated[
    str | None, IfMissing(message("name the file to learn from: {name}=FILE (json, jsonl, csv, tsv, parquet)"))
]
Column = Annotated[str, IfMissing(message("name the column of your file that holds it: {name}=COLUMN"))]


ARGUMENT_TYPES: Mapping[str, object] = {  # of optimizers and schedules, whatever their class
    "optimizer.momentum": Annotated[float, Range(0, 0.999999)],
    "optimizer.ns_steps": Annotated[int, Range(1, 99)],
    "optimizer.max_iter": Annotated[int, Range(1, 1000)],
    "optimizer.history_size": Annotated[int, Range(1, 1000)],
    "optimizer.tolerance_grad": Annotated[float, Range(0, 1)],
    "optimizer.tolerance_change": Annotated[float, Range(0, 1)],
    "scheduler.warmup": Annotated[float, Range(0, 10**9)],
    "scheduler.min_lr_ratio": Annotated[float, Range(0, 1)],
    "scheduler.power": Annotated[float, Range(0, 100, above_low=True)],
    "scheduler.timescale": Annotated[float, Range(0, 10**9, above_low=True)],
    "scheduler.cycles": Annotated[int, Range(1, 10**6)],
    "scheduler.decay": Annotated[float, Range(0, 10**9)],
    "scheduler.every": Annotated[float, Range(0, 10**9, above_low=True)],
    "scheduler.factor": Annotated[float, Range(0, 1, above_low=True)],
    "scheduler.start": Annotated[float, Range(0, 1)],
    "scheduler.patience": Annotated[int, Range(0, 10**6)],
    "scheduler.min_delta": Annotated[float, Range(0, 10**9)],
    "scheduler.cooldown": Annotated[int, Range(0, 10**6)],
    "scheduler.shape": Literal["linear", "cosine", "sqrt"],
}


@dataclass(frozen=True, kw_only=True)
class TargetConfig(Block):
    """A function or class of Python with arguments, which are those of its own signature.

    Attributes:
        target: Its dotted name, `_target_` in a yaml.
        arguments: What it is called with.
    """

    target: str
    arguments: JsonBlock = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The last part of the dotted name."""
        return self.target.rpartition(".")[2]

    def number(self, name: str) -> float:
        """An argument that is a number; 0 where it is null or left to the target."""
        value = self.arguments.get(name)
        return float(value) if isinstance(value, int | float) else 0.0

    @classmethod
    def parse(cls, values: JsonBlock, name: str, faults: list[str]) -> "TargetConfig":
        """The target that a block with the key `_target_` names.

        Arguments are looked at as far as ARGUMENT_TYPES knows them; instantiate.py checks the target's signature.
        """
        target, arguments = values.get("_target_"), dict[str, JsonValue]()
        if not isinstance(target, str):
            faults.append(translate("{name} names no _target_; choose one by {name}=NAME, see --help", name=name))
        for key, value in values.items():
            hint = ARGUMENT_TYPES.get(f"{name}.{key}")
            if value == NOT_SET:
                faults.append(missing_fault(f"{name}.{key}"))
            elif key != "_target_":
                known = hint is not None and value is not None  # whether null is legal is up to the target
                arguments[key] = plain(convert(hint, value, f"{name}.{key}", faults)) if known else value
        return cls(target=target if isinstance(target, str) else "", arguments=arguments)

    def as_dict(self) -> dict[str, JsonValue]:
        """The block as plain values."""
        return {"_target_": self.target, **{key: plain(value) for key, value in self.arguments.items()}}


@dataclass(frozen=True, kw_only=True)
class EvalConfig(Block):
    """The block `eval`."""

    batch_size: Count = 64
    max_new_tokens: Annotated[int, Range(1, 2**17)] = 64
    generate: Literal["auto", True, False] = "auto"
    generate_rows: Annotated[int | None, Range(0, 2**40)] = None
    test_rows: Annotated[int | None, Range(0, 2**40)] = None
    base: Literal["auto", True, False] = "auto"


@dataclass(frozen=True, kw_only=True)
class MemoryConfig(Block):
    """The block `memory`: what makes room on a device without changing what is learned."""

    chunked_loss: Literal["auto", True, False] = "auto"
    activation_checkpointing: bool = False
    step_in_backward: bool = False


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Block, selector="kind", default="pretrained"):
    """The block `model`: what every kind of model has."""

    kind: str
    path: str
    tokenizer: str | None = None
    size: Literal["tiny", "base"] = "base"
    attention: Literal["auto", "sdpa", "eager", "flex_attention", "flash_attention_2"] = "auto"
    freeze: Sequence[str] = ()

    @property
    def has_mup(self) -> bool:
        """Whether rates, weights and logits are scaled by the width."""
        return isinstance(self, ScratchModelConfig) and self.mup


@dataclass(frozen=True, kw_only=True)
class PretrainedModelConfig(ModelConfig, names=["pretrained"]):
    """A model with the weights, or at least the architecture, of a folder or hub id."""

    kind: str = "pretrained"
    weights: Literal["pretrained", "random"] = "pretrained"
    depth: Annotated[int | None, Range(1, 10**4)] = None
    keep: Literal["bottom", "top", "spread"] | None = None
    reinit_top: Annotated[int, Range(0, 10**4), NullIsDefault()] = 0


@dataclass(frozen=True, kw_only=True)
class ScratchModelConfig(ModelConfig, names=["scratch"]):
    """A model of one's own size with random weights."""

    kind: str = "scratch"
    path: str = "scratch"
    depth: Annotated[int, Range(1, 10**4)]
    width: Annotated[int, Range(1, 2**20)]
    heads: Annotated[int, Range(1, 2**20)]
    mlp: Annotated[int | None, Range(1, 2**24)] = None
    activation: Literal["silu", "gelu", "gelu_pytorch_tanh", "relu", "relu2", "sigmoid", "tanh", "linear"] = "silu"
    normalisation: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    context: Annotated[int, Range(1, 2**30)]
    tied: bool
    rope_base: Annotated[float, Range(1, 10**9)]
    init: Literal["normal", "xavier", "kaiming", "depth_scaled"] = "normal"
    initial_std: Annotated[float | None, Range(0, 1, above_low=True)] = None
    mup: bool = False
    base_width: Annotated[int, Range(1, 2**20)] = 128
    base_head: Annotated[int, Range(1, 2**20)] = 32


@dataclass(frozen=True, kw_only=True)
class SplitConfig(Block):
    """Shares of the training file that become the other splits."""

    validation: Annotated[float, Range(0, 0.9)] = 0.1
    test: Annotated[float, Range(0, 0.9)] = 0.1


@dataclass(frozen=True, kw_only=True)
class DataConfig(Block, selector="task"):
    """The block `data`: what every task reads.

    A task adds keys in a subclass, which is registered under the task's name, or is the `data_config` of its class.
    """

    task: str
    train: TRAIN_FILE = None
    mix: JsonValue = None
    validation: str | None = None
    test: str | None = None
    split: SplitConfig = SplitConfig()
    group: str | None = None
    near_duplicates: Annotated[float | Literal["keep_together"] | None, Range(0.3, 1)] = None
    max_unknown: Share = 1.0
    ignore_columns: Sequence[str] | None = None
    in_memory: Annotated[float, Range(0, 10**9)] = 64
    cache: str | None = None
    keep_prepared: bool = True
    streaming: bool = False
    shuffle_rows: Annotated[int, Range(1, 10**8)] = 10_000
    limit: Annotated[int | None, Range(1, 2**40)] = None
    encoding: str = "utf-8"
    on_bad: OnBad = "error"
    quoting: Quoting = "auto"
    header: Sequence[str] | None = None
    workers: Annotated[int, Range(0, 256)] = 0
    max_tokens: Annotated[int | None, Range(1, 2**30)] = None

    @classmethod
    def parse(cls, values: JsonBlock, name: str, faults: list[str]) -> Self:
        """The block; with `mix` no single file to learn from is missing."""
        no_file = values.get("mix") is not None and values.get("train") == NOT_SET
        return super().parse({**values, "train": None} if no_file else values, name, faults)

    @property
    def run_columns(self) -> Mapping[str, str | None]:
        """The names of columns in the file by ours, where the task has such a block."""
        columns = getattr(self, "columns", None)
        return {key: getattr(columns, key) for key in block_fields(type(columns))} if isinstance(columns, Block) else {}

    @property
    def sources(self) -> "Mapping[str, MixSourceConfig]":
        """The sources of `mix` by name; a list of files names each source after its file.  Empty without a mix."""
        if self.mix is None:
            return {}
        files = self.mix if isinstance(self.mix, list) else []
        entries = self.mix if isinstance(self.mix, Mapping) else {source_name_from_file(str(f)): f for f in files}
        return {
            name: MixSourceConfig.parse(entry, name, [])
            if isinstance(entry, Mapping)
            else MixSourceConfig(train=str(entry))
            for name, entry in entries.items()
        }

    @property
    def ignored(self) -> Sequence[str]:
        """The columns that are left out on purpose."""
        return self.ignore_columns or ()

    @property
    def near_threshold(self) -> float | None:
        """Least likeness of near duplicates; None where they are not looked for."""
        return KEEP_TOGETHER_LIKENESS if isinstance(self.near_duplicates, str) else self.near_duplicates

    def of_source(self, source: "MixSourceConfig") -> Self:
        """This block as it holds for one source of `mix`: what the source says, else what the block says."""
        files = {"train": source.train, "validation": source.validation, "test": source.test}
        known = [key for key in source.key_order if key in block_fields(type(self)) and key not in ("split", "columns")]
        shares = {key: getattr(source.split, key) for key in source.split.key_order}
        own = {**{key: getattr(source, key) for key in known}, **files, "split": replace(self.split, **shares)}
        if source.ignore_columns:
            own["ignore_columns"] = (*self.ignored, *source.ignore_columns)
        return replace(self, mix=None, **own)


@dataclass(frozen=True, kw_only=True)
class MixSourceConfig(Block):
    """A source of `data.mix`.  What it does not say is as in the data block.

    Attributes:
        weight: How often an epoch sees each of its rows.
        columns: Name of a column in the run -> its name in this source.
    """

    train: Annotated[str, IfMissing("name the file to learn from")]
    validation: str | None = None
    test: str | None = None
    weight: Annotated[float, Range(0, 1000, above_low=True)] = 1.0
    encoding: str = "utf-8"
    on_bad: OnBad = "error"
    quoting: Quoting = "auto"
    header: Sequence[str] | None = None
    limit: Annotated[int | None, Range(1, 2**40)] = None
    format: Annotated[RecordFormatName | None, NullIsDefault(), OrTarget()] = None
    columns: Annotated[Mapping[str, str | None], NullIsDefault()] = field(default_factory=dict)
    ignore_columns: Annotated[Sequence[str], NullIsDefault()] = ()
    split: Annotated[SplitConfig, NullIsDefault()] = SplitConfig()


def source_name_from_file(file: str) -> str:
    """A source's name after its file or hub set.

    Example:
        >>> source_name_from_file("texts/my code.jsonl"), source_name_from_file("owner/name:train")
        ('my_code', 'owner_name_train')
    """
    path = PurePath(file)
    return "_".join(SOURCE_NAME.findall(path.stem if path.suffix else file)) or "source"


@dataclass(frozen=True, kw_only=True)
class InstructionColumns(Block):
    """Column names of a file of instructions, where they differ from ours."""

    instruction: str | None = None
    input: str | None = None
    output: str | None = None
    prompt: str | None = None
    completion: str | None = None
    messages: str | None = None
    conversations: str | None = None
    system: str | None = None
    history: str | None = None
    text: str | None = None
    choices: str | None = None
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class CausalDataConfig(DataConfig):
    """Texts that are learned token by token."""

    template: str = "auto"
    template_date: str | None = None
    too_long: TooLong = "drop"
    packing: Literal["auto", True, False] = "auto"


@dataclass(frozen=True, kw_only=True)
class InstructionDataConfig(CausalDataConfig, names=["instruction"]):
    """Instructions and answers."""

    task: str = "instruction"
    format: Annotated[RecordFormatName, OrTarget()] = "auto"
    columns: InstructionColumns = InstructionColumns()
    train_on: TrainOn = "answers"


@dataclass(frozen=True, kw_only=True)
class PreferenceColumns(Block):
    """Column names of a file of preferences, where they differ from ours."""

    prompt: str | None = None
    input: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    system: str | None = None
    history: str | None = None


@dataclass(frozen=True, kw_only=True)
class PreferenceDataConfig(CausalDataConfig, names=["preference"]):
    """Pairs of a better and a worse answer."""

    task: str = "preference"
    columns: PreferenceColumns = PreferenceColumns()
    beta: Annotated[float, Range(0, 1000, above_low=True)] = 0.1
    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    label_smoothing: Annotated[float, Range(0, 0.49)] = 0.0


@dataclass(frozen=True, kw_only=True)
class LabelledDataConfig(DataConfig):
    """Texts, or pairs of texts, with something to predict about them."""

    text: Column
    text_pair: str | None = None
    packing: Literal["auto", True, False] = "auto"


@dataclass(frozen=True, kw_only=True)
class ClassificationDataConfig(LabelledDataConfig, names=["classification"]):
    """A label, or several, for each text."""

    task: str = "classification"
    label: Column
    multilabel: bool = False
    labels: Sequence[str | int | bool] | None = None
    class_weights: Literal["none", "balanced"] = "none"
    label_smoothing: Annotated[float, Range(0, 0.49)] = 0.0
    threshold: Share = 0.5


@dataclass(frozen=True, kw_only=True)
class RegressionDataConfig(LabelledDataConfig, names=["regression"]):
    """A number, or several, for each text."""

    task: str = "regression"
    target: Annotated[str | Sequence[str], IfMissing("name the column of your file that holds it: {name}=COLUMN")]
    standardise: bool = True


def is_target(value: JsonValue) -> bool:
    """Whether a value names a function or class: a block with the key `_target_`."""
    return isinstance(value, Mapping) and "_target_" in value


@dataclass(frozen=True, kw_only=True)
class ExtensibleBlock(Block):
    """A block that holds parts of one's own beside its keys.

    Attributes:
        targets: Every further key NAME with a value `{_target_: package.Class, ...}`, in their order.
    """

    targets: Mapping[str, TargetConfig] = field(default_factory=dict)

    @classmethod
    def take_unknown(
        cls, key: str, value: JsonValue, prefix: str, parsed: dict[str, object], faults: list[str]
    ) -> bool:
        """Keep a part of one's own under its name; one that stands in the block itself has none."""
        if key == "_target_":
            group = prefix.rstrip(".")
            faults.append(
                translate(
                    "{prefix}_target_={value} has no name: in a yaml of {group} it stands under one, "
                    "such as mine: {{_target_: {value}}}; a yaml of one part alone is added by "
                    "+{group}@{group}.mine=FILE",
                    prefix=prefix,
                    value=value,
                    group=group,
                )
            )
            return True
        if not is_target(value) or not isinstance(value, Mapping):
            return False
        before = parsed.get("targets")
        target = TargetConfig.parse(value, f"{prefix}{key}", faults)
        parsed["targets"] = {**(before if isinstance(before, dict) else {}), key: target}
        return True

    def as_dict(self) -> dict[str, JsonValue]:
        """The block as plain values, the parts of one's own under their names."""
        values = super().as_dict()
        values.pop("targets", None)
        return values | {name: target.as_dict() for name, target in self.targets.items()}


@dataclass(frozen=True, kw_only=True)
class RegularizationConfig(ExtensibleBlock):
    """The block `regularization`; every default is neutral, and so is null.

    Attributes:
        targets: Penalties of one's own: functions of the model whose value is added to the loss.
    """

    weight_decay: Annotated[float, Range(0, 10), NullIsDefault()] = 0.0
    l1: Annotated[float, Range(0, 10**6), NullIsDefault()] = 0.0
    max_norm: Annotated[float, Range(0, 10**9), NullIsDefault()] = 0.0
    dropout: Annotated[float | None, Range(0, 0.99)] = None
    attention_dropout: Annotated[float | None, Range(0, 0.99)] = None
    stochastic_depth: Annotated[float, Range(0, 0.99), NullIsDefault()] = 0.0
    neftune: Annotated[float, Range(0, 10**4), NullIsDefault()] = 0.0
    mixout: Annotated[float, Range(0, 0.99), NullIsDefault()] = 0.0
    label_smoothing: Annotated[float, Range(0, 0.99), NullIsDefault()] = 0.0
    rdrop: Annotated[float, Range(0, 10**4), NullIsDefault()] = 0.0
    ema: Annotated[float, Range(0, 0.999999), NullIsDefault()] = 0.0
    swa_start: Annotated[float, Range(0, 1), NullIsDefault()] = 1.0


@dataclass(frozen=True, kw_only=True)
class AdapterConfig(Block):
    """The block `adapter`: what is trained.  Some keys belong to some kinds only."""

    kind: Literal["full", "lora", "dora", "rslora", "qlora", "head", "top_layers", "layernorm", "prompt"] = "full"
    lr_scale: Annotated[
        float,
        Range(0, 10**6, above_low=True),
        OnlyFor((*LOW_RANK_KINDS, "head", "top_layers", "layernorm", "prompt")),
    ] = 1
    rank: Annotated[int, Range(1, 4096), OnlyFor(LOW_RANK_KINDS)] = 16
    alpha: Annotated[float, Range(0, 10**6, above_low=True), OnlyFor(LOW_RANK_KINDS)] = 32
    dropout: Annotated[float, Range(0, 0.99), OnlyFor(LOW_RANK_KINDS)] = 0.0
    targets: Annotated[str | Sequence[str], OnlyFor(LOW_RANK_KINDS)] = "auto"
    layers: Annotated[int, Range(1, 10**4), OnlyFor(("top_layers",))] = 2
    length: Annotated[int, Range(1, 4096), OnlyFor(("prompt",))] = 16
    freeze: Sequence[str] = ()
    layer_decay: Annotated[float, Range(0, 1, above_low=True)] = 1.0
    head_lr: Annotated[float | None, Range(0, 100, above_low=True)] = None
    unfreeze_every: Annotated[float | None, Range(0, 10**9, above_low=True)] = None
    unfreeze_at: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FsdpConfig(Block):
    """The block `trainer.fsdp`: how a model is spread over devices with `trainer.strategy=fsdp`."""

    reshard_after_forward: bool = True
    activation_checkpointing: bool = False
    cpu_offload: bool = False
    gather_dtype: Literal["float32", "bfloat16"] = "float32"
    reduce_dtype: Literal["float32", "bfloat16"] = "float32"
    load: Literal["whole", "slices"] = "whole"
    sharded_checkpoints: bool = False
    tensor_parallel: Annotated[int, Range(1, 10**6)] = 1


@dataclass(frozen=True, kw_only=True)
class TrainerConfig(Block):
    """The block `trainer`: arguments of Lightning's trainer, and the block `fsdp`."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = "auto"
    devices: int | str | Sequence[int] = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: Literal["auto", "32-true", "32", "bf16-mixed", "bf16", "64-true"] = "auto"
    gradient_clip_val: Annotated[float, Range(0, 10**9), NullIsDefault()] = 0.0
    log_every_n_steps: Annotated[int, Range(1, 10**9)] = 10
    val_check_interval: int | float | None = 1.0
    check_val_every_n_epoch: int | None = 1
    limit_train_batches: int | float | None = None
    limit_val_batches: int | float | None = None
    enable_progress_bar: bool = True
    deterministic: bool | Literal["warn"] = False
    benchmark: bool | None = None
    detect_anomaly: bool = False
    profiler: Literal["simple", "advanced", "pytorch"] | None = None
    fsdp: FsdpConfig = field(default_factory=FsdpConfig)


@dataclass(frozen=True, kw_only=True)
class CallbacksConfig(ExtensibleBlock):
    """The block `callbacks`: what watches a run, and callbacks of one's own."""

    early_stopping: bool = True
    patience: Annotated[int, Range(1, 10**6)] = 3
    min_delta: float = 0.0
    save_every: Annotated[int, Range(0, 10**9)] = 0
    on_nonfinite: Literal["stop", "skip", "rollback"] = "stop"
    nonfinite_limit: Annotated[int, Range(0, 10**9)] = 10
    rollback_every: Annotated[int, Range(1, 10**9)] = 100
    throughput: bool = False
    snapshots: Annotated[int, Range(0, 1000), NullIsDefault()] = 0
    memory: bool = False
    spikes: bool = False
    layers: bool = False
    dead_units: bool = False
    activations: bool = False
    doctor: bool = False
    train_eval_rows: Annotated[int, Range(0, 10**9)] = 0


@dataclass(frozen=True, kw_only=True)
class LoggerConfig(ExtensibleBlock):
    """The block `logger`.  Some keys belong to some trackers only.

    Attributes:
        kind: The tracker beside metrics.csv; of several that a list chooses, the last one.
        kinds: Those that a list chooses: each yaml of the group says true for its own.
        targets: Lightning loggers of one's own, by name.
    """

    kind: TrackerName = "csv"
    kinds: Mapping[str, bool] = field(default_factory=dict)
    mode: Literal["auto", "online", "offline", "disabled"] | None = None  # of any kind: debug=fast sets it
    project: Annotated[str | None, OnlyFor(("trackio", "wandb"))] = None
    entity: Annotated[str | None, OnlyFor(("wandb",))] = None
    name: Annotated[str | None, OnlyFor(("trackio", "wandb"))] = None
    group: Annotated[str | None, OnlyFor(("trackio", "wandb"))] = None
    job_type: Annotated[str | None, OnlyFor(("wandb",))] = None
    tags: Annotated[str | Sequence[str], NullIsDefault(), OnlyFor(("wandb",))] = ()
    notes: Annotated[str | None, OnlyFor(("wandb",))] = None
    rows: Annotated[int, Range(0, 10**9), NullIsDefault(), OnlyFor(("tensorboard", "trackio", "wandb"))] = 0
    gradients: Annotated[int, Range(0, 10**9), NullIsDefault(), OnlyFor(("tensorboard", "wandb"))] = 0
    artifacts: Annotated[Sequence[Literal["report", "export"]], NullIsDefault(), OnlyFor(("wandb",))] = ()

    @classmethod
    def parse(cls, values: JsonBlock, name: str, faults: list[str]) -> Self:
        """The block; a `_target_` in it is a logger of one's own, with the keys that are none of ours as arguments.

        Without `kind` all keys but `mode` are arguments: the block is that of the logger alone.
        """
        target = values.get("_target_")
        if target is None:
            return super().parse({key: value for key, value in values.items() if key != "_target_"}, name, faults)
        known = block_fields(cls) if "kind" in values else ("mode",)
        ours = {key: value for key, value in values.items() if key in known or is_target(value)}
        rest = {key: value for key, value in values.items() if key not in ours}
        return super().parse({**ours, OWN_LOGGER: rest}, name, faults)

    @override
    def chosen_kinds(self) -> Sequence[str]:
        several = [name for name, chosen in self.kinds.items() if chosen]
        return several if self.kind in several else (self.kind,)


@dataclass(frozen=True, kw_only=True)
class MetricsConfig(ExtensibleBlock):
    """The block `metrics`: metrics of one's own by name, beside those of the task."""

    @classmethod
    @override
    def unknown_key(cls, key: str, prefix: str, values: JsonBlock) -> UnknownKeyFault:
        advice = translate(
            "a metric names its class: +{prefix}{key}={{_target_: package.Class}}", prefix=prefix, key=key
        )
        return UnknownKeyFault(f"{prefix}{key}", advice)


@dataclass(frozen=True, kw_only=True)
class EffectConfig(Block):
    """The block `search.effect`: the setting whose effect is drawn."""

    of: str | None = None
    by: str | None = None


@dataclass(frozen=True, kw_only=True)
class SpaceConfig(Block):
    """The block `search.space`: what varies."""

    params: Mapping[str, JsonValue] | None = None
    when: Mapping[str, JsonValue] | None = None


@dataclass(frozen=True, kw_only=True)
class SearchConfig(Block):
    """The block `search`: how to search."""

    sampler: Annotated[SamplerName, OrTarget()] = "grid"
    sampler_options: Annotated[Mapping[str, JsonValue], NullIsDefault()] = field(default_factory=dict)
    pruner: PrunerName = "none"
    pruner_options: Annotated[Mapping[str, JsonValue], NullIsDefault()] = field(default_factory=dict)
    trials: Annotated[int | None, Range(0, 10**9, above_low=True)] = None
    hours: Annotated[float | None, Range(0, 10**6, above_low=True)] = None
    parallel_trials: Annotated[int, Range(0, 10**6, above_low=True)] = 1
    devices_per_trial: Annotated[int, Range(0, 10**6)] = 1
    isolation: Literal["process", "inline"] = "process"
    fork: bool = True
    executor: Literal["local", "submitit", "ray"] = "local"
    executor_options: Annotated[Mapping[str, JsonValue], NullIsDefault()] = field(default_factory=dict)
    storage: str | None = None
    trial_timeout: Annotated[float | None, Range(0, 10**9, above_low=True)] = None
    retry: Literal["failed"] | None = None
    objectives: Annotated[Sequence[str], NullIsDefault()] = ()
    constraints: Annotated[Mapping[str, float], NullIsDefault()] = field(default_factory=dict)
    warm_start: Annotated[Sequence[str], NullIsDefault()] = ()
    default_trial: bool = True
    keep: Annotated[int | None, Range(0, 10**9)] = None
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0
    test_best: bool = True
    effect: EffectConfig = EffectConfig()
    space: SpaceConfig = SpaceConfig()


@dataclass(frozen=True, kw_only=True)
class TrialConfig(Block):
    """The block `trial`: which trial of a search a run is."""

    id: int | None = None
    study: str | None = None
    parent: str | None = None
    until: float | None = None


@dataclass(frozen=True, kw_only=True)
class CrossValidationConfig(Block):
    """The block `cv`."""

    folds: Annotated[int | None, Range(2, 10**4)] = None
    fold: Annotated[int | None, Range(0, 10**4)] = None
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunConfig(Block):
    """One run, fully described.  conf/ gives the values, this gives the types."""

    lr: Annotated[float, Range(0, 100, above_low=True)]
    default_lr: Mapping[str, float] = field(default_factory=dict)
    batch_size: Count
    micro_tokens: Annotated[int, Range(1, 2**30)]
    max_epochs: Annotated[int, Range(1, 10**6)]
    max_steps: Annotated[int | None, Range(1, 10**12)] = None
    seed: Annotated[int, Range(0, 2**63 - 1)]
    monitor: str
    mode: Literal["auto", "min", "max"]
    name: str
    lang: Literal["en", "zh"] | None = None
    resume: str | None = None
    allow_changed_base: bool = False
    find: Literal["lr", "micro_tokens", "batch_size"] | None = None
    test: bool = True
    save: bool = True
    eval: EvalConfig = EvalConfig()
    memory: MemoryConfig = MemoryConfig()
    model: ModelConfig
    data: DataConfig
    module: TargetConfig = TargetConfig(target=OUR_MODULE)
    optimizer: TargetConfig
    scheduler: TargetConfig
    metrics: MetricsConfig = MetricsConfig()
    regularization: RegularizationConfig = RegularizationConfig()
    adapter: AdapterConfig = AdapterConfig()
    trainer: TrainerConfig = TrainerConfig()
    callbacks: CallbacksConfig = CallbacksConfig()
    logger: LoggerConfig = LoggerConfig()
    search: SearchConfig = SearchConfig()
    trial: TrialConfig = TrialConfig()
    cv: CrossValidationConfig = CrossValidationConfig()

    @property
    def checkpoints_activations(self) -> bool:
        """Whether each layer is computed once more in the backward pass."""
        sharded = self.trainer.strategy == "fsdp" and self.trainer.fsdp.activation_checkpointing
        return self.memory.activation_checkpointing or sharded

    def as_dict(self) -> dict[str, JsonValue]:
        """Every setting as plain values, in the order of this class."""
        return {name: plain(getattr(self, name)) for name in block_fields(type(self))}


def value_fault(name: str, value: JsonValue) -> str | None:
    """The fault of a value of the key at a dotted name, in every kind of its block; None if it has none."""
    first = None
    for hint in key_types().get(name, ()):
        faults = list[str]()
        convert(hint, value, name, faults)
        if not faults:
            return None
        first = first or faults[0]
    return first


def legal_values(name: str) -> list[str]:
    """The values of the key at a dotted name as they are typed, in every kind of its block; none where any will do."""
    values = list[str]()
    for hint in key_types().get(name, ()):
        base = unwrap(hint)[0]
        choices = [choice for option in options_of(base) for choice in literals(option)]
        choices += [True, False] if bool in options_of(base) else []
        values += map(yaml_text, [*choices, None] if choices and accepts_null(base) else choices)
    return list(dict.fromkeys(values))


@cache
def legal_ranges() -> Mapping[str, tuple[float, float]]:
    """The smallest and the largest legal number of every key that has them, by dotted name."""
    ranges = dict[str, tuple[float, float]]()
    for name, hints in key_types().items():
        if notes := [note for hint in hints for note in unwrap(hint)[1] if isinstance(note, Range)]:
            ranges[name] = min(note.low for note in notes), max(note.high for note in notes)
    return ranges


@cache
def key_types() -> Mapping[str, list[object]]:
    """The annotations of every key, by dotted name; several where kinds of a block differ."""
    types: dict[str, list[object]] = {name: [hint] for name, hint in ARGUMENT_TYPES.items()}
    for name, hint in walk_keys(RunConfig):
        types.setdefault(name, []).append(hint)
    return types


def walk_keys(kind: type[Block], above: str = "") -> Iterator[tuple[str, object]]:
    """Dotted name and annotation of every key of a block that is no block itself."""
    for variant in dict.fromkeys([kind, *kind.variants.values()] if kind.selector else [kind]):
        for key, entry in block_fields(variant).items():
            base = options_of(unwrap(entry.type)[0])[0]
            if isinstance(base, type) and issubclass(base, Block):
                yield from walk_keys(base, f"{above}{key}.")
            else:
                yield f"{above}{key}", entry.type

"""Faults between settings: blocks and keys that contradict each other.  Pure; nothing is loaded.

Each function returns its faults, each with a way out.
"""

from collections.abc import Mapping
from math import isfinite

from tunelab.config.blocks import Block, missing_fault, yaml_text
from tunelab.config.schema import (
    SOURCE_NAME,
    TRAIN_FILE,
    CausalDataConfig,
    ClassificationDataConfig,
    CrossValidationConfig,
    DataConfig,
    InstructionDataConfig,
    MixSourceConfig,
    ModelConfig,
    PreferenceDataConfig,
    PretrainedModelConfig,
    RegressionDataConfig,
    RegularizationConfig,
    RunConfig,
    ScratchModelConfig,
    TargetConfig,
    source_name_from_file,
)
from tunelab.language.translation import message, translate

ADAM_LIKE = ("Adam", "AdamW", "NAdam", "Adamax", "RMSprop", "Lion")  # no step of theirs grows with the gradient


def cross_faults(run: RunConfig) -> list[str]:
    """Every fault between the settings of a run."""
    return [
        *mixture_faults(run.data),
        *streaming_faults(run),
        *model_faults(run),
        *optimizer_faults(run),
        *fold_faults(run.cv, run.data.group, is_trial=run.trial.id is not None),
        *regularization_faults(run),
        *finder_faults(run),
        *sharding_faults(run),
        *memory_faults(run),
        *kind_faults("adapter", run.adapter),
        *kind_faults("logger", run.logger),
    ]


def kind_faults(name: str, block: Block) -> list[str]:
    """Keys of a block that another kind of it has."""
    kind = ",".join(block.chosen_kinds())
    return [
        translate(
            "{name}.{key} means nothing with {name}.kind={kind}; leave it out, or take another {name}=NAME",
            name=name,
            key=key,
            kind=kind,
        )
        for key in block.inapplicable_keys()
    ]


def model_faults(run: RunConfig) -> list[str]:
    """Faults of the block `model`, and between it and other blocks."""
    if isinstance(run.model, ScratchModelConfig):
        return scratch_size_faults(run.model) + (mup_faults(run, run.model) if run.model.mup else [])
    return layer_choice_faults(run.model, run.adapter.kind)


def scratch_size_faults(model: ScratchModelConfig) -> list[str]:
    """Sizes of `model=scratch` that make no network."""
    if not model.heads or model.width % (2 * model.heads) == 0:
        return []
    near = 2 * model.heads * max(1, round(model.width / (2 * model.heads)))
    return [
        translate(
            "model.width={width} must be a multiple of twice model.heads={heads} (each head "
            "rotates pairs of units); try model.width={near}",
            width=model.width,
            heads=model.heads,
            near=near,
        )
    ]


def mup_faults(run: RunConfig, model: ScratchModelConfig) -> list[str]:
    """Settings that `model.mup=true` does not allow."""
    faults = []
    if model.normalisation != "rmsnorm":
        faults.append(
            translate(
                "model.mup=true with model.normalisation={normalisation}: the architecture with the "
                "multipliers that muP needs (Granite) has rmsnorm only; take "
                "model.normalisation=rmsnorm",
                normalisation=model.normalisation,
            )
        )
    if not isinstance(run.data, CausalDataConfig):
        faults.append(
            translate(
                "model.mup=true with data.task={task}: the architecture with the multipliers that "
                "muP needs has no head for labels; take model.mup=false",
                task=run.data.task,
            )
        )
    if run.adapter.kind != "full":
        faults.append(
            translate(
                "model.mup=true with adapter.kind={kind}: the rules are for a network that learns as "
                "a whole; take adapter=full",
                kind=run.adapter.kind,
            )
        )
    decay = run.regularization.weight_decay
    if run.optimizer.name not in ADAM_LIKE:
        faults.append(
            translate(
                "model.mup=true with {target}: how a rate follows the width depends on the "
                "optimizer, and the rule here is that of {names}; take optimizer=adamw",
                target=run.optimizer.target,
                names=", ".join(ADAM_LIKE),
            )
        )
    elif decay and not has_decoupled_decay(run.optimizer):
        faults.append(
            translate(
                "model.mup=true with {target} and regularization.weight_decay={decay}: this decay is "
                "a part of the gradient, and outweighs it the more the wider the model; take "
                "optimizer=adamw, or regularization.weight_decay=0",
                target=run.optimizer.target,
                decay=decay,
            )
        )
    return faults


def has_decoupled_decay(optimizer: TargetConfig) -> bool:
    """Whether the weight decay of such an optimizer is a step of its own, not a part of the gradient."""
    return optimizer.name in ("AdamW", "Lion") or bool(optimizer.arguments.get("decoupled_weight_decay"))


def layer_choice_faults(model: ModelConfig, adapter: str) -> list[str]:
    """Choices of layers of a pretrained model that contradict each other."""
    if not isinstance(model, PretrainedModelConfig):
        return []
    faults = []
    if model.keep is not None and model.depth is None:
        faults.append(
            translate("model.keep={keep} says which layers stay, but not how many; give model.depth=N", keep=model.keep)
        )
    if model.depth is not None and model.reinit_top > model.depth > 0:
        faults.append(
            translate(
                "model.reinit_top={reinit_top} is more than the model.depth={depth} layers that stay",
                reinit_top=model.reinit_top,
                depth=model.depth,
            )
        )
    if adapter == "qlora" and (model.depth is not None or model.reinit_top):
        name = "model.depth" if model.depth is not None else "model.reinit_top"
        faults.append(
            translate(
                "{name} with adapter=qlora: weights packed in 4 bit stay where they are; take adapter=lora", name=name
            )
        )
    return faults


def optimizer_faults(run: RunConfig) -> list[str]:
    """Faults of the blocks `optimizer` and `scheduler`."""
    own = run.optimizer.arguments
    faults = betas_faults(run.optimizer) + overridden_argument_faults(run) + schedule_length_faults(run.scheduler)
    if run.optimizer.name == "SGD" and own.get("nesterov") and not own.get("momentum"):
        faults.append(
            translate(
                "optimizer.nesterov=true looks ahead along a momentum, and optimizer.momentum is 0; set one of them"
            )
        )
    return faults


def overridden_argument_faults(run: RunConfig) -> list[str]:
    """Settings of the optimizer's own that its parameter groups would overrule, at times or always."""
    own, faults = run.optimizer.arguments, []
    if (decay := own.get("weight_decay")) is not None:
        faults.append(
            translate(
                "optimizer.weight_decay={decay} would change nothing: matrices decay by "
                "regularization.weight_decay, and vectors not at all; set "
                "regularization.weight_decay={decay}",
                decay=decay,
            )
        )
    if isinstance(lr := own.get("lr"), int | float) and lr != run.lr:
        faults.append(
            translate(
                "optimizer.lr={lr} beside lr={run_lr}: rates by layer, records and searches go by lr "
                "alone; set lr={lr}",
                lr=lr,
                run_lr=run.lr,
            )
        )
    return faults


def betas_faults(optimizer: TargetConfig) -> list[str]:
    """Faults of `betas`: shares of memory, each from 0 up to, but not, 1."""
    betas = optimizer.arguments.get("betas")
    if betas is None:
        return []
    entries = betas if isinstance(betas, list) else []
    numbers = [beta for beta in entries if isinstance(beta, int | float) and not isinstance(beta, bool)]
    if len(entries) != 2 or len(numbers) != 2 or not all(0 <= beta < 1 for beta in numbers):
        return [
            translate(
                "optimizer.betas={betas} must be two numbers, each at least 0 and below 1, such as [0.9, 0.999]",
                betas=betas,
            )
        ]
    return []


def schedule_length_faults(scheduler: TargetConfig) -> list[str]:
    """Faults of lengths given as a share of the run below 1, and as steps from 1 on."""
    return [
        translate(
            "scheduler.{name}={length} is neither a share of the run (below 1) nor a number of steps (a whole number)",
            name=name,
            length=length,
        )
        for name in ("warmup", "decay", "every", "timescale")
        if isinstance(length := scheduler.arguments.get(name), float) and isfinite(length) and length > 1 and length % 1
    ]


UNSUPPORTED_METHODS: Mapping[tuple[type[DataConfig], str], str] = {  # task and method: why, and what to do
    (RegressionDataConfig, "label_smoothing"): message("numbers have no labels to smooth; take regularization=dropout"),
    (PreferenceDataConfig, "label_smoothing"): message("a pair has no labels; data.label_smoothing is its counterpart"),
    (
        PreferenceDataConfig,
        "rdrop",
    ): message("a pair has two probabilities, not a distribution to compare; take regularization=dropout"),
}


def regularization_faults(run: RunConfig) -> list[str]:
    """Faults between the block `regularization` and the task, and among its own keys."""
    settings, faults = run.regularization, []
    for (task, name), reason in UNSUPPORTED_METHODS.items():
        if isinstance(run.data, task) and (value := getattr(settings, name)):
            faults.append(
                translate(
                    "regularization.{name}={value:g} with data.task={task}: {reason}",
                    name=name,
                    value=value,
                    task=run.data.task,
                    reason=reason,
                )
            )
    if isinstance(run.data, ClassificationDataConfig) and settings.label_smoothing and run.data.label_smoothing:
        faults.append(
            translate(
                "regularization.label_smoothing={label_smoothing:g} and "
                "data.label_smoothing={data_smoothing} are the same thing; set one of them to 0",
                label_smoothing=settings.label_smoothing,
                data_smoothing=run.data.label_smoothing,
            )
        )
    if settings.ema and settings.swa_start < 1:
        faults.append(
            translate(
                "regularization.ema={ema:g} and regularization.swa_start={swa_start:g} are two "
                "averages of the same weights, and one is exported; set ema=0 or swa_start=1",
                ema=settings.ema,
                swa_start=settings.swa_start,
            )
        )
    return faults + (mixout_faults(settings, run.model, run.adapter.kind) if settings.mixout else [])


def mixout_faults(settings: RegularizationConfig, model: ModelConfig, adapter: str) -> list[str]:
    """Settings that mixout does not allow: it needs pretrained weights, and layers that read theirs as they are."""
    faults = []
    if not isinstance(model, PretrainedModelConfig) or model.weights == "random":
        faults.append(
            translate(
                "regularization.mixout={mixout:g} falls back to pretrained weights, and this model "
                "starts from random ones; take regularization=dropout",
                mixout=settings.mixout,
            )
        )
    if adapter in ("head", "layernorm", "prompt"):
        faults.append(
            translate(
                "regularization.mixout={mixout:g} with adapter.kind={adapter}: no pretrained matrix "
                "of a linear layer learns; take adapter=full or adapter=lora",
                mixout=settings.mixout,
                adapter=adapter,
            )
        )
    return faults


def finder_faults(run: RunConfig) -> list[str]:
    """Settings that `find` does not allow."""
    if run.find is None:
        return []
    faults = []
    if run.resume is not None:
        faults.append(
            translate(
                "find={find} looks at a run before it starts, so it cannot go with resume; leave one out", find=run.find
            )
        )
    if run.trial.id is not None:
        faults.append(
            translate("find={find} trains nothing that a search could compare; leave out -m or find", find=run.find)
        )
    return faults


WHOLE_MATRIX_OPTIMIZERS = {  # by class: what they need of a matrix that no process has as a whole
    "Muon": message("turns whole matrices"),
    "Adafactor": message("keeps means of whole rows and columns"),
    "LBFGS": message("lays all weights in one line"),
    "AdamW8bit": message("packs blocks of a whole weight"),
}


def sharding_faults(run: RunConfig) -> list[str]:
    """Settings that need whole weights, which `trainer.strategy=fsdp` spreads over processes."""
    if run.trainer.strategy != "fsdp":
        return []
    faults, instead = [], translate("take trainer=ddp, where each device has the whole model")
    if reason := WHOLE_MATRIX_OPTIMIZERS.get(run.optimizer.name):
        faults.append(
            translate(
                "optimizer {name} {reason}, and trainer.strategy=fsdp spreads them; {instead}",
                name=run.optimizer.name,
                reason=reason,
                instead=instead,
            )
        )
    if run.regularization.mixout:
        faults.append(
            translate(
                "regularization.mixout={mixout:g} mixes whole weights, and trainer.strategy=fsdp "
                "spreads them; {instead}",
                mixout=run.regularization.mixout,
                instead=instead,
            )
        )
    faults += slice_faults(run) if run.trainer.fsdp.load == "slices" else []
    faults += split_layer_faults(run) if run.trainer.fsdp.tensor_parallel > 1 else []
    if run.adapter.kind == "qlora":
        faults.append(
            translate(
                "adapter=qlora packs weights in 4 bit, and trainer.strategy=fsdp spreads whole ones; "
                "take adapter=lora, or trainer=ddp"
            )
        )
    if run.callbacks.on_nonfinite == "rollback":
        faults.append(
            translate(
                "callbacks.on_nonfinite=rollback keeps a second state, which trainer.strategy=fsdp "
                "does not spread; take callbacks.on_nonfinite=skip"
            )
        )
    if run.find is not None:
        faults.append(
            translate(
                "find={find} measures one device that has the whole model; {instead}, or find with trainer=cpu",
                find=run.find,
                instead=instead,
            )
        )
    return faults


def split_layer_faults(run: RunConfig) -> list[str]:
    """Settings that need a layer in one piece, or that its parts would answer for wrongly."""
    trainer, faults = run.trainer, []
    width = trainer.fsdp.tensor_parallel
    if isinstance(trainer.devices, int) and trainer.devices * trainer.num_nodes % width:
        faults.append(
            translate(
                "trainer.devices={devices} with trainer.num_nodes={num_nodes} does not divide into groups of {width}; "
                "take a multiple of it",
                devices=trainer.devices,
                num_nodes=trainer.num_nodes,
                width=width,
            )
        )
    if run.adapter.kind == "dora":
        faults.append(
            translate("adapter=dora measures whole columns of the layers that would be split; take adapter=lora")
        )
    return [translate("trainer.fsdp.tensor_parallel={width}: {fault}", width=width, fault=fault) for fault in faults]


def whole_logits_reason(run: RunConfig) -> str | None:
    """The setting that needs the logits of all positions at once, and why; None where there is none."""
    if not isinstance(run.data, CausalDataConfig):
        return translate("data.task={task} has one row of logits for each text", task=run.data.task)
    if run.regularization.rdrop:
        return translate(
            "regularization.rdrop={rdrop:g} compares the logits of two passes", rdrop=run.regularization.rdrop
        )
    if run.regularization.mixout:
        return translate(
            "regularization.mixout={mixout:g} mixes the weights of the head for one pass",
            mixout=run.regularization.mixout,
        )
    return None


def memory_faults(run: RunConfig) -> list[str]:
    """Settings that the block `memory` does not allow."""
    faults = []
    if run.memory.chunked_loss is True and (reason := whole_logits_reason(run)):
        faults.append(translate("memory.chunked_loss=true: {reason}; take memory.chunked_loss=auto", reason=reason))
    if run.checkpoints_activations and run.regularization.mixout:
        faults.append(
            translate(
                "memory.activation_checkpointing=true with regularization.mixout={mixout:g}: layers "
                "that are computed once more would find other weights than those that were mixed; "
                "switch off one of them",
                mixout=run.regularization.mixout,
            )
        )
    return faults + (step_in_backward_faults(run) if run.memory.step_in_backward else [])


ONE_BY_ONE_OPTIMIZERS = (  # whose step treats each weight by itself, without a memory that all of them share
    *("Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Lion", "NAdam", "RAdam", "RMSprop", "SGD"),
)


def step_in_backward_faults(run: RunConfig) -> list[str]:
    """Settings that need the whole gradient at once, or that of all devices."""
    trainer, callbacks, faults = run.trainer, run.callbacks, []
    if run.optimizer.name not in ONE_BY_ONE_OPTIMIZERS:
        faults.append(
            translate("optimizer {name} steps all weights together; take optimizer=adamw", name=run.optimizer.name)
        )
    if trainer.gradient_clip_val:
        faults.append(
            translate(
                "trainer.gradient_clip_val={value:g} needs the norm of the whole gradient before the first weight is "
                "stepped; set trainer.gradient_clip_val=0",
                value=trainer.gradient_clip_val,
            )
        )
    if trainer.strategy != "auto" or trainer.num_nodes > 1 or trainer.devices not in (1, "1", [1], [0]):
        faults.append(
            translate(
                "gradients of several devices are summed before a step; take trainer.devices=1 trainer.strategy=auto"
            )
        )
    if callbacks.on_nonfinite != "stop":
        faults.append(
            translate(
                "callbacks.on_nonfinite={value} looks at the gradient before any weight is stepped; set "
                "callbacks.on_nonfinite=stop",
                value=callbacks.on_nonfinite,
            )
        )
    needs_gradients = {
        "regularization.l1": run.regularization.l1,
        "regularization.max_norm": run.regularization.max_norm,
        "logger.gradients": run.logger.gradients,
    }
    faults += [
        translate(
            "{name}={value} works on whole weights or gradients after the step; leave it out", name=name, value=value
        )
        for name, value in needs_gradients.items()
        if value
    ]
    if run.find is not None:
        faults.append(
            translate(
                "find={value} looks at the whole gradient; find first, and step in the backward pass then",
                value=run.find,
            )
        )
    return [f"memory.step_in_backward=true: {fault}" for fault in faults]


def slice_faults(run: RunConfig) -> list[str]:
    """Settings that need the values of the base model before `trainer.fsdp.load=slices` has read them."""
    model, faults = run.model, []
    if not isinstance(model, PretrainedModelConfig) or model.weights == "random" or model.depth or model.reinit_top:
        faults.append(translate("a pretrained model that stays as it is (model=pretrained, no depth, no reinit_top)"))
    if run.data.task != "instruction":
        faults.append(
            translate("a task without weights of its own (data.task=instruction, not {task})", task=run.data.task)
        )
    if run.adapter.kind not in ("full", "top_layers", "head"):
        faults.append(translate("no new weights (adapter=full, top_layers or head, not {kind})", kind=run.adapter.kind))
    if run.regularization.l1 or run.regularization.max_norm:
        faults.append(translate("no bound on single weights (regularization.l1=0 and max_norm=0)"))
    return [
        translate("trainer.fsdp.load=slices needs {fault}; or take trainer.fsdp.load=whole", fault=fault)
        for fault in faults
    ]


def fold_faults(cv: CrossValidationConfig, data_group: str | None = None, *, is_trial: bool) -> list[str]:
    """Faults of the block `cv`, beyond the range of each number, and between it and the column that groups rows."""
    if cv.folds is None:
        alone = [
            translate("cv.{name}={value}", name=name, value=value)
            for name, value in (("fold", cv.fold), ("group", cv.group))
            if value is not None
        ]
        return (
            [
                translate(
                    "{names} without cv.folds: there are no folds; set cv.folds=5", names=translate(" and ").join(alone)
                )
            ]
            if alone
            else []
        )
    faults = []
    if cv.group is not None and data_group not in (None, cv.group):
        faults.append(
            translate(
                "cv.group={group} and data.group={data_group} tie different rows together; leave "
                "cv.group out, folds keep the groups of data.group too",
                group=cv.group,
                data_group=data_group,
            )
        )
    if cv.fold is not None and cv.fold >= cv.folds:
        faults.append(
            translate(
                "cv.fold={fold} of cv.folds={folds}: folds count from 0, so the last one is {last}",
                fold=cv.fold,
                folds=cv.folds,
                last=cv.folds - 1,
            )
        )
    if is_trial:
        faults.append(
            translate(
                "cv.folds inside a search (-m): a trial is one training with one score; search "
                "first, then give the best settings a run with cv.folds"
            )
        )
    return faults


STREAMED_DATA = (InstructionDataConfig, ClassificationDataConfig, RegressionDataConfig, PreferenceDataConfig)


def streaming_faults(run: RunConfig) -> list[str]:
    """Settings that need all rows to be known, which a stream does not give."""
    data, faults = run.data, list[str]()
    if not data.streaming:
        return []
    if type(data) not in STREAMED_DATA:
        faults.append(
            translate(
                "data.streaming=true with data.task={task}: what it tells by its training rows may need them all; take "
                "data.streaming=false",
                task=data.task,
            )
        )
    if isinstance(data, ClassificationDataConfig) and data.class_weights == "balanced":
        faults.append(
            translate(
                "data.streaming=true with data.class_weights=balanced: how often each label comes is known once all "
                "rows have been read; take data.class_weights=none"
            )
        )
    if isinstance(data, PreferenceDataConfig) and run.trainer.strategy == "fsdp":
        faults.append(
            translate(
                "data.streaming=true with data.task=preference and trainer.strategy=fsdp: the reference of pairs that "
                "have not come yet is a second, whole model; take trainer=ddp, or data.streaming=false"
            )
        )
    if data.mix is not None:
        faults.append(
            translate("data.streaming=true with data.mix: an epoch of each source has no end; name one data.train")
        )
    if run.max_steps is None:
        faults.append(
            translate(
                "data.streaming=true without max_steps: a stream does not tell how long it is, and the schedule must "
                "know; set max_steps=N"
            )
        )
    for split in ("validation", "test"):
        share = getattr(data.split, split)
        if getattr(data, split) is None and share:
            faults.append(
                translate(
                    "data.streaming=true with data.split.{split}={share}: a share is drawn from all rows; name another "
                    "file or split by data.{split}=NAME, or set data.split.{split}=0",
                    split=split,
                    share=share,
                )
            )
    for key, value in (
        ("data.group", data.group),
        ("data.near_duplicates", data.near_duplicates if data.near_duplicates == "keep_together" else None),
        ("cv.folds", run.cv.folds),
    ):
        if value is not None:
            faults.append(
                translate(
                    "data.streaming=true with {setting}: it deals out all rows at once; leave it out",
                    setting=f"{key}={value}",
                )
            )
    if run.trainer.limit_train_batches is not None:
        faults.append(
            translate(
                "data.streaming=true with trainer.limit_train_batches={limit}: a stream has no epochs to shorten; "
                "max_steps says how long the run is",
                limit=run.trainer.limit_train_batches,
            )
        )
    if data.workers:
        faults.append(
            translate(
                "data.streaming=true with data.workers={workers}: one process reads a stream, or its place would not "
                "be known; set data.workers=0",
                workers=data.workers,
            )
        )
    return faults


def mixture_faults(data: DataConfig) -> list[str]:
    """Everything that is wrong with `data.train` and `data.mix`."""
    if data.mix is None:
        return [] if data.train is not None else [missing_fault("data.train", TRAIN_FILE)]
    faults = []
    named = {name: file for name in ("train", "validation", "test") if (file := getattr(data, name)) is not None}
    if named:
        files = ", ".join(f"data.{name}={file}" for name, file in named.items())
        nulls = " ".join(f"data.{name}=null" for name in named)
        faults.append(
            translate(
                "data.mix is set and so is {files}; each source of a mix names its own files: set {nulls}",
                files=files,
                nulls=nulls,
            )
        )
    if not isinstance(data.mix, Mapping | list) or not data.mix:
        shapes = "[a.jsonl,b.jsonl] or {a: {train: a.jsonl}}"
        return [
            *faults,
            translate("data.mix={mix} names no sources; give {shapes}", mix=yaml_text(data.mix), shapes=shapes),
        ]
    if isinstance(data.mix, list):
        if odd := [file for file in data.mix if not isinstance(file, str)]:
            advice = translate("a list holds files; sources with keys need names: {a: {...}}")
            return [*faults, translate("data.mix={odd}: {advice}", odd=yaml_text(odd), advice=advice)]
        names = [source_name_from_file(str(file)) for file in data.mix]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            faults.append(
                translate(
                    "data.mix names {names} twice; name sources yourself: {{one: FILE, other: FILE}}",
                    names=translate(" and ").join(twice),
                )
            )
        return faults
    for name, entry in data.mix.items():
        if not SOURCE_NAME.fullmatch(name):
            faults.append(
                translate(
                    "data.mix.{name}: a name becomes part of val/NAME/loss; use letters, digits, - and _", name=name
                )
            )
        if isinstance(entry, Mapping):
            MixSourceConfig.parse(entry, f"data.mix.{name}", faults)
        elif not isinstance(entry, str):
            text = yaml_text(entry)
            faults.append(
                translate(
                    "data.mix.{name}={words} is no source; give a file, or {{train: FILE, weight: 1.0}}",
                    name=name,
                    words=text,
                )
            )
    return faults

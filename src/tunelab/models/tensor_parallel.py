"""Layers that are split over devices, as the plan of transformers says (`model.tp_plan`): tensor parallelism.

The devices of a tensor group see the same rows.  Each keeps some columns of the matrices that a layer begins with, and
those rows of the next one that read what its columns give, so that a layer needs two sums of activations over the group
in the forward and two in the backward pass (Shoeybi et al. 2019, Megatron-LM).  Between split layers every device has
the same activations and draws the same dropout.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard
from torch.nn import functional
from transformers import PreTrainedModel

from tunelab.language.translation import translate

SPLIT_FAMILIES = (  # a test holds their split gradients against those of one process
    *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3", "granite", "phi3"),
    *("olmo", "olmo2", "starcoder2", "gpt_neox", "glm"),
)
EMBEDDING, COLUMNS, GATHERED_COLUMNS, ROWS, ROWS_OF_WHOLE, SUMMED_GRADIENT, WHOLE = (
    *("embedding_rowwise", "colwise", "colwise_gather_output", "rowwise", "rowwise_split_input"),
    *("replicated_with_grad_allreduce", "replicate"),
)
UNKNOWN = "unknown"  # parts of adapters that nothing is known of
SPLIT_AXES = {  # of a weight, and of the bias that stands beside it
    EMBEDDING: (0, None),
    COLUMNS: (0, 0),
    GATHERED_COLUMNS: (0, 0),
    ROWS: (1, None),
    ROWS_OF_WHOLE: (1, None),
    SUMMED_GRADIENT: (None, None),
    WHOLE: (None, None),
}
LOW_RANK_STYLES = {  # of the layer that is adapted: styles of the first and the second matrix beside it
    COLUMNS: (WHOLE, COLUMNS),
    ROWS: (ROWS, WHOLE),
    GATHERED_COLUMNS: (WHOLE, WHOLE),
    ROWS_OF_WHOLE: (WHOLE, WHOLE),
}
IN_PLACE = ("", "base", "base_layer", "original_module", "modules_to_save.default", "ln_tuning_layers.default")


@dataclass
class TensorGroup:
    """The processes that split layers between them.

    Attributes:
        mesh: One-dimensional.
        processes: What their messages go through.
        rank: Of this process among them.
        size: How many they are.
        entered: The last tensor that went into split columns, as it was and as they got it.
    """

    mesh: DeviceMesh
    processes: distributed.ProcessGroup
    rank: int
    size: int
    entered: tuple[Tensor, Tensor] | None = None

    def enter_columns(self, value: Tensor) -> Tensor:
        """What columns get: its gradient is summed over the group, once for all layers that read the same tensor."""
        learns = value.requires_grad and torch.is_grad_enabled()
        if self.entered is None or self.entered[0] is not value or self.entered[1].requires_grad != learns:
            self.entered = None  # first: else the graphs of two layers stand at once
            self.entered = value, exchange(value, same, self.sum)
        return self.entered[1]

    def own(self, value: Tensor, axis: int = -1) -> Tensor:
        """The part of a whole tensor that this process has."""
        return value.chunk(self.size, axis)[self.rank]

    def sum(self, value: Tensor) -> Tensor:
        """The sum over the group."""
        total = value.contiguous().clone()
        distributed.all_reduce(total, group=self.processes)
        return total

    def join(self, value: Tensor) -> Tensor:
        """The parts of the group side by side, along the last axis."""
        parts = [torch.empty_like(value, memory_format=torch.contiguous_format) for _ in range(self.size)]
        distributed.all_gather(parts, value.contiguous(), group=self.processes)
        return torch.cat(parts, -1)


class Exchange(torch.autograd.Function):
    """One function of a tensor forward, another one of its gradient backward."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, forth: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Tensor:
        """The value, exchanged."""
        ctx.back = back
        return forth(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """The gradient, exchanged."""
        return ctx.back(grads[0]), None, None


def exchange(value: Tensor, forth: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Tensor:
    """A function of a tensor, and that of its gradient in the backward pass."""
    changed: Tensor = Exchange.apply(value, forth, back)  # type: ignore[no-untyped-call]
    return changed


def same(value: Tensor) -> Tensor:
    """The value as it is."""
    return value.view_as(value)


class SplitModule:
    """Runs a module on this process's part of its weights, through hooks.

    Args:
        module: Its parameters are, or will be, `DTensor`s over the mesh of the group.
        style: As the plan of transformers names it.
        group: Those who have the other parts.
    """

    def __init__(self, module: nn.Module, style: str, group: TensorGroup) -> None:
        self.style, self.group = style, group
        self.kept: dict[str, nn.Parameter] = {}
        self.outside: Tensor | None = None  # of an embedding: which ids are looked up elsewhere
        self.padding: int | None = getattr(module, "padding_idx", None)
        module.register_forward_pre_hook(self._before)
        module.register_forward_hook(self._after, always_call=True)  # a pass that breaks off leaves parameters too

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.kept = {name: weight for name, weight in module._parameters.items() if weight is not None}
        for name, weight in self.kept.items():
            added_later = name == "bias" and self.style in (ROWS, ROWS_OF_WHOLE)
            module._parameters[name] = None if added_later else cast(nn.Parameter, self._local(weight))
        return self._enter(module, args[0]), *args[1:]

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor | None:
        left = None if output is None else self._leave(module, output)
        module._parameters.update(self.kept)
        if self.style == EMBEDDING:
            cast(Any, module).padding_idx = self.padding
        self.kept = {}
        return left

    def _local(self, weight: nn.Parameter) -> Tensor:
        """This process's part of a parameter; a whole one gets the mean of the gradients of all, or their sum."""
        spread = cast(DTensor, weight)
        if not weight.requires_grad or any(isinstance(placement, Shard) for placement in spread.placements):
            return spread.to_local()
        part = spread.to_local(grad_placements=[Partial()])
        return part if self.style == SUMMED_GRADIENT else exchange(part, same, lambda slope: slope / self.group.size)

    def _enter(self, module: nn.Module, value: Tensor) -> Tensor:
        group = self.group
        if self.style in (COLUMNS, GATHERED_COLUMNS):
            return group.enter_columns(value)
        if self.style == ROWS_OF_WHOLE:
            return exchange(value, group.own, group.join)
        if self.style == EMBEDDING:
            rows = cast(Tensor, module.weight).shape[0]
            own = value - rows * group.rank
            self.outside = (own < 0) | (own >= rows)
            if self.padding is not None:
                padding = self.padding - rows * group.rank
                cast(Any, module).padding_idx = padding if 0 <= padding < rows else None
            return own.masked_fill(self.outside, 0)
        return value

    def _leave(self, module: nn.Module, value: Tensor) -> Tensor:
        group = self.group
        if self.style == GATHERED_COLUMNS:
            return exchange(value, group.join, group.own)
        if self.style == EMBEDDING:
            assert self.outside is not None
            inside, self.outside = value.masked_fill(self.outside[..., None], 0), None
            return exchange(inside, group.sum, same)
        if self.style not in (ROWS, ROWS_OF_WHOLE):
            return value
        total = exchange(value, group.sum, same)
        return total if (bias := self.kept.get("bias")) is None else total + self._local(bias)


class SplitDropout:
    """Has a dropout before split rows draw for the whole width and keep this process's part, as one process would."""

    def __init__(self, module: nn.Module, group: TensorGroup) -> None:
        self.group = group
        module.register_forward_pre_hook(self._before)
        module.register_forward_hook(self._after)

    def _before(self, module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        width, group = args[0].shape[-1], self.group
        return (functional.pad(args[0], (width * group.rank, width * (group.size - 1 - group.rank))),)

    def _after(self, module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        return self.group.own(output)


def split_layers(model: PreTrainedModel, mesh: DeviceMesh) -> None:
    """Split the layers of a model between the processes of a mesh, as its plan says; each keeps its own part.

    Every parameter becomes a `DTensor` over the mesh, a whole one too, so that all of them can be told in one way.

    Args:
        model: Whole, and the same on every process, without faults (`split_faults`); changed in place.
        mesh: One-dimensional.
    """
    group = TensorGroup(mesh, mesh.get_group(), mesh.get_local_rank(), mesh.size())
    parts: dict[int, nn.Parameter] = {}  # a weight with two names stays one
    for _, module, style in list(module_styles(model, group.size)):
        for name, weight in list(module.named_parameters(recurse=False)):
            if id(weight) not in parts:
                parts[id(weight)] = split_parameter(weight, SPLIT_AXES[style][name == "bias"], group)
            module._parameters[name] = parts[id(weight)]
        SplitModule(module, style, group)
    for name, module in model.named_modules():
        adapted, _, inner = name.rpartition(".lora_dropout.")
        if inner and isinstance(module, nn.Dropout) and planned(model.tp_plan, adapted) == (ROWS, ""):
            SplitDropout(module, group)


def split_parameter(weight: nn.Parameter, axis: int | None, group: TensorGroup) -> nn.Parameter:
    """This process's part of a parameter along an axis; without one, the whole of it."""
    value = weight.detach()
    local = value if axis is None else group.own(value, axis).clone()
    placement: Placement = Replicate() if axis is None else Shard(axis)
    return nn.Parameter(
        DTensor.from_local(local, group.mesh, [placement], run_check=False), requires_grad=weight.requires_grad
    )


def planned(plan: dict[str, str], name: str) -> tuple[str, str]:
    """The style of the module that a plan names and that is, or holds, this one; and the name within that module."""
    words = re.sub(r"\.\d+(?=\.|$)", ".*", name).split(".")
    for count in range(len(words), 0, -1):
        if style := plan.get(".".join(words[:count])):
            return style, ".".join(name.split(".")[count:])
    return WHOLE, ""


def module_styles(model: PreTrainedModel, size: int) -> Iterator[tuple[str, nn.Module, str]]:
    """Each module that has parameters of its own, with its name and the style that it is split in, or `UNKNOWN`.

    Embeddings and the head are split where the vocabulary can be shared out evenly and the plan splits both of two that
    are tied; else they stay whole.
    """
    plan, both = model.tp_plan, (model.get_input_embeddings(), model.get_output_embeddings())
    tables = {name: module for name, module in model.named_modules() if any(module is table for table in both)}
    weights = [cast(Tensor, table.weight) for table in tables.values()]
    tied = len({id(weight) for weight in weights}) < len(weights)
    keeps_tables = any(len(weight) % size for weight in weights) or (
        tied and any(planned(plan, name)[0] == WHOLE for name in tables)
    )
    for name, module in model.named_modules():
        if not any(True for _ in module.parameters(recurse=False)):
            continue
        style, inner = planned(plan, name)
        known = style
        if inner.startswith(("lora_A.", "lora_B.")):
            known = LOW_RANK_STYLES.get(style, (UNKNOWN, UNKNOWN))[inner.startswith("lora_B.")]
        elif inner not in IN_PLACE or isinstance(module, nn.ParameterDict | nn.ParameterList):
            known = UNKNOWN
        elif keeps_tables and any(getattr(module, "weight", None) is weight for weight in weights):
            known = WHOLE
        elif style == EMBEDDING and not isinstance(module, nn.Embedding):
            known = WHOLE  # what stands around an embedding
        yield name, module, known


@dataclass(frozen=True)
class SplitSizes:
    """What splitting a model leaves to each device, and costs it.

    Attributes:
        share: Of the bytes of the weights, those of one device.
        learned_share: Of the bytes of what learns.
        kept: Bytes of activations of a position that a device no longer keeps, at least.
        sent: Bytes that a device sends for each position, forward and backward.
        sent_by_head: The same for each position that is learned.
    """

    share: float
    learned_share: float
    kept: float
    sent: float
    sent_by_head: float


def split_sizes(model: PreTrainedModel, size: int) -> SplitSizes:
    """The sizes of a model that is split between so many devices, by its plan; activations have 32 bit."""
    head, saved, sums, joins = model.get_output_embeddings(), 0, 0, 0
    by_head, whole, split = 0, [0, 0], [0, 0]
    readers = set[str]()  # of split columns: those that read one tensor share its gradient
    for name, module, style in module_styles(model, size):
        for own, weight in module.named_parameters(recurse=False):
            kind = whole if SPLIT_AXES[style][own == "bias"] is None else split
            kind[0] += weight.nbytes
            kind[1] += weight.nbytes * weight.requires_grad
        if style == WHOLE or not isinstance(module, nn.Linear | nn.Embedding):
            continue
        inputs, outputs = module.weight.shape[::-1] if isinstance(module, nn.Linear) else (0, module.weight.shape[1])
        if module is head:
            by_head += 2 * inputs + outputs  # a sum counts twice
            continue
        parent = name.rpartition(".")[0]
        if style in (COLUMNS, GATHERED_COLUMNS) and parent not in readers:
            readers.add(parent)
            sums += inputs
        sums += outputs if style in (ROWS, ROWS_OF_WHOLE, EMBEDDING) else 0
        joins += outputs if style == GATHERED_COLUMNS else inputs if style == ROWS_OF_WHOLE else 0
        saved += outputs if style == COLUMNS else inputs if style == ROWS else 0
    others, ring = 1 - 1 / size, 4 * (size - 1) / size

    def share(place: int) -> float:
        return 1 - others * split[place] / max(1, split[place] + whole[place])

    return SplitSizes(share(0), share(1), 4 * others * saved, ring * (2 * sums + joins), ring * by_head)


def split_faults(model: PreTrainedModel, size: int) -> list[str]:
    """Why a model cannot be split between `size` devices; nothing where it can."""
    config = model.config.get_text_config()
    family = model.config.model_type  # a text model within one of pictures has not been tried
    instead = translate("set trainer.fsdp.tensor_parallel=1, which spreads any model")
    unknown = sorted(set(model.tp_plan.values()) - SPLIT_AXES.keys())
    if not model.tp_plan:
        return [
            translate(
                "transformers has no plan that splits the layers of a {family} model; {instead}",
                family=family,
                instead=instead,
            )
        ]
    if unknown:
        return [
            translate(
                "the plan of transformers splits a {family} model in ways that are not built here ({names}); {instead}",
                family=family,
                names=", ".join(unknown),
                instead=instead,
            )
        ]
    if family not in SPLIT_FAMILIES:
        return [
            translate(
                "a split {family} model has not been held against a whole one; split are {names}; {instead}",
                family=family,
                names=", ".join(SPLIT_FAMILIES),
                instead=instead,
            )
        ]
    return [
        *width_faults(model, size),
        *(
            []
            if not getattr(config, "attention_dropout", 0)
            else [
                translate(
                    "attention_dropout={rate:g} would drop the same attention weights on every device; set "
                    "regularization.attention_dropout=0",
                    rate=config.attention_dropout,
                )
            ]
        ),
    ]


def width_faults(model: PreTrainedModel, size: int) -> list[str]:
    """Parts of a model that `size` devices cannot share out evenly, or that are not known."""
    config, faults = model.config.get_text_config(), []
    fits = translate("take a trainer.fsdp.tensor_parallel that divides it")
    if any(style == COLUMNS and ("attn" in name or "attention" in name) for name, style in model.tp_plan.items()):
        counts = {name: getattr(config, name, None) for name in ("num_attention_heads", "num_key_value_heads")}
        faults += [f"{name}={count}: {fits}" for name, count in counts.items() if count and count % size]
    lost = list[str]()
    for name, module, style in module_styles(model, size):
        if style == UNKNOWN:
            lost.append(name)
            continue
        for own, weight in module.named_parameters(recurse=False):
            axis = SPLIT_AXES[style][own == "bias"]
            if not faults and axis is not None and weight.shape[axis] % size:
                faults.append(f"{name}.{own}: {tuple(weight.shape)}[{axis}]: {fits}")
    if lost:
        faults.append(
            translate(
                "{count} [part|parts] of this adapter cannot be split with the layer beside it, such as {name}; take "
                "adapter=full or adapter=lora without new tokens",
                count=len(lost),
                name=lost[0],
            )
        )
    return faults

"""A model whose weights are spread over processes (FSDP2): sharded, gathered, and run in step with the others.

Each process keeps one part of every weight, gradient and optimizer state.  A layer is gathered for as long as it
computes (Zhao et al. 2023, PyTorch FSDP; Rajbhandari et al. 2020, ZeRO stage 3).  Every pass is thus a conversation:
all processes must run the same number of passes.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint import state_dict_loader
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from tunelab.config.schema import FsdpConfig
from tunelab.errors import ConfigError, first_line
from tunelab.language.translation import translate
from tunelab.models.freezing import layer_stack
from tunelab.models.heads import pools_last_token
from tunelab.models.packing_support import GATHERED_DTYPE
from tunelab.models.tensor_parallel import split_layers
from tunelab.models.unpadded_attention import PlainAttention

_Tree = TypeVar("_Tree")


def shard_model(model: PreTrainedModel, mesh: DeviceMesh, config: FsdpConfig) -> None:
    """Spread the weights of a model over the processes of a mesh, layer by layer; each keeps its own part.

    Args:
        model: Whole, and the same on every process; changed in place.  Its parameters are new objects afterwards.
        mesh: The processes that share it; of its dimensions `data_parallel` and `tensor_parallel`, the second splits
            layers.
        config: The block `trainer.fsdp`.
    """
    if mesh.ndim == 2:
        split_layers(model, mesh["tensor_parallel"])
        mesh = mesh["data_parallel"]
    numbers = {"float32": None, "bfloat16": torch.bfloat16}
    gathered, reduced = numbers[config.gather_dtype], numbers[config.reduce_dtype]
    half = gathered is not None
    within = MixedPrecisionPolicy(
        param_dtype=gathered, reduce_dtype=reduced or torch.float32 if half or reduced else None
    )
    outside = replace(within, output_dtype=torch.float32 if half else None)  # a layer hands on what the next one takes
    options: dict[str, Any] = {
        "mesh": mesh,
        "reshard_after_forward": config.reshard_after_forward,
        "offload_policy": CPUOffloadPolicy(pin_memory=mesh.device_type != "cpu")
        if config.cpu_offload
        else OffloadPolicy(),
    }
    stack, _ = layer_stack(model)
    for layer in cast(nn.ModuleList, model.get_submodule(stack)) if stack else ():
        fully_shard(layer, mp_policy=within, **options)
    if pools_last_token(model):  # backbone and head are called one after the other, the whole never
        fully_shard(model.get_submodule("score"), mp_policy=outside, **options)
        fully_shard(model.get_submodule(model.base_model_prefix), mp_policy=outside, **options)
    else:
        fully_shard(model, mp_policy=outside, **options)
        model.register_forward_pre_hook(keep_for_backward)
    setattr(model, GATHERED_DTYPE, gathered)
    left = [name for name, weight in model.named_parameters() if not isinstance(weight, DTensor)]
    assert not left, f"outside every shard: {left[:3]}"


def keep_for_backward(module: nn.Module, inputs: object) -> None:
    """What is in no layer is gathered until the end of a pass, and from the beginning of its backward pass: so it stays
    between them.  After a pass without gradients it is let go of, so that every parameter is this process's part.
    """
    cast(FSDPModule, module).set_reshard_after_forward(not torch.is_grad_enabled(), recurse=False)


@contextmanager
def stays_gathered(model: nn.Module) -> Iterator[None]:
    """Within this block what is in no layer, as the head, is whole after a pass; at its end it is let go of.

    For passes without gradients, and for a model that is not spread over processes it does nothing.  Processes need
    not agree on it, as nothing is sent.
    """
    if not isinstance(model, FSDPModule):
        yield
        return
    hook = model.register_forward_pre_hook(lambda *_: model.set_reshard_after_forward(False, recurse=False))
    try:
        yield
    finally:
        hook.remove()
        model.reshard()


@contextmanager
def parameters_without_memory() -> Iterator[None]:
    """Within this block the parameters of new modules have a shape and no values; buffers are there as always."""
    register = nn.Module.register_parameter

    def register_shape(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter)
        if parameter is not None and not parameter.is_meta:
            shape = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
            module._parameters[name] = shape

    nn.Module.register_parameter = register_shape  # type: ignore[assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def has_values(model: nn.Module) -> bool:
    """Whether the parameters of a model are more than shapes."""
    return not any(parameter.is_meta for parameter in model.parameters())


def read_slices(model: PreTrainedModel, folder: Path, device: torch.device) -> None:
    """Give a sharded model without values those of a folder of safetensors; each process reads its own part alone.

    Raises:
        ConfigError: If the folder does not hold every weight under the name that the model gives it.
    """
    buffers = {
        (module, name): buffer
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if buffer is not None
    }
    model.to_empty(device=device)
    for (module, name), buffer in buffers.items():
        module._buffers[name] = buffer.to(device)
    state: dict[str, Any] = {name: parameter.detach() for name, parameter in model.named_parameters()}
    try:
        state_dict_loader.load(state, storage_reader=HuggingFaceStorageReader(str(folder)))
    except (CheckpointException, OSError, ValueError, KeyError) as fault:
        raise ConfigError(
            translate(
                "trainer.fsdp.load=slices: {folder} does not hold the weights of this model as "
                "safetensors under its own names ({fault}); take trainer.fsdp.load=whole",
                folder=folder,
                fault=first_line(fault),
            )
        ) from fault


def is_sharded(model: nn.Module) -> bool:
    """Whether the weights of a model are spread over processes, though they may all be gathered now."""
    return any(isinstance(module, FSDPModule) for module in model.modules())


def reshard(module: nn.Module) -> None:
    """Let go of the weights that are still gathered, so that every parameter is this process's part again."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def shard_like(value: Tensor, parameter: Tensor) -> Tensor:
    """This process's part of a whole tensor, spread as a parameter is; the tensor itself beside a whole parameter."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    if isinstance(value, DTensor):
        if (value.device_mesh, value.placements) == (parameter.device_mesh, parameter.placements):
            return value
        value = gather_full(value)
    return distribute_tensor(
        value.to(parameter.to_local().device), parameter.device_mesh, parameter.placements, src_data_rank=None
    )


def shard_state(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state of whole tensors, each spread as the weight of that name in the module is."""
    reshard(module)
    own = dict(module.named_parameters(remove_duplicate=False))
    return {name: shard_like(value, own[name]) if name in own else value for name, value in state.items()}


def local_part(value: Tensor) -> Tensor:
    """The part of a tensor that this process has; all of one that is not spread.

    What several processes have is counted on the first of them: the others get nothing.
    """
    if not isinstance(value, DTensor):
        return value
    place = value.device_mesh.get_coordinate() or ()
    first = all(not at for at, placement in zip(place, value.placements, strict=True) if placement.is_replicate())
    part = value.to_local()
    return part if first else part[:0]


def norm_over_processes(norms: Tensor) -> Tensor:
    """Norms of whole tensors, from those of the part that each process has; all of them must call it."""
    squares = norms.square()
    distributed.all_reduce(squares)
    return squares.sqrt()


def gather_full(value: Tensor) -> Tensor:
    """A whole tensor, of one that is spread over processes; all of them must call it."""
    if not isinstance(value, DTensor):
        return value
    whole: Tensor = cast(Any, value).full_tensor()
    return whole


def gather_tree(tree: _Tree, *, keep: bool) -> _Tree:
    """A nest of dicts and lists with every spread tensor whole, on the CPU; all processes must call it.

    Args:
        tree: In the same order on every process.
        keep: Whether this process needs the tensors; else they are empty in what it gets.
    """
    if isinstance(tree, DTensor):
        whole = gather_full(tree.detach())
        return cast(_Tree, whole.cpu() if keep else whole.new_empty(0, device="cpu"))
    if isinstance(tree, Mapping):
        return cast(_Tree, type(tree)((key, gather_tree(value, keep=keep)) for key, value in tree.items()))  # type: ignore[call-arg]
    if isinstance(tree, list | tuple):
        return cast(_Tree, type(tree)(gather_tree(value, keep=keep) for value in tree))
    return tree


@contextmanager
def passes_in_step(model: PreTrainedModel) -> Iterator[None]:
    """Within this block each process may run as many passes as it likes, without gradients.

    Before each pass it waits for the others; one that has left the block runs passes over a single token until all
    have.  All processes must enter it.  For a model that is not spread over processes it does nothing.
    """
    if not is_sharded(model) or distributed.get_world_size() == 1:
        yield
        return
    root = next(module for module in model.modules() if isinstance(module, FSDPModule))

    def count_busy(busy: bool) -> int:
        count = torch.tensor(int(busy), device=model.device)
        distributed.all_reduce(count)
        return int(count)

    def wait_for_others(module: nn.Module, inputs: object) -> None:
        count_busy(busy=True)

    hook = root.register_forward_pre_hook(wait_for_others, prepend=True)
    try:
        yield
    finally:
        hook.remove()
    token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    with torch.no_grad(), PlainAttention(model):
        while count_busy(busy=False):
            root(input_ids=token, use_cache=False)

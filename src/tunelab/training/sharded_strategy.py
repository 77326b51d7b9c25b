"""`trainer.strategy=fsdp`: Lightning's strategy of a model that is spread over processes (FSDP2).

With `trainer.fsdp.tensor_parallel` processes stand in a table: those of a row, a tensor group, split layers between
them and see the same texts; those of a column see others, and spread their part of the weights.

A checkpoint has tensors under the names and in the order of a run on one process, whole or in parts
(`trainer.fsdp.sharded_checkpoints`), so any number of processes, with or without this strategy, goes on from it, and
every command reads it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.fabric.utilities.optimizer import _optimizers_to_device
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from lightning.pytorch.trainer.states import TrainerFn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.optim import Optimizer
from transformers import PreTrainedModel
from typing_extensions import override

from tunelab.config.schema import FsdpConfig
from tunelab.models.sharding import gather_tree, has_values, read_slices, shard_like, shard_model
from tunelab.runs.checkpoint import named_parts, read_checkpoint
from tunelab.runs.sharded_checkpoint import remove_unused_parts, write_parts
from tunelab.training.processes import RowShare, check_divides


class ShardedStrategy(ModelParallelStrategy):
    """Each process keeps a part of every weight, gradient and optimizer state.

    Processes meet before the module is built, in `share_model`: what is built around a model then knows the
    parameters that it has once it is sharded.

    Args:
        config: The block `trainer.fsdp`.
    """

    needs_equal_passes = True  # in every pass all processes gather the weights together

    def __init__(self, config: FsdpConfig) -> None:
        super().__init__(tensor_parallel_size=config.tensor_parallel, save_distributed_checkpoint=False)
        self.config = config
        self.world_mesh: DeviceMesh | None = None  # all processes in one line

    @property
    def has_met(self) -> bool:
        """Whether the processes know each other."""
        return self._device_mesh is not None

    @property
    def data_mesh(self) -> DeviceMesh:
        """The processes with other rows than this one, and this one: one of each tensor group."""
        return self.device_mesh["data_parallel"]

    @property
    def row_share(self) -> RowShare:
        """The rows of this process; those of its tensor group have the same."""
        mesh, place = self.data_mesh, self.device_mesh.get_coordinate() or [0]
        return RowShare(mesh.get_local_rank(), mesh.size(), mesh.get_group(), is_first=not any(place[1:]))

    @override
    def setup_environment(self) -> None:
        if not self.has_met:
            width, devices = self.config.tensor_parallel, self.num_nodes * self.num_processes
            self._data_parallel_size = devices // width
            assert self.accelerator is not None
            self.accelerator.setup_device(self.root_device)
            self._setup_distributed()
            kind, names = self.root_device.type, ("data_parallel", "tensor_parallel")
            self.world_mesh = self._device_mesh = init_device_mesh(kind, (devices,), mesh_dim_names=names[:1])
            if width > 1:
                self._device_mesh = init_device_mesh(kind, (devices // width, width), mesh_dim_names=names)

    @override
    def setup(self, trainer: L.Trainer) -> None:
        assert self.accelerator is not None and self.model is not None
        self.accelerator.setup(trainer)
        self.model = self.precision_plugin.convert_module(self.model)
        self.model_to_device()
        for part in self.model.modules():
            if hasattr(part, "process_group"):  # scores are summed over rows, and each row is counted once
                cast(Any, part).process_group = self.row_share.processes
        self.barrier()
        fits = trainer.state.fn == TrainerFn.FITTING
        if fits:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()
        if fits and not self.config.cpu_offload:
            _optimizers_to_device(self.optimizers, self.root_device)

    @override
    def model_to_device(self) -> None:
        assert self.lightning_module is not None
        for name, part in self.lightning_module.named_children():
            if name != "model" or not self.config.cpu_offload:
                part.to(self.root_device)

    @property
    @override
    def lightning_restore_optimizer(self) -> bool:
        return True

    @override
    def lightning_module_state_dict(self) -> dict[str, Any]:
        return Strategy.lightning_module_state_dict(self)

    @override
    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return Strategy.optimizer_state(self, optimizer)

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        path = Path(filepath)
        if self.config.sharded_checkpoints:
            write_parts(checkpoint, path, lambda values: self.checkpoint_io.save_checkpoint(values, path))
        else:
            whole = gather_tree(checkpoint, keep=self.is_global_zero)
            Strategy.save_checkpoint(self, whole, filepath, storage_options)
        if self.is_global_zero:
            remove_unused_parts(path.parent, named_parts)

    @override
    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(Path(checkpoint_path), mapped=True, mesh=self.world_mesh)

    @override
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        Strategy.load_model_state_dict(self, checkpoint, strict)

    @override
    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(shard_optimizer_state(optimizer, state))


def shard_optimizer_state(optimizer: Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of an optimizer in whole tensors, each spread as the parameter it belongs to."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    by_number = dict(zip(numbers, parameters, strict=True))
    spread = {
        number: {
            key: shard_like(value, by_number[number]) if isinstance(value, torch.Tensor) else value
            for key, value in entry.items()
        }
        for number, entry in state["state"].items()
    }
    return {**state, "state": spread}


def share_model(trainer: L.Trainer, model: PreTrainedModel, folder: Path | None = None) -> None:
    """Spread a model over the processes of a trainer, where its strategy asks for it; starts them the first time.

    Args:
        trainer: Of the run.
        model: Whole, and the same on every process; changed in place.
        folder: Of the weights, where the model has no values yet.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, ShardedStrategy):
        return
    if not strategy.has_met:
        check_divides(strategy.config.tensor_parallel, strategy.num_nodes * strategy.num_processes)
        if strategy.launcher is None:  # this process was started by another, or by torchrun
            strategy.setup_environment()
        else:
            strategy.launcher.launch(strategy.setup_environment)
    shard_model(model, strategy.device_mesh, strategy.config)
    if not has_values(model):
        assert folder is not None
        read_slices(model, folder, torch.device("cpu") if strategy.config.cpu_offload else strategy.root_device)

"""The processes of a run: the rows of each, whether those it needs were started, the folder they share."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from torch import distributed
from torch._C._distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from tunelab.config.schema import TrainerConfig
from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.runs.launcher import launched_by
from tunelab.runs.stop_signals import STOP_SIGNALS

if TYPE_CHECKING:
    import lightning as L
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment


@dataclass(frozen=True)
class RowShare:
    """Which rows of a step this process has.

    Attributes:
        rank: Of this process among those with other rows.
        size: How many shares there are.
        processes: One for each share, this one among them; None means all that there are.
        is_first: Whether this is the process that speaks for those that have the same rows.
    """

    rank: int = 0
    size: int = 1
    processes: distributed.ProcessGroup | None = None
    is_first: bool = True


def row_share(trainer: "L.Trainer | None") -> RowShare:
    """The share of this process of a trainer: each has its own, but for those that split layers between them."""
    if trainer is None:
        return RowShare()
    own: RowShare | None = getattr(trainer.strategy, "row_share", None)
    return own or RowShare(trainer.global_rank, trainer.world_size)


def check_divides(width: int, devices: int) -> None:
    """Check that all devices of a run can form groups that split layers between them.

    Raises:
        ConfigError: If some would be left over.
    """
    if devices % width:
        raise ConfigError(
            translate(
                "trainer.fsdp.tensor_parallel={width}: the run has {devices} [device|devices], which do not form "
                "groups of {width}; take a number that divides them",
                width=width,
                devices=devices,
            )
        )


def launcher_faults(trainer: TrainerConfig) -> list[str]:
    """Fault of devices and nodes that are not those that torchrun or srun has started."""
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    environment = launched_by()
    if environment is None and trainer.num_nodes > 1:
        return [
            translate(
                "trainer.num_nodes={num_nodes}: a run starts processes on its own machine alone; start it with "
                "torchrun or srun, as docs/scale.md says",
                num_nodes=trainer.num_nodes,
            )
        ]
    if environment is None or not isinstance(trainer.devices, int):
        return []
    torchrun = isinstance(environment, TorchElasticEnvironment)
    local = int(os.environ["LOCAL_WORLD_SIZE" if torchrun else "SLURM_NTASKS_PER_NODE"])
    nodes = environment.world_size() // local
    if (trainer.devices, trainer.num_nodes) == (local, nodes):
        return []
    return [
        translate(
            "trainer.devices={devices} with trainer.num_nodes={num_nodes}, and {value} started "
            "{local} [process|processes] on each of {nodes} [machine|machines]; set trainer.devices={local} "
            "trainer.num_nodes={nodes}",
            devices=trainer.devices,
            num_nodes=trainer.num_nodes,
            value="torchrun" if torchrun else "srun",
            local=local,
            nodes=nodes,
        )
    ]


def agree_on_folder(folder: Path) -> Path:
    """The run folder of the main process, on every process: one named after the time differs between them.

    Args:
        folder: What this process would take.

    Raises:
        ConfigError: If the processes do not meet.
    """
    environment = launched_by()
    if environment is None or environment.world_size() == 1:
        return folder
    key = f"tunelab/folder/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{next(_MEETINGS)}"
    try:
        with signals_end_at_once():
            store = meeting_place(environment)
            if environment.global_rank() == 0:
                store.set(key, str(folder))
            shared = Path(store.get(key).decode())
    except (distributed.DistError, RuntimeError, ValueError, OSError) as fault:
        place = f"{environment.main_address}:{environment.main_port}"
        raise ConfigError(
            translate("the processes of this run did not meet at {place}: {fault}", place=place, fault=fault)
        ) from fault
    if shared != folder and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()  # Hydra has made it, for a run that is none
    _SHARED[folder] = shared
    return shared


def shared_folder(folder: Path) -> Path:
    """The folder that the processes last agreed on for a run; that which this process would take where it is alone."""
    return _SHARED.get(folder, folder)


@contextmanager
def signals_end_at_once() -> Iterator[None]:
    """Let stop signals end this process while it waits in code that calls no handler of Python's."""
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    handlers = {number: handler for number, handler in handlers.items() if handler != signal.SIG_IGN}
    for number in handlers:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


_MEETINGS = count()  # of this process, which each of the others has as many of
_SHARED: dict[Path, Path] = {}  # what this process would have taken -> what they agreed on
_STORES: list[Store] = []  # one that is let go of would close under the others


def meeting_place(environment: "ClusterEnvironment") -> Store:
    """Where the processes exchange their first words, before they form a group."""
    if not _STORES:
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
        store, _, _ = next(iter(rendezvous("env://", environment.global_rank(), environment.world_size())))
        _STORES.append(store)
    return _STORES[0]

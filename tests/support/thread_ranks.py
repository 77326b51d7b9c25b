"""Processes that share a model, played by threads of one process: no start takes time, and every value is at hand."""

import threading
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.testing._internal.distributed import multi_threaded_pg

_Result = TypeVar("_Result")


def run_on_ranks(size: int, width: int, work: Callable[[DeviceMesh, int], _Result]) -> list[_Result]:
    """What a function of the mesh and the rank gives on each rank; `width` of them split layers between them."""
    store, results, faults = distributed.HashStore(), dict[int, _Result](), list[BaseException]()

    def run(rank: int) -> None:
        try:
            distributed.init_process_group("threaded", rank=rank, world_size=size, store=store)
            names = ("data_parallel", "tensor_parallel")
            results[rank] = work(init_device_mesh("cpu", (size // width, width), mesh_dim_names=names), rank)
        except BaseException as fault:
            faults.append(fault)
            multi_threaded_pg.ProcessLocalGroup.exception_handle(fault)  # the others wait for it

    multi_threaded_pg._install_threaded_pg()
    torch._C._distributed_c10d._set_thread_isolation_mode(True)
    try:
        threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        multi_threaded_pg.ProcessLocalGroup.reset()
        multi_threaded_pg._uninstall_threaded_pg()
        torch._C._distributed_c10d._set_thread_isolation_mode(False)
    if faults:
        raise faults[0]
    return [results[rank] for rank in range(size)]

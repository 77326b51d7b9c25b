"""Which rows a process has: its own, or those of the others that split layers with it."""

from types import SimpleNamespace
from typing import Any

import pytest
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh

from support.thread_ranks import run_on_ranks
from support.tiny_runs import settings
from tunelab.config.schema import FsdpConfig
from tunelab.errors import ConfigError
from tunelab.training.processes import check_divides, row_share
from tunelab.training.sharded_strategy import ShardedStrategy


def test_processes_that_split_layers_share_their_rows_and_one_of_them_counts() -> None:
    # Given six processes in groups of two
    def work(mesh: DeviceMesh, rank: int) -> tuple[int, int, bool, list[int]]:
        strategy: Any = ShardedStrategy(FsdpConfig(tensor_parallel=2))
        strategy._device_mesh = mesh
        share = row_share(SimpleNamespace(strategy=strategy))  # type: ignore[arg-type]
        assert share.processes is not None
        return share.rank, share.size, share.is_first, distributed.get_process_group_ranks(share.processes)

    # Then each group has a third of the rows, and scores are summed over one of each
    assert run_on_ranks(6, 2, work) == [
        (group, 3, place == 0, [place, place + 2, place + 4]) for group in range(3) for place in range(2)
    ]


def test_without_split_layers_each_process_has_rows_of_its_own() -> None:
    share = row_share(SimpleNamespace(strategy=None, global_rank=1, world_size=4))  # type: ignore[arg-type]

    assert (share.rank, share.size, share.processes, share.is_first) == (1, 4, None, True)


def test_devices_that_form_no_groups_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="3 devices, which do not form groups of 2"):
        check_divides(2, 3)
    split = ["data=instruction", "data.train=x.jsonl", "trainer=fsdp_cpu", "trainer.fsdp.tensor_parallel=2"]
    with pytest.raises(ConfigError, match="trainer.devices=3 .* groups of 2"):
        settings(*split, "trainer.devices=3")
    with pytest.raises(ConfigError, match="adapter=dora .* take adapter=lora"):
        settings(*split, "adapter=dora")
    assert settings(*split, "trainer.num_nodes=2").trainer.fsdp.tensor_parallel == 2

"""Models that are spread over processes (here one): built without memory, read in slices, gathered again."""

from pathlib import Path

import pytest
import torch
from torch.distributed.device_mesh import DeviceMesh

from support.uneven_rows import tiny_model
from tunelab.config.schema import FsdpConfig
from tunelab.errors import ConfigError
from tunelab.models.sharding import (
    gather_tree,
    has_values,
    is_sharded,
    parameters_without_memory,
    read_slices,
    shard_model,
)


def test_a_model_without_values_reads_those_of_a_folder(tmp_path: Path, mesh: DeviceMesh) -> None:
    # Given a model in a folder, in half precision, and one of its kind that is shapes only
    whole = tiny_model()
    whole.to(torch.bfloat16).save_pretrained(tmp_path / "base")
    with parameters_without_memory():
        model = tiny_model()
    assert not has_values(model) and has_values(tiny_model())

    # When it is spread and reads its weights
    shard_model(model, mesh, FsdpConfig())
    read_slices(model, tmp_path / "base", torch.device("cpu"))

    # Then it has all of them, in 32 bit, and computes what the whole model does
    assert has_values(model) and is_sharded(model)
    state = gather_tree(dict(model.state_dict()), keep=True)
    for name, weight in whole.float().state_dict().items():
        assert torch.equal(state[name], weight), name
    tokens = torch.arange(8).view(1, 8)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(tokens).logits, whole.eval()(tokens).logits)


def test_a_folder_of_another_model_is_refused_by_name(tmp_path: Path, mesh: DeviceMesh) -> None:
    (tmp_path / "empty").mkdir()
    with parameters_without_memory():
        model = tiny_model()
    shard_model(model, mesh, FsdpConfig())

    with pytest.raises(ConfigError, match="trainer.fsdp.load=whole"):
        read_slices(model, tmp_path / "empty", torch.device("cpu"))

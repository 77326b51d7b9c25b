"""Devices that this machine does not have are refused before any data are read."""

import pytest
import torch

from support.tiny_runs import settings
from tunelab.training.trainer import device_faults


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("gpus", "asked", "told"),
    [
        (0, ["trainer.accelerator=cuda"], "torch sees no CUDA GPU here"),
        (0, ["trainer.accelerator=gpu"], "torch sees no GPU here"),
        (0, ["trainer.devices=8"], None),  # processes on one CPU
        (1, ["trainer.devices=8"], "this machine has 1 GPU;"),
        (1, ["trainer.devices=8", "trainer.accelerator=cpu"], None),
        (2, ["trainer.devices=2"], None),
        (2, ["trainer.devices=auto"], None),
    ],
    indirect=["gpus"],
)
def test_only_devices_that_are_there_are_taken(gpus: None, asked: list[str], told: str | None) -> None:
    faults = device_faults(settings(*asked).trainer)

    assert (told is None and not faults) or (told is not None and told in faults[0])

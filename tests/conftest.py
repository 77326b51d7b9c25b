"""Fixtures of all tests: tiny models made on the spot, and the real data beside the checkout, where there is any."""

import gc
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from support.looked_up_once import look_at_the_code_once, parse_config_files_once
from support.paths import ROOT
from tunelab.runs.garbage import searches_paused

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for a hub fails at once instead of waiting
os.environ.setdefault("WANDB_MODE", "disabled")
os.environ["TUNELAB_LANG"] = "en"  # tests read messages, whatever language the system speaks

# a busy machine is slow, not wrong
hypothesis_settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("patient")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage among packages and tests: a third of the time that it takes to collect them."""
    with searches_paused():
        collected = yield
    gc.freeze()
    return collected


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real data and models beside the checkout; tests that need it are skipped without it."""
    found = ROOT.parent / "shared"
    if not found.is_dir():
        pytest.skip("real data and models are not beside this checkout")
    return found


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_disks() -> Iterator[None]:
    """Files of tests need not outlive the machine: the fifty waits of a tiny run take as long as its training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _looked_up_once() -> None:
    """Each run is spared what all have in common."""
    parse_config_files_once()
    look_at_the_code_once()


@pytest.fixture(scope="session", autouse=True)
def _logged_values_stay_where_they_are() -> Iterator[None]:
    """Lightning copies what describes a value each time it is logged, to move it: up to a seventh of a tiny run."""
    if "lightning.pytorch" not in sys.modules:  # no test trains
        yield
        return
    from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultMetric

    move = _ResultMetric.to

    def move_if_elsewhere(self: Any, device: Any) -> Any:
        return self if self.is_tensor and self.value.device == device else move(self, device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_ResultMetric, "to", move_if_elsewhere)
        yield


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator["DeviceMesh"]:
    """A group of processes, of which this is the only one."""
    from torch import distributed  # few tests need it
    from torch.distributed.device_mesh import init_device_mesh

    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()

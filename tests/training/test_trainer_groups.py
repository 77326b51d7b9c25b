"""`trainer=NAME`: devices by name, as users of Hydra templates type them."""

import pytest

from support.tiny_runs import CONF, settings
from tunelab.training.trainer import device_faults


@pytest.mark.parametrize(
    ("name", "accelerator", "strategy", "devices"),
    [
        ("cpu", "cpu", "auto", 1),
        ("gpu", "gpu", "auto", 1),
        ("mps", "mps", "auto", 1),
        ("ddp", "gpu", "ddp", "auto"),
        ("ddp_cpu", "cpu", "ddp", 2),
        ("fsdp", "gpu", "fsdp", "auto"),
        ("fsdp_cpu", "cpu", "fsdp", 2),
    ],
)
def test_devices_have_names(name: str, accelerator: str, strategy: str, devices: int | str) -> None:
    trainer = settings(f"trainer={name}").trainer

    assert (trainer.accelerator, trainer.strategy, trainer.devices) == (accelerator, strategy, devices)
    assert trainer.gradient_clip_val == 1.0, "what is not named stands as in trainer=default"


def test_every_name_is_known_here() -> None:
    names = {path.stem for path in (CONF / "trainer").glob("*.yaml")}

    assert names >= {"default", "cpu", "gpu", "mps", "ddp", "ddp_cpu", "fsdp", "fsdp_cpu"}


def test_a_device_that_is_not_here_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)

    for name in ("gpu", "mps", "ddp", "fsdp"):
        (fault,) = device_faults(settings(f"trainer={name}").trainer)
        assert "take auto, which falls back to cpu" in fault
    assert device_faults(settings("trainer=ddp_cpu").trainer) == []

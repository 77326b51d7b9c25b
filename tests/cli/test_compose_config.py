"""Settings of a command line, composed without train.py."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tunelab.cli.compose_config import compose_settings
from tunelab.errors import ConfigError


def test_a_run_that_is_gone_on_with_keeps_its_own_settings(tmp_path: Path) -> None:
    first = compose_settings(["optimizer=sgd", "lr=0.0123", "model=scratch", "model.width=32", "batch_size=8"])
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(first.as_dict())))

    again = compose_settings([f"resume={tmp_path}", "test=false", "trial.id=3"])

    changed = {name for name, value in again.as_dict().items() if value != first.as_dict()[name]}
    assert changed == {"resume", "test", "trial"}
    assert again.lr == 0.0123 and again.model.width == 32 and again.trial.id == 3
    with pytest.raises(ConfigError, match="lr=1 would change what is learned"):
        compose_settings([f"resume={tmp_path}", "lr=1"])


def test_a_run_that_is_gone_on_with_takes_settings_that_it_has_and_the_defaults_lack(tmp_path: Path) -> None:
    first = compose_settings(["trainer=fsdp_cpu", "model=scratch"])
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(first.as_dict())))

    again = compose_settings([f"resume={tmp_path}", "trainer.fsdp.sharded_checkpoints=true"])

    assert again.trainer.fsdp.sharded_checkpoints and not first.trainer.fsdp.sharded_checkpoints
    assert again.trainer.strategy == "fsdp" and again.trainer.devices == 2
    with pytest.raises(ConfigError, match="sharded_checkpoint"):
        compose_settings([f"resume={tmp_path}", "trainer.fsdp.sharded_checkpoint=true"])

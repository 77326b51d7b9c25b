"""The logger block becomes loggers."""

import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger

from support.paths import ROOT
from support.tiny_runs import settings
from tunelab.config.blocks import block_fields
from tunelab.config.schema import LoggerConfig
from tunelab.errors import ConfigError
from tunelab.tracking.csv_logger import CurveLogger
from tunelab.tracking.loggers import build_loggers, finish_loggers

BLOCKS = ROOT / "conf" / "logger"


KINDS = get_args(block_fields(LoggerConfig)["kind"].type)


def build(config: dict[str, Any], folder: Path) -> list[Logger]:
    return build_loggers(
        LoggerConfig(**config),
        folder=folder,
        run_config={},
        name="n",
        monitor="val/loss",
        mode="min",
        resume_from_step=None,
    )


def test_every_kind_has_a_block_and_every_key_of_it_says_what_it_does() -> None:
    assert {path.stem for path in BLOCKS.glob("*.yaml")} == set(KINDS)
    for path in BLOCKS.glob("*.yaml"):
        first, *lines = path.read_text().splitlines()
        assert first.startswith("# ")
        assert yaml.safe_load(path.read_text())["kind"] == path.stem
        assert all("  # " in line for line in lines), path.name


@pytest.mark.parametrize("kind", ["csv", "none"])
def test_the_curves_file_is_always_there(kind: str, tmp_path: Path) -> None:
    loggers = build({"kind": kind}, tmp_path)
    assert [type(logger) for logger in loggers] == [CurveLogger]
    loggers[0].log_metrics({"a": 1.0}, 0)
    finish_loggers(loggers, "success")
    assert (tmp_path / "metrics.csv").read_text() == "step,epoch,a\n0,,1.0\n"


def test_tensorboard_writes_beside_the_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    loggers = build({"kind": "tensorboard"}, tmp_path)
    assert isinstance(loggers[1], TensorBoardLogger)
    for logger in loggers:
        logger.log_metrics({"a": 1.0}, 0)
    finish_loggers(loggers, "success")
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_a_missing_package_and_an_unknown_kind_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        build({"kind": "tensorboard"}, tmp_path)
    with pytest.raises(ConfigError, match="logger.artifacts=checkpoint is unknown; choose one of report, export"):
        settings("logger=wandb", "logger.artifacts=[checkpoint,export]")
    with pytest.raises(ConfigError, match="logger.kind=comet is unknown; choose one of csv, none, tensorboard"):
        settings("logger.kind=comet")

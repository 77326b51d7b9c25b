"""TensorBoard: read back with its own reader."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tunelab.config.schema import LoggerConfig
from tunelab.tracking.base import RunResults
from tunelab.tracking.loggers import build_loggers, finish_loggers

pytest.importorskip("tensorboard", reason="logger=tensorboard is an extra")


@pytest.fixture
def events(tmp_path: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loggers = build_loggers(
        LoggerConfig(kind="tensorboard"),
        folder=tmp_path,
        run_config={"optimizer": {"lr": 0.1}, "resume": None, "hub_token": "canary-0123456789"},
        name="n",
        monitor="val/f1",
        mode="max",
        resume_from_step=None,
    )
    for logger in loggers:
        logger.log_metrics({"train/loss": 0.5}, 3)
    board: Any = loggers[1]
    board.log_histograms({"weight": torch.tensor([1.0, float("nan")])}, 3)
    rows = [{"row": 0, "label": "a|b", "prediction": "c"}]
    board.log_results(RunResults({"test/f1": 0.75}, ["a", "b"], {"test": [[3, 1], [0, 2]]}, rows))
    finish_loggers(loggers, "success")
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    return found


def test_curves_and_final_scores_are_scalars_under_their_own_names(events: Any) -> None:
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(3, 0.5)]
    assert [event.value for event in events.Scalars("test/f1")] == [0.75]
    assert "hp_metric" not in events.Tags()["scalars"]


def test_the_hparams_page_gets_settings_beside_scores_and_no_secret(events: Any) -> None:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    parts = events.summary_metadata
    start = HParamsPluginData.FromString(parts["_hparams_/session_start_info"].plugin_data.content)
    settings = start.session_start_info.hparams
    assert settings["optimizer.lr"].number_value == 0.1
    assert settings["resume"].string_value == "None"
    assert settings["hub_token"].string_value == "[redacted]"
    experiment = HParamsPluginData.FromString(parts["_hparams_/experiment"].plugin_data.content)
    assert [info.name.tag for info in experiment.experiment.metric_infos] == ["test/f1"]


def test_histograms_and_tables_are_there(events: Any) -> None:
    assert "gradients/weight" in events.Tags()["histograms"]
    texts = {
        tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode()
        for tag in events.Tags()["tensors"]
        if "text" in tag
    }
    assert "| a | 3 | 1 |" in texts["test/confusion/text_summary"]
    assert "a\\|b" in texts["test/predictions/text_summary"]

"""TensorBoard: read back with its own reader."""

import re
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
        logger.log_metrics({"train/loss": 0.5, "epoch": 0}, 3)
    board: Any = loggers[1]
    board.log_histograms({"weight": torch.tensor([1.0, float("nan")])}, 3)
    rows = [{"row": 0, "label": "a|b", "prediction": "c"}]
    board.finalize("success")  # as Lightning does after each of its loops
    board.log_results(RunResults({"test/f1": 0.75}, ["a", "b"], {"test": [[3, 1], [0, 2]]}, rows))
    finish_loggers(loggers, "success")
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    return found


def test_scalars_are_curves_under_their_own_names_and_no_chart_has_one_point(events: Any) -> None:
    assert events.Tags()["scalars"] == ["train/loss"]  # no final score, no epoch, no placeholder
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(3, 0.5)]


def test_custom_scalars_open_on_loss_and_monitored_score_with_layers_last(events: Any) -> None:
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    layout = Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    first, *_, last = layout.category
    assert [chart.title for chart in first.chart] == ["loss", "val/f1"]
    assert last.title == "layers"
    patterns, names = first.chart[0].multiline.tag, ("train/loss", "train/loss_epoch", "val/loss", "base/loss")
    shown = [name for name in names if any(re.match(pattern, name) for pattern in patterns)]
    assert shown == ["train/loss", "val/loss"]


def test_the_hparams_page_gets_settings_beside_scores_and_no_secret(events: Any) -> None:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    parts = events.summary_metadata
    start = HParamsPluginData.FromString(parts["_hparams_/session_start_info"].plugin_data.content)
    settings = start.session_start_info.hparams
    assert settings["optimizer.lr"].number_value == 0.1
    assert settings["resume"].string_value == "None"
    assert settings["hub_token"].string_value == "[redacted]"
    experiment = HParamsPluginData.FromString(parts["_hparams_/experiment"].plugin_data.content)
    assert settings["test/f1"].number_value == 0.75  # a column, not a curve
    assert [info.name.tag for info in experiment.experiment.metric_infos] == ["val/f1", "val/loss"]


def test_histograms_and_tables_are_there(events: Any) -> None:
    assert "gradients/weight" in events.Tags()["histograms"]
    texts = {
        tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode()
        for tag in events.Tags()["tensors"]
        if "text" in tag
    }
    assert "| f1 | 0.75 |" in texts["scores/text_summary"]
    assert "| a | 3 | 1 |" in texts["test/confusion/text_summary"]
    assert "a\\|b" in texts["test/predictions/text_summary"]

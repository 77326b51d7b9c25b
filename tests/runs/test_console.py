"""Output of a run: readable through a pipe, quiet about vendors, one voice of many ranks."""

import logging
import warnings
from pathlib import Path

import pytest

from tunelab.runs import console, terminal
from tunelab.runs.console import silence_libraries

CONFIG = {"lr": 1e-3, "seed": None, "model": {"path": "x" * 300, "inner": {"depth": 2}}, "tags": ["a"]}


def everything() -> None:
    console.say("plain text [bold]not markup[/bold]")
    console.show_config(CONFIG, ["lr=1e-3", "model=starter"])
    console.show_model({"parameters": 1234567, "layers": 5, "kind": "llama", "memory GiB": 0.123456})
    console.show_data({"train": {"rows": 1000, "padding": 0.0312}, "val": {"rows": 100}})
    console.show_scores({"base": {"loss": 5.25}, "val": {"loss": 2.5, "f1": 0.5}, "test": {"loss": 2.25}})
    console.show_paths({"run folder": Path("/a") / ("b" * 150)})


def test_a_pipe_gets_whole_lines_without_control_characters(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    everything()
    text = capsys.readouterr().out
    assert all(letter == "\n" or letter.isprintable() for letter in text)
    assert "/a/" + "b" * 150 in text
    assert "[bold]not markup[/bold]" in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_the_score_table_has_a_row_per_score_and_a_column_per_stage(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_scores({"base": {"loss": 5.25}, "val": {"loss": 2.5, "f1": 0.5}, "test": {"loss": 2.25}})
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        ["scores"],
        ["score", "base", "val", "test"],
        ["loss", "5.25", "2.5", "2.25"],
        ["f1", "-", "0.5", "-"],
    ]


def test_the_data_table_has_a_row_per_split(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_data({"train": {"rows": 12345, "padding": 0.03125}, "val": {"rows": 100}})
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1:] == [["split", "rows", "padding"], ["train", "12,345", "0.03125"], ["val", "100", "-"]]


def test_the_settings_fit_a_line_per_block(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_config(CONFIG, ["lr=1e-3"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert "changed  lr=1e-3" in lines[1]
    assert "lr=0.001  seed=null  tags=['a']" in lines[2]
    assert "model  path=xxx" in lines[3]
    assert len(lines[3]) < 130
    assert "inner  depth=2" in lines[4]


def test_text_from_the_data_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("a\x1b[31mred\x07\nb\u202ec")
    console.show_paths({"x": "\x1b]0;title\x07y"})
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert len(text.splitlines()) == 4


def test_a_terminal_gets_colours(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "is_terminal", lambda stream=None: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    everything()
    assert "\x1b[" in capsys.readouterr().out


def test_only_the_main_process_speaks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_utilities.core.rank_zero import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1, raising=False)
    everything()
    assert capsys.readouterr().out == ""
    monkeypatch.delattr(rank_zero_only, "rank")
    monkeypatch.setenv("LOCAL_RANK", "1")
    everything()
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("LOCAL_RANK", "0")
    everything()
    assert capsys.readouterr().out


def test_vendor_tips_are_dropped_and_real_warnings_are_not(caplog: pytest.LogCaptureFixture) -> None:
    from lightning.pytorch.utilities import rank_zero_info

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        silence_libraries()
        with caplog.at_level(logging.INFO):
            rank_zero_info("Tip: try installing [litlogger](https://example.com)")
            rank_zero_info("GPU available: False, used: False")
            rank_zero_info("the learning rate is unusual")
        warnings.warn("The 'train_dataloader' does not have many workers which may be a bottleneck", stacklevel=1)
        warnings.warn("the gradient is zero", stacklevel=1)
    assert [record.getMessage() for record in caplog.records] == ["the learning rate is unusual"]
    assert [str(warning.message) for warning in seen] == ["the gradient is zero"]


def test_a_trainer_starts_without_a_vendor_line(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from lightning import Trainer

    with warnings.catch_warnings():
        silence_libraries()
        Trainer(max_steps=1, logger=False, enable_checkpointing=False, accelerator="cpu", default_root_dir=tmp_path)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""

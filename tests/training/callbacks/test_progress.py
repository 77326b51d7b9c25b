"""Progress of a run: one bar that fits the terminal with everything in it, one line for each validation."""

import re
import sys
from pathlib import Path

import pytest

from support.paths import ROOT
from support.terminal_screen import Screen, run_in_terminal, take_terminal
from support.tiny_runs import MODEL, settings
from tunelab.training.callbacks import progress
from tunelab.training.callbacks.progress import RunClock, TerminalProgress, bar_lines, progress_callback
from tunelab.training.run import fine_tune

FIELDS = ["step 180/500", "epoch 2/5", "loss 0.1635", "lr 7.9e-05", "3,403 tokens/s", "val/exact_match 0.835"]
FIELDS += ["best 0.84", "1:02:08 left"]
QUICK = [*MODEL, "data.limit=60", "eval.max_new_tokens=2", "logger=none", "eval.base=false", "eval.generate=false"]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 160])
def test_a_bar_holds_every_field_and_fits_the_terminal(width: int) -> None:
    lines = bar_lines(0.36, FIELDS, width)
    assert all(len(line) <= width for line in lines)
    text = "  ".join(line for line in lines)
    for field in FIELDS if width >= 40 else FIELDS[:4]:
        assert field in text
    assert len(lines) == 1 or width < 160
    assert "\u2501" in lines[0] or width < 40


def test_the_time_left_counts_steps_and_the_validations_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    clock = RunClock()
    clock.begin(10, 110, 25)  # resumed at step 10; validations at 25, 50, 75 and 100
    assert clock.seconds_left(10) is None
    now[0] += 15.0  # a second a step
    clock.pause()
    now[0] += 4.0
    assert clock.seconds_left(25) == pytest.approx(85.0)  # a validation of unknown length is under way
    clock.resume()
    assert clock.seconds_left(25) == pytest.approx(85 + 85 / 25 * 4.0)


def test_a_terminal_gets_a_bar_that_goes_and_a_line_for_each_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_BAR_SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)  # paths below it are short
    terminal = take_terminal(monkeypatch, 80)
    assert isinstance(progress_callback("val/loss"), TerminalProgress)

    words = ["max_epochs=2", "batch_size=16", "trainer.log_every_n_steps=1"]
    fine_tune(settings(*QUICK, *words), tmp_path / "run")

    written = terminal.getvalue()
    screen = Screen(80)
    screen.feed(written)
    assert screen.overflows == 0 and not any("\u2501" in row for row in screen.rows)
    lines = [row for row in screen.rows if row.startswith("validation at step")]
    assert len(lines) == 2 and "best so far" in lines[0]
    plain = re.sub(r"\x1b\[[\d;]*m", "", written)
    for words_of_bar in ("epoch 1/2", "epoch 2/2", "loss ", "lr ", "tokens/s", "val/loss ", "best ", " left"):
        assert words_of_bar in plain
    assert "epoch 0" not in plain and "epoch 3" not in plain


def test_a_run_opens_with_six_lines_and_says_why_rows_were_dropped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short, long = '{"instruction": "say %d", "output": "it is %d"}', '{"instruction": "say %s", "output": "it"}'
    rows = [short % (n, n) for n in range(40)] + [long % ("word " * 300)] * 3
    (tmp_path / "my.jsonl").write_text("\n".join(rows) + "\n")
    words = ["data=instruction", f"data.train={tmp_path / 'my.jsonl'}", "data.max_tokens=64", "max_steps=1"]

    fine_tune(settings(*QUICK, *words), tmp_path / "run", overrides=words)

    out = capsys.readouterr().out
    head = out[: out.index("step 1/1")].splitlines()
    assert [line.split()[0] for line in head[:6]] == ["changed", "model", "data", "rate", "device", "folder"]
    assert re.search(r"dropped: train \d of \d+ \(\d longer than 64 tokens\)", head[2])
    assert all(line.startswith("note: ") for line in head[6:]), head


@pytest.mark.slow
@pytest.mark.parametrize("width", [60, 80, 100, 160])
@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["colours", "NO_COLOR", "dumb"])
def test_a_real_terminal_is_never_too_narrow_and_no_word_is_cut(
    width: int, variables: dict[str, str], tmp_path: Path
) -> None:
    words = [*QUICK, "max_epochs=2", "batch_size=16", "hydra.run.dir=run"]
    status, pieces = run_in_terminal(
        [sys.executable, str(ROOT / "train.py"), *words],
        tmp_path, width=width, variables={"PYTHONPATH": str(ROOT / "src"), **variables},
    )  # fmt: skip
    assert status == 0, "".join(pieces)[-2000:]
    screen = Screen(width)
    screen.feed("".join(pieces))
    assert screen.overflows == 0, "\n".join(screen.rows)
    text = "".join(pieces)
    assert bool(re.search(r"\x1b\[[\d;]*m", text)) == (not variables)
    assert ("\x1b" in text) == (variables.get("TERM") != "dumb")
    assert sum(row.startswith("validation at step") for row in screen.rows) == 2

"""Words are wrapped to the terminal and never cut; live lines give way to what else is printed."""

import sys
from typing import TextIO, cast

import pytest

from support.terminal_screen import Screen, take_terminal
from tunelab.runs import console, terminal
from tunelab.runs.terminal import LiveLines, join_fields, line_breaks, wrap_words

TEXT = (
    "  validation: 12 texts occur in both train and test, a score there measures memory too; the path is "
    "/a/long/folder/that/no/narrow/terminal/holds/in/one/line/of/its/own and stays whole"
)


@pytest.mark.parametrize("width", [20, 60, 80, 100, 160])
def test_wrapping_keeps_every_word_whole_and_every_line_within_the_width(width: int) -> None:
    lines = wrap_words(TEXT, width).split("\n")
    assert " ".join(lines).split() == TEXT.split()
    assert all(len(line) <= width or " " not in line.strip() for line in lines)
    assert all(line.startswith("    ") for line in lines[1:])


def test_text_without_blanks_breaks_between_ideographs_and_no_line_begins_with_a_full_stop() -> None:
    text = "\u9a8c\u8bc1\u96c6\u7684\u635f\u5931\u4e0b\u964d\u3002\u8bad\u7ec3\u7ee7\u7eed"
    lines = wrap_words(text, 16, 0).split("\n")
    assert "".join(lines) == text and len(lines) == 2
    assert all(terminal.text_width(line) <= 16 for line in lines)
    assert not any(line.startswith("\u3002") for line in lines)


def test_fields_share_lines_and_are_never_parted() -> None:
    assert join_fields(["step 1/5", "loss 2.5", "lr 0.1"], 20) == ["step 1/5  loss 2.5", "lr 0.1"]
    assert line_breaks("one two three", 8) == [8]


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_everything_a_run_prints_fits_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_terminal = take_terminal(monkeypatch, width)
    console.say(TEXT)
    console.say_note(TEXT)
    console.show_facts({"changed": "lr=1e-3 " * 30, "model": "a model of some size, " * 9})
    console.show_config({"lr": 1e-3, "model": {"path": "x" * 40, "depth": 2, **{f"key_{n}": n for n in range(30)}}})
    console.show_data({"train": {f"column_{n}": 10**n for n in range(12)}, "validation": {"column_3": 5}})
    console.show_scores({name: {"exact_match": 0.5, "unfinished": 0.1} for name in ("train", "val", "base", "test")})
    screen = Screen(width)
    screen.feed(fake_terminal.getvalue())
    held = "/a/long/folder"  # the only word that is wider than 60 columns
    assert screen.overflows == sum(held in row for row in screen.rows) * (width == 60)
    assert all(len(row) <= width for row in screen.rows)


def test_a_command_that_is_too_long_can_be_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_terminal = take_terminal(monkeypatch)
    words = "python train.py -m 'data.train=my file.jsonl' lr=1e-4,1e-3 batch_size=8,16,32 hydra.sweep.dir=outputs/a"
    console.show_command("continue with", words)
    lines = fake_terminal.getvalue().splitlines()
    assert lines[0] == "continue with:" and max(map(len, lines)) <= 60
    assert all(line.endswith(" \\") for line in lines[1:-1])
    assert " ".join(line.strip().removesuffix(" \\") for line in lines[1:]) == words


def test_a_pipe_gets_a_command_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_command("continue with", "python train.py " + "lr=1e-3 " * 60 + "seed=1")
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_no_color_keeps_the_terminal_free_of_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_terminal = take_terminal(monkeypatch)
    console.say_note("plain")
    assert "\x1b[" in fake_terminal.getvalue()
    fake_terminal = take_terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    console.say_marked("warning", "plain")
    console.show_scores({"val": {"loss": 1.0}})
    assert "\x1b" not in fake_terminal.getvalue()


def test_a_dumb_terminal_gets_wrapped_lines_without_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_terminal = take_terminal(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    console.say_marked("warning", TEXT)
    assert not terminal.is_terminal()
    assert "\x1b" not in fake_terminal.getvalue() and len(fake_terminal.getvalue().splitlines()) > 2


def test_what_is_printed_meanwhile_stands_above_the_live_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_terminal = take_terminal(monkeypatch)
    live = LiveLines()
    live.draw(["step 1", "loss 2"])
    print("a line")
    live.draw(["step 2", "loss 1", "best 1"])
    sys.stderr.write("half a line")
    live.draw(["step 3"])
    screen = Screen(60)
    screen.feed(fake_terminal.getvalue())
    assert screen.rows == ["a line", "half a line", "step 3"]

    live.close()
    screen = Screen(60)
    screen.feed(fake_terminal.getvalue())
    assert screen.rows == ["a line", "half a line", ""]
    assert sys.stdout is cast(TextIO, fake_terminal) and sys.stderr is cast(TextIO, fake_terminal)


def test_lines_that_were_left_stay_and_the_next_stand_below(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_terminal = take_terminal(monkeypatch)
    live = LiveLines()
    live.draw(["step 1", "loss 2"])
    live.leave()
    fake_terminal.write("\nstopping\n")  # as a signal handler writes, past our streams
    live.draw(["step 2"])
    screen = Screen(60)
    screen.feed(fake_terminal.getvalue())
    assert screen.rows == ["step 1", "loss 2", "stopping", "step 2"]

"""Every command that a run, a search, a cross-validation or a report prints works as printed, where it was printed."""

import re
import shlex
from pathlib import Path

import pytest

from support.documented_commands import run
from support.paths import ROOT
from support.tiny_runs import MODEL, instructions

TRAIN = f"python {shlex.quote(str(ROOT / 'train.py'))}"
QUICK = [
    *MODEL,
    "data.split.test=0.2",
    "data.split.validation=0.2",
    "max_steps=1",
    "eval.generate=false",
    "eval.base=false",
    "logger=none",
    "data=instruction",
]
COMMAND = re.compile(r"(?:^|[:\s`>])((?:python \S*train\.py|tunelab [a-z]+) [^`<\n]*[^`<\n.\s])")


def printed_commands(text: str) -> list[str]:
    """The commands in a text, each once."""
    return list(dict.fromkeys(match.strip() for match in COMMAND.findall(text)))


def test_commands_are_found_in_a_text() -> None:
    text = (
        "run it again with: python /a/train.py experiment='b c'\nwas it luck? tunelab confirm ./s1\n`tunelab report x`"
    )
    assert printed_commands(text) == ["python /a/train.py experiment='b c'", "tunelab confirm ./s1", "tunelab report x"]


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("isolation", ["inline", "process"])
@pytest.mark.parametrize("where", ["experiment", "config_dir"])
def test_a_search_and_its_report_print_commands_that_work(isolation: str, where: str, tmp_path: Path) -> None:
    place = tmp_path / "it's mine (v2)"
    (place / "conds" / "experiment").mkdir(parents=True)
    instructions(place)
    chosen = "mine" if where == "config_dir" else "conds/experiment/mine"
    (place / "conds" / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 3\n")
    flags = ["--config-dir", "conds"] if where == "config_dir" else []
    words = [*flags, "-m", "lr=1e-3,1e-4", f"experiment={chosen}", "data.train=instructions.jsonl", *QUICK,
             f"search.isolation={isolation}", "hydra.sweep.dir=s1"]  # fmt: skip
    done = run(f"{TRAIN} {shlex.join(words)}", place)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = [*place.glob("s1/report/*.md"), *place.glob("s1/trial_*/export/README.md")]
    assert pages
    commands = printed_commands(done.stdout) + [c for page in pages for c in printed_commands(page.read_text())]
    assert len(commands) >= 4
    for command in dict.fromkeys(commands):
        more = ["--seeds", "2", "--top", "1"] if "tunelab confirm" in command else []
        again = run(command, place, *more)
        assert again.returncode in (0, 3), f"{command}\n{again.stdout}{again.stderr}"


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_run_and_a_cross_validation_print_commands_that_work(tmp_path: Path) -> None:
    place = tmp_path / "数据 {1}"
    place.mkdir()
    instructions(place)
    for words in (["hydra.run.dir=run 1"], ["cv.folds=2"]):
        done = run(f"{TRAIN} {shlex.join(['data.train=instructions.jsonl', *QUICK, *words])}", place)
        assert done.returncode == 0, done.stdout + done.stderr
        for command in printed_commands(done.stdout):
            again = run(command, place)
            assert again.returncode in (0, 3), f"{command}\n{again.stdout}{again.stderr}"
    refused = run(f"{TRAIN} {shlex.join(['data.train=instructions.jsonl', *QUICK, 'hydra.run.dir=run 1'])}", place)
    assert refused.returncode == 2
    hint = re.search(r"overwrite; ('resume=.*?) goes on", refused.stderr)
    assert hint is not None
    again = run(f"{TRAIN} {hint[1]} max_steps=2", place)
    assert again.returncode == 0, again.stderr

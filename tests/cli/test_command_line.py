"""The command line: exit status, one message without a traceback, what is implied."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra._internal.utils import get_args_parser

from support import warm_processes
from support.paths import ROOT
from support.tiny_runs import QUIET, instructions, settings
from tunelab.cli.launch import take_language
from tunelab.cli.main import COMMANDS, command_parser, without_settings
from tunelab.config.overrides import complete_overrides, override_faults
from tunelab.config.resource_paths import conf_directory
from tunelab.errors import ConfigError
from tunelab.training.run import fine_tune


def train(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run train.py in a process of its own."""
    return warm_processes.run([ROOT / "train.py", *arguments])


def test_misspelt_keys_options_and_values_are_all_told_with_status_2() -> None:
    done = train("optimzer=sgd", "optimizer=sdg", "model.pth=x", "lr=abc", "batch_size=0")

    assert done.returncode == 2
    for part in (
        "did you mean 'optimizer'",
        "did you mean 'sgd'",
        "did you mean 'model.path'",
        "lr=abc",
        "batch_size=0",
    ):
        assert part in done.stderr
    assert "Traceback" not in done.stderr


def test_a_key_of_the_chosen_block_is_no_fault() -> None:
    done = train("optimizer=sgd", "optimizer.momentum=0.5", "optimizer.momentm=0.5")

    assert done.returncode == 2
    assert "optimizer.momentum=0.5:" not in done.stderr
    assert "did you mean 'optimizer.momentum'" in done.stderr


def test_a_fault_of_the_data_has_status_2_and_no_traceback(tmp_path: Path) -> None:
    done = train("data=instruction", "data.train=nowhere.jsonl", f"hydra.run.dir={tmp_path / 'run'}")

    assert done.returncode == 2, done.stderr[-2000:]
    assert "no such file" in done.stderr
    assert "Traceback" not in done.stderr and "Error executing" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["monitor=val/accuracy"], "choose one of val/loss"),
        (["model=pretrained", "model.path=/no/such/folder"], "no tokenizer could be loaded"),
        (["trainer.val_check_interval=1000"], "an epoch has 1: nothing would ever be validated"),
        (["trainer.strategy=foo"], "Lightning refuses these settings.*foo"),
    ],
)
def test_faults_that_show_late_are_the_users_too(arguments: list[str], told: str, tmp_path: Path) -> None:
    given = ["data=instruction", f"data.train={instructions(tmp_path)}", *QUIET, *arguments]

    with pytest.raises(ConfigError, match=told):
        fine_tune(settings(*given), tmp_path / "run")


def test_help_and_cfg_never_import_torch() -> None:
    for flags in (["--help"], ["--cfg", "job"]):
        code = (
            f"import sys, runpy; sys.argv = ['train.py', *{flags!r}]\n"
            "try: runpy.run_path('train.py', run_name='__main__')\n"
            "except SystemExit: pass\n"
            "assert not {'torch', 'lightning', 'transformers', 'wandb'} & set(sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command", [["train.py", "--help"], ["-c", "import sys; from tunelab.cli.main import main; main()", "--help"]]
)
def test_a_reader_that_closes_the_pipe_early_is_no_fault(command: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)  # as `head` does once it has its lines

    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=500
    )

    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_run_on_a_file_loads_nothing_that_only_a_hub_or_a_report_needs(tmp_path: Path) -> None:
    words = ["data=instruction", f"data.train={instructions(tmp_path)}", *QUIET, "max_steps=1"]
    words.append(f"hydra.run.dir={tmp_path / 'run'}")
    code = (
        f"import sys, runpy; sys.argv = ['train.py', *{words!r}]\n"
        "runpy.run_path('train.py', run_name='__main__')\n"
        "assert not {'datasets', 'pandas', 'pyarrow', 'optuna', 'peft', 'wandb'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_path_alone_means_a_pretrained_model_with_settings_of_its_own() -> None:
    assert complete_overrides(["model.path=x", "lr=1"]) == ["model=pretrained", "model.path=x", "lr=1"]
    assert complete_overrides(["model=starter", "model.path=x"]) == ["model=starter", "model.path=x"]
    assert complete_overrides(complete_overrides(["model.path=x"])) == complete_overrides(["model.path=x"])


@pytest.mark.parametrize(
    "words",
    [["-m", "model.path=x", "lr=1,2"], ["model.path=x", "--multirun", "lr=1,2"], ["model.path=x", "lr=1,2", "-m"]],
)
def test_words_on_both_sides_of_a_flag_are_all_taken(words: list[str]) -> None:
    given = complete_overrides(words)

    assert given[1:] == ["model=pretrained", "model.path=x", "lr=1,2"]
    assert get_args_parser().parse_args(given).overrides == given[1:]


def test_resume_goes_on_in_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    assert complete_overrides([f"resume={tmp_path}"]) == [f"hydra.run.dir={tmp_path}", f"resume={tmp_path}"]
    assert complete_overrides(["resume=null"]) == ["resume=null"]


@pytest.mark.parametrize("named", ["{}/best", "{}/best.yaml", "{}"])
def test_an_experiment_may_be_what_a_search_left(tmp_path: Path, named: str) -> None:
    (tmp_path / "best.yaml").write_text("# @package _global_\nlr: 0.0123\n")
    found = complete_overrides([f"experiment={named.format(tmp_path)}"])

    assert found == [f"hydra.searchpath=[file://{tmp_path}]", "experiment=best"]
    assert (tmp_path / "experiment" / "best.yaml").read_text() == (tmp_path / "best.yaml").read_text()
    assert complete_overrides(["experiment=effect_lr"]) == ["experiment=effect_lr"]


@pytest.mark.parametrize(
    ("words", "faults"),
    [
        (["-m", "data=nosuch"], ["data=nosuch"]),
        (["-m", "lr=1e-4,1e-3", "data=nosuch"], ["data=nosuch"]),
        (["-m", "lr=interval(1e-5,1e-3)", "lrr=1", "search=nosuch"], ["search=nosuch", "lrr=1"]),
        (["-m", "search.space.params.lr=interval(1e-5,1e-3)", "data=nosuch"], ["data=nosuch"]),
        (["-m", "optimizer=adamw,sdg,sgd", "data=nosuch"], ["data=nosuch", "optimizer=sdg"]),
        (["-m", "lr=1e-3,bad", "data=nosuch"], ["data=nosuch", "lr=bad"]),
        (["lr=1e-3,1e-4", "data=nosuch"], ["data=nosuch", "lr=1e-3,1e-4"]),
        (["lr=1e-3,1e-4"], ["lr=1e-3,1e-4"]),
    ],
)
def test_each_fault_of_a_search_is_told_once_and_no_other(words: list[str], faults: list[str]) -> None:
    lines = override_faults(complete_overrides(words), conf_directory())

    assert [re.split(r"[: ]", line)[0] for line in lines] == faults
    assert not [line for line in lines if "multirun" in line or ("-m" in words and "several values" in line)]


@pytest.mark.parametrize(
    ("word", "way"),
    [
        ("lr=1e-3,1e-4", "add -m"),
        ("lr=interval(1e-5,1e-3)", "add -m"),
        ("regularization=l2,dropout", "add -m; to have them all, type 'regularization=[l2,dropout]'"),
        ("adapter.freeze=a,b", "add -m; to have them all, type 'adapter.freeze=[a,b]'"),
        ("model=gpt2,minilm", "add -m"),
    ],
)
def test_several_values_of_one_training_say_how_they_are_typed(word: str, way: str) -> None:
    (line,) = override_faults([word], conf_directory())

    assert line == f"{word}: several values for one training; to search over them, {way}"


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "train"])
def test_a_language_typed_as_a_setting_is_obeyed_and_no_path(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELAB_LANG", "en")
    parser = command_parser(command)

    rest = without_settings(parser, take_language(["RUN", "lang=zh"]))

    assert os.environ["TUNELAB_LANG"] == "zh"
    assert rest == (["RUN", "lang=zh"] if command in ("preview", "inspect") else ["RUN"])  # which compose settings


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("train", "completion")])
def test_settings_typed_to_a_command_name_its_options(command: str) -> None:
    parser = command_parser(command)
    options = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    takes_settings = command in ("preview", "inspect")

    for option in options:
        if option != "--lang":
            with pytest.raises(ConfigError, match=f"tunelab {command} are typed with hyphens: {option} 3"):
                without_settings(parser, ["RUN", f"{option[2:].replace('-', '_')}=3"])
    if not takes_settings:
        with pytest.raises(ConfigError, match=f"lr=3: tunelab {command} takes no settings.*{options[1]}"):
            without_settings(parser, ["RUN", "lr=3"])


def test_a_path_with_an_equals_sign_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=3").mkdir()
    words = ["lr=3", "--output", "a=b", "--output=c=d", "./x=y"]

    assert without_settings(command_parser("report"), words) == words

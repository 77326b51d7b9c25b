"""Options and primary configs of one's own, wherever a command line says they lie; a yaml of settings by itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT
from support.tiny_runs import CONF, MODEL, QUIET, instructions
from tunelab.cli.compose_config import compose_run, compose_search
from tunelab.cli.help_page import render_help
from tunelab.cli.main import run_command
from tunelab.config.override_text import config_folders, gather_flags, primary_config
from tunelab.config.overrides import complete_overrides, override_faults
from tunelab.errors import ConfigError
from tunelab.search.run_search import prepare

SLOW_SGD = """# @package _global_
# My SGD.
lr: 0.01 # mine
optimizer:
  _target_: torch.optim.SGD # x
  lr: ${lr} # x
"""
MINE = "# Mine.\ndefaults:\n  - config\n  - _self_\n\nbatch_size: 8 # mine\n"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an option, a primary config, and records; it is the current one."""
    (tmp_path / "conf" / "optimizer").mkdir(parents=True)
    (tmp_path / "conf" / "optimizer" / "slowsgd.yaml").write_text(SLOW_SGD)
    (tmp_path / "conf" / "mine.yaml").write_text(MINE)
    instructions(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


FLAGS = ["--config-dir", "conf"]
PATHS = ["hydra.searchpath=[file://conf]"]


@pytest.mark.parametrize("place", [FLAGS, ["-cd", "conf"], ["--config-dir=conf"], PATHS], ids=lambda words: words[0])
def test_an_option_of_a_folder_of_ones_own_is_known_in_settings_search_help_and_hints(
    lab: Path, place: list[str]
) -> None:
    words = complete_overrides([*place, "optimizer=slowsgd"])

    assert compose_run([*place, "optimizer=slowsgd"]).settings.lr == 0.01
    assert "* slowsgd" in render_help(CONF, words)
    (fault,) = override_faults(complete_overrides([*place, "optimizer=slowsg"]), CONF)
    assert "did you mean 'slowsgd'" in fault
    config, arguments = compose_search([*place, "search=random", "optimizer=slowsgd,adamw", "lr=interval(1e-3,1e-2)"])
    search = prepare(config, arguments)
    assert "optimizer" in search.request.space.unconditional
    assert any(word.startswith("hydra.searchpath=") and str(lab / "conf") in word for word in search.fixed) or (
        place is PATHS and "hydra.searchpath=[file://conf]" in search.fixed
    )


def test_a_primary_config_of_ones_own_is_composed_everywhere(lab: Path) -> None:
    words = [*FLAGS, "--config-name", "mine"]

    assert compose_run(words).settings.batch_size == 8
    assert compose_run([*words, "batch_size=4"]).settings.batch_size == 4
    config, arguments = compose_search([*words, "search=random", "lr=interval(1e-3,1e-2)"])
    assert config.batch_size == 8
    assert "--config-name=mine" in prepare(config, arguments).fixed, "a trial composes from the same"
    assert "(there are" in override_faults(complete_overrides([*words, "optimizer=sgdd"]), CONF)[0]
    assert "batch_size" in render_help(CONF, complete_overrides(words))


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["inline", "process"])
def test_trials_of_a_search_find_what_the_command_line_found(lab: Path, isolation: str) -> None:
    words = [*FLAGS, "--config-name", "mine", "optimizer=slowsgd,adamw", "seed=0", "max_steps=1", "search.trials=1"]
    data = ["data=instruction", f"data.train={lab / 'instructions.jsonl'}", "search.test_best=false"]
    command = [sys.executable, "-m", "tunelab.cli.launch", "-m", *words, *data, *MODEL, *QUIET]
    more = [f"search.isolation={isolation}", "hydra.sweep.dir=study"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

    done = subprocess.run([*command, *more], cwd=lab, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr + done.stdout
    assert "batch_size: 8" in (lab / "study" / "0" / "config.yaml").read_text()


def test_a_plain_yaml_of_settings_is_trained_as_it_stands(lab: Path) -> None:
    (lab / "sft.yaml").write_text("model: scratch\nregularization: [l2, dropout]\nlr: 3e-5\nmax_steps: 7\n")

    run = compose_run(["sft.yaml", "seed=3"])

    assert (run.settings.lr, run.settings.max_steps, run.settings.seed) == (3e-5, 7, 3)
    assert run.settings.model.kind == "scratch"
    assert run.settings.regularization.dropout is not None
    assert sorted(path.name for path in lab.iterdir()) == ["cache", "conf", "instructions.jsonl", "sft.yaml"]
    (lab / "sft.yaml").write_text("lr: 1e-4\n")
    assert compose_run(["sft.yaml"]).settings.lr == 1e-4, "what it says now"
    for text, word in (
        ("optimzer: x\n", "did you mean 'optimizer'"),
        ("- a\n", "no settings"),
        ("a: [\n", "is no yaml"),
    ):
        (lab / "sft.yaml").write_text(text)
        with pytest.raises(ConfigError, match=word):
            compose_run(["sft.yaml"])


def test_an_experiment_in_a_folder_that_nobody_may_write_to_is_read(lab: Path) -> None:
    folder = lab / "shared"
    folder.mkdir()
    (folder / "fast.yaml").write_text("# @package _global_\nmax_steps: 3\n")
    folder.chmod(0o555)
    try:
        assert compose_run([f"experiment={folder}/fast"]).settings.max_steps == 3
    finally:
        folder.chmod(0o755)


def test_preview_finds_options_of_ones_own(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (lab / "conf" / "data").mkdir()
    yaml = "# Mine.\ndefaults: [instruction, _self_]\ntrain: instructions.jsonl # mine\n"
    (lab / "conf" / "data" / "mine.yaml").write_text(yaml)

    assert run_command(["preview", "hydra.searchpath=[file://conf]", "data=mine", "--rows", "1"]) == 0
    assert "instructions.jsonl" in capsys.readouterr().out


def test_flags_on_configs_become_words_that_processes_can_be_given(lab: Path) -> None:
    words = gather_flags(["lr=1", "-cn", "mine.yaml", "--config-dir=conf", "hydra.searchpath=[pkg://tunelab.starter]"])

    assert words == ["--config-name=mine", f"hydra.searchpath=[file://{lab}/conf,pkg://tunelab.starter]", "lr=1"]
    assert primary_config(words) == "mine"
    assert config_folders(words, CONF) == [CONF, lab / "conf", ROOT / "src" / "tunelab" / "starter"]
    with pytest.raises(ConfigError, match="no such folder"):
        gather_flags(["--config-dir", "missing"])
    with pytest.raises(ConfigError, match="has no value"):
        gather_flags(["lr=1", "--config-name"])

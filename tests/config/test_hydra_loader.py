"""A yaml or a folder from somebody else is read as values: Hydra executes, opens and writes nothing that it names."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from support.paths import ROOT
from support.tiny_runs import CONF, config
from tunelab.config.hydra_loader import unsafe_name_reason
from tunelab.config.overrides import complete_overrides
from tunelab.errors import ConfigError

GLOBAL = "# @package _global_\n"
SPAWN = "{_target_: setuptools._distutils.spawn.spawn, cmd: [touch, PWNED]}"
OPEN = '{"()": builtins.open, file: PWNED, mode: w}'
LOGGING = "{version: 1, handlers: {x: %s}, root: {handlers: [x]}}"
REFUSED = {  # yaml of a study -> what the refusal names
    f"{GLOBAL}hydra: {{callbacks: {{x: {SPAWN}}}}}": "hydra.callbacks",
    f"{GLOBAL}hydra: {{job_logging: {LOGGING % OPEN}}}": "hydra.job_logging",
    f"{GLOBAL}hydra: {{hydra_logging: {LOGGING % OPEN}}}": "hydra.hydra_logging",
    f"{GLOBAL}hydra: {{job_logging: {LOGGING % '{class: logging.FileHandler, filename: PWNED}'}}}": "hydra.job_logging",
    f"{GLOBAL}hydra: {{launcher: {SPAWN}}}": "hydra.launcher",
    f"{GLOBAL}hydra: {{mode: MULTIRUN, sweeper: {SPAWN}}}": "hydra.sweeper",
    f"{GLOBAL}hydra: {{job: {{env_set: {{LD_PRELOAD: x.so}}}}}}": "hydra.job",
    f"{GLOBAL}hydra: {{job: {{chdir: true}}}}": "hydra.job",
    f"{GLOBAL}hydra: {{run: {{dir: /somewhere}}}}": "hydra.run",
    f"{GLOBAL}hydra: {{output_subdir: ../../x}}": "hydra.output_subdir",
    f"{GLOBAL}hydra: {{sweep: {{dir: ../../x}}}}": "leads out of the output folder",
    f"{GLOBAL}hydra: {{sweep: {{dir: '${{oc.env:HOME}}/x'}}}}": "leads out of the output folder",
    f"{GLOBAL}hydra: {{verbose: true}}": "hydra.verbose",
    f"{GLOBAL}hydra: {{help: {{template: x}}}}": "hydra.help",
    f"{GLOBAL}hydra: {{searchpath: ['pkg://this']}}": "hydra.searchpath",
    f"{GLOBAL}hydra.callbacks: {{x: {SPAWN}}}": "hydra.callbacks",
    f"# @package hydra\ncallbacks: {{x: {SPAWN}}}": "hydra.callbacks",
    f"# @package hydra.callbacks\nx: {SPAWN}": "hydra.callbacks",
    f"{GLOBAL}defaults: [override /hydra/job_logging: default]\nlr: 1": "chooses hydra/job_logging",
    f"{GLOBAL}defaults: [/hydra/job_logging/default]\nlr: 1": "chooses hydra/job_logging/default",
    f"{GLOBAL}defaults: [/optimizer@hydra.callbacks.x: adamw]\nlr: 1": "hydra",
    f"{GLOBAL}defaults: [/experiment/other@_global_.hydra.callbacks]\nlr: 1": "hydra.callbacks",
    f"{GLOBAL}defaults: [override /hydra/launcher: evil]\nlr: 1": "hydra",
    f"{GLOBAL}hydra: {{mode: MULTIRUN, sweeper: {{params: {{hydra.run.dir: '/a,/b'}}}}}}": "varies hydra.run.dir",
    f"{GLOBAL}hydra: {{sweeper: {{params: {{+hydra/callbacks: 'a,b'}}}}}}": "varies +hydra/callbacks",
    f"{GLOBAL}hydra: {{sweeper: {{params: {{plugins: 'a,b'}}}}}}": "varies plugins",
    f"{GLOBAL}search: {{executor_options: {{slurm_setup: [touch PWNED]}}}}": "search.executor_options",
    f"{GLOBAL}search: {{storage: 'sqlite:////tmp/x'}}": "search.storage",
    f"{GLOBAL}name: ../../x": "name='../../x' holds a slash",
}


def compose_beside(folder: Path, *overrides: str) -> DictConfig:
    """What a command line composes to, as Hydra's start does: its own keys too."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        words = complete_overrides([f"experiment={folder}/best", *overrides])
        return compose("config", overrides=words, return_hydra_config=True)


@pytest.mark.parametrize(("text", "named"), REFUSED.items(), ids=list(REFUSED.values()))
def test_a_yaml_of_a_study_sets_nothing_of_hydras_own(text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "best.yaml").write_text(f"{text}\n")
    for place in ("hydra/launcher/evil.yaml", "experiment/other.yaml"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_text(f"x: {SPAWN}\n")

    with pytest.raises(Exception) as refused:
        compose_beside(tmp_path)

    assert named in str(refused.value), refused.value
    assert isinstance(refused.value, ConfigError) or named == "hydra.searchpath"  # which Hydra itself refuses


def test_a_yaml_of_a_study_may_set_what_a_sweep_varies(tmp_path: Path) -> None:
    (tmp_path / "best.yaml").write_text(
        f"{GLOBAL}defaults: [override /optimizer: sgd]\nlr: 0.5\n"
        "hydra: {mode: MULTIRUN, sweep: {dir: outputs/mine}, sweeper: {params: {batch_size: '8,16'}}}\n"
    )
    composed = compose_beside(tmp_path)

    assert (composed.lr, composed.optimizer._target_) == (0.5, "torch.optim.SGD")
    assert composed.hydra.sweep.dir == "outputs/mine" and composed.hydra.sweeper.params == {"batch_size": "8,16"}


@pytest.mark.parametrize(
    "word",
    [
        "+hydra.callbacks.x={_target_: builtins.open, file: PWNED, mode: w}",
        "+hydra.callbacks.x={_target_: this.x}",
        "hydra.launcher._target_=os.system",
        "hydra.sweeper._target_=this.x",
        "+hydra.job_logging.handlers.x={class: this.x}",
        "+hydra.job_logging.handlers.x={class: logging.StreamHandler, stream: 'ext://this.x'}",
        "+hydra.callbacks.x={_target_: '${oc.env:HOME}'}",
    ],
)
def test_what_is_typed_names_no_class_outside_the_allow_list_either(word: str) -> None:
    with pytest.raises(ConfigError, match="is not allowed"):
        config(word)


def test_logging_and_folders_of_ones_own_may_be_typed() -> None:
    words = ["hydra/job_logging=default", "hydra.run.dir=/elsewhere/x", "hydra.job.chdir=false", "hydra.verbose=true"]
    assert config(*words).lr > 0


@pytest.mark.parametrize(
    "flag", ["--experimental-rerun=x.pkl", "--exp", "-cp", "-cp=/x", "--config-path=/x", "-cn=../x", "--config-name=/x"]
)
def test_a_flag_that_reads_settings_past_the_checks_is_refused(flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        complete_overrides([flag, "/tmp/x"])


def test_a_primary_config_has_no_package_searched_for_yamls(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("defaults: [config, _self_]\nhydra: {searchpath: ['pkg://this']}\n")

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(tmp_path), version_base="1.3"), pytest.raises(ConfigError, match=r"pkg://this"):
        compose("mine")

    assert "this" not in sys.modules


def test_names_of_folders_lead_nowhere_else() -> None:
    keys = ["name", "hydra.output_subdir", "hydra.sweep.subdir", "hydra.job.name"]

    with pytest.raises(ConfigError) as refused:
        config(*(f"{key}='../../x'" for key in keys))

    assert all(f"{key}='../../x'" in str(refused.value) for key in keys)


@pytest.mark.parametrize("name", ["default", "名前", "a b", "lr=3e-5", ".hidden", "v1.2"])
def test_plain_names_are_taken(name: str) -> None:
    assert unsafe_name_reason(name) is None


@pytest.mark.parametrize(
    "name", ["", " a", "a\n", "\x1b[2J", "~", "-m", "n" * 300, ".", "..", "../x", "/x", "a/b", "a\\b"]
)
def test_what_is_no_name_of_a_folder_is_said(name: str) -> None:
    assert unsafe_name_reason(name) is not None


def test_hydra_starts_nothing_that_a_yaml_names(tmp_path: Path) -> None:
    spawn = SPAWN.replace("PWNED", f"{tmp_path}/P")
    (tmp_path / "best.yaml").write_text(f"{GLOBAL}hydra: {{callbacks: {{x: {spawn}}}}}")
    (tmp_path / "here").mkdir()

    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), f"experiment={tmp_path}/best", "max_steps=1"],
        cwd=tmp_path / "here", capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 2 and "hydra.callbacks" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "P").exists() and not list((tmp_path / "here").iterdir())


LINES = [
    ["optimizer=sgd", "lr=1e-2"],
    ["experiment=starter_pretrain", "+regularization.mine={a: 1}", "~logger"],
    ["name=mine", "hydra.run.dir=somewhere/${name}", "regularization=[dropout,ema]", "search=bayes"],
]


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_the_config_that_is_composed_once_is_the_one_that_hydra_composes_anew(words: list[str]) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        anew = hydra.compose_config("config", [*words, "hydra.mode=RUN"], RunMode.RUN)
        typed = [*words]
        assert hydra.get_mode("config", typed) is None
        typed.append("hydra.mode=RUN")  # as Hydra does, to the very list
        once = hydra.compose_config("config", typed, RunMode.RUN)
        again = hydra.compose_config("config", typed, RunMode.RUN)

    assert OmegaConf.to_container(once) == OmegaConf.to_container(anew)
    assert list(once) == list(anew)  # the order of keys is that of config.yaml in a run folder
    assert OmegaConf.is_struct(once) and once.hydra.mode is RunMode.RUN
    assert again is not once and OmegaConf.to_container(again) == OmegaConf.to_container(anew)


def test_a_choice_of_values_without_a_search_is_refused_though_the_config_was_composed() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        hydra.get_mode("config", ["lr=1e-3,1e-4"])
        with pytest.raises(HydraException, match="Ambiguous value"):
            hydra.compose_config("config", ["lr=1e-3,1e-4", "hydra.mode=RUN"], RunMode.RUN)


def test_other_words_than_those_of_the_mode_are_composed_anew() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        hydra.get_mode("config", ["lr=1e-3"])
        other = hydra.compose_config("config", ["lr=1e-4", "hydra.mode=RUN"], RunMode.RUN)

    assert other.lr == 1e-4

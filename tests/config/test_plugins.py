"""A class of a package outside may be named once the command line, the environment or an installed package says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from support import warm_processes
from support.paths import ROOT
from support.tiny_runs import CONF, config, settings
from tunelab.config import plugins
from tunelab.config.instantiate import import_target
from tunelab.config.overrides import complete_overrides
from tunelab.errors import ConfigError
from tunelab.training.callbacks.checkpointing import LastCheckpoint
from tunelab.training.trainer import build_configured_callbacks

LAB = """
from lightning.pytorch.callbacks import Callback

class Bell(Callback):
    def __init__(self, loudness: float = 1.0) -> None:
        self.loudness = loudness

class Thing:
    pass
"""
BELL = "+callbacks.bell={_target_: mylab.bells.Bell, loudness: 2.0}"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a package of somebody's own, importable; no package is allowed yet."""
    (tmp_path / "mylab").mkdir()
    (tmp_path / "mylab" / "__init__.py").write_text("")
    (tmp_path / "mylab" / "bells.py").write_text(LAB)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(plugins, "_packages", [])
    monkeypatch.delenv(plugins.VARIABLE, raising=False)
    for name in [name for name in sys.modules if name.startswith("mylab")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


@pytest.mark.usefixtures("lab")
def test_a_package_on_the_command_line_may_be_named_from_then_on() -> None:
    with pytest.raises(ConfigError, match=r"not allowed.*plugins=\[mylab\]"):
        import_target("mylab.bells.Bell")

    assert complete_overrides(["lr=0.1", "plugins=[mylab]"]) == ["lr=0.1"]  # Hydra, and so every file, never sees it

    assert import_target("mylab.bells.Bell").__name__ == "Bell"
    assert os.environ[plugins.VARIABLE] == "mylab"  # for the trials of a search


@pytest.mark.usefixtures("lab")
def test_a_callback_of_ones_own_is_built_with_its_arguments_and_runs_before_the_checkpoints() -> None:
    complete_overrides(["plugins=mylab"])
    run = settings(BELL, "+callbacks.timer={_target_: lightning.pytorch.callbacks.Timer}")

    bell, timer = build_configured_callbacks(run.callbacks)

    assert (type(bell).__name__, bell.loudness, type(timer).__name__) == ("Bell", 2.0, "Timer")  # type: ignore[attr-defined]
    assert list(run.as_dict()["callbacks"])[-2:] == ["bell", "timer"]  # type: ignore[call-overload]
    assert LastCheckpoint not in map(type, (bell, timer))


@pytest.mark.usefixtures("lab")
def test_wrong_callbacks_are_refused_by_name() -> None:
    complete_overrides(["plugins=[mylab]"])
    for word, message in (
        (BELL.replace("loudness", "loudnes"), "callbacks.bell.loudnes is unknown .* did you mean 'loudness'"),
        (BELL.replace("Bell,", "Bel,"), "callbacks.bell: _target_ 'mylab.bells.Bel' does not exist"),
        ("+callbacks.bell=3", "callbacks.bell is no setting"),
        ("+callbacks.bell={loudness: 3}", "callbacks.bell is no setting"),
    ):
        with pytest.raises(ConfigError, match=message):
            settings(word)
    with pytest.raises(ConfigError, match=r"callbacks.bell: mylab.bells.Thing is no Lightning callback"):
        build_configured_callbacks(settings("+callbacks.bell={_target_: mylab.bells.Thing}").callbacks)


def test_a_callback_may_be_a_file_of_the_group(lab: Path) -> None:
    complete_overrides(["plugins=[mylab]"])
    (lab / "conf" / "callbacks").mkdir(parents=True)
    (lab / "conf" / "callbacks" / "bell.yaml").write_text("bell:\n  _target_: mylab.bells.Bell\n  loudness: 3.0\n")
    from tunelab.config.validate import validate_config

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        words = ["callbacks=[default,bell]", f"hydra.searchpath=[file://{lab / 'conf'}]"]
        run = validate_config(compose("config", overrides=words))

    assert run.callbacks.patience == 3
    assert {name: target.arguments for name, target in run.callbacks.targets.items()} == {"bell": {"loudness": 3.0}}


@pytest.mark.usefixtures("lab")
def test_a_config_can_never_add_a_package() -> None:
    with pytest.raises(ConfigError, match="'plugins' is no setting"):
        settings("+plugins=[mylab]")
    os.environ[plugins.VARIABLE] = "mylab"  # as Hydra's hydra.job.env_set in a file would, after the start
    with pytest.raises(ConfigError, match="not allowed"):
        settings(BELL)
    assert plugins.VARIABLE not in os.environ  # child processes do not get it either


@pytest.mark.parametrize("value", ["[os.system()]", "[../evil]"])
def test_what_is_no_package_name_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="is no package"):
        complete_overrides([f"plugins={value}"])


def test_the_environment_names_packages_too(lab: Path) -> None:
    code = "from tunelab.config.instantiate import import_target; print(import_target('mylab.bells.Bell').__name__)"
    path = os.pathsep.join([str(ROOT / "src"), str(lab)])
    for packages, status in (("mylab, other", 0), ("other", 1)):
        environment = {**os.environ, plugins.VARIABLE: packages, "PYTHONPATH": path}
        done = warm_processes.run(["-c", code], env=environment)
        assert done.returncode == status, done.stderr


def test_a_misspelt_key_beside_our_flags_is_no_callback() -> None:
    with pytest.raises(ConfigError, match="callbacks.patince is no setting; did you mean 'patience'"):
        settings("+callbacks.patince=3")
    assert config().callbacks.patience == 3


def test_a_stored_study_cannot_add_a_package_either() -> None:
    assert plugins.refuse_process_keys(["lr=0.1", "model=scratch"]) == ["lr=0.1", "model=scratch"]
    odd = ["+plugins=[mylab]", "hydra.run.dir=/x", "+hydra.callbacks.x._target_=os.system", "hydra/launcher=evil"]
    for override in [*odd, "--experimental-rerun=x.pkl", "-m", "~hydra", "hydra.searchpath=[pkg://this]"]:
        with pytest.raises(ConfigError, match="stands in a stored study"):
            plugins.refuse_process_keys(["lr=0.1", override])


def test_a_package_in_the_folder_where_it_was_named_is_found_from_another_folder(tmp_path: Path) -> None:
    (tmp_path / "mylab").mkdir()
    (tmp_path / "mylab" / "__init__.py").write_text("HERE = True")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mylab.py").write_text("raise SystemExit(9)")
    code = "import os, sys, tunelab.config.plugins as p; p.allow_plugins(sys.argv[1:]); os.chdir('elsewhere')\n"
    code += "os.execv(sys.executable, [sys.executable, '-P', '-c', 'import tunelab.config.plugins, mylab'])"
    places = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    places.pop(plugins.VARIABLE, None)

    done = subprocess.run([sys.executable, "-P", "-c", code, "plugins=[mylab]"], cwd=tmp_path, env=places)

    assert done.returncode == 0

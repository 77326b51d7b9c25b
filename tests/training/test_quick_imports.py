"""Packages load without what they bring and nobody here uses, and who does use it gets it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tunelab.training.quick_imports import put_off


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a package with a module `slow`, which holds `used` and `other`."""
    name = "putoffpackage"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / name / "slow.py").write_text("used = 'the real one'\nother = 'real too'\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        del sys.modules[module]


def test_a_module_that_is_put_off_is_not_imported_and_is_there_afterwards(package: str) -> None:
    with put_off(f"{package}.slow", used="the stand-in"):
        names: dict[str, Any] = {}
        exec(f"from {package}.slow import used", names)
    assert names["used"] == "the stand-in"
    assert f"{package}.slow" not in sys.modules

    exec(f"import {package}.slow as slow", names)
    assert names["slow"].used == "the real one"


def test_a_name_that_the_stand_in_lacks_imports_the_module_after_all(package: str) -> None:
    # as where another release of a package begins to use more of it
    with put_off(f"{package}.slow", used="the stand-in"):
        names: dict[str, Any] = {}
        exec(f"from {package}.slow import other\nfrom {package}.slow import used", names)

    assert (names["other"], names["used"]) == ("real too", "the real one")
    assert sys.modules[f"{package}.slow"].other == "real too"


def test_a_module_that_is_there_already_is_left_alone(package: str) -> None:
    names: dict[str, Any] = {}
    exec(f"import {package}.slow as slow", names)

    with put_off(f"{package}.slow", used="the stand-in"):
        assert sys.modules[f"{package}.slow"] is names["slow"]
    assert names["slow"].used == "the real one"


def test_a_fault_meanwhile_leaves_no_stand_in(package: str) -> None:
    with pytest.raises(ZeroDivisionError), put_off(f"{package}.slow", used=1):
        raise ZeroDivisionError
    assert f"{package}.slow" not in sys.modules


LEAN = """
import sys
import tunelab.training.components, tunelab.training.evaluate_run, tunelab.training.load_run
import tunelab.generation.prediction
heavy = {"lightning", "scipy.signal", "scipy.optimize", "scipy.stats", "sklearn", "pandas", "optuna"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)  # what predict, evaluate and preview load

import tunelab.training.run
left_out = {*heavy, "tunelab.training.finders.run_finder", "tunelab.report.render"} - {"lightning"}
assert not left_out & set(sys.modules), left_out & set(sys.modules)  # what a training loads

import scipy.signal
assert scipy.signal.windows.hamming(3)[1] == 1.0
import numpy as np
from transformers.loss.loss_for_object_detection import linear_sum_assignment
assert [row.tolist() for row in linear_sum_assignment(np.array([[4, 1], [2, 8]]))] == [[0, 1], [1, 0]]
import scipy.optimize
assert scipy.optimize.linear_sum_assignment.__module__.startswith("scipy")
"""


def test_commands_load_no_lightning_and_trainings_no_scipy_which_others_get_when_they_ask() -> None:
    subprocess.run([sys.executable, "-c", LEAN], check=True)

"""Every verdict of the doctor is provoked by a real run, and reported with its figure."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import Callback

from support.failing_runs import (
    CONSTANT,
    Leak,
    Spoil,
    alike,
    asked,
    faint,
    few_words,
    first_word,
    kill,
    loud,
    poison,
    scored,
    shake,
    texts,
    told,
    trained,
    uneven,
)
from support.tiny_runs import labelled
from tunelab.analysis.doctor import DOCTOR_CHECKS
from tunelab.errors import Diverged
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.run_diagnosis import diagnose_run

Made = tuple[list[str], list[Callback]]
LONG = ["callbacks.early_stopping=false"]

PROVOKED: dict[str, Callable[[Path], Made]] = {
    "rate_too_high": lambda tmp: (asked(tmp, "lr=1", *CONSTANT), []),
    "rate_too_low": lambda tmp: (asked(tmp, "lr=1e-9"), []),
    "under_trained": lambda tmp: (asked(tmp, "lr=2e-3", "max_epochs=3", *CONSTANT), []),
    "warm_up_unfinished": lambda tmp: (asked(tmp, "scheduler.warmup=1000"), []),
    "over_fitted": lambda tmp: (
        told(tmp, texts(48, lambda i, draw: draw.choice("ab")), "lr=1e-2", "max_epochs=25", *LONG),
        [],
    ),
    "vanishing_gradients": lambda tmp: (asked(tmp, "optimizer=sgd", "lr=1e-3"), [Spoil(faint, 0)]),
    "exploding_gradients": lambda tmp: (asked(tmp, "lr=1e-3"), [Spoil(loud, 0)]),
    "imbalanced_classes": lambda tmp: (told(tmp, texts(60, lambda i, draw: "ab"[i % 20 == 0])), []),
    "majority_class": lambda tmp: (
        told(tmp, alike(60), "data.max_tokens=4", "max_epochs=3"),
        [],
    ),
    "mean_only": lambda tmp: (scored(tmp, texts(60, lambda i, draw: draw.random(), "number"), "lr=1e-4"), []),
    "noisy_validation": lambda tmp: (
        told(
            tmp,
            texts(40, lambda i, draw: draw.choice("ab")),
            "lr=1e-2",
            "max_epochs=12",
            "monitor=val/accuracy",
            "callbacks.patience=100",
            *CONSTANT,
        ),
        [],
    ),
    "loss_spikes": lambda tmp: (asked(tmp, "lr=3e-3", "max_epochs=16", *LONG), [Spoil(shake, 30, 40, back=True)]),
    "dead_units": lambda tmp: (asked(tmp, "model.activation=relu", "lr=1e-6"), [Spoil(kill, 0)]),
    "leaked_rows": lambda tmp: (first_word(tmp, f"data.validation={labelled(tmp, 120)}", "max_epochs=1"), []),
    "cut_rows": lambda tmp: (first_word(tmp, "data.max_tokens=3", "max_epochs=1"), []),
    "unknown_text": lambda tmp: (first_word(tmp, f"model.tokenizer={few_words(tmp)}", "max_epochs=1"), []),
    "padding": lambda tmp: (told(tmp, uneven(64, 60), "max_epochs=1", "data.packing=false"), []),
    "memory_leak": lambda tmp: (asked(tmp, "max_epochs=8", *LONG), [Leak()]),
}


LONG_RUNS = {"over_fitted", "memory_leak", "loss_spikes"}  # they take some epochs to show


@pytest.mark.parametrize(
    "verdict", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG_RUNS)) for name in PROVOKED]
)
def test_a_failure_is_recognised(
    verdict: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if verdict == "padding":
        monkeypatch.setattr(
            "tunelab.training.components.PASS_COST", {}
        )  # rows are laid out as on a GPU; a CPU spares pads
    given, callbacks = PROVOKED[verdict](tmp_path)
    folder = trained(tmp_path, given, *callbacks)

    left = json.loads(folder.doctor_findings.read_text())
    found = {finding["verdict"]: finding for finding in left["findings"]}
    assert verdict in found, (list(found), folder.read_curves()[-1])
    assert f"{verdict}: {found[verdict]['says']}" in capsys.readouterr().out
    assert found[verdict]["attempt"] and isinstance(found[verdict]["value"], int | float)
    assert [finding.verdict for finding in diagnose_run(folder, write=False)] == list(found)


@pytest.mark.parametrize("kind", ["stop", "skip"])
def test_steps_that_are_not_finite_are_recognised(kind: str, tmp_path: Path) -> None:
    given = asked(tmp_path, f"callbacks.on_nonfinite={kind}", "data.split.validation=0")
    if kind == "stop":
        with pytest.raises(Diverged):
            trained(tmp_path, given, Spoil(poison, 4))
    else:
        trained(tmp_path, given, Spoil(poison, 4, back=True))

    (found,) = [f for f in diagnose_run(RunDirectory(tmp_path / "run"), write=False) if f.verdict == "non_finite"]
    assert found.value == 1 and ("step 4" in found.message if kind == "stop" else "1 step was skipped" in found.message)


def test_every_verdict_is_provoked() -> None:
    assert {*PROVOKED, "non_finite"} == {*DOCTOR_CHECKS}


def test_a_finding_is_told_while_the_run_goes_on_and_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path, asked(tmp_path, "lr=1", "max_epochs=4", *CONSTANT, *LONG))

    out = capsys.readouterr().out
    assert out.count("rate_too_high:") == 2  # when it first shows, and at the end
    assert "doctor at step 6" in out

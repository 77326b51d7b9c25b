"""A run that goes on, or is used, on what it was trained on: base weights, data, length, best checkpoint."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from support.paths import ROOT
from support.tiny_runs import MODEL, QUIET, config, instructions, labelled, settings, write
from tunelab.config.resume import resume_config
from tunelab.config.validate import validate_config
from tunelab.errors import ConfigError, DataError, Diverged, TuneLabError
from tunelab.runs.base_weights import allow_changed_base
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.load_run import load_run
from tunelab.training.run import fine_tune

STARTER = ROOT / "src" / "tunelab" / "starter" / "model"
SHORT = [*QUIET, "batch_size=8", "eval.generate=false", "callbacks.early_stopping=false", "test=false", "save=false"]


def trained(place: Path, *words: str) -> RunDirectory:
    """A run of two epochs on instructions, with a validation file of its own."""
    shutil.copy(instructions(place), place / "validation.jsonl")
    data = [f"data.train={instructions(place)}", f"data.validation={place / 'validation.jsonl'}", "data.split.test=0"]
    fine_tune(settings("data=instruction", *data, *SHORT, "max_epochs=2", *words), place / "run")
    return RunDirectory(place / "run")


def go_on(run: RunDirectory, *words: str) -> None:
    """The run resumed with these words, as the command line does it."""
    typed = [f"resume={run.root}", *words]
    fine_tune(validate_config(resume_config(config(*typed), typed)), run.root, overrides=typed)


def files_of(run: RunDirectory) -> dict[str, bytes]:
    """The content of every file of a run but its lock."""
    return {p.name: p.read_bytes() for p in run.root.rglob("*") if p.is_file() and not p.name.endswith(".lock")}


def change_weights(base: Path) -> None:
    """Other weights of the same shapes."""
    weights = load_file(base / "model.safetensors")
    name = next(name for name in weights if name.endswith("down_proj.weight"))
    save_file({**weights, name: -weights[name]}, base / "model.safetensors", {"format": "pt"})


def test_an_adapter_refuses_base_weights_that_changed_until_that_is_allowed(tmp_path: Path) -> None:
    base = Path(shutil.copytree(STARTER, tmp_path / "base"))
    run = trained(tmp_path, "model=pretrained", f"model.path={base}", "adapter=lora")
    before = run.read_manifest()["model"]["sha256"]
    assert load_run(run.root).note is None
    change_weights(base)
    files = files_of(run)
    with pytest.raises(ConfigError, match=r"base weights in .* changed since .*--allow-changed-base"):
        load_run(run.root)
    with pytest.raises(ConfigError, match="changed since the run began .*allow_changed_base=true"):
        go_on(run, "max_epochs=3")
    assert files_of(run) == files
    allow_changed_base(True)
    try:
        assert "changed since the training" in str(load_run(run.root).note)
    finally:
        allow_changed_base(False)
    go_on(run, "max_epochs=3", "allow_changed_base=true")
    model = run.read_manifest()["model"]
    assert model["sha256"] == before != model["changed_sha256"]
    with pytest.raises(ConfigError, match="base weights"):  # the hash of the first session still counts
        load_run(run.root)


def test_a_run_that_trained_all_weights_does_not_ask_for_its_base(tmp_path: Path) -> None:
    base = Path(shutil.copytree(STARTER, tmp_path / "base"))
    run = trained(tmp_path, "model=pretrained", f"model.path={base}")
    change_weights(base)
    assert load_run(run.root).note is None


def test_changed_data_a_shorter_run_and_a_longer_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, *MODEL)
    files = files_of(run)
    for words, reason in ((["max_epochs=1"], "begun 2 epochs"), (["max_steps=3"], "done 6 steps")):
        with pytest.raises(ConfigError, match=reason):
            go_on(run, *words)
        assert files_of(run) == files
    validation = tmp_path / "validation.jsonl"
    rows = validation.read_text()
    validation.write_text("".join(rows.splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match=r"validation\.jsonl changed since the run began"):
        go_on(run, "max_epochs=3")
    assert files_of(run) == files
    validation.write_text(rows)
    capsys.readouterr()
    go_on(run, "max_epochs=3")
    note = "planned 6 steps before and 9 now"
    assert note in capsys.readouterr().out and note in str(run.read_manifest()["model"]["notes"])


def test_a_best_checkpoint_that_is_gone_is_told_and_its_score_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(tmp_path, *MODEL, "lr=1", "scheduler=constant")  # worse from epoch to epoch
    lost = run.read_manifest()["best"]
    run.best.unlink()
    capsys.readouterr()
    go_on(run, "max_epochs=3")
    assert "best.ckpt is gone" in capsys.readouterr().out
    manifest = run.read_manifest()
    assert "best.ckpt is gone" in str(manifest["model"]["notes"])
    assert manifest["best"]["step"] == 9 > lost["step"]
    assert manifest["best"]["value"] == pytest.approx(run.read_scores()["val/loss"], rel=1e-5)


@pytest.mark.parametrize(("number", "scaled"), [("1e308", "true"), ("1e30", "false"), ("-1e25", "true")])
def test_a_target_beyond_single_precision_names_file_and_line(number: str, scaled: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [json.loads(line) for line in labelled(tmp_path).read_text().splitlines()]
    rows[6]["number"] = float(number)
    file = write(tmp_path / "numbers.jsonl", rows)
    words = ["data=regression", f"data.train={file}", "data.text=text", "data.target=number", *MODEL, *SHORT]
    with pytest.raises(DataError, match=r"numbers\.jsonl line 7: column 'number' holds .*single"):
        fine_tune(settings(*words, f"data.standardise={scaled}", "data.split.test=0"), tmp_path / "run")


def test_a_monitored_score_that_is_no_number_at_the_end_is_a_diverged_run(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "number": float(i % 7)} for i in range(40)]
    file = write(tmp_path / "numbers.jsonl", rows)
    same = write(tmp_path / "same.jsonl", [{"text": f"other {i}", "number": 3.0} for i in range(8)])
    words = ["data=regression", f"data.train={file}", f"data.validation={same}", "data.text=text",
             "data.target=number", *MODEL, *SHORT, "data.split.test=0", "max_epochs=1",
             "monitor=val/pearson"]  # fmt: skip
    with pytest.raises(Diverged, match=r"val/pearson is nan at the end") as fault:
        fine_tune(settings(*words), tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    assert fault.value.exit_status == TuneLabError.exit_status == 1
    assert run.read_manifest()["status"] == "diverged" and not run.export.exists()
    assert math.isnan(run.read_scores()["val/pearson"])


@pytest.mark.parametrize(
    "word",
    [
        "callbacks.min_delta=nan",
        "lr=inf",
        "trainer.gradient_clip_val=nan",
        "optimizer.betas=[0.9,nan]",
        "optimizer.eps=inf",
        "scheduler.warmup=nan",
        "regularization.dropout=nan",
    ],
)
def test_no_setting_takes_a_number_that_is_none(word: str) -> None:
    with pytest.raises(ConfigError, match=word.partition("=")[0].replace(".", r"\.")):
        settings("data=instruction", "data.train=x.jsonl", word)

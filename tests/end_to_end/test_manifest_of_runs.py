"""Manifests of real runs: complete however they end, and without a secret anywhere in their folder."""

import hashlib
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from support.tiny_runs import QUIET, config, instructions, settings
from tunelab.config.resource_paths import resolve_path
from tunelab.config.resume import resume_config
from tunelab.config.validate import validate_config
from tunelab.errors import ConfigError
from tunelab.runs.file_digests import sha256_folder
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.callbacks.checkpointing import StopAtStep
from tunelab.training.run import fine_tune

IN_THE_ENVIRONMENT, ON_THE_COMMAND_LINE = "canary-in-the-environment", "canary-on-the-command-line"


def contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file of a folder, those inside of checkpoints unpacked."""
    for file in folder.rglob("*"):
        if file.is_file():
            yield file, str(file).encode() + file.read_bytes()
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    yield from ((file / name, archive.read(name)) for name in archive.namelist())


def test_a_run_that_was_stopped_and_gone_on_with_tells_all_but_its_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a secret in the environment, which a setting repeats, and one on the command line
    monkeypatch.setenv("TRACKER_API_KEY", IN_THE_ENVIRONMENT)
    monkeypatch.setattr(
        "sys.argv", ["train.py", f"+search.executor_options.api_key={ON_THE_COMMAND_LINE}", IN_THE_ENVIRONMENT]
    )
    file = instructions(tmp_path, 40)
    given = [
        "data=instruction",
        f"data.train={file}",
        f"+search.executor_options.api_key={ON_THE_COMMAND_LINE}",
        *QUIET,
    ]
    given += [f"name={IN_THE_ENVIRONMENT}", "batch_size=8", "max_epochs=2", "data.split.validation=0.2", "test=true"]
    folder = RunDirectory(tmp_path / "run")

    # When it is stopped
    with pytest.raises(SystemExit):
        fine_tune(settings(*given), folder.root, overrides=given, callbacks=[StopAtStep(2)])

    # Then its manifest says how far it came and how to go on
    card = folder.read_manifest()
    assert (card["status"], card["best"]) == ("pre-empted", None)
    assert "resume goes on" in card["reason"]
    assert card["seconds"] > 0

    # When it goes on to its end
    words = [f"resume={folder.root}"]
    fine_tune(validate_config(resume_config(config(*given, *words), words)), folder.root, overrides=words)

    # Then the manifest holds what a number rests on
    card = folder.read_manifest()
    assert (card["status"], card["reason"], card["resumed_at"]) == ("finished", None, 2)
    assert card["best"]["step"] in (3, 4, 6, 8, 7) and card["best"]["monitor"] == "val/loss"
    assert {"train", "val", "test"} <= set(card["scores"])
    assert card["scores"]["val"]["loss"] == pytest.approx(card["best"]["value"], rel=1e-4)
    assert card["scores"]["test"] == {
        name.removeprefix("test/"): value for name, value in folder.read_scores().items() if name.startswith("test/")
    }
    assert card["data"]["files"] == {str(file): hashlib.sha256(file.read_bytes()).hexdigest()}
    base = resolve_path(card["config"]["model"]["path"])
    assert base is not None and card["model"]["sha256"] == sha256_folder(base)
    assert card["results"]["predictions_sha256"] == hashlib.sha256(folder.predictions.read_bytes()).hexdigest()
    assert card["packages"]["transformers"] == version("transformers")
    assert card["seeds"] == {"global": 0}
    assert len(card["sessions"]) == 1 and card["sessions"][0]["status"] == "pre-empted"

    # and no file of the run holds a secret, exports and checkpoints included
    leaks = [str(path) for path, content in contents(folder.root) if b"canary-" in content]
    assert leaks == []


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    file = instructions(tmp_path)
    with pytest.raises(ConfigError):
        fine_tune(settings("data=instruction", f"data.train={file}", *QUIET, "monitor=val/nothing"), tmp_path / "run")

    card = RunDirectory(tmp_path / "run").read_manifest()
    assert card["status"] == "failed"
    assert "monitor=val/nothing" in card["reason"]

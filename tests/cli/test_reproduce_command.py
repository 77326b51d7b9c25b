"""`tunelab reproduce`, on real runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.tiny_runs import MODEL, QUIET, instructions, labelled, settings
from tunelab.config.resume import resume_config
from tunelab.config.validate import validate_config
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.callbacks.checkpointing import StopAtStep
from tunelab.training.run import fine_tune

Talk = Callable[..., tuple[int, str, str]]


@pytest.fixture
def gone_on(place: Path, tmp_path: Path) -> RunDirectory:
    """LoRA on labels, stopped in the middle of an epoch and gone on with for more epochs."""
    file = labelled(place)
    given = ["data=classification", f"data.train={file}", f"data.test={file}", "data.text=text", "data.label=label"]
    given += [*MODEL, "adapter=lora", "data.split.validation=0.2", "batch_size=8", "max_epochs=2", *QUIET, "save=false"]
    folder = tmp_path / "gone_on"
    with pytest.raises(SystemExit):
        fine_tune(settings(*given), folder, callbacks=[StopAtStep(8)])
    from support.tiny_runs import config

    words = [f"resume={folder}", "max_epochs=3"]
    fine_tune(validate_config(resume_config(config(*given, *words), words)), folder)
    assert RunDirectory(folder).read_manifest()["resumed_at"] == 8
    return RunDirectory(folder)


@pytest.mark.slow
def test_a_resumed_run_is_made_again_bit_for_bit_from_its_card_alone(
    gone_on: RunDirectory, tmp_path: Path, tunelab: Talk
) -> None:
    # Given nothing but the manifest of a run that was given more epochs half-way
    alone = tmp_path / "run.json"
    shutil.copy(gone_on.manifest, alone)
    shutil.rmtree(gone_on.root)

    # When it is repeated
    status, out, err = tunelab("reproduce", alone, "--output", tmp_path / "again")

    # Then not a bit differs
    assert (status, err) == (0, "")
    assert "identical" in out.splitlines()
    assert "2 trainings one after another" in out
    assert json.loads((tmp_path / "again" / "reproduction.json").read_text())["identical"] is True
    assert RunDirectory(tmp_path / "again").read_manifest()["results"] == json.loads(alone.read_text())["results"]


def test_only_what_changed_is_told_without_training(
    classification: RunDirectory, tmp_path: Path, tunelab: Talk
) -> None:
    assert tunelab("reproduce", classification.root, "--check")[0] == 0
    card = classification.read_manifest()
    card["packages"]["torch"] = "1.0"
    (name,) = {*card["data"]["files"]}
    card["data"]["files"][name] = "0" * 64
    (tmp_path / "run.json").write_text(json.dumps(card))

    status, out, _ = tunelab("reproduce", tmp_path / "run.json", "--check")

    assert status == 3
    assert "data changed" in out and "torch was 1.0" in out


def test_what_is_no_run_is_told(tmp_path: Path, tunelab: Talk) -> None:
    status, _, err = tunelab("reproduce", tmp_path)

    assert status == 2
    assert "is no run" in err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["instruction", "classification", "regression", "adapted"])
def test_every_kind_of_run_is_made_again_bit_for_bit(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, tunelab: Talk
) -> None:
    folder: RunDirectory = request.getfixturevalue(kind)

    status, out, _ = tunelab("reproduce", folder.root, "--output", tmp_path / "again")

    assert status == 0, out
    assert "identical" in out.splitlines()


@pytest.mark.slow
def test_other_data_give_status_3_and_a_place_in_the_seed_spread(place: Path, tmp_path: Path, tunelab: Talk) -> None:
    # Given a run whose training file has changed since
    file = labelled(tmp_path)
    given = ["data=classification", f"data.train={file}", "data.text=text", "data.label=label", *MODEL]
    small: list[Any] = ["data.split.validation=0.2", "batch_size=8", "max_epochs=1", *QUIET, "save=false"]
    fine_tune(settings(*given, *small), tmp_path / "run")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[1:], *lines[:1]]))

    # When it is repeated, with two more seeds
    status, out, _ = tunelab("reproduce", tmp_path / "run", "--output", tmp_path / "again", "--seeds", 2)

    # Then the data are named, and each score that moved has its place
    assert status == 3
    assert "data changed" in out
    assert "the weights differ" in out
    assert "seed spread" in out
    assert len(list(tmp_path.glob("again_seed_*"))) == 2


def test_a_faulty_instruction_file_is_the_users_mistake(place: Path, tmp_path: Path, tunelab: Talk) -> None:
    file = instructions(tmp_path)
    fine_tune(settings("data=instruction", f"data.train={file}", *MODEL, *QUIET, "max_steps=1"), tmp_path / "run")
    file.unlink()

    status, _, err = tunelab("reproduce", tmp_path / "run", "--output", tmp_path / "again")

    assert status == 2
    assert "must be in place" in err

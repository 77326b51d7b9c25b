"""Exports made again: the same bytes, checked by a stranger, refused where they would be another model."""

import json
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from support import warm_processes
from support.tiny_runs import instructions, labelled
from tunelab.errors import TuneLabError
from tunelab.export import run_export
from tunelab.export.run_export import check_export, probe_trained_model
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.load_run import load_run


@pytest.fixture
def forked_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports are loaded in a forked process, which is spared the imports; other tests load one in a new process."""

    def run(command: list[str], env: dict[str, str], **_: Any) -> CompletedProcess[str]:
        return warm_processes.run(["-P", *command[2:]], env=env)

    monkeypatch.setattr(run_export, "subprocess", SimpleNamespace(run=run))


KINDS = ["instruction", "classification", "regression", "adapted"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_export_is_that_of_training(
    kind: str, request: pytest.FixtureRequest, tunelab: Any, tmp_path: Path
) -> None:
    run = request.getfixturevalue(kind)

    status, _, err = tunelab("export", run.root, "--output", tmp_path / "again", "--no-check")

    assert status == 0, err
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "again", run.export))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for name in ("config.json", "README.md", "tokenizer.json"):
        assert (tmp_path / "again" / name).read_text() == (run.export / name).read_text()


def test_an_export_gives_in_a_clean_process_what_the_model_gives(
    adapted: RunDirectory, tunelab: Any, tmp_path: Path
) -> None:
    status, out, err = tunelab("export", adapted.root, "--output", tmp_path / "merged")

    assert status == 0, err
    assert "loaded in a clean process: outputs differ by" in out


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("forked_check")
def test_every_kind_of_run_is_checked_the_same_way(
    kind: str, request: pytest.FixtureRequest, tunelab: Any, tmp_path: Path
) -> None:
    run = request.getfixturevalue(kind)

    status, out, err = tunelab("export", run.root, "--output", tmp_path / "merged")

    assert status == 0, err
    assert "loaded in a clean process: outputs differ by" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("prompt", ["data=instruction", "adapter=prompt"]),
        ("dora", ["data=instruction", "adapter=dora"]),
        ("norms", ["data=classification", "data.text=text", "data.label=label", "adapter=layernorm"]),
        ("numbers", ["data=regression", "data.text=text", "data.target=number", "adapter=lora"]),
    ],
)
@pytest.mark.usefixtures("forked_check")
def test_both_formats_of_every_kind_of_adapter_give_what_the_model_gives(
    name: str, given: list[str], train_in: Any, tunelab: Any, tmp_path: Path
) -> None:
    file = instructions(tmp_path, 40) if "data=instruction" in given else labelled(tmp_path)
    run = train_in(tmp_path, name, *given, f"data.train={file}", f"data.test={file}")

    for form in ("merged", "adapter"):
        status, out, err = tunelab("export", run.root, "--format", form, "--output", tmp_path / form)
        assert status == 0, err
        assert "loaded in a clean process: outputs differ by" in out


def test_an_export_that_was_deleted_comes_back(instruction: RunDirectory, tunelab: Any, tmp_path: Path) -> None:
    instruction.export.rename(tmp_path / "away")
    try:
        status, _, err = tunelab("export", instruction.root, "--no-check")
        assert status == 0, err
        names = {path.name for path in instruction.export.iterdir()}
        assert names == {path.name for path in (tmp_path / "away").iterdir()}
        template = (instruction.export / "chat_template.jinja").read_text()
        assert "assistant" in template and "{% generation" not in template and "{%- generation" not in template
    finally:
        if not instruction.export.exists():
            (tmp_path / "away").rename(instruction.export)


@pytest.mark.usefixtures("forked_check")
def test_an_adapter_is_exported_in_the_layout_of_peft(adapted: RunDirectory, tunelab: Any, tmp_path: Path) -> None:
    status, out, err = tunelab("export", adapted.root, "--format", "adapter", "--output", tmp_path / "adapter")

    assert status == 0, err
    assert "loaded in a clean process" in out
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md"} <= names
    assert "model.safetensors" not in names
    base = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert (Path(base) / "config.json").is_file()


def test_a_run_without_an_adapter_has_none_to_export(instruction: RunDirectory, tunelab: Any, tmp_path: Path) -> None:
    status, _, err = tunelab("export", instruction.root, "--format", "adapter", "--output", tmp_path / "adapter")

    assert status == 2 and "adapter=full" in err and "--format merged" in err
    assert not list(tmp_path.iterdir())


def test_only_an_export_of_ours_is_ever_replaced(instruction: RunDirectory, tunelab: Any, tmp_path: Path) -> None:
    export = instruction.export
    base = copied(export, tmp_path / "base")  # a model of someone, with all files of an export but our mark
    (base / "tunelab_export.json").unlink()
    annotated = copied(export, tmp_path / "annotated")
    (annotated / "notes.txt").write_text("kept")
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to(base)

    for place, reason in (
        ("base", "no export of this program"),
        ("annotated", "other files too (notes.txt)"),
        ("file", "is a file"),
        ("link", "is a link"),
    ):
        status, _, err = tunelab("export", instruction.root, "--output", tmp_path / place, "--no-check")
        assert status == 2 and reason in err, err
    assert {path.name for path in base.iterdir()} == {p.name for p in export.iterdir()} - {"tunelab_export.json"}

    again = copied(export, tmp_path / "again")
    (again / "README.md").write_text("older")
    status, _, err = tunelab("export", instruction.root, "--output", again, "--no-check")
    assert status == 0, err
    assert (again / "README.md").read_text() != "older"


def test_the_base_of_a_run_is_not_replaced_though_it_is_an_export(
    instruction: RunDirectory, train_in: Any, tunelab: Any, tmp_path: Path
) -> None:
    base, file = copied(instruction.export, tmp_path / "base"), instructions(tmp_path, 40)
    run = train_in(
        tmp_path, "second", "data=instruction", f"data.train={file}", "model=pretrained", f"model.path={base}",
        "adapter=lora", "max_steps=2", "test=false",
    )  # fmt: skip
    before = (base / "model.safetensors").read_bytes()

    for place in (base, base / "inside", instruction.export):
        status, _, err = tunelab("export", run.root, "--output", place, "--no-check")
        assert status == 2 and "--output=" in err
    assert (base / "model.safetensors").read_bytes() == before


def test_a_run_without_its_checkpoint_keeps_the_export_it_has(
    classification: RunDirectory, tunelab: Any, tmp_path: Path
) -> None:
    classification.checkpoints.rename(tmp_path / "away")
    try:
        status, _, err = tunelab("export", classification.root)
    finally:
        (tmp_path / "away").rename(classification.checkpoints)

    assert status == 2 and "that export is all there is" in err
    assert (classification.export / "model.safetensors").is_file()


def copied(folder: Path, to: Path) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        if file.is_file():
            (to / file.name).write_bytes(file.read_bytes())
    return to


@pytest.mark.usefixtures("forked_check")
def test_an_export_with_other_weights_is_found_out(instruction: RunDirectory, tmp_path: Path) -> None:
    probe = probe_trained_model(load_run(instruction.root))
    folder = copied(instruction.export, tmp_path / "export")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1.01
    save_file(weights, folder / "model.safetensors", {"format": "pt"})

    with pytest.raises(TuneLabError, match="is another model"):
        check_export(folder, probe)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_check")
def test_an_export_with_another_template_is_found_out(instruction: RunDirectory, tmp_path: Path) -> None:
    probe = probe_trained_model(load_run(instruction.root))
    folder = copied(instruction.export, tmp_path / "export")
    (folder / "chat_template.jinja").write_text("{% for message in messages %}{{ message['content'] }}{% endfor %}")

    with pytest.raises(TuneLabError, match="tokenizes a text differently from training"):
        check_export(folder, probe)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_check")
def test_an_export_that_does_not_load_is_found_out(classification: RunDirectory, tmp_path: Path) -> None:
    probe = probe_trained_model(load_run(classification.root))
    folder = copied(classification.export, tmp_path / "export")
    (folder / "model.safetensors").write_bytes(b"cut short")

    with pytest.raises(TuneLabError, match="does not load"):
        check_export(folder, probe)

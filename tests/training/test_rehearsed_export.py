"""What would fail when the model is saved fails before it is trained."""

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from support.tiny_runs import MODEL, QUIET, instructions, settings
from tunelab.errors import ConfigError
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.run import fine_tune


@pytest.mark.parametrize("kind", ["full", "lora", "prompt"])
def test_a_tokenizer_that_cannot_be_saved_costs_no_training(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("this tokenizer has no words to save")

    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", refuse)
    given = [
        "data=instruction",
        f"data.train={instructions(tmp_path)}",
        *MODEL,
        *QUIET,
        f"adapter={kind}",
        "max_steps=2",
    ]
    with pytest.raises(ConfigError, match="cannot be saved .* no words to save"):
        fine_tune(settings(*given), tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    assert not run.last.exists() and run.read_manifest()["status"] == "failed"


def test_a_rehearsal_changes_no_random_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [
        "data=instruction",
        f"data.train={instructions(tmp_path)}",
        *MODEL,
        *QUIET,
        "adapter=prompt",
        "max_steps=2",
    ]
    hashes = []
    for name in ("with", "without"):
        if name == "without":
            monkeypatch.setattr("tunelab.training.run.rehearse_export", lambda components: None)
        fine_tune(settings(*given, "regularization.dropout=0.1", "test=false"), tmp_path / name)
        hashes.append(RunDirectory(tmp_path / name).read_manifest()["results"]["weights_sha256"])
    assert hashes[0] == hashes[1]

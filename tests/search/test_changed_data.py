"""A study over data that changed since its trials were trained."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from tunelab.errors import ConfigError
from tunelab.runs.study_folder import StudyFolder
from tunelab.search.confirmation import plan_reruns
from tunelab.search.study_config import changed_data


def study_of(place: Path) -> tuple[StudyFolder, Path]:
    """A study of one trial, trained on `my.jsonl` beside it."""
    data = place / "my.jsonl"
    data.write_text("a\n")
    study = StudyFolder(place / "study")
    study.trial_folder(0).mkdir(parents=True)
    digest = sha256(data.read_bytes()).hexdigest()
    manifest = {"directory": str(place), "data": {"files": {"my.jsonl": digest, "gone.jsonl": digest}}}
    (study.trial_folder(0) / "run.json").write_text(json.dumps(manifest))
    (study.trial_folder(0).parent / "trial_torn").mkdir()
    (study.trial_folder(0).parent / "trial_torn" / "run.json").write_text('{"data":')
    return study, data


def test_a_changed_file_is_named_and_the_same_one_is_not(tmp_path: Path) -> None:
    study, data = study_of(tmp_path)
    assert changed_data(study) == []
    data.write_text("b\n")
    assert len(changed_data(study)) == 1 and changed_data(study)[0].startswith("my.jsonl changed since")


def test_a_confirmation_refuses_changed_data(tmp_path: Path) -> None:
    study, data = study_of(tmp_path)
    data.write_text("b\n")
    config = {"objectives": ["val/loss"], "modes": ["min"], "fixed": [], "stages": None}
    study.study_config.write_text(json.dumps(config))
    study.trials.write_text(json.dumps({"number": 0, "state": "complete", "excess": [], "value": 1.0}) + "\n")
    with pytest.raises(ConfigError, match=r"my\.jsonl changed since .*\n.*could not be compared"):
        plan_reruns(study, 1, 2)

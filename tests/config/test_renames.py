"""Old names of settings, targets and blocks stay readable, with one note each."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from support.tiny_runs import config
from tunelab.config import renames
from tunelab.config.overrides import complete_overrides
from tunelab.config.renames import MOVED_TARGETS, RENAMED_KEYS, rename_old_names
from tunelab.config.resume import resume_config
from tunelab.config.schema import key_types
from tunelab.config.validate import validate_config
from tunelab.errors import ConfigError
from tunelab.search.study_config import rename_stages


@pytest.fixture(autouse=True)
def nothing_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renames, "_noted", set())


def test_a_command_line_with_old_names_means_the_new_ones(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["scheduler.floor=0.1", "+own_lr.tiny=2e-3", "search.slots=2", "search.judge=false", "lr=0.1"]

    assert complete_overrides(words) == [
        "scheduler.min_lr_ratio=0.1", "+default_lr.tiny=2e-3", "search.parallel_trials=2", "search.test_best=false",
        "lr=0.1",
    ]  # fmt: skip
    complete_overrides(["scheduler.floor=0.2"])

    notes = capsys.readouterr().err.splitlines()
    assert (
        len(notes) == 4
        and "note: scheduler.floor is called scheduler.min_lr_ratio now; the old name still works" in notes
    )


def old_config() -> dict[str, object]:
    """A config as version 0.1.0 wrote it into a run folder."""
    values = OmegaConf.to_container(config("scheduler=wsd", "search=pbt"), resolve=True)
    assert isinstance(values, dict)
    values["own_lr"] = values.pop("default_lr")
    values["scheduler"] = {"_target_": "tunelab.optim.phases.wsd", "warmup": 0.1, "decay": 0.2, "floor": 0.25}
    search = values["search"]
    for old, new in (("slots", "parallel_trials"), ("judge", "test_best")):
        search[old] = search.pop(new)
    options = search["sampler_options"]
    options["replaced"] = options.pop("replaced_fraction")
    return {str(key): value for key, value in values.items()}


def test_the_config_of_an_old_run_folder_is_read(tmp_path: Path) -> None:
    run = validate_config(OmegaConf.create(old_config()))

    assert run.scheduler.target == "tunelab.optim.schedules.wsd" and run.scheduler.arguments["min_lr_ratio"] == 0.25
    assert run.default_lr["tiny"] == 1e-3 and run.search.sampler_options["replaced_fraction"] == 0.25
    assert (run.search.parallel_trials, run.search.test_best) == (1, True)

    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(old_config())))
    again = validate_config(resume_config(config(f"resume={tmp_path}"), [f"resume={tmp_path}"]))
    assert again.scheduler == run.scheduler


def test_an_old_name_in_a_file_on_top_of_ours_wins_and_references_follow() -> None:
    composed = OmegaConf.create(
        {
            "lr": "${own_lr.tiny}",
            "default_lr": {"tiny": 1.0},
            "own_lr": {"tiny": 2.0},
            "scheduler": {"min_lr_ratio": 0.0, "floor": 0.3},
            "search": {"space": {"params": {"scheduler.floor": [0, 1]}}},
        }
    )

    renamed = OmegaConf.to_container(rename_old_names(composed), resolve=True)

    assert renamed == {
        "lr": 2.0, "default_lr": {"tiny": 2.0}, "scheduler": {"min_lr_ratio": 0.3},
        "search": {"space": {"params": {"scheduler.min_lr_ratio": [0, 1]}}},
    }  # fmt: skip


def test_a_config_of_today_is_left_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    composed = config()
    assert rename_old_names(composed) is composed
    assert capsys.readouterr().err == ""


def test_an_old_study_of_pbt_goes_on() -> None:
    assert rename_stages([16, {"population": 4, "factor": 1.2}]) == [16, {"population": 4, "perturbation_factor": 1.2}]
    assert rename_stages(None) is None


def test_every_new_name_is_a_setting_and_no_old_one_is() -> None:
    known = set(key_types())
    for old, new in RENAMED_KEYS.items():
        if "sampler_options" not in old:
            assert new in known and old not in known
    for target in MOVED_TARGETS.values():
        module, _, name = target.rpartition(".")
        assert hasattr(__import__(module, fromlist=[name]), name)


def test_a_finished_run_with_a_key_that_is_unknown_today_is_read_with_a_note(
    capsys: pytest.CaptureFixture[str],
) -> None:
    old = config("+trainer.max_time=00:01:00:00")

    run = validate_config(old, for_training=False)

    assert run.trainer.devices == 1
    assert "unknown today and do nothing here: trainer.max_time" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="trainer.max_time is no setting"):
        validate_config(old)


def test_a_value_of_the_wrong_type_is_one_fault() -> None:
    with pytest.raises(ConfigError) as refused:
        validate_config(config("scheduler.min_lr_ratio=abc"))

    assert str(refused.value).count("scheduler.min_lr_ratio") == 1

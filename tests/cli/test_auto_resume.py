"""`resume=auto` names the newest run of the typed configuration that can go on."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from support.tiny_runs import CONF, config, settings
from tunelab.cli.auto_resume import name_run_to_resume, newest_resumable
from tunelab.errors import ConfigError
from tunelab.runs.run_dir import RunDirectory

WORDS = ["model=scratch", "logger=none", "name=mine", "data=starter"]


def stored(root: Path, *words: str, status: str = "pre-empted", started: str = "2026-01-01", last: bool = True) -> Path:
    """A run folder with the settings of a command line."""
    folder = RunDirectory(root)
    folder.checkpoints.mkdir(parents=True)
    folder.write_config(OmegaConf.to_yaml(OmegaConf.create(settings(*words).as_dict())))
    folder.write_manifest({"status": status, "started": started})
    if last:
        folder.last.touch()
    return root


def test_the_newest_run_of_the_same_settings_that_can_go_on_is_taken(tmp_path: Path) -> None:
    assert CONF.is_dir()
    stored(tmp_path / "older", *WORDS, started="2026-01-01")
    stored(tmp_path / "newest", *WORDS, "max_epochs=9", "micro_tokens=64", started="2026-01-02", last=False)
    stored(tmp_path / "other", *WORDS, "lr=0.5", started="2026-01-03")
    stored(tmp_path / "done", *WORDS, status="finished", started="2026-01-04")
    stored(tmp_path / "diverged", *WORDS, status="diverged", started="2026-01-05")
    stored(tmp_path / "broken", *WORDS, status="failed", started="2026-01-06", last=False)
    torn = stored(tmp_path / "torn", *WORDS, started="2026-01-07")
    (torn / "run.json").write_text('{"status": "runn')
    unreadable = stored(tmp_path / "unreadable", *WORDS, started="2026-01-08")
    (unreadable / "config.yaml").write_text("lr: [")
    folders = list(tmp_path.iterdir())

    assert newest_resumable(config(*WORDS), folders) == tmp_path / "newest"
    assert newest_resumable(config(*WORDS, "lr=0.5"), folders) == tmp_path / "other"
    assert newest_resumable(config(*WORDS, "seed=77"), folders) is None


def test_a_run_that_a_live_process_writes_is_left_to_it(tmp_path: Path) -> None:
    stored(tmp_path / "older", *WORDS)
    live = stored(tmp_path / "live", *WORDS, status="running", started="2026-02-02")
    with RunDirectory.open(live, write=True):
        assert newest_resumable(config(*WORDS), [tmp_path / "older", live]) == tmp_path / "older"
    assert newest_resumable(config(*WORDS), [tmp_path / "older", live]) == live


def test_the_words_that_may_change_half_way_go_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = stored(Path("outputs") / "mine" / "first", *WORDS)

    assert name_run_to_resume([*WORDS, "resume=auto", "max_epochs=7"]) == [
        f"resume='{run}'", "logger=none", "name=mine", "max_epochs=7",
    ]  # fmt: skip
    new = [*WORDS, "lr=0.25"]
    assert name_run_to_resume([*new, "resume=auto"]) == new
    named = [*WORDS, f"hydra.run.dir={run}", "resume=auto"]
    assert name_run_to_resume(named)[0] == f"resume='{run}'"
    assert name_run_to_resume(["lr=1", "resume=run"]) == ["lr=1", "resume=run"]


@pytest.mark.parametrize("word", ["-m", "--multirun", "cv.folds=5"])
def test_searches_and_cross_validations_go_on_by_themselves(word: str) -> None:
    with pytest.raises(ConfigError, match="resume=auto is for a single run"):
        name_run_to_resume([word, "resume=auto", "lr=1,2"])

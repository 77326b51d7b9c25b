"""The files of a study folder.  Without Optuna: every trial reads some of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelab.config.stored_files import STUDY_FILE_ADVICE
from tunelab.runs.stored_json import Shape, read_stored_json

STUDY_SHAPE: Shape = {  # search.json
    **dict.fromkeys(("objectives", "modes", "fixed", "arguments"), (list,)),
    **dict.fromkeys(("constraints", "space", "dimensions", "pruner_options"), (dict,)),
    **dict.fromkeys(("storage", "name", "pruner", "token", "folder_id"), (str, type(None))),
    **dict.fromkeys(("default",), (dict, type(None))),
}
JOURNAL_FILE = "journal.log"


@dataclass(frozen=True)
class StudyFolder:
    """The files of one search."""

    root: Path

    @property
    def journal(self) -> Path:
        """Optuna's journal, unless `search.storage` names another storage."""
        return self.root / JOURNAL_FILE

    @property
    def engine_lock(self) -> Path:
        """Lock of the engine that starts the next trial."""
        return self.root / "claim.lock"

    @property
    def test_lock(self) -> Path:
        """Lock of the engine that evaluates the best trial on the test split."""
        return self.root / "judge.lock"

    @property
    def heartbeats(self) -> Path:
        """Folder of the heartbeat files of running engines."""
        return self.root / "engines"

    @property
    def trials(self) -> Path:
        """One line for each finished trial."""
        return self.root / "trials.jsonl"

    @property
    def table(self) -> Path:
        """The finished trials as a table, CSV."""
        return self.root / "study.csv"

    @property
    def summary(self) -> Path:
        """Best trial, counts by state, sampler and pruner, JSON."""
        return self.root / "study.json"

    @property
    def best(self) -> Path:
        """The best configuration as an experiment file."""
        return self.root / "best.yaml"

    @property
    def confirmation(self) -> Path:
        """Result of `tunelab confirm`, JSON; its runs lie beside it."""
        return self.root / "confirm" / "confirm.json"

    @property
    def study_config(self) -> Path:
        """Configuration of the study: space, fixed overrides, objectives, limits, JSON."""
        return self.root / "search.json"

    def read_study_config(self) -> dict[str, Any]:
        """The configuration of the study.

        Raises:
            OSError: If there is no such file.
            ConfigError: If it is damaged, or not as a search writes it.
        """
        return read_stored_json(self.study_config, STUDY_FILE_ADVICE, shape=STUDY_SHAPE)

    def trial_folder(self, number: int) -> Path:
        """The run directory of a trial."""
        return self.root / str(number)

    def shared_overrides(self) -> list[str]:
        """Overrides of all trials; none before the study is configured."""
        if not self.study_config.is_file():
            return []
        return [str(override) for override in self.read_study_config().get("fixed", [])]

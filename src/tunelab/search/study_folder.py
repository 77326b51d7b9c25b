"""The files of a study folder, known without Optuna, because every trial asks."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

JOURNAL_FILE = "journal.log"


@dataclass(frozen=True)
class StudyFolder:
    """The files of one search."""

    root: Path

    @property
    def journal(self) -> Path:
        """Optuna's record, unless `search.storage` names another."""
        return self.root / JOURNAL_FILE

    @property
    def lock(self) -> Path:
        """Held by the engine that decides what runs next."""
        return self.root / "claim.lock"

    @property
    def judged(self) -> Path:
        """Held by the engine that scores the winner on the test split."""
        return self.root / "judge.lock"

    @property
    def engines(self) -> Path:
        """Signs of life of the engines at work."""
        return self.root / "engines"

    @property
    def trials(self) -> Path:
        """One line for each finished trial."""
        return self.root / "trials.jsonl"

    @property
    def table(self) -> Path:
        """The same as a table."""
        return self.root / "study.csv"

    @property
    def summary(self) -> Path:
        """Best trial, counts by state, how the search was asked for."""
        return self.root / "study.json"

    @property
    def best(self) -> Path:
        """The best configuration, to be run as it is."""
        return self.root / "best.yaml"

    @property
    def request(self) -> Path:
        """What was searched: the space, the fixed settings and the plan."""
        return self.root / "search.json"

    def read_request(self) -> dict[str, Any]:
        """What was searched, as it was written.

        Raises:
            OSError, ValueError: If there is no such file, or it holds no JSON.
        """
        found: dict[str, Any] = json.loads(self.request.read_text(encoding="utf-8"))
        return found

    def trial(self, number: int) -> Path:
        """The run folder of one trial."""
        return self.root / str(number)

    def shared_words(self) -> list[str]:
        """Overrides that all trials have; none where the request is not written yet."""
        if not self.request.is_file():
            return []
        return [str(word) for word in self.read_request().get("fixed", [])]

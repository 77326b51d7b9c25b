"""Runs that tests of what comes after training share."""

from collections.abc import Callable
from pathlib import Path

from support.tiny_runs import settings
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.run import fine_tune


def training_with(*common: str) -> Callable[..., RunDirectory]:
    """A function that trains a run of a name in a folder; these settings are common to all its runs."""

    def train(place: Path, name: str, *overrides: str) -> RunDirectory:
        """A run in a folder of its own."""
        fine_tune(settings(*overrides, *common), place / name)
        return RunDirectory(place / name)

    return train

"""Hydra's door to the search engine.  Hydra imports this file at every start, so it loads nothing heavy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class TuneLabSweeper(Sweeper):
    """Hands a multirun over to `tunelab.search`."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra composed."""
        self.hydra_context, self.config, self.task_function = hydra_context, config, task_function

    def sweep(self, arguments: Sequence[str]) -> Any:
        """Search over what the overrides of the command line vary."""
        from tunelab.search.run_search import run_search

        assert self.config is not None  # Hydra calls setup first
        return run_search(self.config, arguments, train_here)


def train_here(overrides: Sequence[str], folder: Path) -> None:
    """Do one training in this process."""
    from tunelab.cli.compose_config import compose_settings
    from tunelab.training.run import fine_tune

    fine_tune(compose_settings(overrides), folder, overrides=overrides)

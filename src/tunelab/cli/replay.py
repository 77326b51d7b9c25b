"""One stage of a recorded run, trained again: what a process does that `tunelab reproduce` starts with `--replay`.

With several devices Lightning starts it again on each of them.
"""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from tunelab.config.validate import validate_config
from tunelab.runs.reproduction import read_run_manifest, training_stages
from tunelab.training.callbacks.checkpointing import StopAtStep
from tunelab.training.run import fine_tune


def replay_stage(words: Sequence[str]) -> None:
    """Train one stage of the run that a manifest describes.

    Args:
        words: The manifest, `run.json` of the run; the index of the stage, from 0; the run directory, in which stages
            after the first resume.
    """
    file, number, folder = Path(words[0]), int(words[1]), Path(words[2])
    manifest = read_run_manifest(file)
    stage = training_stages(manifest)[number]
    config = {**stage.config, "resume": str(folder) if number else None}
    callbacks = [] if stage.stop_at is None else [StopAtStep(stage.stop_at)]
    fine_tune(validate_config(OmegaConf.create(config)), folder, overrides=manifest["overrides"], callbacks=callbacks)

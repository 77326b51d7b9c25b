"""One stage of a recorded run, trained again as a process: `python -m tunelab.cli.replay MANIFEST STAGE FOLDER`.

`tunelab reproduce` starts it; with several devices Lightning starts it again on each of them.
"""

import os
import sys
from pathlib import Path

from omegaconf import OmegaConf

from tunelab.cli.launch import (
    exit_on_signal,
    exit_with_error,
    exit_with_os_error,
    exit_with_unforeseen_error,
)
from tunelab.config.validate import validate_config
from tunelab.errors import TuneLabError
from tunelab.runs.redact import guard_streams
from tunelab.runs.reproduction import read_run_manifest, training_stages
from tunelab.runs.stop_signals import handle_stop_signals
from tunelab.training.callbacks.checkpointing import StopAtStep
from tunelab.training.run import fine_tune


def replay_stage(file: Path, number: int, folder: Path) -> None:
    """Train one stage of the run that a manifest describes.

    Args:
        file: The manifest, `run.json` of the run.
        number: Index of the stage, from 0.
        folder: The run directory; stages after the first resume in it.
    """
    manifest = read_run_manifest(file)
    stage = training_stages(manifest)[number]
    config = {**stage.config, "resume": str(folder) if number else None}
    callbacks = [] if stage.stop_at is None else [StopAtStep(stage.stop_at)]
    fine_tune(validate_config(OmegaConf.create(config)), folder, overrides=manifest["overrides"], callbacks=callbacks)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    handle_stop_signals(exit_on_signal, ctrl_c=False)
    guard_streams()
    try:
        replay_stage(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
    except TuneLabError as fault:
        exit_with_error(fault)
    except OSError as fault:
        exit_with_os_error(fault)
    except Exception as fault:
        exit_with_unforeseen_error(fault)
    except KeyboardInterrupt:
        sys.exit(130)

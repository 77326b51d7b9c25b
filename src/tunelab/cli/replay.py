"""One stage of a run again, as a process of its own: `python -m tunelab.cli.replay MANIFEST STAGE FOLDER`.

It is what `tunelab reproduce` starts; with several devices Lightning starts it again on each of them.
"""

import json
import os
import signal
import sys
from pathlib import Path

from omegaconf import OmegaConf

from tunelab.cli.launch import exit_on_signal, exit_with_error, exit_with_os_error
from tunelab.config.schema import validate_config
from tunelab.errors import TuneLabError
from tunelab.runs.reproduction import training_stages
from tunelab.training.callbacks.checkpointing import StopAtStep
from tunelab.training.run import fine_tune


def replay_stage(file: Path, number: int, folder: Path) -> None:
    """Train one stage of the run that a card describes.

    Args:
        file: The card.
        number: Which stage, from 0.
        folder: The run folder; stages after the first go on in it.
    """
    card = json.loads(file.read_text(encoding="utf-8"))
    stage = training_stages(card)[number]
    config = {**stage.config, "resume": str(folder) if number else None}
    callbacks = [] if stage.stop_at is None else [StopAtStep(stage.stop_at)]
    fine_tune(validate_config(OmegaConf.create(config)), folder, overrides=card["overrides"], callbacks=callbacks)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    signal.signal(signal.SIGTERM, exit_on_signal)
    try:
        replay_stage(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
    except TuneLabError as fault:
        exit_with_error(fault)
    except OSError as fault:
        exit_with_os_error(fault)
    except KeyboardInterrupt:
        sys.exit(130)

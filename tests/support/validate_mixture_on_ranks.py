"""One validation over several sources on one or two processes.  Started by tests: DEVICES FILE OVERRIDES..."""

import json
import logging
import sys
import warnings
from pathlib import Path

import lightning as L

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.tiny_runs import settings
from tunelab.training.components import build_components, build_datamodule, build_module

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

if __name__ == "__main__":
    prepared = build_components(settings(*sys.argv[3:]))
    trainer = L.Trainer(
        accelerator="cpu", devices=int(sys.argv[1]), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    (found,) = trainer.validate(
        build_module(prepared, prepared.model), datamodule=build_datamodule(prepared), verbose=False
    )
    if trainer.is_global_zero:
        Path(sys.argv[2]).write_text(json.dumps({name: float(value) for name, value in found.items()}))

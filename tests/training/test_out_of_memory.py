"""Memory that runs out in the middle of a run."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from support.tiny_runs import MODEL, QUIET, instructions, settings
from tunelab.errors import ConfigError, TuneLabError
from tunelab.runs.run_dir import RunDirectory
from tunelab.search.trial_outcome import read_outcome
from tunelab.training.out_of_memory import is_out_of_memory
from tunelab.training.run import fine_tune


class Full(Callback):
    """Raises in the second step what PyTorch raises when a GPU is full."""

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore words")


def test_a_run_that_meets_the_end_of_memory_says_what_to_try_and_a_search_knows_it(tmp_path: Path) -> None:
    given = ["data=instruction", f"data.train={instructions(tmp_path)}", "data.split.validation=0.2", *MODEL, *QUIET]

    with pytest.raises(TuneLabError) as met:
        fine_tune(settings(*given, "micro_tokens=600"), tmp_path / "run", callbacks=[Full()])

    said = str(met.value)
    assert said.startswith("out of memory: CUDA out of memory. Tried to allocate 2.00 GiB.\n")
    assert "micro_tokens=300 (now 600" in said and "adapter=lora" in said and "more words" not in said
    assert RunDirectory(tmp_path / "run").read_manifest()["status"] == "failed"
    assert read_outcome(tmp_path / "run", 1, ["monitor"]).failure_kind == "memory"


def test_no_other_fault_is_taken_for_it() -> None:
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory")
    )
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    assert not is_out_of_memory(ConfigError("find=micro_tokens: not enough memory for one row"))  # it has its own words

"""The doctor at the bedside: each finding is told once, at the validation where it first shows."""

from lightning import Callback, LightningModule, Trainer
from typing_extensions import override

from tunelab import console
from tunelab.analysis.doctor import format_findings, run_doctor
from tunelab.record import RunFolder
from tunelab.training.run_diagnosis import read_run_signals


class Doctor(Callback):
    """Reads the curves of a run after each validation, as `tunelab doctor` does from outside; changes nothing.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.told: set[str] = set()

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        fresh = [found for found in run_doctor(read_run_signals(self.folder)) if found.verdict not in self.told]
        self.told |= {found.verdict for found in fresh}
        if fresh:
            console.show_lines(f"doctor at step {trainer.global_step}", format_findings(fresh))

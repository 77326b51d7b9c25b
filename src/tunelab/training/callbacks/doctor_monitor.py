"""The doctor while a run trains: its findings after each validation."""

from lightning import Callback, LightningModule, Trainer
from typing_extensions import override

from tunelab.analysis.doctor import run_doctor
from tunelab.language.translation import translate
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.run_diagnosis import read_run_signals, say_findings


class DoctorCallback(Callback):
    """Reads the curves of a run after each validation, as `tunelab doctor` does from outside; changes nothing.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: RunDirectory) -> None:
        self.folder = folder
        self.reported_verdicts: set[str] = set()

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        findings = run_doctor(read_run_signals(self.folder))
        fresh = [finding for finding in findings if finding.verdict not in self.reported_verdicts]
        self.reported_verdicts |= {finding.verdict for finding in fresh}
        if fresh:
            say_findings(translate("doctor at step {step}", step=trainer.global_step), fresh)

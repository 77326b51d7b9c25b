"""The status of a run, as its manifest records it."""

from dataclasses import dataclass

PREEMPTED = "pre-empted"  # as run folders spell it since the first version
RUN_STATUSES = ("running", "finished", "early-stopped", "diverged", "pruned", PREEMPTED, "failed")
COMPLETE_STATUSES = ("finished", "early-stopped")  # of a run that has all its scores


@dataclass
class RunStatus:
    """The status of a run at its end, for its manifest."""

    status: str = "finished"
    reason: str | None = None
    score: float | None = None

    @property
    def logger_status(self) -> str:
        """The status as trackers know it."""
        return {PREEMPTED: "preempted", "failed": "failed", "diverged": "failed"}.get(self.status, "success")

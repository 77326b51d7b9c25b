"""A study in a tracker: its trials as one group, and in that group its report as an artifact."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tunelab import console
from tunelab.search.claim import claim
from tunelab.search.folder import StudyFolder
from tunelab.search.grammar import quoted

PURPOSE = "study"  # the job type of the run that holds the report


def tracked(config: DictConfig, folder: StudyFolder) -> list[str]:
    """Where a tracker groups runs, the trials of a study are one group."""
    if "group" not in config.logger or config.logger.group is not None:
        return []
    purpose = ["logger.job_type=trial"] if "job_type" in config.logger else []
    return [f"logger.group={quoted(folder.root.name)}", *purpose]


def show_study(logger: Mapping[str, Any], folder: StudyFolder, page: Path, found: Mapping[str, float]) -> None:
    """Put the report on a study into its group in W&B, where reports are wanted; nothing else does that here.

    It is a run of its own, of job type `study`, below the study's folder.  A study that goes on goes on in that run,
    as a new version of the artifact.  What the tracker meets is told and stops nothing.

    Args:
        logger: The logger block of the search.
        folder: The study's files.
        page: The report, one HTML file.
        found: What the summary holds: the best value of each objective, the number of trials.
    """
    if logger.get("kind") != "wandb" or "report" not in (logger.get("artifacts") or ()):
        return
    from tunelab.tracking.showing import Shown
    from tunelab.tracking.wandb_start import make_wandb

    name = folder.root.name
    block = {**logger, "group": logger.get("group") or name, "job_type": PURPOSE, "name": f"{name}/report"}
    with claim(folder.judged):  # of engines that end together one after the other
        run = make_wandb(
            block,
            folder=folder.root,
            run_config=folder.read_request(),
            name=name,
            monitor="study/trials",
            mode="max",
            resume_from_step=0,  # the run that an earlier end of this study began
            tell=console.say,
        )
        if run is not None:
            run.log_metrics({f"study/{name}": value for name, value in found.items()})
            run.show(Shown(scores=found, files={"report": page}))
            run.finish("success")

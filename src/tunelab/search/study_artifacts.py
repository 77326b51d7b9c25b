"""What a finished search leaves beside its results: the report, the effect plot of one setting, its entry in W&B."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tunelab.analysis.setting_effect import (
    ValueScores,
    describe_effect,
    format_mean,
    format_nuisances,
    format_setting_value,
    scores_by_value,
)
from tunelab.errors import ConfigError
from tunelab.report.charts.chart_page import Figure, Paragraph, Table, render_page
from tunelab.report.effect_chart import effect_chart
from tunelab.report.render import write_report
from tunelab.report.study_reader import read_study_results
from tunelab.report.study_report import build_study_report
from tunelab.runs import console
from tunelab.runs.atomic_files import read_json_lines, write_json, write_text
from tunelab.search.space import Space, quote_hydra
from tunelab.search.study_folder import StudyFolder
from tunelab.search.study_storage import study_lock


def write_study_report(folder: StudyFolder) -> Path:
    """Write `report/` into the study's folder; `tunelab report STUDY` writes the same anew.

    Returns:
        The page.
    """
    return write_report(build_study_report(read_study_results(folder.root)), folder.root / "report")["report"]


@dataclass(frozen=True)
class EffectPlot:
    """What is drawn.

    Attributes:
        of: The setting along the axis.
        by: The setting that gives each line; None for one line.
    """

    of: str
    by: str | None


def parse_effect_plot(block: Mapping[str, Any], space: Space) -> EffectPlot | None:
    """What `search.effect` asks for; None where it asks for nothing.

    Raises:
        ConfigError: If it names a setting that does not vary.
    """
    of, by = block.get("of"), block.get("by")
    if of is None and by is None:
        return None
    known = space.all()
    faults = [
        f"search.effect.{name}={key}: that setting does not vary in this search, so it has no effect to draw; "
        f"{', '.join(known)} do"
        for name, key in (("of", of), ("by", by))
        if key is not None and key not in known
    ]
    if of is None:
        faults.append(f"search.effect.by={by} splits a drawing that search.effect.of must name")
    if faults:
        raise ConfigError.listing(faults)
    return EffectPlot(str(of), None if by is None else str(by))


def write_effect_plot(folder: StudyFolder, effect: EffectPlot, score: str, *, lower: bool, command: str) -> str:
    """Leave `effect.svg`, `effect.html` and `effect.json` in the study's folder.

    Args:
        folder: The study's files; its ledger is read.
        effect: What is drawn.
        score: Name of the objective.
        lower: Whether a lower score is better.
        command: What was typed, for the page.

    Returns:
        The finding, in words.
    """
    trials = read_json_lines(folder.trials)
    found = scores_by_value(trials, effect.of, effect.by, lower=lower)
    words = describe_effect(effect.of, score, found, effect.by, lower=lower)
    svg = effect_chart(effect.of, score, found, effect.by)
    complete = sum(trial["state"] == "complete" for trial in trials)
    title = f"What {effect.of} does to {score}" + (f", by {effect.by}" if effect.by else "")
    body = render_page(
        title,
        [
            Paragraph(words),
            Figure(svg, "Mean over the seeds, their standard deviation as a band, and each seed as a point."),
            effect_table(effect, score, found),
            Paragraph(f"{complete} of {len(trials)} trials came through. {command}", soft=True),
        ],
    )
    write_text(folder.root / "effect.svg", svg)
    write_text(folder.root / "effect.html", body)
    facts = {
        "of": effect.of,
        "by": effect.by,
        "score": score,
        "finding": words,
        "trials": len(trials),
        "arms": [
            {effect.by or "line": line, **asdict(arm), "mean": arm.mean, "spread": arm.spread}
            for line, each in found.items()
            for arm in each
        ],
    }
    write_json(folder.root / "effect.json", facts)
    return words


def effect_table(effect: EffectPlot, score: str, found: Mapping[Any, list[ValueScores]]) -> Table:
    """The numbers behind the drawing."""
    columns = [*([effect.by] if effect.by else []), effect.of, score, "seeds", "lost", "beside"]
    cells = [
        [
            *([format_setting_value(line)] if effect.by else []),
            format_setting_value(arm.value),
            format_mean(arm) if arm.scores else "-",
            str(len(arm.scores)),
            str(arm.lost),
            format_nuisances(arm),
        ]
        for line, each in found.items()
        for arm in each
    ]
    return Table(columns, cells)


REPORT_JOB_TYPE = "study"  # the job type of the run that holds the report


def tracker_overrides(config: DictConfig, folder: StudyFolder) -> list[str]:
    """Where a tracker groups runs, the trials of a study are one group."""
    if "group" not in config.logger or config.logger.group is not None:
        return []
    purpose = ["logger.job_type=trial"] if "job_type" in config.logger else []
    return [f"logger.group={quote_hydra(folder.root.name)}", *purpose]


def log_study_report(logger: Mapping[str, Any], folder: StudyFolder, page: Path, found: Mapping[str, float]) -> None:
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
    from tunelab.tracking.base import RunResults
    from tunelab.tracking.wandb_start import start_wandb

    name = folder.root.name
    block = {**logger, "group": logger.get("group") or name, "job_type": REPORT_JOB_TYPE, "name": f"{name}/report"}
    with study_lock(folder.judged):  # of engines that end together one after the other
        run = start_wandb(
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
            run.log_results(RunResults(scores=found, files={"report": page}))
            run.finish("success")

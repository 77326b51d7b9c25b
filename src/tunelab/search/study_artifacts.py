"""The artifacts of a finished search: its report, the effect plot of one setting, and the study's run in W&B."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tunelab.analysis.setting_effect import (
    ValueResult,
    describe_effect,
    format_mean,
    format_nuisances,
    format_setting_value,
    scores_by_value,
)
from tunelab.config.quoting import path_text
from tunelab.config.schema import EffectConfig, LoggerConfig
from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.report.document import Block, CellValue, Chart, Document, Paragraph, Section, Table
from tunelab.report.effect_chart import effect_chart
from tunelab.report.render import render_html, write_report
from tunelab.report.study_reader import read_study_results
from tunelab.report.study_report import build_study_report
from tunelab.runs import console
from tunelab.runs.atomic_files import read_json_lines, write_json, write_text
from tunelab.runs.locks import exclusive_lock
from tunelab.runs.study_folder import StudyFolder
from tunelab.search.space import Space


def write_study_report(folder: StudyFolder) -> Path:
    """Write `report/` into the study's folder, as `tunelab report STUDY` does.

    Returns:
        Path of the page.
    """
    return write_report(build_study_report(read_study_results(folder.root)), folder.root / "report")["report"]


@dataclass(frozen=True)
class EffectPlot:
    """The settings of the effect plot: `search.effect`.

    Attributes:
        setting: The setting along the axis (`search.effect.of`).
        group_by: The setting with a line for each value (`search.effect.by`); None for one line.
    """

    setting: str
    group_by: str | None


def parse_effect_plot(config: EffectConfig, space: Space) -> EffectPlot | None:
    """The effect plot of `search.effect`; None where it is not set.

    Raises:
        ConfigError: If it names a setting that does not vary.
    """
    setting, group_by = config.of, config.by
    if setting is None and group_by is None:
        return None
    varying = space.all_dimensions()
    faults = [
        translate(
            "search.effect.{name}={key}: that setting does not vary in this search, so it has no "
            "effect to draw; {names} do",
            name=name,
            key=key,
            names=", ".join(varying),
        )
        for name, key in (("of", setting), ("by", group_by))
        if key is not None and key not in varying
    ]
    if setting is None:
        faults.append(
            translate(
                "search.effect.by={group_by} needs search.effect.of, the setting along the axis", group_by=group_by
            )
        )
    if faults:
        raise ConfigError.listing(faults)
    return EffectPlot(str(setting), group_by)


def searched_range(folder: StudyFolder, setting: str) -> tuple[float, float] | tuple[()]:
    """The ends of the range that a setting was searched on; empty for listed values, and where none is recorded."""
    try:
        block = folder.read_study_config()["dimensions"][setting]
        return float(block["low"]), float(block["high"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def write_effect_plot(folder: StudyFolder, effect: EffectPlot, score: str, *, lower: bool, command: str) -> str:
    """Write `effect.svg`, `effect.html` and `effect.json` into the study's folder.

    Args:
        folder: The study's files; its trials.jsonl is read.
        effect: The settings of the plot.
        score: Name of the objective.
        lower: Whether a lower score is better.
        command: The command line, for the page.

    Returns:
        The finding as a sentence.
    """
    trials = read_json_lines(folder.trials)
    results = scores_by_value(trials, effect.setting, effect.group_by, lower=lower)
    finding = describe_effect(effect.setting, score, results, effect.group_by, lower=lower)
    searched = searched_range(folder, effect.setting)
    svg = effect_chart(effect.setting, score, results, effect.group_by, lower=lower, searched=searched)
    complete = sum(trial["state"] == "complete" for trial in trials)
    title = translate("What {setting} does to {score}", setting=effect.setting, score=score) + (
        translate(", by {group_by}", group_by=effect.group_by) if effect.group_by else ""
    )
    caption = translate(
        "Points are trials, the best is ringed. Lines go through the mean over the seeds, "
        "with their standard deviation as a band from three seeds on; crosses on the axis "
        "are values without a score."
    )
    blocks: list[Block] = [
        Paragraph(finding),
        Chart("effect", svg, caption),
        effect_table(effect, score, results),
        Paragraph(
            translate(
                "{complete} of {count} [trial|trials] came through. {command}",
                complete=complete,
                count=len(trials),
                command=command,
            ),
            "soft",
        ),
    ]
    write_text(folder.root / "effect.svg", svg)
    page = render_html(Document(title, "", [Section("", blocks)]), interactive=False)
    write_text(folder.root / "effect.html", page)
    facts = {
        "of": effect.setting,
        "by": effect.group_by,
        "score": score,
        "finding": finding,
        "trials": len(trials),
        "arms": [
            {effect.group_by or "line": line, **value_result_json(result)}
            for line, each in results.items()
            for result in each
        ],
    }
    write_json(folder.root / "effect.json", facts)
    return finding


def value_result_json(result: ValueResult) -> dict[str, Any]:
    """The result at one value as `effect.json` holds it."""
    return {
        "value": result.value,
        "scores": result.scores,
        "beside": result.nuisance_values,
        "lost": result.failed_trials,
        "border": result.nuisances_at_border,
        "mean": result.mean,
        "spread": result.spread,
    }


def effect_table(effect: EffectPlot, score: str, results: Mapping[Any, list[ValueResult]]) -> Table:
    """The numbers of the effect plot."""
    columns = [*([effect.group_by] if effect.group_by else []), effect.setting, score, "seeds", "lost", "beside"]
    cells: list[list[CellValue]] = [
        [
            *([format_setting_value(line)] if effect.group_by else []),
            format_setting_value(result.value),
            format_mean(result) if result.scores else "-",
            len(result.scores),
            result.failed_trials,
            format_nuisances(result),
        ]
        for line, each in results.items()
        for result in each
    ]
    return Table("effect", columns, cells)


REPORT_JOB_TYPE = "study"  # the job type of the run that holds the report


def tracker_overrides(config: DictConfig, folder: StudyFolder) -> list[str]:
    """Overrides that put all trials of a study into one group of the tracker, if it has groups."""
    wandb = "job_type" in config.logger  # its own key, in a list of trackers too
    if "group" not in config.logger or config.logger.group is not None or (wandb and os.environ.get("WANDB_RUN_GROUP")):
        return []
    named = not wandb or config.logger.job_type is not None or os.environ.get("WANDB_JOB_TYPE")
    job_type = [] if named else ["logger.job_type=trial"]
    return [f"logger.group={path_text(folder.root.name)}", *job_type]


def log_study_report(logger: LoggerConfig, folder: StudyFolder, page: Path, scores: Mapping[str, float]) -> None:
    """Log the report of a study to its group in W&B, if `logger=wandb` logs reports.

    It is a run of its own, of job type `study`, below the study's folder.  A study that is resumed resumes that run,
    with a new version of the artifact.  Faults of the tracker are printed and stop nothing.

    Args:
        logger: The logger block of the search.
        folder: The study's files.
        page: The report, one HTML file.
        scores: Entries of the summary: the best value of each objective, the number of trials.
    """
    if "wandb" not in logger.chosen_kinds() or "report" not in logger.artifacts:
        return
    from tunelab.tracking.base import RunResults
    from tunelab.tracking.wandb_start import start_wandb

    name = folder.root.name
    of_study = replace(
        logger,
        group=logger.group or os.environ.get("WANDB_RUN_GROUP") or name,
        job_type=REPORT_JOB_TYPE,
        name=f"{name}/report",
    )
    with exclusive_lock(folder.test_lock):  # engines that end together log one after the other
        run = start_wandb(
            of_study,
            folder=folder.root,
            run_config=folder.read_study_config(),
            name=name,
            monitor="study/trials",
            mode="max",
            resume_from_step=0,  # the run of an earlier command of this study
            tell=console.say,
        )
        if run is not None:
            entries = {f"study/{name}": value for name, value in scores.items()}
            run.log_metrics(entries)
            run.log_results(RunResults(scores=entries, files={"report": page}))
            run.finish("success")

"""The section on what to run next: reasons, and commands to paste.  Pure."""

import math
import os
import shlex
from collections.abc import Sequence

from tunelab.analysis.configurations import SEED, Setting, format_value
from tunelab.analysis.next_space import SettingChange, suggest_next_space
from tunelab.config.schema import legal_ranges
from tunelab.report.document import Block, BulletList, CellValue, Command, Paragraph, Section, Table
from tunelab.report.importance_sections import ImportanceAnalysis
from tunelab.report.study_checks import budget_verdict, study_boundary_hits, study_failure_limits
from tunelab.report.study_reader import StudyResults
from tunelab.runs.study_folder import StudyFolder

STUDY_KEYS = ("search.trials", "search.hours", "search.warm_start", "search.effect", "hydra.sweep.dir", "search.seed")
MIN_TRIALS, MAX_TRIALS = 10, 60  # trials of the next search


def suggest_changes(analysis: ImportanceAnalysis) -> list[SettingChange]:
    """The change of each setting for the next search; conditional settings stay as they are."""
    study = analysis.study
    if len(study.configurations) < 4:
        return []
    settings = [one for one in study.varied_settings if one.name not in study.conditional]
    return suggest_next_space(
        settings, study.configurations, study_boundary_hits(study), study_failure_limits(study),
        weight=analysis.larger_importance, explained=analysis.explained_variance, legal=legal_ranges(),
    )  # fmt: skip


def next_search_section(analysis: ImportanceAnalysis) -> list[Section]:
    """The section on what to run next."""
    study = analysis.study
    if not study.configurations:
        text = (
            "Nothing came through: read the reasons in the table of trials, and run one configuration by itself first."
        )
        return [Section("What to run next", [Paragraph(text, "bad")])]
    steps = suggest_changes(analysis)
    blocks: list[Block] = [BulletList(suggestion_reasons(analysis, steps))]
    if steps:
        new = any(step.action in ("widen", "narrow", "fix") or step.setting.is_range for step in steps)
        if new and (command := search_command(study, steps)):
            moved = any(step.action == "widen" for step in steps)
            says = (
                "The same search, moved to where the best points:"
                if moved
                else "The same search, closer around the best:"
            )
            blocks.append(Command(command, says))
        rows: list[list[CellValue]] = [
            [
                step.setting.name,
                step.action,
                format_setting_range(step.setting),
                format_setting_range(step.new_setting) if step.new_setting else format_value(step.value),
                step.reason,
            ]
            for step in steps
        ]
        blocks.append(Table("next", ["setting", "do", "now", "then", "why"], rows, "Setting by setting:"))
    if study.is_search:
        root = shlex.quote(study_path(study))
        if not study.confirmation:
            blocks.append(
                Command(
                    f"tunelab confirm {root} --top 3 --seeds 5",
                    "Then prove it: the best and the default again, with fresh seeds:",
                )
            )
        best = StudyFolder(study.root).best
        if best.is_file():
            name = shlex.quote(os.path.relpath(best).removesuffix(".yaml"))
            blocks.append(
                Command(
                    f"python train.py experiment={name}",
                    "The best configuration by itself, scored on the test split and exported:",
                )
            )
    return [Section("What to run next", blocks)]


def suggestion_reasons(analysis: ImportanceAnalysis, steps: Sequence[SettingChange]) -> list[Paragraph]:
    """The reasons for each change, the weightiest first."""
    study = analysis.study
    lines = [
        Paragraph(f"{step.setting.name}: {step.reason}. Try {format_setting_range(step.new_setting)}.", "warn")
        for step in steps
        if step.action == "widen" and step.new_setting
    ]
    lines += [Paragraph(f"{step.setting.name}: {step.reason}.") for step in steps if step.action == "bound"]
    if not lines and len(study.configurations) >= 6:
        text, tone = budget_verdict(study)
        lines.append(Paragraph(text, tone))
    fixed = [f"{step.setting.name}={format_value(step.value)}" for step in steps if step.action == "fix"]
    if fixed:
        lines.append(Paragraph(f"Fix {', '.join(fixed)}: the score hardly depends on it here."))
    lines += confirmation_verdicts(study)
    if math.isnan(study.seed_noise) and not study.confirmation and study.is_search:
        lines.append(Paragraph("Before the best is believed, it must win with other seeds too.", "warn"))
    return lines or [Paragraph("Too few configurations to point anywhere: run more of them.")]


def confirmation_verdicts(study: StudyResults) -> list[Paragraph]:
    """The verdicts of `tunelab confirm`."""
    verdicts = study.confirmation.get("verdicts") or {}
    lines = []
    for label, verdict in verdicts.items():
        sure = bool(verdict.get("adopt"))
        ends = (
            f"{format_value(float(verdict['gain']))} ({format_value(float(verdict['low']))} to"
            f" {format_value(float(verdict['high']))})"
        )
        word = "worth adopting" if sure else "not proven better than the default"
        lines.append(
            Paragraph(f"Confirmed with fresh seeds, {label} is {word}: gain {ends}.", "good" if sure else "warn")
        )
    return lines


def search_command(study: StudyResults, steps: Sequence[SettingChange]) -> str:
    """The next search as one command; empty for a set of runs, whose commands are unknown."""
    if not study.is_search:
        return ""
    typed = [line for line in study.arguments if not any(line.lstrip("+~").startswith(one) for one in STUDY_KEYS)]
    swept = {step.setting.name for step in steps} | {SEED}
    kept = [line for line in typed if override_key(line) not in swept] or list(study.fixed_overrides)
    ranges = any(step.new_setting is not None and step.new_setting.is_range for step in steps)
    if not study.arguments and study.sampler != "grid":
        kept.append(f"search.sampler={study.sampler}")
    words = [*kept]
    for step in steps:
        name = step.setting.name
        if step.new_setting is None:
            shipped = bool(study.arguments) and not any(override_key(line) == name for line in typed)
            words += [f"search.space.params.{name}=null"] * shipped + [
                f"{name}={override_text(step.setting, step.value)}"
            ]
        else:
            words.append(f"{name}={override_value(step.new_setting)}")
    if seeds := study_seeds(study):
        words.append(f"{SEED}={','.join(map(str, seeds))}")
    if ranges:
        words.append(f"search.trials={min(MAX_TRIALS, max(MIN_TRIALS, len(study.configurations)))}")
        words.append(f"search.warm_start=[{study.root}]")
    words.append(f"hydra.sweep.dir={next_study_path(study_path(study))}")
    return "python train.py -m " + " ".join(shlex.quote(word) for word in words)


def override_key(line: str) -> str:
    """The key of an override."""
    return line.partition("=")[0].lstrip("+~").removeprefix("search.space.params.")


def override_value(setting: Setting) -> str:
    """A setting as Hydra's sweep syntax."""
    if not setting.is_range:
        return ",".join(setting.override_texts)
    ends = f"{format_bound(setting.low, setting.integer)},{format_bound(setting.high, setting.integer)}"
    inner = f"interval({ends})"
    kind = f"int({inner})" if setting.integer else inner
    far = setting.low > 0 and setting.high / setting.low >= 100
    tagged = "log" if setting.log and not far else "linear" if far and not setting.log else ""
    if not tagged:
        return kind
    return f"int(tag({tagged},{inner}))" if setting.integer else f"tag({tagged},{inner})"


def format_bound(value: float, integer: bool) -> str:
    """An end of a range as text."""
    return (
        str(int(value))
        if integer
        else f"{value:.6g}"
        if "e" in f"{value:.6g}" or "." in f"{value:.6g}"
        else f"{value:.1f}"
    )


def override_text(setting: Setting, value: object) -> str:
    """A value as it stands on a command line."""
    known = dict(zip(map(repr, setting.values), setting.override_texts, strict=True))
    return known.get(repr(value), format_value(value) if not isinstance(value, float) else repr(value))


def format_setting_range(setting: Setting) -> str:
    """The range or values of a setting in words."""
    if not setting.is_range:
        return ", ".join(setting.override_texts)
    return f"{format_value(setting.low)} to {format_value(setting.high)}"


def study_seeds(study: StudyResults) -> list[int]:
    """The seeds of the trials, if the seed varied."""
    seeds = {trial.params[SEED] for trial in study.trials if isinstance(trial.params.get(SEED), int)}
    return sorted(seeds) if len(seeds) > 1 else []


def study_path(study: StudyResults) -> str:
    """The study's folder, relative if that is shorter."""
    return min(os.path.relpath(study.root), str(study.root), key=len)


def next_study_path(folder: str) -> str:
    """A new folder beside it: study, study_2, study_3."""
    head, _, last = folder.rpartition("_")
    return f"{head}_{int(last) + 1}" if head and last.isdigit() and len(last) < 4 else f"{folder}_2"

"""The section on what to run next: sentences with reasons, and commands to paste.  Pure."""

import math
import os
import shlex
from collections.abc import Sequence

from tunelab.effects.next_space import Step, next_space
from tunelab.effects.points import SEED
from tunelab.effects.setting import Setting, told
from tunelab.legal import RANGES
from tunelab.report.blocks import Block, Command, Grid, Section, Value, Verdicts, Words
from tunelab.report.checks import cliffs_of, edges_of, enough_words
from tunelab.report.mattered import Mattered
from tunelab.report.study_facts import StudyFacts

OWN = ("search.trials", "search.hours", "search.warm_start", "search.effect", "hydra.sweep.dir", "search.seed")
FEWEST, MOST = 10, 60  # trials of the next search


def steps_of(found: Mattered) -> list[Step]:
    """What to do with each setting; those that only some configurations have stay as they are."""
    study = found.study
    if len(study.points) < 4:
        return []
    settings = [one for one in study.settings if one.name not in study.conditional]
    return next_space(
        settings, study.points, edges_of(study), cliffs_of(study),
        weight=found.weight, explained=found.explained, legal=RANGES,
    )  # fmt: skip


def what_next(found: Mattered) -> list[Section]:
    """The section."""
    study = found.study
    if not study.points:
        text = (
            "Nothing came through: read the reasons in the table of trials, and run one configuration by itself first."
        )
        return [Section("What to run next", [Words(text, "bad")])]
    steps = steps_of(found)
    blocks: list[Block] = [Verdicts(reasons(found, steps))]
    if steps:
        new = any(step.kind in ("widen", "narrow", "fix") or step.setting.range for step in steps)
        if new and (command := search_command(study, steps)):
            moved = any(step.kind == "widen" for step in steps)
            says = (
                "The same search, moved to where the best points:"
                if moved
                else "The same search, closer around the best:"
            )
            blocks.append(Command(command, says))
        rows: list[list[Value]] = [
            [
                step.setting.name,
                step.kind,
                span_told(step.setting),
                span_told(step.new) if step.new else told(step.value),
                step.why,
            ]
            for step in steps
        ]
        blocks.append(Grid("next", ["setting", "do", "now", "then", "why"], rows, "Setting by setting:"))
    if study.study:
        root = shlex.quote(place(study))
        if not study.confirmed:
            blocks.append(
                Command(
                    f"tunelab confirm {root} --top 3 --seeds 5",
                    "Then prove it: the best and the default again, with fresh seeds:",
                )
            )
        best = study.root / "best.yaml"
        if best.is_file():
            name = shlex.quote(os.path.relpath(best).removesuffix(".yaml"))
            blocks.append(
                Command(
                    f"python train.py experiment={name}",
                    "The best configuration by itself, scored on the test split and exported:",
                )
            )
    return [Section("What to run next", blocks)]


def reasons(found: Mattered, steps: Sequence[Step]) -> list[Words]:
    """What speaks for which step, the weightiest first."""
    study = found.study
    lines = [
        Words(f"{step.setting.name}: {step.why}. Try {span_told(step.new)}.", "warn")
        for step in steps
        if step.kind == "widen" and step.new
    ]
    lines += [Words(f"{step.setting.name}: {step.why}.") for step in steps if step.kind == "bound"]
    if not lines and len(study.points) >= 6:
        text, tone = enough_words(study)
        lines.append(Words(text, tone))
    fixed = [f"{step.setting.name}={told(step.value)}" for step in steps if step.kind == "fix"]
    if fixed:
        lines.append(Words(f"Fix {', '.join(fixed)}: the score hardly depends on it here."))
    lines += confirmed(study)
    if math.isnan(study.noise) and not study.confirmed and study.study:
        lines.append(Words("Before the best is believed, it must win with other seeds too.", "warn"))
    return lines or [Words("Too few configurations to point anywhere: run more of them.")]


def confirmed(study: StudyFacts) -> list[Words]:
    """What `tunelab confirm` found."""
    found = study.confirmed.get("verdicts") or {}
    lines = []
    for label, verdict in found.items():
        sure = bool(verdict.get("adopt"))
        ends = f"{told(float(verdict['gain']))} ({told(float(verdict['low']))} to {told(float(verdict['high']))})"
        word = "worth adopting" if sure else "not proven better than the default"
        lines.append(Words(f"Confirmed with fresh seeds, {label} is {word}: gain {ends}.", "good" if sure else "warn"))
    return lines


def search_command(study: StudyFacts, steps: Sequence[Step]) -> str:
    """The next search as one command; empty of a set of runs, of which nobody knows how they were started."""
    if not study.study:
        return ""
    typed = [line for line in study.arguments if not any(line.lstrip("+~").startswith(one) for one in OWN)]
    swept = {step.setting.name for step in steps} | {SEED}
    kept = [line for line in typed if key_of(line) not in swept] or list(study.fixed)
    ranges = any(step.new is not None and step.new.range for step in steps)
    if not study.arguments and study.sampler != "grid":
        kept.append(f"search.sampler={study.sampler}")
    words = [*kept]
    for step in steps:
        name = step.setting.name
        if step.new is None:
            shipped = bool(study.arguments) and not any(key_of(line) == name for line in typed)
            words += [f"search.space.params.{name}=null"] * shipped + [f"{name}={text_of(step.setting, step.value)}"]
        else:
            words.append(f"{name}={written(step.new)}")
    if seeds := seeds_of(study):
        words.append(f"{SEED}={','.join(map(str, seeds))}")
    if ranges:
        words.append(f"search.trials={min(MOST, max(FEWEST, len(study.points)))}")
        words.append(f"search.warm_start=[{study.root}]")
    words.append(f"hydra.sweep.dir={next_folder(place(study))}")
    return "python train.py -m " + " ".join(shlex.quote(word) for word in words)


def key_of(line: str) -> str:
    """What an override sets."""
    return line.partition("=")[0].lstrip("+~").removeprefix("search.space.params.")


def written(setting: Setting) -> str:
    """A setting in Hydra's words."""
    if not setting.range:
        return ",".join(setting.texts)
    ends = f"{number(setting.low, setting.integer)},{number(setting.high, setting.integer)}"
    inner = f"interval({ends})"
    kind = f"int({inner})" if setting.integer else inner
    far = setting.low > 0 and setting.high / setting.low >= 100
    tagged = "log" if setting.log and not far else "linear" if far and not setting.log else ""
    if not tagged:
        return kind
    return f"int(tag({tagged},{inner}))" if setting.integer else f"tag({tagged},{inner})"


def number(value: float, integer: bool) -> str:
    """An end of a range."""
    return (
        str(int(value))
        if integer
        else f"{value:.6g}"
        if "e" in f"{value:.6g}" or "." in f"{value:.6g}"
        else f"{value:.1f}"
    )


def text_of(setting: Setting, value: object) -> str:
    """A value on a command line."""
    known = dict(zip(map(repr, setting.values), setting.texts, strict=True))
    return known.get(repr(value), told(value) if not isinstance(value, float) else repr(value))


def span_told(setting: Setting) -> str:
    """A setting in words."""
    if not setting.range:
        return ", ".join(setting.texts)
    return f"{told(setting.low)} to {told(setting.high)}"


def seeds_of(study: StudyFacts) -> list[int]:
    """The seeds that were tried, if the seed varied."""
    found = {trial.params[SEED] for trial in study.trials if isinstance(trial.params.get(SEED), int)}
    return sorted(found) if len(found) > 1 else []


def place(study: StudyFacts) -> str:
    """The study's folder, from here where that is shorter."""
    return min(os.path.relpath(study.root), str(study.root), key=len)


def next_folder(folder: str) -> str:
    """A folder beside it: study, study_2, study_3."""
    head, _, last = folder.rpartition("_")
    return f"{head}_{int(last) + 1}" if head and last.isdigit() and len(last) < 4 else f"{folder}_2"

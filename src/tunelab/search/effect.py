"""The effect of one setting, drawn when a search over it is done: `search.effect.of=lr`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tunelab.atomic import write_json, write_text
from tunelab.charts import Figure, Paragraph, Table, page
from tunelab.effects.drawing import drawing
from tunelab.effects.finding import at, figure, finding, told
from tunelab.effects.over_seeds import Arm, arms
from tunelab.errors import ConfigError
from tunelab.json_lines import read_lines
from tunelab.search.folder import StudyFolder
from tunelab.search.space import Space


@dataclass(frozen=True)
class Effect:
    """What is drawn.

    Attributes:
        of: The setting along the axis.
        by: The setting that gives each line; None for one line.
    """

    of: str
    by: str | None


def effect_of(block: Mapping[str, Any], space: Space) -> Effect | None:
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
    return Effect(str(of), None if by is None else str(by))


def write_effect(folder: StudyFolder, effect: Effect, score: str, *, lower: bool, command: str) -> str:
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
    trials = read_lines(folder.trials)
    found = arms(trials, effect.of, effect.by, lower=lower)
    words = finding(effect.of, score, found, effect.by, lower=lower)
    svg = drawing(effect.of, score, found, effect.by)
    complete = sum(trial["state"] == "complete" for trial in trials)
    title = f"What {effect.of} does to {score}" + (f", by {effect.by}" if effect.by else "")
    body = page(
        title,
        [
            Paragraph(words),
            Figure(svg, "Mean over the seeds, their standard deviation as a band, and each seed as a point."),
            rows(effect, score, found),
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


def rows(effect: Effect, score: str, found: Mapping[Any, list[Arm]]) -> Table:
    """The numbers behind the drawing."""
    columns = [*([effect.by] if effect.by else []), effect.of, score, "seeds", "lost", "beside"]
    cells = [
        [
            *([told(line)] if effect.by else []),
            told(arm.value),
            figure(arm) if arm.scores else "-",
            str(len(arm.scores)),
            str(arm.lost),
            at(arm),
        ]
        for line, each in found.items()
        for arm in each
    ]
    return Table(columns, cells)

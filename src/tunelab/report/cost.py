"""The section on time: what the search cost and what it paid for.  Pure."""

from collections import defaultdict

from tunelab.charts.scatter import scatter
from tunelab.charts.series import Mark, Series
from tunelab.report.blocks import Block, Chart, Grid, Section, Value, Words
from tunelab.report.ranking import cut_off
from tunelab.report.study_facts import StudyFacts
from tunelab.report.words import counted, duration, percent


def cost(study: StudyFacts) -> list[Section]:
    """The section; none where no times are known."""
    timed = [trial for trial in study.trials if trial.seconds is not None]
    if not timed:
        return []
    whole = sum(trial.seconds or 0.0 for trial in timed)
    groups: dict[str, list[float]] = defaultdict(list)
    for trial in timed:
        groups[trial.kind or trial.state].append(trial.seconds or 0.0)
    rows: list[list[Value]] = [
        [how, len(found), sum(found), sum(found) / len(found), sum(found) / whole if whole else None]
        for how, found in groups.items()
    ]
    columns = ["how it ended", "trials", "seconds", "mean seconds", "share"]
    lost = sum(sum(found) for how, found in groups.items() if how not in ("complete", "pruned"))
    text = f"{counted(len(timed), 'trial')} trained for {duration(whole)} in all"
    text += f", {percent(lost / whole)} of it in trials that broke." if lost and whole else "."
    blocks: list[Block] = [Words(text), Grid("cost", columns, rows, "Training time by how the trials ended.")]
    done = [trial for trial in cut_off(study, [t for t in timed if t.done])] if any(t.done for t in timed) else []
    if len(done) > 2:
        title = "Score against time"
        series = [
            Series(
                "trials", [t.seconds or 0.0 for t in done], [t.value or 0.0 for t in done], names=[t.name for t in done]
            )
        ]
        best = [Mark(study.value(study.points[0].cost), "best", "y")] if study.points else []
        svg = scatter(series, title=title, x_label="seconds", y_label=study.score, marks=best)
        blocks.append(Chart("cost", svg, "Cheap trials near the best line are worth a look.", title))
    return [Section("Time and cost", blocks)]

"""The section on generated answers: the same questions before and after training, and scores by group.  Pure."""

from collections.abc import Mapping, Sequence

from tunelab.charts.bar import Bars, bar_chart
from tunelab.report.blocks import Block, Chart, Grid, Sample, Samples, Section, Tone, Value, Words
from tunelab.report.run_facts import Row, RunFacts
from tunelab.report.words import shortened, shown

SHOWN = 8  # answers to read
GROUPS = ("family", "source")
COLUMNS = ("exact_match", "token_f1", "rougeL", "accuracy", "unfinished")


def answers(run: RunFacts) -> list[Section]:
    """The section; none where nothing was generated."""
    rows = [row for row in run.predictions if isinstance(row.get("reference"), str)]
    if not rows:
        return []
    before = {row["row"]: row for row in run.base}
    lead = "Answers of the test split, spread over what there is"
    note = (
        "; before training and after."
        if before
        else ". The answers of the base model were not kept (eval.base=true keeps them)."
    )
    picked = spread(rows)
    blocks: list[Block] = [Samples("answers", [sample(row, before.get(row["row"])) for row in picked], lead + note)]
    return [Section("Answers", [*by_group(run), *blocks])]


def spread(rows: Sequence[Row], most: int = SHOWN) -> list[Row]:
    """A few rows: one of each group first, right and wrong in turn, in the order of the file."""
    found: list[Row] = []
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(next((row[name] for name in GROUPS if row.get(name)), "")), []).append(row)
    for turn in range(most):
        for group in groups.values():
            left = [row for row in group if not any(row is other for other in found)]
            wanted = [row for row in left if (quality(row) < 1) == bool((turn + len(found)) % 2)]
            if left and len(found) < most:
                found.append((wanted or left)[0])
    return found


def quality(row: Row) -> float:
    """How good an answer is, from 0 to 1: the overlap with the wanted one."""
    score = next((row[name] for name in ("token_f1", "rougeL", "exact_match") if row.get(name) is not None), 0.0)
    return float(score)


def sample(row: Row, before: Row | None) -> Sample:
    """One question with its answers."""
    parts = [("question", shortened(str(row.get("prompt", "")))), ("wanted", shortened(row["reference"]))]
    if before is not None:
        parts.append(("before training", shortened(str(before.get("prediction", "")))))
    parts.append(("after training", shortened(str(row.get("prediction", "")))))
    tone: Tone = "good" if row.get("exact_match") == 1 else "bad" if quality(row) < 0.5 else "plain"
    group = next((f"{row[name]}, " for name in GROUPS if row.get(name)), "")
    scores = ", ".join(f"{name} {shown(row[name])}" for name in COLUMNS[:3] if row.get(name) is not None)
    return Sample(f"{group}row {row['row']}: {scores}", parts, tone)


def by_group(run: RunFacts) -> list[Block]:
    """Scores by task family and by source, where the data names them."""
    blocks: list[Block] = []
    for group in GROUPS:
        after = held(run.tables, "test", f"by_{group}")
        before = held(run.tables, "base", f"by_{group}")
        if len(after) < 2:
            continue
        names = sorted(after, key=lambda name: (-after[name].get("rows", 0), name))
        columns = [name for name in COLUMNS if any(name in after[one] for one in names)]
        rows = [[name, *cells(after[name], before.get(name, {}) if before else None, columns)] for name in names]
        heads = [group, "rows", *(["base exact_match"] if before else []), *columns]
        score = next((name for name in COLUMNS if name in columns), "")
        if score and len(names) <= 24:
            bars = [Bars("after training", [float(after[name].get(score, "nan")) for name in names])]
            if before:
                bars.insert(0, Bars("before", [float(before.get(name, {}).get(score, "nan")) for name in names]))
            title = f"{score} by {group}"
            svg = bar_chart(names, bars, title=title, value_label=score, level=True)
            blocks.append(Chart(f"by_{group}", svg, "", title))
        blocks.append(Grid(f"by_{group}", heads, rows, "Test answers of the best checkpoint."))
    return blocks


def cells(after: Mapping[str, float], before: Mapping[str, float] | None, columns: Sequence[str]) -> list[Value]:
    """A group's numbers: its rows, the exact match before training where known, the scores after it."""
    first: list[Value] = [int(after.get("rows", 0)), *([] if before is None else [before.get("exact_match")])]
    return [*first, *(after.get(column) for column in columns)]


def held(tables: Mapping[str, object], split: str, name: str) -> dict[str, Mapping[str, float]]:
    """A table by group; empty where there is none."""
    found = tables.get(split)
    inner = found.get(name) if isinstance(found, Mapping) else None
    return {str(k): v for k, v in inner.items() if isinstance(v, Mapping)} if isinstance(inner, Mapping) else {}


def told_of_base(run: RunFacts) -> list[Words]:
    """What training changed, in a sentence; nothing where the base model was not scored."""
    lines = []
    for score in ("exact_match", "token_f1", "accuracy", "loss"):
        before, after = run.scores.get(f"base/{score}"), run.scores.get(f"test/{score}")
        if before is not None and after is not None:
            better = after < before if score == "loss" else after > before
            tone: Tone = "good" if better else "warn"
            lines.append(Words(f"Training took test {score} from {shown(before)} to {shown(after)}.", tone))
            break
    return lines

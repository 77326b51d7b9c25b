"""Sections with test rows to read: answers before and after training, and the worst errors.  Pure."""

import math
import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher

from tunelab.analysis.row_scores import ANSWER_SCORES, GROUP_KEYS
from tunelab.language.score_names import ScoreName, score_label
from tunelab.language.translation import messages, translate
from tunelab.report.charts.bars import Bars, bar_chart
from tunelab.report.document import Answer, Block, CellValue, Chart, Example, Examples, Fold, Section, Table, Tone
from tunelab.report.formatting import format_cell, truncate
from tunelab.report.run_reader import RunResults
from tunelab.runs.atomic_files import Row

LISTED_ANSWERS = 8  # answers to read
TABLE_COLUMNS = (*ANSWER_SCORES, "accuracy", "unfinished")


def answers_section(run: RunResults) -> list[Section]:
    """The section on generated answers; none where nothing was generated."""
    rows = [row for row in run.predictions if isinstance(row.get("reference"), str)]
    if not rows:
        return []
    before = {row["row"]: row for row in run.base_predictions}
    lead = translate("Answers to test questions, some of each kind; words that differ from the reference are marked")
    note = (
        translate(".") if before else translate(". Answers before training were not kept (eval.base=true keeps them).")
    )
    picked = pick_diverse_rows(rows)
    blocks: list[Block] = [
        Examples("answers", [answer_example(row, before.get(row["row"])) for row in picked], lead + note)
    ]
    return [Section("Answers", [*blocks, *group_blocks(run)])]


def pick_diverse_rows(rows: Sequence[Row], most: int = LISTED_ANSWERS) -> list[Row]:
    """A few rows: one of each group first, correct and wrong ones in turn, in the order of the file."""
    picked: list[Row] = []
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(next((row[name] for name in GROUP_KEYS if row.get(name)), "")), []).append(row)
    for turn in range(most):
        for group in groups.values():
            left = [row for row in group if not any(row is other for other in picked)]
            preferred = [row for row in left if (answer_quality(row) < 1) == bool((turn + len(picked)) % 2)]
            if left and len(picked) < most:
                picked.append((preferred or left)[0])
    return picked


def answer_quality(row: Row) -> float:
    """The quality of an answer from 0 to 1: its overlap with the reference."""
    score = next((row[name] for name in ("token_f1", "rougeL", "exact_match") if row.get(name) is not None), 0.0)
    return float(score)


def answer_example(row: Row, before: Row | None) -> Example:
    """One question with its reference, and the answers before and after training with their differences from it."""
    reference = truncate(row["reference"])
    parts = [(translate("question"), truncate(str(row.get("prompt", "")))), (translate("reference"), reference)]
    answers = [] if before is None else [marked_answer(translate("before training"), before, reference)]
    answers.append(marked_answer(translate("after training"), row, reference))
    tone: Tone = "good" if row.get("exact_match") == 1 else "bad" if answer_quality(row) < 0.5 else "plain"
    group = next((f"{row[name]}, " for name in GROUP_KEYS if row.get(name)), "")
    scores = ", ".join(f"{name} {format_cell(row[name])}" for name in ANSWER_SCORES if row.get(name) is not None)
    return Example(
        translate("{group}row {row}: {scores}", group=group, row=row["row"], scores=scores), parts, tone, answers
    )


def marked_answer(name: str, row: Row, reference: str) -> Answer:
    """A prediction in pieces, each with whether the reference has it at that place."""
    return Answer(name, mark_differences(truncate(str(row.get("prediction", ""))), reference))


WORDS = re.compile(r"\s+|[^\W\d_]+|\d+|.", re.DOTALL)
SPACELESS = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


def mark_differences(text: str, reference: str) -> list[tuple[str, bool]]:
    """A text in pieces, each with whether the reference has the same words there.

    Example:
        >>> mark_differences("two red cows", "two cows")
        [('two ', True), ('red ', False), ('cows', True)]
    """
    ours, theirs = split_words(text), split_words(reference)
    matcher = SequenceMatcher(None, ours, theirs, autojunk=False)
    return [
        ("".join(ours[start:end]), kind == "equal") for kind, start, end, _, _ in matcher.get_opcodes() if start < end
    ]


def split_words(text: str) -> list[str]:
    """Words, numbers, spaces and single signs; letters one by one in scripts without spaces."""
    return [part for word in WORDS.findall(text) for part in (word if SPACELESS.search(word) else [word])]


def group_blocks(run: RunResults) -> list[Block]:
    """Tables and charts of scores by task family and by source, where the data names them."""
    blocks: list[Block] = []
    for group in GROUP_KEYS:
        after = group_table(run.tables, "test", f"by_{group}")
        before = group_table(run.tables, "base", f"by_{group}")
        if len(after) < 2:
            continue
        names = sorted(after, key=lambda name: (-after[name].get("rows", 0), name))
        columns = [name for name in TABLE_COLUMNS if any(name in after[one] for one in names)]
        rows = [[name, *group_cells(after[name], before.get(name, {}) if before else None, columns)] for name in names]
        heads = [
            group,
            *messages("rows"),
            *(messages("exact_match before") if before else []),
            *map(ScoreName, columns),
        ]
        score = next((name for name in TABLE_COLUMNS if name in columns), "")
        if score and len(names) <= 24:
            bars = [Bars(translate("after training"), [float(after[name].get(score, "nan")) for name in names])]
            if before:
                bars.insert(
                    0, Bars(translate("before"), [float(before.get(name, {}).get(score, "nan")) for name in names])
                )
            title = translate("{score} by {group}", score=score_label(score), group=group)
            svg = bar_chart(names, bars, title=title, value_label=score_label(score), level=True)
            blocks.append(Chart(f"by_{group}", svg, "", title))
        table = Table(f"by_{group}", heads, rows, translate("Test answers of the best checkpoint."))
        blocks.append(Fold(translate("every score by {group}", group=group), [table]) if blocks else table)
    return blocks


def group_cells(
    after: Mapping[str, float], before: Mapping[str, float] | None, columns: Sequence[str]
) -> list[CellValue]:
    """The cells of a group: rows, exact match before training if known, scores after it."""
    first: list[CellValue] = [int(after.get("rows", 0)), *([] if before is None else [before.get("exact_match")])]
    return [*first, *(after.get(column) for column in columns)]


def group_table(tables: Mapping[str, object], split: str, name: str) -> dict[str, Mapping[str, float]]:
    """Scores by group of one split; empty where there are none."""
    split_tables = tables.get(split)
    inner = split_tables.get(name) if isinstance(split_tables, Mapping) else None
    return {str(k): v for k, v in inner.items() if isinstance(v, Mapping)} if isinstance(inner, Mapping) else {}


LISTED_ERRORS = 50  # rows of the table


def worst_errors_section(run: RunResults) -> list[Section]:
    """The section on the worst errors; none without predictions."""
    kinds = (worst_labels, worst_label_sets, worst_numbers, worst_pairs)
    for kind in kinds:
        if grid := kind(run.predictions):
            return [
                Section(
                    "Worst errors", [grid], translate("Look here for mislabelled records as well as for weak spots.")
                )
            ]
    rows = sorted(
        (row for row in run.predictions if isinstance(row.get("reference"), str)),
        key=lambda row: (answer_quality(row), row["row"]),
    )
    if not rows:
        return []
    wrong = [row for row in rows if row.get("exact_match") != 1]
    table = Table(
        "worst_errors",
        messages("row", "token_f1", "rougeL", "question", "reference", "answer"),
        [[row["row"], row.get("token_f1"), row.get("rougeL"), *answer_texts(row)] for row in wrong[:LISTED_ERRORS]],
        translate(
            "Answers that differ from the reference: {count:,} of {total:,}; the least alike first.",
            count=len(wrong),
            total=len(rows),
        ),
    )
    return [Section("Worst errors", [table], translate("Look here for mislabelled records as well as for weak spots."))]


def answer_texts(row: Row) -> list[CellValue]:
    """Question, reference and prediction as cells."""
    return [truncate(str(row.get(name, "")), 2000) for name in ("prompt", "reference", "prediction")]


def input_text(row: Row) -> list[CellValue]:
    """The input text of a labelled row, where the file holds it."""
    return [truncate(" | ".join(str(row[name]) for name in ("text", "text_pair") if name in row), 2000) or None]


def worst_labels(rows: Sequence[Row]) -> Table | None:
    """Wrong labels, the most confident first; None without labels."""
    known = [
        row for row in rows if isinstance(row.get("probabilities"), dict) and not isinstance(row.get("label"), list)
    ]
    wrong = [row for row in known if row.get("prediction") != row.get("label")]
    if not known:
        return None
    wrong.sort(key=lambda row: -row["probabilities"].get(row["prediction"], 0.0))
    cells: list[list[CellValue]] = [
        [row["row"], str(row["label"]), str(row["prediction"]), row["probabilities"].get(row["prediction"]),
         row["probabilities"].get(row["label"]), *input_text(row)]
        for row in wrong[:LISTED_ERRORS]
    ]  # fmt: skip
    words = translate(
        "{count:,} of {total:,} [row|rows] got a wrong label; sorted by confidence.", count=len(wrong), total=len(known)
    )
    return Table("worst_errors", messages("row", "true", "predicted", "p(predicted)", "p(true)", "text"), cells, words)


def worst_label_sets(rows: Sequence[Row]) -> Table | None:
    """Rows of several labels, those with the largest loss first; None without any."""
    known = [row for row in rows if isinstance(row.get("probabilities"), dict) and isinstance(row.get("label"), list)]
    if not known:
        return None
    lost = sorted(((label_set_loss(row), row) for row in known), key=lambda pair: (-pair[0], pair[1]["row"]))
    cells: list[list[CellValue]] = [
        [row["row"], ", ".join(map(str, row["label"])), ", ".join(map(str, row["prediction"])), loss, *input_text(row)]
        for loss, row in lost[:LISTED_ERRORS]
    ]
    words = translate("Rows sorted by loss, in nats.")
    return Table("worst_errors", messages("row", "true", "predicted", "loss", "text"), cells, words)


def label_set_loss(row: Row) -> float:
    """Binary cross-entropy of a row, summed over labels."""
    labels = set(row["label"])
    chances = [p if name in labels else 1 - p for name, p in row["probabilities"].items()]
    return -sum(math.log(max(chance, 1e-12)) for chance in chances)


def worst_numbers(rows: Sequence[Row]) -> Table | None:
    """Predicted numbers with the largest errors; of several targets, by the largest one."""
    known = []
    for row in rows:
        true, predicted = row.get("target"), row.get("prediction")
        if isinstance(true, int | float) and isinstance(predicted, int | float):
            known.append((abs(predicted - true), row))
        elif isinstance(true, dict) and isinstance(predicted, dict):
            known.append(
                (max((abs(predicted[name] - true[name]) for name in true if name in predicted), default=0.0), row)
            )
    if not known:
        return None
    known.sort(key=lambda pair: (-pair[0], pair[1]["row"]))
    cells: list[list[CellValue]] = [
        [row["row"], number_cell(row["target"]), number_cell(row["prediction"]), off, *input_text(row)]
        for off, row in known[:LISTED_ERRORS]
    ]
    words = translate(
        "The {listed} of {count:,} [row|rows] with the largest error.",
        listed=min(LISTED_ERRORS, len(known)),
        count=len(known),
    )
    return Table("worst_errors", [*messages("row", "true", "predicted"), "error", *messages("text")], cells, words)


def number_cell(value: object) -> CellValue:
    """One number, or several with their names, as a cell."""
    if isinstance(value, int | float):
        return value
    return (
        ", ".join(f"{name} {format_cell(inner)}" for name, inner in value.items())
        if isinstance(value, dict)
        else str(value)
    )


def worst_pairs(rows: Sequence[Row]) -> Table | None:
    """Pairs whose rejected answer is preferred, the largest margin first; None without pairs."""
    known = sorted((row for row in rows if isinstance(row.get("margin"), int | float)), key=lambda row: row["margin"])
    if not known:
        return None
    names = messages("row", "margin", "chosen_reward", "rejected_reward")
    wrong = sum(row["margin"] <= 0 for row in known)
    words = translate(
        "Rejected answer preferred in {wrong:,} of {count:,} [pair|pairs]; the largest mistakes first.",
        wrong=wrong,
        count=len(known),
    )
    return Table("worst_errors", names, [[row.get(name) for name in names] for row in known[:LISTED_ERRORS]], words)

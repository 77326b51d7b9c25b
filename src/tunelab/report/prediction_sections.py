"""Sections on test predictions: classes, calibration of probabilities, predicted numbers.  Pure."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from tunelab.analysis.calibration import ReliabilityBin, brier_score, expected_calibration_error, reliability_bins
from tunelab.analysis.number_format import format_number
from tunelab.language.translation import messages, translate
from tunelab.report.charts.axes import Series
from tunelab.report.charts.bars import Bars, bar_chart
from tunelab.report.charts.lines import line_chart, scatter
from tunelab.report.document import Block, BulletList, CellValue, Chart, Matrix, Paragraph, Section, Table
from tunelab.report.formatting import format_count, format_percent, join_names
from tunelab.report.run_reader import RunResults
from tunelab.runs.atomic_files import Row

SHOWN_CLASSES = 20  # classes that a matrix has room for
RARE_CLASS_ROWS = 20  # rows of a class below which its scores are mostly luck


def classes_section(run: RunResults) -> list[Section]:
    """The section on classes; none where the run has no table of classes."""
    table = run.tables.get("test")
    if not isinstance(table, Mapping) or not table.get("per_class"):
        return []
    classes = [row for row in table["per_class"] if isinstance(row, Mapping) and "label" in row]
    labels, counts = list(map(str, table.get("labels", ()))), table.get("confusion") or []
    square = bool(counts) and len(counts) == len(labels) and all(len(row) == len(labels) for row in counts)
    single = square and isinstance(counts[0][0], int | float)
    predicted = {name: sum(row[at] for row in counts) for at, name in enumerate(labels)} if single else {}
    blocks: list[Block] = [BulletList(class_verdicts(classes, predicted))]
    blocks += confusion_blocks(labels, counts) if single else []
    blocks.append(per_class_table(classes))
    return [Section("Classes", blocks, translate("On the test split, at the best checkpoint."))]


def class_verdicts(classes: Sequence[Mapping[str, Any]], predicted: Mapping[str, int]) -> list[Paragraph]:
    """The weakest classes, those never predicted, and those too rare to say anything of.

    Args:
        classes: Scores of each class.
        predicted: How often each class was predicted; empty where that is unknown.
    """
    known = [row for row in classes if row["support"]]
    weak = sorted(known, key=lambda row: row["f1"])[:3]
    lines = []
    if known:
        named = ", ".join(
            translate(
                "{label} ({f1:.2f}, {support} [row|rows])", label=row["label"], f1=row["f1"], support=row["support"]
            )
            for row in weak
        )
        lines.append(Paragraph(translate("Weakest by F1: {named}.", named=named)))
    missed = [str(row["label"]) for row in known if not row["recall"]]
    never = [name for name in missed if not predicted.get(name, 1)]
    wrong = [name for name in missed if name not in never]
    lines += (
        [Paragraph(translate("Classes never predicted: {names}.", names=join_names(never, 8)), "warn")] if never else []
    )
    lines += (
        [Paragraph(translate("Classes never predicted correctly: {names}.", names=join_names(wrong, 8)), "warn")]
        if wrong
        else []
    )
    rare = sum(0 < row["support"] < RARE_CLASS_ROWS for row in classes)
    if rare:
        lines.append(
            Paragraph(
                translate(
                    "Fewer than {least} test rows in {rare} of {count} [class|classes]: their scores are mostly luck.",
                    rare=rare,
                    count=len(classes),
                    least=RARE_CLASS_ROWS,
                ),
                "warn",
            )
        )
    return lines


def confusion_blocks(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> list[Block]:
    """The confusion matrix, of the most confused classes where there are many, and then the most confused pairs."""
    pairs = [
        (counts[real][guess], real, guess)
        for real in range(len(labels))
        for guess in range(len(labels))
        if real != guess and counts[real][guess]
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1:]))
    caption = translate("Rows are true classes, columns predicted ones; the share is of the true class. ")
    if pairs:
        n, real, guess = pairs[0]
        share = format_percent(n / max(1, sum(counts[real])))
        caption += translate(
            "Most often, {true} is taken for {predicted} ({rows}, {share}).",
            true=labels[real],
            predicted=labels[guess],
            rows=format_count(n, "row"),
            share=share,
        )
    else:
        caption += translate("No row has a wrong label.")
    if len(labels) <= SHOWN_CLASSES:
        return [Matrix("confusion", labels, counts, caption)]
    wrong = [sum(n for n, real, guess in pairs if at in (real, guess)) for at in range(len(labels))]
    kept = sorted(sorted(range(len(labels)), key=lambda at: -wrong[at])[:SHOWN_CLASSES])
    rows: list[list[CellValue]] = [
        [labels[real], labels[guess], n, n / max(1, sum(counts[real]))] for n, real, guess in pairs
    ]
    columns = messages("true", "predicted", "rows", "share of true")
    return [
        Matrix("confusion", labels, counts, caption, kept),
        Table("confused_pairs", columns, rows, translate("Pairs of classes, the most confused first.")),
    ]


def per_class_table(classes: Sequence[Mapping[str, Any]]) -> Table:
    """Precision, recall and F1 of every class."""
    names = ["precision", "recall", "f1", "support"]
    return Table(
        "per_class",
        [*messages("label", *names)],
        [[str(row["label"]), *(row.get(name) for name in names)] for row in classes],
    )


GOOD_CALIBRATION_ERROR = 0.05  # an expected calibration error up to which confidences can be taken at their word


def calibration_section(run: RunResults) -> list[Section]:
    """The section on calibration; none without probabilities."""
    rows = [row for row in run.predictions if isinstance(row.get("probabilities"), dict) and row["probabilities"]]
    if not rows:
        return []
    several = any(isinstance(row.get("label"), list) for row in rows)
    confidences, hits = multilabel_confidences(rows) if several else top_label_confidences(rows)
    bins = reliability_bins(confidences, hits)
    error = expected_calibration_error(bins)
    blocks: list[Block] = [BulletList([calibration_verdict(bins, error)]), *calibration_charts(bins, several=several)]
    blocks.append(reliability_table(bins))
    if not several:
        names = list(rows[0]["probabilities"])
        known = [row for row in rows if row.get("label") in names and set(row["probabilities"]) == set(names)]
        if known:
            score = brier_score(
                [[row["probabilities"][n] for n in names] for row in known],
                [names.index(row["label"]) for row in known],
            )
            blocks.append(
                Paragraph(
                    translate(
                        "Brier score {score:.4g} over {count:,} [row|rows] (0 is perfect, lower is better).",
                        score=score,
                        count=len(known),
                    ),
                    "soft",
                )
            )
    what = translate("each decision for or against a label") if several else translate("the predicted label")
    return [
        Section(
            "Calibration",
            blocks,
            translate("Over the test split, the probability of {what} against how often it was right.", what=what),
        )
    ]


def top_label_confidences(rows: Sequence[Row]) -> tuple[list[float], list[bool]]:
    """The probability of each predicted label, and whether it is correct."""
    confidences = [float(row["probabilities"].get(row.get("prediction"), 0.0)) for row in rows]
    return confidences, [row.get("prediction") == row.get("label") for row in rows]


def multilabel_confidences(rows: Sequence[Row]) -> tuple[list[float], list[bool]]:
    """For several labels a row: the probability of each decision, and whether it is correct."""
    confidences, hits = list[float](), list[bool]()
    for row in rows:
        labels, predictions = set(row.get("label") or ()), set(row.get("prediction") or ())
        for name, probability in row["probabilities"].items():
            confidences.append(float(probability) if name in predictions else 1 - float(probability))
            hits.append((name in predictions) == (name in labels))
    return confidences, hits


def calibration_verdict(bins: Sequence[ReliabilityBin], error: float) -> Paragraph:
    """The verdict on the calibration."""
    rows = sum(one.rows for one in bins)
    confidence = sum(one.rows * one.confidence for one in bins) / rows
    accuracy = sum(one.rows * one.accuracy for one in bins) / rows
    figures = translate(
        "mean confidence {confidence}, right {accuracy}; expected calibration error {error:.3f}",
        confidence=format_percent(confidence),
        accuracy=format_percent(accuracy),
        error=error,
    )
    if error <= GOOD_CALIBRATION_ERROR:
        return Paragraph(translate("Confidences are calibrated: {figures}.", figures=figures), "good")
    way = translate("over-confident" if confidence > accuracy else "under-confident")
    return Paragraph(
        translate(
            "The model is {way}: {figures}. One temperature, fitted on validation, usually mends that.",
            way=way,
            figures=figures,
        ),
        "warn",
    )


def calibration_charts(bins: Sequence[ReliabilityBin], *, several: bool) -> list[Block]:
    """The reliability diagram, and the histogram of confidences."""
    names = [translate("{rows:,} [row|rows]", rows=one.rows) for one in bins]
    series = [
        Series(
            translate("measured"), [one.confidence for one in bins], [one.accuracy for one in bins], tooltip_names=names
        ),
        Series(translate("perfect"), [0.0, 1.0], [0.0, 1.0], marked=False),
    ]
    title = translate("Confidence and accuracy")
    svg = line_chart(series, title=title, x_label=translate("confidence"), y_label=translate("accuracy"))
    counts = bar_chart(
        [translate("{low:.2f} to {high:.2f}", low=one.low, high=one.high) for one in bins],
        [Bars("", [float(one.rows) for one in bins])],
        title=translate("Confidence of the predictions"),
        value_label=translate("decisions" if several else "rows"),
        level=True,
    )
    below = translate("Below the diagonal: over-confident.")
    return [
        Chart("reliability", svg, below, title),
        Chart("confidence", counts, "", translate("Confidence of the predictions")),
    ]


def reliability_table(bins: Sequence[ReliabilityBin]) -> Table:
    """The reliability bins as a table."""
    rows = [[one.low, one.high, one.rows, one.confidence, one.accuracy, one.accuracy - one.confidence] for one in bins]
    return Table("calibration", messages("above", "up to", "rows", "confidence", "accuracy", "gap"), rows)


SCATTER_POINTS = 1000  # points of a drawing
HISTOGRAM_BARS = 15


def predicted_numbers_section(run: RunResults) -> list[Section]:
    """The section on predicted numbers; none where there are none."""
    targets = target_prediction_pairs(run.predictions)
    if not targets:
        return []
    blocks: list[Block] = []
    for name, pairs in targets.items():
        lines = regression_verdicts(name, pairs)
        blocks += [BulletList(lines)] if lines else []
        title = translate("Predicted against true")
        title = translate("{title}: {name}", title=title, name=name) if name else title
        step = -(-len(pairs) // SCATTER_POINTS)
        kept = pairs[::step]
        ends = [min(true for true, _ in pairs), max(true for true, _ in pairs)]
        rows = Series(translate("rows"), *zip(*kept, strict=True))
        perfect = Series(translate("perfect"), ends, ends, marked=False)
        svg = scatter([rows], title=title, x_label=translate("true"), y_label=translate("predicted"), lines=[perfect])
        words = translate("Every {step}th of {count:,} [row|rows].", step=step, count=len(pairs)) if step > 1 else ""
        blocks.append(Chart(f"predicted_and_true{name and '_'}{file_slug(name)}", svg, words, title))
        blocks.append(error_histogram(name, [predicted - true for true, predicted in pairs]))
    return [Section("Predicted numbers", blocks, translate("Over the test split, in the units of the data."))]


def target_prediction_pairs(rows: Sequence[Row]) -> dict[str, list[tuple[float, float]]]:
    """True and predicted value of each row, by target; a single target has no name."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        true, predicted = row.get("target"), row.get("prediction")
        if isinstance(true, int | float) and isinstance(predicted, int | float):
            pairs.setdefault("", []).append((float(true), float(predicted)))
        elif isinstance(true, dict) and isinstance(predicted, dict):
            for name in true:
                if isinstance(true[name], int | float) and isinstance(predicted.get(name), int | float):
                    pairs.setdefault(name, []).append((float(true[name]), float(predicted[name])))
    return pairs


def regression_verdicts(name: str, pairs: Sequence[tuple[float, float]]) -> list[Paragraph]:
    """Verdicts on predictions that are biased or whose variance is too small."""
    if len(pairs) < 3:
        return []
    true_values, predicted_values = [true for true, _ in pairs], [predicted for _, predicted in pairs]
    of = translate(" of {name}", name=name) if name else ""
    lines = []
    shift, error = fmean(predicted_values) - fmean(true_values), stdev(predicted - true for true, predicted in pairs)
    if error and abs(shift) > 3 * error / len(pairs) ** 0.5 and abs(shift) > 0.1 * error:
        way = translate("above" if shift > 0 else "below")
        lines.append(
            Paragraph(
                translate(
                    "Predictions{of} lie {shift} {way} the truth on average.",
                    of=of,
                    shift=format_number(abs(shift)),
                    way=way,
                ),
                "warn",
            )
        )
    if stdev(true_values) and stdev(predicted_values) < 0.5 * stdev(true_values):
        share = stdev(predicted_values) / stdev(true_values)
        lines.append(
            Paragraph(
                translate(
                    "Predictions{of} vary {share:.2f} times as much as the true values: the model stays near the mean.",
                    of=of,
                    share=share,
                ),
                "warn",
            )
        )
    return lines


def error_histogram(name: str, errors: Sequence[float]) -> Chart:
    """The histogram of errors."""
    low, high = min(errors), max(errors)
    wide = (high - low) / HISTOGRAM_BARS or 1.0
    counts = [0.0] * HISTOGRAM_BARS
    for error in errors:
        counts[min(HISTOGRAM_BARS - 1, int((error - low) / wide))] += 1
    labels = [
        translate(
            "{low} to {high}", low=format_number(low + wide * at, 2), high=format_number(low + wide * (at + 1), 2)
        )
        for at in range(HISTOGRAM_BARS)
    ]
    title = translate("Errors (predicted minus true)")
    title = translate("{title}: {name}", title=title, name=name) if name else title
    svg = bar_chart(labels, [Bars("", counts)], title=title, value_label=translate("rows"), level=True)
    return Chart(f"errors{name and '_'}{file_slug(name)}", svg, "", title)


def file_slug(name: str) -> str:
    """A name as part of a file's name."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)[:60]

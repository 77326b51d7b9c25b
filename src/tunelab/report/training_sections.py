"""Sections on how a run was trained: curves, the doctor's findings, data, provenance.  Pure."""

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from tunelab.analysis.learning_curves import CurveDiagnosis, diagnose_curve
from tunelab.analysis.number_format import format_bytes, format_duration
from tunelab.config.flatten import flatten
from tunelab.data.summary_text import (
    column_lines,
    describe_duplicates,
    describe_leaks,
    describe_near_empty,
    describe_unknown,
    has_duplicates,
)
from tunelab.language.score_names import score_label
from tunelab.language.translation import message, messages, translate
from tunelab.report.charts.axes import ReferenceLine, ScaleKind, Series
from tunelab.report.charts.bars import Bars, bar_chart
from tunelab.report.charts.lines import line_chart
from tunelab.report.document import Block, BulletList, CellValue, Chart, Command, Fold, Paragraph, Section, Table
from tunelab.report.formatting import format_count, to_cell
from tunelab.report.run_reader import RunResults
from tunelab.runs.entry_script import script_option

CurvePoints = tuple[list[float], list[float]]  # steps done, values
LOG_SCALE_RATIO = 20.0  # ratio of the largest to the smallest value from which on a log scale shows more


def curve_points(rows: Sequence[Mapping[str, float]], name: str) -> CurvePoints:
    """The points of one curve, steps counted from 1; the file counts from 0."""
    points = [(row["step"] + 1, row[name]) for row in rows if name in row and "step" in row]
    return [step for step, _ in points], [value for _, value in points]


def curves_section(run: RunResults) -> Section:
    """The section with the learning curves: loss and the monitored score large, the others folded."""
    if not run.curves:
        text = translate(
            "The run left no curves: metrics.csv is missing or empty. It is written from the first logged step on."
        )
        return Section("Curves", [Paragraph(text, "soft")])
    names = list(dict.fromkeys(name for row in run.curves for name in row if name not in ("step", "epoch")))
    best = [ReferenceLine(float(run.best["step"]), translate("best"))] if run.best.get("step") else []
    scores = sorted({name.partition("/")[2] for name in names if name.startswith("val/")} - {"loss"})
    charts = [chart for score in ["loss", *scores] for chart in train_and_validation_chart(run, score, best)]
    charts += [
        curve_chart(name, [Series(name, *points)], translate(words), best if name == "train/grad_norm" else ())
        for name, words in OTHER_CURVES
        if len((points := curve_points(run.curves, name))[0]) > 1
    ]
    heads = ["loss", run.monitor.rpartition("/")[2], *run.description.headline_scores]
    first = next((name for name in heads[1:] if name != "loss" and name in scores), "")
    if not charts:
        text = translate(
            "No score was logged twice, so there is no curve; trainer.log_every_n_steps=1 logs every step."
        )
        return Section("Curves", [Paragraph(text, "soft")])
    large = [one for one in charts if one.name in ("curve_val_loss", f"curve_val_{first}")]
    large += [one for one in charts if one not in large][: max(0, MIN_LARGE - len(large))]
    rest = [one for one in charts if one not in large]
    named = ", ".join(one.title for one in rest)
    return Section(
        "Curves",
        [
            *large,
            *(
                [Fold(translate("{curves}: {names}", curves=format_count(len(rest), "other curve"), names=named), rest)]
                if rest
                else []
            ),
        ],
    )


MIN_LARGE = 2  # charts that stand open
OTHER_CURVES = (
    ("train/lr", message("The learning rate that the schedule gave at each step.")),
    ("train/grad_norm", message("Norm of the gradient before clipping: spikes and growth announce divergence.")),
    *(
        (speed, message("Dips tell of waiting for data, or of another program on the machine."))
        for speed in ("train/tokens_per_second", "train/samples_per_second")
    ),
)


def train_and_validation_chart(run: RunResults, score: str, best: Sequence[ReferenceLine]) -> list[Chart]:
    """Training and validation values of a score in one chart; none where neither was logged twice."""
    curves = [(name, curve_points(run.curves, name)) for name in (f"train/{score}", f"val/{score}")]
    series = [Series(score_label(name), xs, ys) for name, (xs, ys) in curves if xs]
    drawn = any(len(one.xs) > 1 for one in series)  # a single value stands in the table of scores
    return [curve_chart(f"val/{score}", series, "", best)] if drawn else []


def curve_chart(name: str, series: Sequence[Series], words: str, marks: Sequence[ReferenceLine]) -> Chart:
    """A chart over the steps."""
    title = score_label(name.rpartition("/")[2] if len(series) > 1 else series[0].name)
    scale = choose_scale([value for line in series for value in line.ys])
    svg = line_chart(series, title=title, x_label=translate("optimizer steps"), y_label="", y_scale=scale, marks=marks)
    return Chart("curve_" + name.replace("/", "_"), svg, words, title)


def choose_scale(values: Sequence[float]) -> ScaleKind:
    """`log` for positive values that span far, else `linear`."""
    good = [value for value in values if math.isfinite(value)]
    return "log" if good and min(good) > 0 and max(good) / min(good) > LOG_SCALE_RATIO else "linear"


def diagnose_run_curve(run: RunResults) -> CurveDiagnosis:
    """The diagnosis of the monitored score, against the training loss."""
    name = run.monitor or "val/loss"
    steps, values = curve_points(run.curves, name)
    train_steps, losses = curve_points(run.curves, "train/loss")
    return diagnose_curve(
        steps, values, train_steps, losses, lower=run.lower_is_better if run.monitor else True, name=name
    )


def doctor_section(run: RunResults) -> list[Section]:
    """The section with the doctor's findings; none where no doctor watched the run."""
    if not run.doctor_findings:
        return []
    entries = run.doctor_findings.get("findings")
    lines = (
        [finding_paragraph(entry) for entry in entries if isinstance(entry, Mapping)]
        if isinstance(entries, list)
        else []
    )
    if not lines:
        looked = run.doctor_findings.get("looked_for")
        text = translate("The doctor watched this run and found nothing amiss.")
        if isinstance(looked, list):
            text = translate(
                "The doctor watched this run and found nothing amiss: {ailments} looked for.",
                ailments=format_count(len(looked), "ailment"),
            )
        lines = [Paragraph(text, "good")]
    return [Section("Doctor", [BulletList(lines)], translate("What was found while the run trained, and what to try."))]


def finding_paragraph(entry: Mapping[str, Any]) -> Paragraph:
    """One finding as a sentence: name, observation, remedy."""
    name, says, attempt = (str(entry.get(key) or "").strip() for key in ("verdict", "says", "attempt"))
    name = name.replace("_", " ")
    text = f"{name}: {says}" if name and says else name or says
    advice = f"{attempt[:1].upper()}{attempt[1:].rstrip('.')}." if attempt else ""
    return Paragraph(f"{text.rstrip('.')}. {advice}".strip(), "warn")


SOME_UNKNOWN, MANY_UNKNOWN = 0.05, 0.5  # shares of unknown tokens that are worth a warning, that spoil the data
CHARTED_LABELS = 20  # bars of a drawing


def data_section(run: RunResults) -> list[Section]:
    """The section on the data; none without a data report."""
    report = run.data_report
    if not report:
        return []
    splits = report["splits"]
    names = list(dict.fromkeys(name for row in splits.values() for name in row))
    rows = [[split, *(row.get(name, 0) for name in names)] for split, row in splits.items()]
    blocks: list[Block] = [BulletList(data_verdicts(report)), Table("data", messages("split", *names), rows)]
    blocks += length_chart(report.get("lengths", {}))
    blocks += label_chart(report.get("labels", {}))
    files = [[name, str(digest)] for name, digest in report.get("files", {}).items()]
    blocks.append(
        Table(
            "data_files",
            messages("file", "sha256"),
            files,
            translate("What was read; the sum proves that it is the same file."),
        )
    )
    blocks += [Paragraph(translate("Columns: {line}.", line=line), "soft") for line in column_lines(report)]
    blocks += [Paragraph(note, "soft") for note in report.get("notes", ())]
    return [Section("Data", blocks)]


def data_verdicts(report: Mapping[str, Any]) -> list[Paragraph]:
    """Verdicts on duplicates, leaks and dropped rows."""
    twice, leaked = describe_duplicates(report), describe_leaks(report)
    lines = [Paragraph(translate("Duplicates: {twice}.", twice=twice), "warn" if has_duplicates(report) else "good")]
    if shares := report.get("unknown_tokens"):
        most = max(shares.values())
        style: Literal["bad", "warn", "good"] = (
            "bad" if most >= MANY_UNKNOWN else "warn" if most >= SOME_UNKNOWN else "good"
        )
        lines.append(
            Paragraph(
                translate("Text that the tokenizer does not know: {report}.", report=describe_unknown(report)), style
            )
        )
    if near_empty := describe_near_empty(report):
        lines.append(Paragraph(translate("{value}.", value=near_empty), "warn"))
    held = report["leaks"]
    copies = bool(held["exact"])
    alike = bool(held["near"] and held["near"]["pairs"])
    lines.append(
        Paragraph(translate("Leaks: {leaked}.", leaked=leaked), "bad" if copies else "warn" if alike else "good")
    )
    lines += [Paragraph(translate("{value}.", value=text), "warn") for text in lost_rows(report["splits"])]
    return lines


DROP_REASONS = {
    "too_long": message("too long"),
    "no_target": message("without target tokens"),
    "unusable": message("unusable"),
}


def lost_rows(splits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How many rows of each split were dropped, and why, or cut; nothing of the splits that are whole."""
    lines = []
    for split, row in splits.items():
        why = translate(", ").join(
            f"{row[name]:,} {translate(words)}" for name, words in DROP_REASONS.items() if row.get(name)
        )
        if row.get("dropped"):
            lines.append(
                translate(
                    "{split}: dropped {dropped:,} of {rows:,} [row|rows]{reasons}",
                    split=split,
                    dropped=row["dropped"],
                    rows=row["rows"],
                    reasons=translate(" ({why})", why=why) if why else "",
                )
            )
        if row.get("truncated"):
            lines.append(
                translate(
                    "{split}: cut {truncated:,} of {rows:,} [row|rows] to data.max_tokens",
                    split=split,
                    truncated=row["truncated"],
                    rows=row["rows"],
                )
            )
    return lines


def length_chart(held: Mapping[str, Mapping[str, Any]]) -> list[Block]:
    """The histogram of lengths of the training rows."""
    spread = held.get("train") or {}
    if not spread:
        return []
    edges, most = spread["edges"], spread["quantiles"]["most"]
    lasts = [min(edge - 1, most) for edge in edges[1:]]
    groups = [
        f"{low:,}" if low == last else translate("{low:,} to {last:,}", low=low, last=last)
        for low, last in zip(edges, lasts, strict=False)
    ]
    title = translate("Lengths of the training rows")
    counts = [float(rows) for rows in spread["rows"]]
    svg = bar_chart(
        groups[: len(counts)], [Bars("", counts)], title=title, value_label=translate("rows, by tokens"), level=True
    )
    return [Chart("lengths", svg, "", title)]


def label_chart(held: Mapping[str, Mapping[str, int]]) -> list[Block]:
    """The counts of the training labels."""
    table = held.get("train") or {}
    if not table:
        return []
    names = sorted(table, key=lambda name: -table[name])
    title = translate("Labels of the training rows") + (
        f", the {CHARTED_LABELS} most frequent of {len(names)}" if len(names) > CHARTED_LABELS else ""
    )
    bars = [Bars("", [float(table[name]) for name in names[:CHARTED_LABELS]])]
    return [
        Chart(
            "labels",
            bar_chart(names[:CHARTED_LABELS], bars, title=title, value_label=translate("rows"), level=True),
            "",
            title,
        )
    ]


LISTED_PACKAGES = (
    "torch",
    "lightning",
    "transformers",
    "tokenizers",
    "peft",
    "datasets",
    "hydra-core",
    "numpy",
    "optuna",
    "tunelab",
)


def provenance_section(run: RunResults) -> list[Section]:
    """The section on command, versions and settings; none without a manifest."""
    card = run.manifest
    if not card:
        return []
    blocks: list[Block] = []
    if command := card.get("command"):
        blocks.append(Command(str(command), translate("The command that started it:")))
    blocks.append(
        Command(
            f"tunelab reproduce {shlex.quote(str(run.root))}{script_option(card.get('script'))}",
            translate("To re-run it and compare every number:"),
        )
    )
    if doubts := [Paragraph(text, "plain") for text in reproducibility_warnings(card)]:
        blocks.append(BulletList(doubts))
    rows: list[list[CellValue]] = [
        [name, value] for name, value in provenance_facts(card).items() if value not in (None, "")
    ]
    settings = settings_table(run)
    blocks.append(Fold(translate("machine and versions"), [Table("provenance", messages("what", "value"), rows)]))
    blocks.append(Fold(translate("every setting ({count})", count=len(settings.rows)), [settings]))
    return [Section("Provenance", blocks)]


def reproducibility_warnings(card: Mapping[str, Any]) -> list[str]:
    """Sentences on what may prevent a reproduction."""
    git = card.get("git") or {}
    warnings = []
    if git.get("dirty"):
        warnings.append(
            translate(
                "The code had changes that no commit holds ({size:,} [byte|bytes]); run.json keeps them.",
                size=git.get("diff_bytes", 0),
            )
        )
    if git.get("untracked"):
        warnings.append(
            translate(
                "{count} [file was|files were] not known to git, so the commit alone does not bring [it|them] back.",
                count=len(git["untracked"]),
            )
        )
    if not git.get("commit"):
        warnings.append(translate("No commit is known: the code was run outside a git checkout."))
    if len(card.get("sessions") or ()):
        warnings.append(
            translate(
                "The run was resumed {times}; look at the commit of each session.",
                times=format_count(len(card["sessions"]), "time"),
            )
        )
    return warnings


def provenance_facts(card: Mapping[str, Any]) -> dict[str, CellValue]:
    """The facts of the manifest by name."""
    git, machine, model = card.get("git") or {}, card.get("hardware") or {}, card.get("model") or {}
    versions = card.get("packages") or {}
    gpus = [str(gpu.get("name", gpu)) if isinstance(gpu, Mapping) else str(gpu) for gpu in machine.get("gpus") or ()]
    memory = machine.get("memory_bytes")
    facts: dict[str, CellValue] = {
        message("id"): card.get("id"),
        message("started"): card.get("started"),
        message("ended"): card.get("ended"),
        message("time"): format_duration(card.get("seconds")),
        message("commit"): git.get("commit"),
        message("branch"): git.get("branch"),
        message("base model"): model.get("path"),
        message("weights sha256"): model.get("sha256"),
        message("processor"): translate(
            "{processor}, {count} [core|cores]", processor=machine.get("processor"), count=machine.get("usable_cores")
        )
        if machine
        else None,
        message("memory"): format_bytes(memory) if memory else None,
        message("accelerators"): ", ".join(gpus) or translate("none"),
        message("Python"): card.get("python"),
        message("system"): card.get("platform"),
        message("seed"): (card.get("seeds") or {}).get("global"),
    }
    return facts | {name: versions[name] for name in LISTED_PACKAGES if name in versions}


def settings_table(run: RunResults) -> Table:
    """Every setting, with those of the command line highlighted."""
    changed = {str(word).lstrip("+~").partition("=")[0] for word in run.manifest.get("overrides") or ()}
    rows: list[list[CellValue]] = [
        [name, to_cell(value), message("changed") if {name, name.partition(".")[0]} & changed else None]
        for name, value in flatten(run.config).items()
    ]
    strong = frozenset(place for place, row in enumerate(rows) if row[2])
    return Table(
        "settings",
        messages("setting", "value", "command line"),
        rows,
        translate("Every setting of the run."),
        highlighted_rows=strong,
    )

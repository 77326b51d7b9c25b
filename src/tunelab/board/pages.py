"""The pages of a board: the table of runs and searches with curves of what is running, a report, a refusal."""

import itertools
from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from tunelab.board.folder_scan import Board, BoardEntry
from tunelab.language.score_names import score_label
from tunelab.language.translation import messages, translate
from tunelab.report.charts.axes import Series
from tunelab.report.charts.lines import line_chart
from tunelab.report.charts.svg import CHART_CSS
from tunelab.report.formatting import format_cell
from tunelab.report.render import render_page
from tunelab.report.training_sections import choose_scale, curve_points

CHARTED_RUNS = 6  # running runs with curves on the page
STATUS_CLASSES = {
    **dict.fromkeys(("finished", "early-stopped"), "good"),
    **dict.fromkeys(("diverged", "failed", "damaged"), "bad"),
    **dict.fromkeys(("pre-empted", "stopped", "refused", "unknown"), "warn"),
}
REFRESH_SECONDS = 5
OPEN_ROWS = 100  # rows that a long table opens with
COLUMNS = (
    *messages("path", "kind", "status", "monitor", "best"),
    "test",
    *messages("step", "seconds", "started", "task", "model", "settings"),
)
KINDS = messages("run", "search")  # of entries
STATUSES = messages("stopped", "refused", "damaged")  # beside those of a run


def board_page(board: Board, inside: str = "") -> str:
    """The page of the folder, or of the trials of one search in it.

    Raises:
        LookupError: If `inside` is no folder of it.
    """
    scan = board.scan(inside)
    curves = running_charts(board, list(itertools.islice(board.running(scan), CHARTED_RUNS)))
    title = f"{board.root.name}/{inside}" if inside else board.root.name or str(board.root)
    return render_page(
        "board.html",
        translate("Board of {title}", title=title),
        scripts=("script.js", "board.js"),
        root=board.typed,
        inside=inside,
        columns=COLUMNS,
        entries=scan.entries,
        notes=scan.notes,
        counts=status_counts(scan.entries),
        curves=curves,
        refresh=REFRESH_SECONDS,
        open_rows=OPEN_ROWS,
        link=lambda path, **more: "?" + urlencode({"path": path, **more}),
        within=lambda path: "/?" + urlencode({"in": path}),
        status_classes=STATUS_CLASSES,
        format_cell=format_cell,
        score_label=score_label,
        count_trials=lambda count: translate("{count} [trial|trials]", count=count),
        exact=repr,
    )


def status_counts(entries: Sequence[BoardEntry]) -> Mapping[str, int]:
    """How many entries there are of each status, the most frequent first."""
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry.status] = counts.get(entry.status, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def running_charts(
    board: Board, running: Sequence[tuple[str, list[dict[str, float]], str]]
) -> list[tuple[str, list[str]]]:
    """For each running run its path and drawings: the losses, and the monitored score where it is another."""
    charts = []
    for path, rows, monitor in running:
        drawn = []
        for names in (("train/loss", "val/loss"), (monitor,) if monitor not in ("", "val/loss") else ()):
            series = [Series(score_label(name), *curve_points(rows, name)) for name in names]
            series = [one for one in series if one.xs]
            if series:
                scale = choose_scale([value for one in series for value in one.ys])
                title = "loss" if len(series) > 1 else series[0].name
                svg = line_chart(series, title=title, x_label=translate("optimizer steps"), y_label="", y_scale=scale)
                drawn.append(svg.replace(f"<style>{CHART_CSS}</style>", ""))
        charts.append((path or board.root.name, drawn))
    return charts


def refusal_page(title: str, text: str) -> str:
    """A page that says why there is nothing to show."""
    return render_page("refusal.html", title, text=text)

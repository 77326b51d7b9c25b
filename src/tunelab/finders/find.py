"""From `find=NAME` to the terminal, a page and a file of numbers."""

from collections.abc import Callable, Mapping
from pathlib import Path

from tunelab import console
from tunelab.assemble import Prepared, prepare
from tunelab.atomic import write_json, write_text
from tunelab.equipment import device_faults
from tunelab.errors import ConfigError
from tunelab.finders.batch_size import find_batch_size
from tunelab.finders.finding import Finding
from tunelab.finders.learning_rate import find_rate
from tunelab.finders.micro_tokens import find_micro_tokens
from tunelab.quiet import silence_vendors
from tunelab.report.charts.chart_page import Heading, Paragraph, render_page
from tunelab.settings import Run

FINDERS: Mapping[str, Callable[[Prepared], Finding]] = {
    "lr": find_rate,
    "micro_tokens": find_micro_tokens,
    "batch_size": find_batch_size,
}


def find(settings: Run, folder: Path) -> Finding:
    """Look for the value that `settings.find` names; nothing is trained.

    Args:
        settings: Of the run that is to be; checked.
        folder: Takes `find.json` and `find.html`, and nothing else.

    Raises:
        ConfigError, DataError: If the settings or the data are at fault.
    """
    silence_vendors()
    if faults := device_faults(settings.trainer):
        raise ConfigError.listing(faults)
    finding = FINDERS[str(settings.find)](prepare(settings))
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {"setting": finding.setting, "value": finding.value, "said": list(finding.said), **finding.numbers}
    write_json(folder / "find.json", wanted)
    write_text(folder / "find.html", as_page(finding))
    console.show_lines(f"find {finding.setting}", [*finding.said, *([finding.advice] if finding.advice else [])])
    console.show_paths({"page": folder / "find.html", "numbers": folder / "find.json"})
    return finding


def as_page(finding: Finding) -> str:
    """The whole page."""
    said = [Paragraph(f"{beginning(line, finding.setting)}.") for line in finding.said]
    head = Heading(f"Suggestion: {finding.advice or 'none'}")
    return render_page(f"Finding {finding.setting}", [head, *said, *finding.pictures])


def beginning(line: str, setting: str) -> str:
    """A line as a sentence; the name of a setting stays as it is typed."""
    return line if line.startswith(setting) else f"{line[:1].upper()}{line[1:]}"

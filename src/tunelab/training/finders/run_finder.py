"""`find=NAME`: runs a finder and leaves its result on the terminal, in find.html and in find.json."""

from collections.abc import Callable, Mapping
from pathlib import Path

from tunelab.config.schema import RunConfig
from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.report.document import Document, Paragraph, Section
from tunelab.report.render import render_html
from tunelab.runs import console
from tunelab.runs.atomic_files import write_json, write_text
from tunelab.runs.console import silence_libraries
from tunelab.runs.launcher import check_started_alone
from tunelab.training.components import RunComponents, build_components
from tunelab.training.finders.base import FinderResult
from tunelab.training.finders.batch_size_finder import find_batch_size
from tunelab.training.finders.lr_finder import find_lr
from tunelab.training.finders.micro_tokens_finder import find_micro_tokens
from tunelab.training.trainer import device_faults

FINDERS: Mapping[str, Callable[[RunComponents], FinderResult]] = {
    "lr": find_lr,
    "micro_tokens": find_micro_tokens,
    "batch_size": find_batch_size,
}


def run_finder(settings: RunConfig, folder: Path) -> FinderResult:
    """Look for the value that `settings.find` names; nothing is trained.

    Args:
        settings: Of the run that is to be; checked.
        folder: Takes `find.json` and `find.html`, and nothing else.

    Raises:
        ConfigError, DataError: If the settings or the data are at fault.
    """
    silence_libraries()
    check_started_alone(f"find={settings.find}")
    if faults := device_faults(settings.trainer):
        raise ConfigError.listing(faults)
    finding = FINDERS[str(settings.find)](build_components(settings))
    folder.mkdir(parents=True, exist_ok=True)
    result = {"setting": finding.setting, "value": finding.value, "said": list(finding.reasons), **finding.numbers}
    write_json(folder / "find.json", result)
    write_text(folder / "find.html", finder_page(finding))
    console.show_lines(
        translate("find {setting}", setting=finding.setting),
        [*finding.reasons, *([finding.override] if finding.override else [])],
    )
    console.show_paths({translate("page"): folder / "find.html", translate("numbers"): folder / "find.json"})
    return finding


def finder_page(finding: FinderResult) -> str:
    """The whole page."""
    reasons = [Paragraph(f"{as_sentence(line, finding.setting)}.") for line in finding.reasons]
    section = Section(translate("Suggestion: {value}", value=finding.override or "none"), [*reasons, *finding.figures])
    return render_html(
        Document(translate("Finding {setting}", setting=finding.setting), "", [section]), interactive=False
    )


def as_sentence(line: str, setting: str) -> str:
    """A line as a sentence; the name of a setting stays as it is typed."""
    return line if line.startswith(setting) else f"{line[:1].upper()}{line[1:]}"

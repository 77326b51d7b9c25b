"""Terminal output of a run: words wrapped to the terminal, colours where they mean something.

Through a pipe the same text comes as plain lines without control characters, none of them wrapped or cut.
It also silences tips, banners and progress bars of other packages.  Loads no torch.
"""

import logging
import os
import re
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from tunelab.errors import WarningNote, visible_text
from tunelab.language.score_names import score_label
from tunelab.language.translation import labelled, localize, message, translate
from tunelab.runs import terminal
from tunelab.runs.entry_script import script_word
from tunelab.runs.redact import redact
from tunelab.runs.terminal import line_breaks, text_width

_PLAIN_WIDTH = 400  # columns where there is no terminal: no line of ours is cut or wrapped
_LONGEST_VALUE = 100  # characters of one config value
_LONGEST_LINE = 4096  # characters of one fact
_TOKEN_STYLES = {
    "trained": "bold green",
    "masked": "dim",
    "trained special": "reverse green",
    "masked special": "magenta",
}
_MARK_STYLES = {"good": "green", "note": "bold", "warning": "bold yellow", "problem": "bold red"}
_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
_SHELL_WORD = re.compile(r"""(?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^\s'"\\])+""")  # what a shell takes as one word


def is_main_process() -> bool:
    """Whether this process prints: rank 0, or the only one."""
    return process_rank() == 0


def process_rank() -> int:
    """The number of this process among those of the run."""
    from lightning_utilities.core.rank_zero import rank_zero_only  # `--help` does without it

    rank = getattr(rank_zero_only, "rank", None)  # set once lightning is imported
    if rank is not None:
        return int(rank)
    return max(int(os.environ.get(name) or 0) for name in _RANK_VARIABLES)


def train_command(record: object = None) -> str:
    """The words that start a training where this process was started: `python train.py` or `tunelab train`.

    Args:
        record: What the study or run that it concerns records of a script of one's own.
    """
    script = Path(sys.argv[0])
    if word := script_word(record):
        return f"python {word}"
    if script.name == "train.py" and script.is_file():
        return f"python {shlex.quote(sys.argv[0])}"
    return "python train.py" if Path("train.py").is_file() else "tunelab train"


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def say(text: str, *, good: str = "") -> None:
    """Print text, with its line breaks; control characters are spelt out.

    Args:
        text: What to print.
        good: Words in it that are printed in green.
    """
    lines = [Text(line) for line in visible_text(text).split("\n")]
    for line in lines:
        line.highlight_words([good] if good else [], "green")
    _print(*lines)


def say_marked(mark: str, text: str) -> None:
    """Print a sentence after its mark: good, note, warning or problem."""
    lines = visible_text(text).split("\n")
    label = translate("{mark}: ", mark=translate(mark))
    _print(Text.assemble((label, _MARK_STYLES[mark]), lines[0]), *(Text(f"  {line}") for line in lines[1:]))


def say_note(text: str) -> None:
    """Print a note on a run, as a warning where it is one."""
    say_marked("warning" if isinstance(text, WarningNote) else "note", text)


def show_command(label: str, words: str) -> None:
    """Print a command to type, and what it is for; one that is too long for the terminal can be pasted all the same.

    Args:
        label: What it is for.
        words: The command, quoted for a shell.
    """
    width, command = terminal.terminal_width(), visible_text(str(redact(words)))
    if width is None or "\n" in command or text_width(label) + 2 + text_width(command) <= width:
        _print(*(Text(line) for line in labelled(label, command).split("\n")), wraps=False)
        return
    lines: list[str] = []
    for word in _SHELL_WORD.findall(command):
        if lines and text_width(lines[-1]) + 1 + text_width(word) <= width - 2:
            lines[-1] += f" {word}"
        else:
            lines.append(f"{' ' * (4 if lines else 2)}{word}")
    _print(
        *(Text(line) for line in (labelled(label, "").rstrip(), *(f"{line} \\" for line in lines[:-1]), lines[-1])),
        wraps=False,
    )


def show_facts(facts: Mapping[str, str], marked: Mapping[str, str] | None = None) -> None:
    """Print facts by name, a line each, continued under their texts where the terminal is too narrow.

    Args:
        facts: Name to text.
        marked: Name to a mark, such as "warning", in whose colour its text is printed.
    """
    widest = max(map(text_width, facts), default=0)
    for name, text in facts.items():
        style = _MARK_STYLES[marked[name]].removeprefix("bold ") if marked and name in marked else ""
        line = Text.assemble((f"{_padded(name, widest)}  ", "dim"), (_single_line(text, _LONGEST_LINE), style))
        _print(line, indent=widest + 2)


def show_config(cfg: Mapping[str, Any], overrides: Sequence[str] = ()) -> None:
    """Print the settings, a line for each block, with the overrides of the command line on top."""
    lines = [Text(translate("settings"), style="bold")]
    if overrides:
        lines.append(Text(f"  {translate('changed')}  {_single_line(' '.join(overrides), 10 * _LONGEST_VALUE)}"))
    scalars = {key: value for key, value in cfg.items() if not isinstance(value, Mapping)}
    if scalars:
        lines.append(Text(f"  {_inline_pairs(scalars)}"))
    for key, value in cfg.items():
        if isinstance(value, Mapping) and value:
            lines += _block_lines(str(key), value, 1)
    _print(*lines)


def show_model(summary: Mapping[str, Any]) -> None:
    """Print facts of the model, a line each; integers with thousands separators."""
    values = {str(localize(key)): _format_number(value) for key, value in summary.items()}
    _print(Text(translate("model"), style="bold"), *_aligned_lines(values))


def show_data(report: Mapping[str, Mapping[str, int | float]], facts: Mapping[str, str] | None = None) -> None:
    """Print a row per split and a column per count (rows, kept, dropped, truncated, supervised tokens).

    Args:
        report: Split to name of a count to its value.
        facts: Further facts of the data by name, a line each.
    """
    lines = {localize(name): _single_line(text, _LONGEST_LINE) for name, text in (facts or {}).items()}
    names = dict.fromkeys(name for row in report.values() for name in row)
    columns = [
        *(name for name in _FIRST_COUNTS if name in names),
        *(name for name in names if name not in _FIRST_COUNTS),
    ]
    _print(*_table(translate("data"), translate("split"), report, columns), *_aligned_lines(lines))


_FIRST_COUNTS = ("rows", "kept", "dropped", "too_long", "no_target", "unusable")  # others follow


def show_lines(title: str, lines: Sequence[str]) -> None:
    """Print lines under a title."""
    _print(
        Text(_single_line(localize(title), _LONGEST_LINE), style="bold"),
        *(Text(f"  {_single_line(line, _LONGEST_LINE)}") for line in lines),
    )


def show_record(title: str, parts: Sequence[Sequence[tuple[str, str]]], names: Sequence[str] = ()) -> None:
    """Print one record, coloured by whether a token is trained, masked or special.

    Args:
        title: Its place in the data.
        parts: Its sequences, each as texts with their kind: "trained", "masked", either with " special" after it.
        names: Name of each sequence, where there are several.
    """
    _print(Text(_single_line(title, _LONGEST_LINE), style="bold"))
    for place, part in enumerate(parts):
        if names:
            _print(Text(names[place], style="bold"))
        text = Text.assemble(*((visible_text(text), _TOKEN_STYLES[kind]) for text, kind in part))
        _print(*text.split("\n", allow_blank=True), indent=0)


def show_scores(table: Mapping[str, Mapping[str, float]], title: str = "", corner: str = "") -> None:
    """Print the final scores: a row per score, a column per stage.

    Args:
        table: Stage (`base`, `val`, `test`, in the order of the columns) to bare score name to value; a stage
            may lack scores.
        title: What they are the scores of; empty for the final scores.
        corner: Head of the column of names; empty for that of scores.
    """
    names = dict.fromkeys(name for scores in table.values() for name in scores)
    rows = {
        score_label(name): {stage: scores[name] for stage, scores in table.items() if name in scores} for name in names
    }
    _print(*_table(title or translate("scores"), corner or translate("score"), rows, columns=list(table)))


def scores_by_split(scores: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """`split/score` names as a table: split, then score."""
    table: dict[str, dict[str, float]] = {}
    for name, value in scores.items():
        split, _, bare = name.partition("/")
        if split == "last":  # in metrics.json: a column for one number would say little
            continue
        table.setdefault(split, {})[bare] = value
    return table


# Heads of columns and marks that are translated where they are printed; names of scores and splits never are.
COLUMN_HEADS = (
    *(message("rows"), message("kept"), message("dropped"), message("truncated"), message("tokens")),
    *(message("supervised"), message("longest"), message("mean"), message("std")),
)
MARKS = (message("good"), message("note"), message("warning"), message("problem"))


def show_folds(rows: Mapping[str, Mapping[str, float]]) -> None:
    """Print a row per score: mean and spread over the folds of a cross-validation, then each fold."""
    labelled = {score_label(name): row for name, row in rows.items()}
    _print(*_table(translate("scores over the folds"), translate("score"), labelled))


def show_groups(title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    """Print a row per group (task family, source) and a column per score."""
    labelled = {_single_line(name, 60): row for name, row in rows.items()}
    _print(*_table(_single_line(title, _LONGEST_LINE), translate("group"), labelled))


def show_paths(paths: Mapping[str, Path | str]) -> None:
    """Print paths by name, a line each, never wrapped: relative ones where they lie in the working directory."""
    texts = {name: _single_line(short_path(path), _LONGEST_LINE) for name, path in paths.items()}
    widest, width = max(map(text_width, texts), default=0), terminal.terminal_width()
    lines = [Text(translate("files"), style="bold")]
    for name, text in texts.items():
        if width is None or widest + 4 + text_width(text) <= width:
            lines.append(Text.assemble((f"  {_padded(name, widest)}  ", "dim"), text))
        else:
            lines += [Text(f"  {name}", style="dim"), Text(f"    {text}")]
    _print(*lines, wraps=False)


def show_folder(title: str, folder: Path, files: Mapping[Path, str]) -> None:
    """Print a folder, and what files in it are.

    Args:
        title: What the folder is.
        folder: The folder.
        files: Path to a description; a folder's name is printed with a slash.
    """
    names = [f"{path.relative_to(folder)}{'/' * path.is_dir()}" for path in files]
    widest = max(map(len, names), default=0)
    lines = [f"  {name:<{widest}}  {what}" for name, what in zip(names, files.values(), strict=True)]
    _print(Text.assemble((f"{title}  ", "bold"), _single_line(short_path(folder), _LONGEST_LINE)), wraps=False)
    _print(*map(Text, lines))


def short_path(path: Path | str) -> str:
    """A path relative to the working directory where it lies below it."""
    text = str(path)
    inside = Path(text).is_absolute() and Path(text).is_relative_to(Path.cwd())
    return str(Path(text).relative_to(Path.cwd())) if inside and Path(text) != Path.cwd() else text


def _print(*lines: Text, indent: int | None = None, wraps: bool = True) -> None:
    """Print lines, wrapped at words to the terminal where there is one.

    Args:
        lines: Without line breaks in them.
        indent: Columns by which continuations are indented; None takes two more than their line has.
        wraps: Whether a line that is too long is wrapped at all.
    """
    if not is_main_process():
        return
    coloured = terminal.has_colours()
    console = Console(
        file=sys.stdout,
        force_terminal=coloured,  # explicit: FORCE_COLOR must not put escapes into a log file
        color_system="standard" if coloured else None,
        width=_PLAIN_WIDTH,
        highlight=False,
        soft_wrap=True,
    )
    width = terminal.terminal_width() if wraps else None
    with console.capture() as captured:
        for line in lines:
            for part in _wrapped(line, width, indent):
                console.print(part, soft_wrap=True)
    output = str(redact(captured.get())).split("\n")
    sys.stdout.write("\n".join(line.rstrip() for line in output[: -1 if not output[-1] else None]) + "\n")
    sys.stdout.flush()


def _wrapped(line: Text, width: int | None, indent: int | None) -> list[Text]:
    plain = line.plain
    if width is None or text_width(plain) <= width:
        return [line]
    own = len(plain) - len(plain.lstrip(" "))
    hang = min(own + 2 if indent is None else indent, width // 2)
    first, *rest = parts = line.divide(line_breaks(plain, width, hang))
    for part in parts:
        part.rstrip()
    return [first, *(Text.assemble(" " * hang, part) for part in rest)]


def _block_lines(label: str, block: Mapping[str, Any], depth: int) -> list[Text]:
    scalars = {key: value for key, value in block.items() if not isinstance(value, Mapping)}
    lines = [Text.assemble("  " * depth, (label, "bold"), "  ", _inline_pairs(scalars))]
    for key, value in block.items():
        if isinstance(value, Mapping) and value:
            lines += _block_lines(str(key), value, depth + 1)
    return lines


def _inline_pairs(scalars: Mapping[str, Any]) -> str:
    return "  ".join(
        f"{key}={_single_line('null' if value is None else str(value), _LONGEST_VALUE)}"
        for key, value in scalars.items()
    )


def _aligned_lines(values: Mapping[str, str]) -> list[Text]:
    widest = max(map(text_width, values), default=0)
    return [Text.assemble((f"  {_padded(name, widest)}  ", "dim"), value) for name, value in values.items()]


def _table(
    title: str, corner: str, rows: Mapping[str, Mapping[str, float]], columns: Sequence[str] | None = None
) -> list[Text]:
    """A table as lines; one that is too wide for the terminal goes on below, with its first column again."""
    if columns is None:
        columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    cells = {name: [_format_number(row[name]) if name in row else "-" for row in rows.values()] for name in columns}
    heads = {name: translate(name) for name in columns}
    left = max(map(text_width, (corner, *rows)), default=0)
    lines = [Text(title, style="bold")]
    for block in _column_blocks(cells, left, terminal.terminal_width()):
        widths = {name: max(map(text_width, (heads[name], *cells[name]))) for name in block}
        line = "".join(f"  {_padded(heads[name], width, right=True)}" for name, width in widths.items())
        lines.append(Text(f"{_padded(corner, left)}{line}", style="bold"))
        for place, label in enumerate(rows):
            values = "".join(f"  {_padded(cells[name][place], width, right=True)}" for name, width in widths.items())
            lines.append(Text(f"{_padded(label, left)}{values}"))
    return lines


def _column_blocks(cells: Mapping[str, Sequence[str]], left: int, width: int | None) -> list[list[str]]:
    """The columns of a table, in as many blocks as the width needs."""
    blocks: list[list[str]] = [[]]
    room = left
    for name, texts in cells.items():
        needed = 2 + max(map(text_width, (translate(name), *texts)))
        if blocks[-1] and width is not None and room + needed > width:
            blocks.append([])
            room = left
        blocks[-1].append(name)
        room += needed
    return blocks


def _padded(text: str, width: int, *, right: bool = False) -> str:
    blanks = " " * (width - text_width(text))
    return blanks + text if right else text + blanks


def format_score(value: float) -> str:
    """A score with four digits, and without decimals from a thousand on."""
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _format_number(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return format_score(value)
    return _single_line(str(value), _LONGEST_LINE)


def _single_line(text: str, limit: int) -> str:
    flat = visible_text(str(redact(text))).replace("\n", " ")
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."


_SILENCED_LOGGERS = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.rank_zero",
    "lightning_utilities.core.rank_zero",
    "lightning.pytorch",
    "lightning.fabric",
    "lightning.fabric.utilities.distributed",
    "lightning.pytorch.accelerators.cuda",
    "lightning.fabric.accelerators.cuda",
    "transformers.distributed.tensor_parallel",
    "torch.distributed.tensor._redistribute",
    "bitsandbytes.backends.cpu.ops",  # which PEFT loads where it is installed
)
_SILENCED_MESSAGES = (  # parts of log lines on which a user cannot act
    "Initializing distributed: ",
    "All distributed processes registered",
    "litlogger",
    "litmodels",
    "GPU available:",
    "TPU available:",
    "HPU available:",
    "IPU available:",
    "LOCAL_RANK: ",
    "has Tensor Cores",
    "was configured so",
    "Trainer.fit` stopped:",
    "Seed set to",
    "Using default `ModelCheckpoint`",
    "Loaded model weights from the checkpoint",
    "Restored all states from the checkpoint",
    "Restoring states from the checkpoint",
    "Automatic Mixed Precision (AMP)",
    "bfloat16 Automatic Mixed Precision",
    "layers were not sharded",
    "This is suboptimal: multiple collective operations",  # weights that are split and spread are gathered in turn
    "Failed to load CPU gemm_4bit_forward",  # a faster product for 4 bit on a CPU
)
_SILENCED_WARNINGS = (  # beginnings (regular expressions) of warnings that do not apply by design
    r".*does not have many workers.*",  # records are tokenised once; workers would only copy lists
    r".*`srun` command is available.*",  # one process on a login node is a legal way to try things
    r".*number of training batches .* is smaller than the logging interval.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r"`is_gradient_checkpointing` is deprecated",  # between PEFT and transformers
    r".*isinstance\(treespec, LeafSpec\).*",
    r".*It is recommended to use `self.log\(.*sync_dist=True.*",  # what is logged is the sum over all ranks already
    r"FLOPs not found for .*",  # then the peak is measured
    r".*anonymous setting has no effect.*",
)


class _NoiseFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return record.levelno > logging.WARNING or not any(part in text for part in _SILENCED_MESSAGES)


def silence_libraries() -> None:
    """Filter tips, device banners, vendor progress bars and advice that does not apply by design.

    Errors and every other warning still come through.  Call once, before the trainer is made; calling again
    changes nothing.  Variables the user has set are respected.
    """
    for name in _SILENCED_LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, _NoiseFilter) for known in logger.filters):
            logger.addFilter(_NoiseFilter())
    for pattern in _SILENCED_WARNINGS:
        warnings.filterwarnings("ignore", message=pattern)
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else a warning per data-loading process
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # loading it to say so would cost a run a second
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from transformers.utils import logging as transformers_logging  # after the variables above

    transformers_logging.disable_progress_bar()

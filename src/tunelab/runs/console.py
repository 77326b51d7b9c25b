"""Terminal output of a run; through a pipe the same text comes as plain lines without control characters.

It also silences tips, banners and progress bars of other packages.  Loads no torch.
"""

import logging
import os
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tunelab.errors import visible_text
from tunelab.runs.redact import redact

_PLAIN_WIDTH = 400  # columns where there is no terminal: no line of ours is cut or wrapped
_LONGEST_VALUE = 100  # characters of one config value in the tree
_TOKEN_STYLES = {
    "trained": "bold green",
    "masked": "dim",
    "trained special": "reverse green",
    "masked special": "magenta",
}
_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")


def is_main_process() -> bool:
    """Whether this process prints: rank 0, or the only one."""
    from lightning_utilities.core.rank_zero import rank_zero_only  # `--help` does without it

    rank = getattr(rank_zero_only, "rank", None)  # set once lightning is imported
    if rank is not None:
        return int(rank) == 0
    return all(os.environ.get(name, "0") in ("", "0") for name in _RANK_VARIABLES)


def train_command() -> str:
    """The words that start a training where this process was started: `python train.py` or `tunelab train`."""
    script = Path(sys.argv[0])
    if script.name == "train.py" and script.is_file():
        return f"python {shlex.quote(sys.argv[0])}"
    return "python train.py" if Path("train.py").is_file() else "tunelab train"


def is_terminal() -> bool:
    """Whether standard output is a terminal that can move its cursor."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def say(text: str) -> None:
    """Print text, with its line breaks; control characters are spelt out."""
    _print(Text(visible_text(text)))


def show_config(cfg: Mapping[str, Any], overrides: Sequence[str] = ()) -> None:
    """Print the settings as a tree, lowest level inline, with the overrides of the command line on top."""
    tree = Tree(Text("settings", style="bold"), guide_style="dim")
    if overrides:
        tree.add(Text.assemble(("changed  ", "yellow"), _single_line(" ".join(overrides), 10 * _LONGEST_VALUE)))
    scalars = {key: value for key, value in cfg.items() if not isinstance(value, Mapping)}
    if scalars:
        tree.add(_inline_pairs(scalars))
    for key, value in cfg.items():
        if isinstance(value, Mapping) and value:
            _add_block(tree, str(key), value)
    _print(tree)


def show_model(summary: Mapping[str, Any]) -> None:
    """Print facts of the model, a line each; integers with thousands separators."""
    _print(
        Text("model", style="bold"), _aligned_lines({str(key): _format_number(value) for key, value in summary.items()})
    )


def show_data(report: Mapping[str, Mapping[str, int | float]], facts: Mapping[str, str] | None = None) -> None:
    """Print a row per split and a column per count (rows, dropped, truncated, supervised tokens, padding).

    Args:
        report: Split to name of a count to its value.
        facts: Further facts of the data by name, a line each.
    """
    lines = {name: _single_line(text, 4096) for name, text in (facts or {}).items()}
    _print(_table("data", "split", report), *([_aligned_lines(lines)] if lines else []))


def show_lines(title: str, lines: Sequence[str]) -> None:
    """Print lines under a title."""
    _print(Text(_single_line(title, 4096), style="bold"), *(Text(f"  {_single_line(line, 4096)}") for line in lines))


def show_record(title: str, parts: Sequence[Sequence[tuple[str, str]]], names: Sequence[str] = ()) -> None:
    """Print one record, coloured by whether a token is trained, masked or special.

    Args:
        title: Its place in the data.
        parts: Its sequences, each as texts with their kind: "trained", "masked", either with " special" after it.
        names: Name of each sequence, where there are several.
    """
    _print(Text(_single_line(title, 4096), style="cyan"))
    for place, part in enumerate(parts):
        if names:
            _print(Text(names[place], style="cyan"))
        _print(Text.assemble(*((visible_text(text), _TOKEN_STYLES[kind]) for text, kind in part)))


def show_scores(table: Mapping[str, Mapping[str, float]]) -> None:
    """Print the final scores: a row per score, a column per stage.

    Args:
        table: Stage (`base`, `val`, `test`, in the order of the columns) to bare score name to value; a stage
            may lack scores.
    """
    names = dict.fromkeys(name for scores in table.values() for name in scores)
    rows = {name: {stage: scores[name] for stage, scores in table.items() if name in scores} for name in names}
    _print(_table("scores", "score", rows, columns=list(table)))


def show_folds(rows: Mapping[str, Mapping[str, float]]) -> None:
    """Print a row per score: mean and spread over the folds of a cross-validation, then each fold."""
    _print(_table("scores over the folds", "score", rows))


def show_groups(title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    """Print a row per group (task family, source) and a column per score."""
    _print(_table(_single_line(title, 4096), "group", {_single_line(name, 60): row for name, row in rows.items()}))


def show_paths(paths: Mapping[str, Path | str]) -> None:
    """Print paths by name, a line each, never wrapped."""
    _print(
        Text("files", style="bold"),
        _aligned_lines({name: _single_line(str(path), 4096) for name, path in paths.items()}),
    )


def _print(*parts: RenderableType) -> None:
    if not is_main_process():
        return
    terminal = is_terminal()
    console = Console(
        file=sys.stdout,
        force_terminal=terminal,  # explicit: FORCE_COLOR must not put escapes into a log file
        no_color=True if not terminal else None,
        width=None if terminal else _PLAIN_WIDTH,
        highlight=False,
        soft_wrap=True,
    )
    with console.capture() as captured:
        for part in parts:
            console.print(_Cleaned(part), soft_wrap=isinstance(part, Text))
    lines = str(redact(captured.get())).split("\n")
    sys.stdout.write("\n".join(line.rstrip() for line in lines[: -1 if not lines[-1] else None]) + "\n")
    sys.stdout.flush()


def _add_block(tree: Tree, label: str, block: Mapping[str, Any]) -> None:
    scalars = {key: value for key, value in block.items() if not isinstance(value, Mapping)}
    branch = tree.add(Text.assemble((label, "cyan"), "  ", _inline_pairs(scalars)))
    for key, value in block.items():
        if isinstance(value, Mapping) and value:
            _add_block(branch, str(key), value)


def _inline_pairs(scalars: Mapping[str, Any]) -> Text:
    parts = [
        Text.assemble((f"{key}=", "dim"), _single_line("null" if value is None else str(value), _LONGEST_VALUE))
        for key, value in scalars.items()
    ]
    return Text("  ").join(parts)


def _aligned_lines(values: Mapping[str, str]) -> RenderableType:
    widest = max((len(name) for name in values), default=0)
    lines = [Text.assemble((f"{name:<{widest}}  ", "dim"), value) for name, value in values.items()]
    return Padding(Text("\n").join(lines), (0, 0, 0, 2))


def _table(
    title: str, corner: str, rows: Mapping[str, Mapping[str, float]], columns: Sequence[str] | None = None
) -> Table:
    if columns is None:
        columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(corner, style="cyan", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right")
    for label, row in rows.items():
        table.add_row(label, *(_format_number(row[name]) if name in row else "-" for name in columns))
    return table


def _format_number(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"  # four digits either way
    return _single_line(str(value), 4096)


def _single_line(text: str, limit: int) -> str:
    flat = visible_text(str(redact(text))).replace("\n", " ")
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."


class _Cleaned:
    """What another object draws, without what its texts would do to the terminal."""

    def __init__(self, part: RenderableType) -> None:
        self.part = part

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.part, options):
            yield segment if segment.control else Segment(visible_text(segment.text), segment.style)


_SILENCED_LOGGERS = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.rank_zero",
    "lightning_utilities.core.rank_zero",
    "lightning.pytorch",
    "lightning.fabric",
    "lightning.pytorch.accelerators.cuda",
    "lightning.fabric.accelerators.cuda",
    "transformers.distributed.tensor_parallel",
    "bitsandbytes.backends.cpu.ops",  # which PEFT loads where it is installed
)
_SILENCED_MESSAGES = (  # parts of log lines on which a user cannot act
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
    "Failed to load CPU gemm_4bit_forward",  # a faster product for 4 bit on a CPU
)
_SILENCED_WARNINGS = (  # beginnings (regular expressions) of warnings that do not apply by design
    r".*does not have many workers.*",  # records are tokenised once; workers would only copy lists
    r".*`srun` command is available.*",  # one process on a login node is a legal way to try things
    r".*number of training batches .* is smaller than the logging interval.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*isinstance\(treespec, LeafSpec\).*",
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

"""`tunelab COMMAND`: everything before and after training.  Each command is a module `NAME_command.py` beside this."""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from typing import Any, Protocol, cast

from tunelab import __version__
from tunelab.errors import TuneLabError, visible_text
from tunelab.language.translation import LANGUAGE_VARIABLE, LANGUAGES, message, translate
from tunelab.runs.redact import flush_output, guard_streams
from tunelab.runs.terminal import terminal_width, wrap_words

TRAIN = "train"  # takes the words of Hydra instead of options
COMPLETION = "completion"
SETTINGS = "key=value"  # how commands name words that are settings
# Name to the sentence of --help.  The module NAME_command holds `add_arguments` and `run`.
COMMANDS = {
    TRAIN: message("train a model, or with -m search for good settings: the same as python train.py"),
    "init": message("a small project of one's own: settings, a package with a callback and a metric, a test"),
    "preview": message("the data as the model will see it: trained and masked tokens, lengths, duplicates, leakage"),
    "inspect": message(
        "a run before training: parameters, FLOPs, memory, learning rate, time, activations and gradients"
    ),
    "chat": message("talk with a trained run, a model folder or an adapter"),
    "predict": message("answers, labels or numbers for a file of records"),
    "evaluate": message("scores of a trained run on another file"),
    "doctor": message("problems of a run, while it trains or afterwards, each with its evidence and what to try"),
    "export": message("the best model of a run as a folder for plain transformers"),
    "ensemble": message("several trained models combined, and the gain over the best single one"),
    "reproduce": message("re-run from run.json, and whether the results are identical"),
    "report": message("HTML report of a run or a search: curves, errors, effects, what to run next"),
    "board": message(
        "a live page of all runs and searches of a folder: filter, compare, open reports, watch what is running"
    ),
    "confirm": message("the best trials of a search against the default, over fresh seeds"),
    COMPLETION: message("what a shell needs so that TAB completes commands, options, settings and run folders"),
}


class CommandParser(argparse.ArgumentParser):
    """A parser of options whose messages may repeat any word without it acting on the terminal."""

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(visible_text(message), file)


HEADINGS = (message("positional arguments"), message("options"))  # as argparse names its sections


class WrappedHelp(argparse.HelpFormatter):
    """Help whose paragraphs are wrapped to the terminal; indented lines, such as examples, stay as they are."""

    def __init__(self, prog: str) -> None:
        columns = terminal_width()
        super().__init__(prog, width=None if columns is None else columns - 2)

    def start_section(self, heading: str | None) -> None:
        """Begin a section; argparse brings its heading in English."""
        super().start_section(translate(heading) if heading else heading)

    def _split_lines(self, text: str, width: int) -> list[str]:  # argparse takes an ideograph for one column
        return wrap_words(" ".join(text.split()), width, 0).split("\n")

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        columns = terminal_width()
        paragraphs: list[str] = []
        for line in text.strip("\n").splitlines():
            joins = columns is not None and paragraphs and line.strip() and not line.startswith(" ")
            if joins and paragraphs[-1].strip() and not paragraphs[-1].startswith(" "):
                paragraphs[-1] += f" {line}"
            else:
                paragraphs.append(line)
        return "\n".join(
            wrap_words(indent + line, columns, 0 if not line.startswith(" ") else None) for line in paragraphs
        )


class Command(Protocol):
    """The interface of a command's module.  It imports torch inside `run`, so that --help is instant."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options, none of them REMAINDER or a subparser; description and epilog may be set too."""

    def run(self, arguments: Any) -> int:
        """Run the command and return the exit status."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit status: 0 done, 2 the user's mistake, 130 Ctrl-C, 1 anything else."""
    try:
        sys.exit(run_command(arguments))
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        flush_output()


def run_command(arguments: Sequence[str] | None) -> int:
    """Run one command and return its exit status; a user's mistake is printed here.

    `plugins=[PACKAGE]` may stand among its words.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == [COMPLETION] and words[-1].startswith("--l"):  # at every TAB: it does without Hydra
        return load_command(COMPLETION).run(parse_arguments(words))
    from tunelab.cli.launch import (  # takes Hydra, and Ctrl-C may come meanwhile
        exit_on_signal,
        exit_with_error,
        exit_with_os_error,
        exit_with_unforeseen_error,
        take_debug_flag,
        take_language,
    )
    from tunelab.config.plugins import allow_plugins
    from tunelab.runs.garbage import mark_own_process
    from tunelab.runs.stop_signals import handle_stop_signals

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    handle_stop_signals(exit_on_signal, ctrl_c=False)
    words = take_debug_flag(words)
    try:
        words = take_language(words)
    except TuneLabError as fault:
        exit_with_error(fault)
    if words[:1] == [TRAIN]:
        # a process whose module is known can be started again: by a search, or by Lightning for each device
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-P", "-m", "tunelab.cli.launch", *words[1:]])
    guard_streams()
    mark_own_process()
    try:
        parsed = parse_arguments(allow_plugins(words))
        status = load_command(parsed.command).run(parsed)
    except TuneLabError as fault:
        exit_with_error(fault)
    except BrokenPipeError:  # the reader, such as `head`, closed the pipe: what is left is not written
        return 0
    except OSError as fault:
        exit_with_os_error(fault)
    except Exception as fault:
        exit_with_unforeseen_error(fault)
    return status


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments of the command that is named first; a usage message and exit status 2 where they are wrong.

    Options and other words of a command may stand in any order.
    """
    if arguments and arguments[0] in COMMANDS:
        # not through subparsers: there the words between two options would be unknown
        name, parser = arguments[0], command_parser(arguments[0])
        words = without_settings(parser, arguments[1:])
        parsed = parser.parse_intermixed_args(words, argparse.Namespace(command=name))
        if parsed.lang:  # cut short, such as --la zh, which argparse allows
            os.environ[LANGUAGE_VARIABLE] = parsed.lang
        return parsed
    parser = CommandParser(
        prog="tunelab",
        description=translate("TuneLab: everything before and after training."),
        formatter_class=WrappedHelp,
    )
    chosen = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_general_options(parser)
    parser.add_argument("--version", action="version", version=f"tunelab {__version__}")
    for name, sentence in COMMANDS.items():
        chosen.add_parser(name, help=translate(sentence), formatter_class=WrappedHelp)
    return parser.parse_args(arguments)


def command_parser(name: str) -> CommandParser:
    """The parser of one command; the modules of the others are not imported."""
    parser = CommandParser(prog=f"tunelab {name}", description=translate(COMMANDS[name]), formatter_class=WrappedHelp)
    load_command(name).add_arguments(parser)
    add_general_options(parser)
    return parser


def add_general_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that may stand anywhere in a command line; they hold before it is parsed."""
    parser.add_argument("--debug", action="store_true", help=translate("print a traceback with every error message"))
    parser.add_argument(
        "--lang", choices=LANGUAGES, help=translate("language of messages and pages (that of the system)")
    )


def without_settings(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """The words of a command without `lang=NAME`, which holds already.

    Raises:
        ConfigError: If others are settings, which the command does not take: they would pass for paths.
    """
    from tunelab.errors import ConfigError

    takes_settings = any(action.metavar == SETTINGS for action in parser._actions)
    options = [option for action in parser._actions for option in action.option_strings]
    taking = {option for action in parser._actions if action.nargs != 0 for option in action.option_strings}
    rest, faults = list[str](), list[str]()
    for previous, word in pairwise(["", *words]):
        match = re.fullmatch(r"[+~]*([A-Za-z_][\w.@/]*)=(.*)", word, flags=re.DOTALL)
        option = f"--{match[1].replace('_', '-')}" if match else ""
        if match is None or previous in taking or os.path.exists(word):
            rest.append(word)
        elif option in options and not (option == "--lang" and takes_settings):
            if option != "--lang":
                faults.append(
                    translate(
                        "{word}: options of {command} are typed with hyphens: {option} {value}",
                        word=word,
                        command=parser.prog,
                        option=option,
                        value=shlex.quote(match[2]),
                    )
                )
        elif takes_settings:
            rest.append(word)
        else:
            faults.append(
                translate(
                    "{word}: {command} takes no settings, which are those of a training; its options are {names}",
                    word=word,
                    command=parser.prog,
                    names=", ".join(name for name in options if name.startswith("--")),
                )
            )
    if faults:
        raise ConfigError.listing(faults)
    return rest


def load_command(name: str) -> Command:
    """The module `cli/NAME_command.py` of a command."""
    return cast(Command, import_module(f"tunelab.cli.{name}_command"))

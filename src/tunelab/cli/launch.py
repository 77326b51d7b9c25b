"""`tunelab train` and `python train.py`: one training, or with `-m` a search, from `key=value` words.

The frame around a run: help, exit status, signals, errors without a traceback.  Loads no torch.
`python -m tunelab.cli.launch` is `tunelab train` as a process of its own, as searches start it.
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while packages load ends at once, without a traceback

import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from tunelab.cli import help_page
from tunelab.config.overrides import complete_overrides, error_reason, override_faults
from tunelab.config.resource_paths import conf_directory
from tunelab.errors import ConfigError, TuneLabError, first_line, visible_text
from tunelab.language.translation import LANGUAGE_VARIABLE, LANGUAGES, translate
from tunelab.runs.atomic_files import DISK_FULL_ERRNOS, full_reason
from tunelab.runs.entry_script import REPLAY_FLAG, SERVER_VARIABLE, note_script
from tunelab.runs.garbage import mark_own_process, packages_loading
from tunelab.runs.redact import flush_output, guard_streams, redact
from tunelab.runs.stop_signals import handle_stop_signals
from tunelab.runs.terminal import VERBOSE_FLAGS, VERBOSE_VARIABLE, has_colours, terminal_width, wrap_words

DEBUG_FLAG, DEBUG_VARIABLE = "--debug", "TUNELAB_DEBUG"
LANGUAGE_OPTION, LANGUAGE_KEY = "--lang", "lang"
UNWRITABLE_ERRNOS = (  # the system's answers for a place that can hold no file or folder
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG),
)


def main() -> None:
    """Run what the command line describes and leave with the promised exit status."""
    note_script(sys._getframe(1).f_globals)
    if SERVER_VARIABLE in os.environ:
        from tunelab.search.executors.fork_server import serve_script

        serve_script()  # it returns in each trial, which goes on here as if the script had just been started
    help_page.register_help_resolvers(conf_directory())  # --help is made from the comments in conf/
    launch(run_config)


@hydra.main(version_base="1.3", config_path=str(conf_directory()), config_name="config")
def run_config(config: DictConfig) -> float | None:
    """The score that a search optimises, of the run that a composed config describes."""
    with packages_loading():
        from tunelab.training.run import run  # torch and transformers load here, so that --help stays instant

    with exit_on_user_error():
        return run(config)


def launch(main: Callable[[], None]) -> None:
    """Run Hydra's `main` and leave with the promised exit status.

    0 done; 2 the config or the data is at fault; 128 + N after signal N (143 SIGTERM, 130 Ctrl-C, 138 SIGUSR1, 129
    SIGHUP); 1 anything else.
    """
    if sys.flags.safe_path:
        os.environ["PYTHONSAFEPATH"] = "1"  # for the processes of further devices, which Lightning starts without -P
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us as exceptions, and we write the message
    handle_stop_signals(exit_on_signal, ctrl_c=False)
    mark_own_process()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as train.py has it while packages load
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        guard_streams()
        if sys.argv[1:2] == [REPLAY_FLAG]:
            from tunelab.cli.replay import replay_stage

            return replay_stage(sys.argv[2:])
        sys.argv[1:] = take_language(take_verbose_flag(take_debug_flag(sys.argv[1:])))
        if any(word.partition("=")[2].strip("'\"") == "auto" for word in sys.argv[1:]):
            from tunelab.cli.auto_resume import name_run_to_resume  # few need it

            sys.argv[1:] = name_run_to_resume(sys.argv[1:])
        sys.argv[1:] = complete_overrides(sys.argv[1:])
        if {"-h", "--help"} & set(sys.argv[1:]):  # Hydra prints the same page, but takes twice as long
            with suppress(BrokenPipeError):  # `head` has its lines
                print(help_page.render_help(conf_directory(), sys.argv[1:]))
            return
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except (HydraException, OmegaConfBaseException) as fault:
        exit_with_error(ConfigError.listing(override_faults(sys.argv[1:], conf_directory()) or [error_reason(fault)]))
    except TuneLabError as fault:
        exit_with_error(fault)
    except OSError as fault:
        exit_with_os_error(fault)
    except Exception as fault:
        exit_with_unforeseen_error(fault)
    finally:
        flush_output()


def take_debug_flag(words: Sequence[str]) -> list[str]:
    """The words without `--debug`, which makes every message of this process and of those it starts show its origin."""
    if DEBUG_FLAG in words:
        os.environ[DEBUG_VARIABLE] = "1"
    return [word for word in words if word != DEBUG_FLAG]


def take_language(words: Sequence[str]) -> list[str]:
    """The words of a command line without `--lang NAME`; that or `lang=NAME` holds for this process and its children.

    Raises:
        ConfigError: If there is no such language.
    """
    rest: list[str] = []
    names: list[tuple[str, str]] = []  # how it was written, and what it names
    waiting = iter(words)
    for word in waiting:
        key, sign, value = word.partition("=")
        if key == LANGUAGE_OPTION:
            value = value if sign else next(waiting, "")
            names.append((f"{LANGUAGE_OPTION} {value}", value))
            continue
        if sign and key.lstrip("+") == LANGUAGE_KEY and value != "null":
            names.append((word, value.strip("'\"")))
        rest.append(word)
    if not names and os.environ.get(LANGUAGE_VARIABLE):
        names = [(f"{LANGUAGE_VARIABLE}={os.environ[LANGUAGE_VARIABLE]}", os.environ[LANGUAGE_VARIABLE])]
    for written, name in names:
        if name not in LANGUAGES:
            choices = ", ".join(LANGUAGES)
            text = translate(
                "{word}: there is no such language; choose one of {choices}", word=written, choices=choices
            )
            raise ConfigError(text)
        os.environ[LANGUAGE_VARIABLE] = name
    return rest


def take_verbose_flag(words: Sequence[str]) -> list[str]:
    """The words without `-v`, which makes a run print every setting and every count before it trains."""
    if set(VERBOSE_FLAGS).intersection(words):
        os.environ[VERBOSE_VARIABLE] = "1"
    return [word for word in words if word not in VERBOSE_FLAGS]


def exit_on_signal(number: int, frame: FrameType | None) -> None:
    """Leave at once on a signal outside training; during training `LastCheckpoint` handles it."""
    sys.exit(128 + number)


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Print a user's mistake and leave, before Hydra adds lines of its own; in a sweep it is raised again."""
    try:
        yield
    except TuneLabError as fault:
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            raise
        if fault.exit_status == ConfigError.exit_status:
            remove_refused_folder(HydraConfig.get())
        exit_with_error(fault)


def remove_refused_folder(hydra: Any) -> None:
    """Delete the folder that Hydra made for a run which was refused; one that the command line names stays."""
    from tunelab.runs.run_dir import RunDirectory

    folder = Path(hydra.runtime.output_dir)
    named = any(word.lstrip("+").startswith("hydra.run.dir=") for word in hydra.overrides.hydra)
    if not named:
        RunDirectory(folder).discard()
    for made in (folder, folder.parent):
        with suppress(OSError):  # something is in it
            made.rmdir()


def exit_with_os_error(fault: OSError) -> NoReturn:
    """Print why a file or folder cannot be written there, or what else the system said, and leave."""
    if fault.errno in DISK_FULL_ERRNOS:
        place = Path(fault.filename or ".").absolute()
        folder = next(above for above in (place, *place.parents) if above.is_dir())
        reason = full_reason(fault.errno, folder)
        text = translate("{reason}, for {place}; make room, then resume=DIR goes on", reason=reason, place=place)
        exit_with_error(TuneLabError(text))
    special = fault.errno == errno.ENOENT and str(fault.filename).startswith(("/proc/", "/sys/"))
    if not (fault.errno in UNWRITABLE_ERRNOS or special) or not fault.filename:
        exit_with_unforeseen_error(fault)
    taken = translate("there is a file of that name")
    reason = taken if fault.errno == errno.EEXIST else os.strerror(fault.errno or 0).lower()
    exit_with_error(
        ConfigError(
            translate(
                "cannot use {path}: {reason}; name a place that this user may write to (hydra.run.dir=DIR for a "
                "training, --output for a command)",
                path=fault.filename,
                reason=reason,
            )
        )
    )


def exit_with_error(fault: TuneLabError) -> NoReturn:
    """Print the message and leave with its exit status."""
    print_origin(fault)
    print_error(f"{type(fault).__name__}: {fault}")
    sys.exit(fault.exit_status)


def exit_with_unforeseen_error(fault: Exception) -> NoReturn:
    """Print what went wrong in one line, and where the rest is, and leave with exit status 1."""
    print_origin(fault)
    notes = getattr(fault, "__notes__", [])  # where the traceback was kept
    hint = translate("this is an error that TuneLab does not know: the same command with --debug prints the traceback")
    print_error("\n".join([f"{type(fault).__name__}: {first_line(fault)}", *(notes[-1:] or [hint])]))
    sys.exit(1)


def print_origin(fault: BaseException) -> None:
    """Print the traceback of an error, where `--debug` or TUNELAB_DEBUG=1 asks for it."""
    if os.environ.get(DEBUG_VARIABLE, "") not in ("", "0"):
        print_message("".join(traceback.format_exception(fault)))


def print_error(text: str) -> None:
    """Print an error to standard error, wrapped at words to a terminal, its name in red."""
    kind, colon, rest = wrap_words(visible_text(str(redact(text))), terminal_width(sys.stderr)).partition(":")
    named = f"\x1b[1;31m{kind}\x1b[0m" if has_colours(sys.stderr) else kind
    print(f"{named}{colon}{rest}", file=sys.stderr, flush=True)


def print_message(text: str) -> None:
    """Print to standard error what may hold anything: no escape sequence and no secret gets through."""
    print(redact(visible_text(text)), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

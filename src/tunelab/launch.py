"""From the command line to a run; a user's mistake is told without a traceback."""

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from tunelab import describe
from tunelab.command_line import completed, faults_of, overrides_in, reason
from tunelab.errors import ConfigError, TuneLabError

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
UNUSABLE = (  # what a system says of a place that can hold no file or folder
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG),
    *(errno.ENOSPC, errno.EDQUOT),
)


def launch(main: Callable[[], None]) -> None:
    """Run Hydra's `main`, and leave with the exit status the interface promises.

    0 done; 2 the config or the data is at fault; 143 and 130 after SIGTERM and SIGINT; 1 anything else.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us as exceptions; we word them
    signal.signal(signal.SIGTERM, leave)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as train.py has it while packages load
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.argv[1:] = completed(sys.argv[1:])
        if {"-h", "--help"} & set(sys.argv[1:]):  # Hydra prints the same page, but takes twice as long
            print(describe.page(CONF, overrides_in(sys.argv[1:])))
            return
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except (HydraException, OmegaConfBaseException) as fault:
        tell(ConfigError.listing(faults_of(sys.argv[1:], CONF) or [reason(fault)]))
    except TuneLabError as fault:
        tell(fault)
    except OSError as fault:
        tell_place(fault)


def leave(number: int, frame: FrameType | None) -> None:
    """Outside training a signal ends the process at once; inside it `SafePoint` takes over."""
    sys.exit(128 + number)


@contextmanager
def told() -> Iterator[None]:
    """Within a single job a user's mistake is told here, before Hydra adds lines of its own."""
    try:
        yield
    except TuneLabError as fault:
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            raise
        tell(fault)


def tell_place(fault: OSError) -> NoReturn:
    """Tell of a file or folder that cannot be made where the user wants it, and leave; raise anything else again."""
    if fault.errno not in UNUSABLE or not fault.filename:
        raise fault
    reason = "there is a file of that name" if fault.errno == errno.EEXIST else os.strerror(fault.errno).lower()
    tell(
        ConfigError(
            f"cannot use {fault.filename}: {reason}; name a place that this user may write to "
            "(hydra.run.dir=DIR for a training, --output for a command)"
        )
    )


def tell(fault: TuneLabError) -> NoReturn:
    """Print what went wrong and leave with its exit status."""
    print(f"{type(fault).__name__}: {fault}", file=sys.stderr)
    sys.exit(fault.exit_status)

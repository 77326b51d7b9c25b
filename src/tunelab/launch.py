"""From the command line to a run; a user's mistake is told without a traceback."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from tunelab import describe
from tunelab.command_line import completed, faults_of, overrides_in, reason
from tunelab.errors import ConfigError, TuneLabError

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"


def launch(main: Callable[[], None]) -> None:
    """Run Hydra's `main`, and leave with the exit status the interface promises.

    0 done; 2 the config or the data is at fault; 143 and 130 after SIGTERM and SIGINT; 1 anything else.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us as exceptions; we word them
    signal.signal(signal.SIGTERM, leave)
    sys.argv[1:] = completed(sys.argv[1:])
    try:
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


def tell(fault: TuneLabError) -> None:
    """Print what went wrong and leave with its exit status."""
    print(f"{type(fault).__name__}: {fault}", file=sys.stderr)
    sys.exit(fault.exit_status)

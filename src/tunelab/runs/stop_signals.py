"""The signals that end a run at a safe point: which they are, and the exit status that each leaves."""

import signal
from collections.abc import Callable
from types import FrameType

Handler = Callable[[int, FrameType | None], object]
# Of a person at the terminal; of a queue before it takes the machine away; of a terminal that closes; of anything else.
STOP_SIGNALS = (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM)
STOP_EXITS = {128 + number: number.name for number in STOP_SIGNALS}  # exit status after each, by the shell's convention
# Exit statuses of a child after one: as it leaves by itself, and as the system ends it before its handlers stand.
STOPPED_STATUSES = (*STOP_EXITS, *(-number for number in STOP_SIGNALS))


def handle_stop_signals(handler: Handler, *, ctrl_c: bool = True) -> dict[int, object]:
    """Install a handler of the stop signals; returns the handlers that it replaces.

    A signal that `nohup` or a supervisor has this process ignore stays ignored: it is not meant for the run.

    Args:
        handler: Gets the signal's number.
        ctrl_c: Whether SIGINT is handled too; else it stays a KeyboardInterrupt.
    """
    replaced: dict[int, object] = {}
    for number in STOP_SIGNALS:
        ignored = number in (signal.SIGHUP, signal.SIGUSR1) and signal.getsignal(number) is signal.SIG_IGN
        if not ignored and (ctrl_c or number != signal.SIGINT):
            replaced[int(number)] = signal.signal(number, handler)
    return replaced

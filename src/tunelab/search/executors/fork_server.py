"""The process that trials are forked from: it imports what a training imports, once, and then does nothing but fork.

`python -m tunelab.search.executors.fork_server SOCKET ROOM MODULES`, as `forking.ForkServer` starts it: a socket to the
engine, room for the command lines of trials, and the modules to import.  A trial then runs its module as `python -m`
does, and its interpreter ends as any other.

Where trials are started by a script of the user's own, that very script is started as `SCRIPT ROOM`, with the rest in
an environment variable: all that stands before its call of `main` is done once, before the packages are imported, and
each trial goes on from that call.

The fork server of `multiprocessing` runs the script of the user again in each child, ends children without their exit
handlers, gives them neither session, log nor command line of their own, and counts them as dead once it is itself.
"""

import array
import ctypes
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from tunelab.language.translation import message
from tunelab.runs.entry_script import SERVER_VARIABLE
from tunelab.runs.redact import guard_streams

COMMAND_BYTES = 2**15  # of the longest command line of a trial
MESSAGE_BYTES = 8 * COMMAND_BYTES  # of the longest message: a byte that is no letter takes six as JSON


def main() -> None:
    """Fork trials that run a module, until the engine closes the socket."""
    module = serve_forks(int(sys.argv[1]), sys.argv[3:])
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def serve_script() -> None:
    """Fork trials of the script that calls this, until the engine closes the socket; returns in each trial."""
    handle, *modules = os.environ.pop(SERVER_VARIABLE).split()
    serve_forks(int(handle), modules)


def serve_forks(handle: int, modules: Sequence[str]) -> str:
    """Import, say whether trials can be forked, and fork them.

    Returns:
        In each trial, the module that it is to run.  The server itself never returns.
    """
    with socket.socket(fileno=handle) as engine:
        guard_streams()  # before a library keeps the streams, as at the start of a training
        for name in modules:
            import_module(name)
        sys.stdout.flush()
        gc.collect()
        gc.freeze()  # or the first collection in each child would copy the pages of all that was imported
        send(engine, {"unsafe": unsafe_reason()})
        return serve(engine)


def send(engine: socket.socket, answer: dict[str, Any]) -> None:
    """Send a message; this process ends where the engine has."""
    try:
        engine.send(json.dumps(answer).encode())
    except OSError:
        os._exit(0)


def unsafe_reason() -> str:
    """The reason why no trial may be forked from this process; empty where one may."""
    if threading.active_count() > 1:
        return message("importing the packages has started a thread")
    child = os.fork()
    if child == 0:
        os._exit("torch" in sys.modules and bool(sys.modules["torch"].cuda._is_in_bad_fork()))
    if os.waitpid(child, 0)[1]:
        return message("importing the packages has initialized CUDA, which a forked process cannot use")
    if len(os.listdir("/proc/self/task")) > 1:  # those that end themselves before a fork, such as OpenBLAS', are gone
        return message("importing the packages has started a thread")
    try:
        show_command(["python", "-m", __spec__.name])
    except OSError:
        return message("this system does not let a process change its command line")
    return ""


def show_command(words: Sequence[str]) -> None:
    """Let `ps`, and an engine that looks for a trial, see another command line of this process."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = int(fields[45]), int(fields[46])  # fields 48 and 49 of proc(5)
    text = b"".join(os.fsencode(word) + b"\0" for word in words)
    if len(text) > end - begin:
        raise OSError("no room for the command line")
    ctypes.memset(begin, 0, end - begin)
    ctypes.memmove(begin, text, len(text))


def serve(engine: socket.socket) -> str:
    """Fork a trial for each request of the engine, and report how each ends.

    Returns:
        In each trial, the module that it is to run.  The server itself never returns.
    """
    trials: dict[int, tuple[int, int]] = {}  # number of the request and process id, by the handle of the process
    events = select.poll()
    events.register(engine, select.POLLIN)
    while True:
        for handle, _ in events.poll():
            if handle in trials:
                events.unregister(handle)
                os.close(handle)
                number, pid = trials.pop(handle)
                send(engine, {"number": number, "status": end_status(pid)})
                continue
            request, log = receive(engine)
            child = fork_trial(engine, request, log)
            os.close(log)
            if child == 0:
                for other in trials:
                    os.close(other)
                return str(request["module"])
            if child is not None:
                trials[process := os.pidfd_open(child)] = request["number"], child
                events.register(process, select.POLLIN)


def receive(engine: socket.socket) -> tuple[dict[str, Any], int]:
    """The next request and the log of its trial; this process ends where the engine has."""
    text, ancillary, _, _ = engine.recvmsg(MESSAGE_BYTES, socket.CMSG_SPACE(array.array("i").itemsize))
    if not text:
        os._exit(0)  # the trials live on: another engine adopts them
    return json.loads(text), array.array("i", ancillary[0][2])[0]


def fork_trial(engine: socket.socket, request: dict[str, Any], log: int) -> int | None:
    """Fork a trial.  It begins once the engine has been told: one that never hears of it starts another in its place.

    Returns:
        Its process id, 0 in the trial itself; None where it could not be.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            child = os.fork()
        except OSError as fault:  # no memory, or too many processes
            send(engine, {"number": request["number"], "fault": str(fault)})
            return None
        if child == 0:
            ours.close()
            engine.close()
            become_trial(request, log)
            theirs.send(b"ready")
            if not theirs.recv(1):
                os._exit(1)
            return 0
        theirs.close()
        if ours.recv(5):
            send(engine, {"number": request["number"], "pid": child})
            with suppress(OSError):  # killed already
                ours.send(b"1")
            return child
    status = end_status(child)
    send(engine, {"number": request["number"], "fault": f"it ended at once, with status {status}"})
    return None


def become_trial(request: dict[str, Any], log: int) -> None:
    """Give this process what a new one for the request would have: session, log, environment, command line."""
    os.setsid()
    os.write(log, os.pread(1, 2**20, 0))  # what the imports have printed
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(request["environment"])
    show_command(request["command"])
    sys.orig_argv[:] = request["command"]
    sys.argv[1:] = request["command"][request["first_word"] :]
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # two trials that seed nothing are to differ; Python's own does it by itself


def end_status(pid: int) -> int:
    """The exit status of an ended child, negative for a signal; ends what outlives it.

    A rank that waits for a dead one would hold its device.
    """
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL if status else signal.SIGTERM)  # before `waitpid` lets its number be another's
    os.waitpid(pid, 0)
    return status


if __name__ == "__main__":
    main()

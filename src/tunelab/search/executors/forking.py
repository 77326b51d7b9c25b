"""Trials forked from one process that has imported all packages: each costs a fork beside its training."""

import array
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from typing_extensions import override

from tunelab.language.translation import message, translate
from tunelab.runs.entry_script import SERVER_VARIABLE
from tunelab.search.executors.fork_server import COMMAND_BYTES, MESSAGE_BYTES
from tunelab.search.heartbeat import process_name
from tunelab.search.trial_outcome import open_log
from tunelab.search.trial_process import AdoptedJob, Job, LocalExecutor, inherited_environment

SERVER_MODULE = "tunelab.search.executors.fork_server"
TRAINING_MODULES = (  # what every training imports
    *("tunelab.training.run", "tunelab.cli.help_page", "transformers.modeling_layers", "transformers.generation.utils"),
)
LATE_VARIABLES = ("CUDA_VISIBLE_DEVICES",)  # read when a training begins; any other may be read by an import
IMPORT_SECONDS, ANSWER_SECONDS, END_SECONDS = 600.0, 60.0, 5.0  # that the server may take for each


class ForkServer:
    """The process that trials are forked from.

    Args:
        modules: What it imports.
        environment: Its environment variables.
        script: The script of one's own that it runs up to its call of `main`; None for none.

    Attributes:
        is_ready: Whether it can fork.
        fault: Why it never will; empty where it may.
    """

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str], script: Path | None = None) -> None:
        self.began = time.monotonic()
        self.is_ready, self.fault = False, ""
        self._numbers = count()
        self._answers, self._statuses = dict[int, dict[str, Any]](), dict[int, int]()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        room, variables = " " * COMMAND_BYTES, dict(environment)
        with theirs:
            command = [sys.executable, "-P", "-m", SERVER_MODULE, str(theirs.fileno()), room, *modules]
            if script is not None:
                command = [sys.executable, str(script), room]
                variables[SERVER_VARIABLE] = " ".join([str(theirs.fileno()), *modules])
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                env=variables,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the engine
            )

    def fork(self, command: Sequence[str], environment: Mapping[str, str], log: int) -> tuple[int, int]:
        """Fork a trial.

        Args:
            command: `python -P -m MODULE WORDS`, or `python SCRIPT WORDS`.
            environment: Variables that differ from those of the server.
            log: File descriptor that its output goes to.

        Returns:
            Its number, for `status`, and its process id.

        Raises:
            OSError: If it cannot be; then it has not begun.
        """
        number = next(self._numbers)
        module, first = (command[3], 4) if command[1] == "-P" else ("", 2)
        request = {"number": number, "module": module, "command": command, "first_word": first}
        request["environment"] = environment
        handle = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [log]))
        try:
            self._socket.settimeout(ANSWER_SECONDS)
            self._socket.sendmsg([json.dumps(request).encode()], [handle])
        except OSError as fault:
            self.give_up(str(fault))
        while number not in self._answers and not self.fault:
            if not self._take(self._receive(ANSWER_SECONDS)):
                self.give_up(message("the process that forks trials does not answer"))
        answer = self._answers.pop(number, {"fault": self.fault})
        if "pid" not in answer:
            raise OSError(answer["fault"])
        return number, int(answer["pid"])

    def status(self, number: int) -> int | None:
        """The exit status of an ended trial; None while it runs, or where the server ended before it."""
        self.update()
        return self._statuses.get(number)

    def update(self) -> None:
        """Take in what the server has said; give it up where it has ended, or still imports after `IMPORT_SECONDS`."""
        while not self.fault and self._take(self._receive(0)):
            pass
        if not self.is_ready and not self.fault and time.monotonic() - self.began > IMPORT_SECONDS:
            self.give_up(message("importing the packages takes too long"))

    def give_up(self, fault: str) -> None:
        """End the server for good.  Trials that it has forked live on."""
        self.fault = fault
        self._end()
        while answer := self._receive(0):  # what it said before
            self._take(answer)
        self.close()

    def close(self) -> None:
        """End the server."""
        self._end()
        self._socket.close()
        self._output.close()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _receive(self, timeout: float) -> dict[str, Any] | None:
        """The next message of the server; None if there is none in time, empty where it has ended."""
        try:
            self._socket.settimeout(timeout)
            return dict(json.loads(self._socket.recv(MESSAGE_BYTES) or b"{}"))
        except (BlockingIOError, TimeoutError):
            return None
        except OSError:  # killed, or given up before
            return {}

    def _take(self, answer: dict[str, Any] | None) -> bool:
        """Take in a message; False if there is none."""
        if answer is None:
            return False
        if not answer:
            with suppress(subprocess.TimeoutExpired):  # it may still print why
                self._process.wait(END_SECONDS)
            self.give_up(self._last_words() or message("the process that forks trials has ended"))
        elif answer.get("unsafe"):
            self.give_up(answer["unsafe"])
        elif "unsafe" in answer:
            self.is_ready = True
        elif "status" in answer:
            self._statuses[answer["number"]] = answer["status"]
        else:
            self._answers[answer["number"]] = answer
        return True

    def _last_words(self) -> str:
        """The last line that the server printed, such as the error of an import."""
        lines = os.pread(self._output.fileno(), 2**20, 0).decode(errors="replace").split("\n")
        return "" if self.is_ready else next((line for line in reversed(lines) if line.strip()), "")


class ForkedJob(AdoptedJob):
    """A trial that the server has forked, whose status the server tells; without one, as any that is no child of ours.

    Args:
        server: Its server.
        number: Its number there.
        pid: Its process id.
        folder: Its run directory.
    """

    def __init__(self, server: ForkServer, number: int, pid: int, folder: Path) -> None:
        super().__init__(process_name(pid), folder)
        self.server, self.number = server, number

    @override
    def poll(self) -> int | None:
        status = self.server.status(self.number)
        if status is None and self.server.fault:
            return super().poll()
        if status is None:
            self.kill_if_overdue()
        return status


class ForkingExecutor(LocalExecutor):
    """Starts trials on this machine: forks of one process where that is safe, else processes of their own.

    Args:
        say: Prints a line.
        modules: What the server imports.
        script: The script of one's own that starts trainings; None where a module does.
    """

    def __init__(
        self,
        say: Callable[[str], None] = print,
        modules: Sequence[str] = TRAINING_MODULES,
        script: Path | None = None,
    ) -> None:
        self.say, self.modules, self.script = say, modules, script
        self.server: ForkServer | None = None
        self.variables: dict[str, str] = {}  # of the slot that the server was started for
        self.fault, self.is_announced = "", False

    @override
    def is_ready(self, environment: Mapping[str, str]) -> bool:
        if self.server is None and not self.fault:
            self.variables = early_variables(environment)
            try:
                variables = early_variables(inherited_environment(environment))
                self.server = ForkServer(self.modules, variables, self.script)
            except OSError as fault:
                self.fault = str(fault)
        if self.server is None:
            return True
        self.server.update()
        return self.server.is_ready or bool(self.server.fault)

    @override
    def start(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Job:
        fault = self._fault(command, environment)
        if not fault and self.server is not None and self.server.is_ready:
            folder.mkdir(parents=True, exist_ok=True)
            with open_log(folder) as log:
                variables = inherited_environment(environment)
                late = {name: variables[name] for name in LATE_VARIABLES if name in variables}
                try:
                    number, pid = self.server.fork(command, late, log.fileno())
                    return ForkedJob(self.server, number, pid, folder)
                except OSError as refusal:
                    fault = str(refusal)
        if fault and not self.is_announced:
            self.is_announced = True
            text = translate(
                "trials start as processes of their own and import all packages again: {reason}",
                reason=translate(fault),
            )
            self.say(text)
        return super().start(command, folder, environment)

    @override
    def close(self) -> None:
        if self.server is not None and not self.server.fault:
            self.server.close()

    def _fault(self, command: Sequence[str], environment: Mapping[str, str]) -> str:
        """Why a trial cannot be forked; empty where nothing is known against it."""
        if self.server is None or self.server.fault:
            return self.server.fault if self.server is not None else self.fault
        start = ["-P", "-m"] if self.script is None else [str(self.script)]
        if list(command[1 : 1 + len(start)]) != start or early_variables(environment) != self.variables:
            return message("their command or environment is not that of the process which would fork them")
        if sum(len(os.fsencode(word)) + 1 for word in command) > COMMAND_BYTES:
            return message("their command lines are too long to be forked")
        return ""


def early_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that an import may read."""
    return {name: value for name, value in environment.items() if name not in LATE_VARIABLES}

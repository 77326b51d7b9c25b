"""Commands in processes forked from one that has imported all packages: each is spared seconds of imports.

For tests of what a command prints, writes and ends with.  What imports do, and variables that they read, take a process
that starts anew; but for those of plugins, which a command reads anew.
"""

import atexit
import gc
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module, reload
from pathlib import Path
from typing import Any

from support.paths import ROOT, SUPPORT

MODULES = (
    *("tunelab.training.run", "tunelab.cli.main", "tunelab.cli.help_page", "tunelab.search.run_search"),
    *("transformers.modeling_layers", "transformers.generation.utils", "peft"),
)
REQUEST_BYTES = 2**17
INSTALLED = [place for place in sys.path if place not in (str(ROOT), str(SUPPORT.parent), str(ROOT / "src"))]
SOURCES = str(ROOT / "src")  # behind all others, as an installation that can be edited has it


def run(
    words: Sequence[str | Path], cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Exit status and output of `python WORDS`: `[-P]`, a script, `-c CODE` or `-m MODULE`, and arguments."""
    request = {
        "words": list(map(str, words)),
        "folder": str(cwd),
        "environment": dict(os.environ if env is None else env),
    }
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        socket.send_fds(server(), [json.dumps(request).encode()], [output.fileno(), errors.fileno()])
        try:
            status = json.loads(server().recv(REQUEST_BYTES))
        except BaseException:  # the time of the test is over: the answer would be taken for that to the next request
            server().close()
            server.cache_clear()
            raise
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(request["words"], status, output.read(), errors.read())


@cache
def server() -> socket.socket:
    """The socket of the process that forks, started when first needed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    places = os.pathsep.join([str(SUPPORT.parent), str(ROOT / "src")])
    with theirs:
        subprocess.Popen(
            [sys.executable, "-m", "support.warm_processes", str(theirs.fileno())],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": places}, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
        )  # fmt: skip
    atexit.register(ours.close)
    return ours


def serve(tests: socket.socket) -> dict[str, Any]:
    """Fork for each request and answer with its exit status; in the child, return the request."""
    while True:
        text, handles, _, _ = socket.recv_fds(tests, REQUEST_BYTES, 2)
        if not text:
            os._exit(0)
        if child := os.fork():
            for handle in handles:
                os.close(handle)
            tests.send(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
            continue
        tests.close()
        for handle, stream in zip(handles, (1, 2), strict=True):
            os.dup2(handle, stream)
            os.close(handle)
        return dict(json.loads(text))


def main() -> None:
    """Import, fork for each request, and in the child do as Python does with the words."""
    for name in MODULES:
        import_module(name)
    gc.collect()
    gc.freeze()  # or the first collection in each child would copy the pages of all that was imported
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    reload(import_module("tunelab.config.plugins"))
    run_as_python(request["words"], [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place])


def run_as_python(words: list[str], places: list[str]) -> None:
    """Do as `python WORDS` does with these folders of modules before all others."""
    is_safe, words = words[0] == "-P", words[words[0] == "-P" :]
    how, words = (words[0], words[1:]) if words[0] in ("-c", "-m") else ("", words)
    what, sys.argv = words[0], [how or words[0], *words[1:]]
    beside = str(Path(what).resolve().parent) if not how else "" if how == "-c" else os.getcwd()
    sys.path[:] = [*([] if is_safe else [beside]), *places, *INSTALLED, SOURCES]
    if how == "-c":
        exec(what, {"__name__": "__main__"})
    elif how == "-m":
        sys.modules.pop(what, None)  # a package may have imported it
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(what, run_name="__main__")


if __name__ == "__main__":
    main()

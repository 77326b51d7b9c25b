"""Commands in processes forked from one that has imported all packages: each is spared seconds of imports.

For tests of what a command prints, writes and ends with.  What imports do, variables that they read (but for those of
plugins, which a command reads anew), and objects that say something when the process ends, take one that starts anew.
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
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module, reload
from pathlib import Path
from typing import Any, NoReturn

from support.looked_up_once import look_at_the_code_once, parse_config_files_once
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
    look_up_what_all_share()
    gc.collect()
    gc.freeze()  # or the first collection in each child would copy the pages of all that was imported
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    reload(import_module("tunelab.config.plugins"))
    places = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    end_at_once(lambda: run_as_python(request["words"], places))


def look_up_what_all_share() -> None:
    """Parse the files of conf/, and look at this code and at the packages, for all the processes forked later."""
    source = parse_config_files_once()("main", str(ROOT / "conf"))
    for file in (ROOT / "conf").rglob("*.yaml"):
        source.load_config(file.relative_to(ROOT / "conf").as_posix())
    look_at_the_code_once()
    manifest: Any = import_module("tunelab.runs.manifest")
    for look in (manifest.code_revision, manifest.code_sha256, manifest.installed_packages):
        look()


def end_at_once(work: Callable[[], None]) -> NoReturn:
    """End with the exit status of this work as Python does, but for the half second in which it deletes all objects."""
    status = 0
    try:
        work()
    except SystemExit as left:
        if isinstance(left.code, int):
            status = left.code
        elif left.code is not None:
            print(left.code, file=sys.stderr)
            status = 1
    except BaseException as fault:
        sys.excepthook(type(fault), fault, fault.__traceback__)
        status = 1
    threading._shutdown()  # waits for threads, as the end of a process does
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


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

"""`tunelab board`: a live page of the runs and searches of a folder, on this machine only."""

import argparse
from contextlib import suppress
from pathlib import Path

from tunelab.language.translation import message, translate

EPILOG = message("""
The page lists every run and search below the folder, filters, compares, opens each report, and draws what is running.
It is served to browsers of this machine only (127.0.0.1), writes nothing and follows no links; Ctrl-C ends it.  From
another machine: ssh -L 8765:127.0.0.1:8765 HOST
""")
DEFAULT_PORT = 8765


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `tunelab board`."""
    parser.epilog = translate(EPILOG)
    parser.add_argument(
        "folder", nargs="?", default="outputs", metavar="OUTPUTS", help=translate("folder of runs (outputs)")
    )
    parser.add_argument(
        "--port",
        type=int,
        metavar="N",
        help=translate("port to listen on ({default_port}); 0 takes a free one", default_port=DEFAULT_PORT),
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    from tunelab.board.server import BoardServer
    from tunelab.errors import ConfigError
    from tunelab.runs import console

    folder = Path(arguments.folder)
    if not folder.is_dir():
        what = translate("is a file") if folder.exists() else translate("is not there")
        raise ConfigError(
            translate(
                "{folder} {what}; give the folder that holds your runs: tunelab board FOLDER", folder=folder, what=what
            )
        )
    port = DEFAULT_PORT if arguments.port is None else arguments.port
    if not 0 <= port < 2**16:
        raise ConfigError(translate("--port={port} is no port; give a number from 0 to 65535", port=port))
    try:
        server = BoardServer(folder, port)
    except OSError as fault:
        reason = (fault.strerror or str(fault)).lower()
        raise ConfigError(
            translate(
                "--port={port} cannot be used: {reason}; --port 0 takes one that is free", port=port, reason=reason
            )
        ) from fault
    with suppress(KeyboardInterrupt), server:
        console.say(translate("board of {folder}: {address} (Ctrl-C ends it)", folder=folder, address=server.address))
        server.serve_forever()
    return 0

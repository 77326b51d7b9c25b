"""The server of a board: this machine and this account only, read-only, GET and HEAD, for the folder of its start."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from tunelab.board.client_account import is_own_client
from tunelab.board.folder_scan import MAX_ENTRIES, Board, file_stamp
from tunelab.board.pages import board_page, refusal_page
from tunelab.errors import TuneLabError, first_line, visible_text
from tunelab.language.translation import translate
from tunelab.report.render import render_html
from tunelab.runs.run_dir import RUN_FILES

LOOPBACK = "127.0.0.1"
HOST_NAMES = ("127.0.0.1", "localhost", "::1")  # a page elsewhere whose name was turned to this machine has another
MAX_COMPARED = 30  # runs of one report
MAX_THREADS = 64  # connections at the same time; a browser keeps some open for each tab
KEPT_REPORTS = 16  # reports that are kept until a file of theirs changes
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
Answer = tuple[HTTPStatus, str]


class BoardServer(ThreadingHTTPServer):
    """The server of one folder."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(self, root: Path, port: int) -> None:
        """Listen on the loopback interface.

        Args:
            root: The folder.
            port: 0 takes any that is free.

        Raises:
            OSError: If the port is taken.
        """
        self.board = Board(root)
        self._free = threading.BoundedSemaphore(MAX_THREADS)
        self._composing = threading.Lock()  # one at a time: a report takes a core
        self._reports: OrderedDict[tuple[str, ...], tuple[object, str]] = OrderedDict()
        super().__init__((LOOPBACK, port), BoardHandler)

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return f"http://{LOOPBACK}:{self.server_address[1]}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own; where too many are busy, hang up."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that hung up is no fault."""

    def report(self, names: Sequence[str]) -> str:
        """The page of a report, made anew when a file of it has changed.

        Raises:
            LookupError: If one is no run or search of the folder.
            TuneLabError: If it cannot be reported on.
        """
        from tunelab.report.compose import compose_report  # loads numpy and SciPy, which the table does without

        paths = [self.board.reportable(name) for name in names]
        files = [path / name for path in paths for name in (*RUN_FILES, "trials.jsonl", "study.json", "search.json")]
        stamp = tuple(map(file_stamp, files))
        with self._composing:
            known = self._reports.pop(tuple(names), None)
            if known is None or known[0] != stamp:
                known = (stamp, render_html(compose_report(paths), home="/"))
            self._reports[tuple(names)] = known
            while len(self._reports) > KEPT_REPORTS:
                self._reports.popitem(last=False)
        return known[1]


class BoardHandler(BaseHTTPRequestHandler):
    """Answers requests: `/` is the table, `/report?path=NAME` a report, several paths a comparison."""

    server: BoardServer
    protocol_version = "HTTP/1.1"
    server_version = "TuneLab"
    sys_version = ""
    timeout = 15.0  # seconds that a client may take to ask

    def do_GET(self) -> None:
        """Answer with a page."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Answer with the headers of a page."""
        self._answer(body=False)

    def _refuse_method(self) -> None:
        self.close_connection = True
        page = refusal_page(
            translate("Not allowed"), translate("This page is read-only: only GET and HEAD are answered.")
        )
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, page, body=True, more={"Allow": "GET, HEAD"})

    def __getattr__(self, name: str) -> Any:
        """The refusal of any other method: the standard library looks for `do_METHOD`."""
        if name.startswith("do_"):
            return self._refuse_method
        raise AttributeError(name)

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing to the terminal."""

    def _answer(self, *, body: bool) -> None:
        if not is_own_client(self.connection):
            text = "This page answers to the account that started it only; start tunelab board as your own."
            self._send(HTTPStatus.FORBIDDEN, refusal_page("Forbidden", text), body=body)
            return
        if host_name(self.headers.get("Host", "")) not in HOST_NAMES or len(self.headers.get_all("Host", [])) != 1:
            text = translate(
                "This page answers to 127.0.0.1 and localhost only, so that no web site can read it under its own name."
            )
            self._send(HTTPStatus.FORBIDDEN, refusal_page("Forbidden", text), body=body)
            return
        try:
            status, page = respond(self.server, self.path)
        except LookupError:
            text = translate("There is no such run or search in this folder.")
            status, page = HTTPStatus.NOT_FOUND, refusal_page(translate("Not found"), text)
        except TuneLabError as fault:
            status, page = (
                HTTPStatus.UNPROCESSABLE_ENTITY,
                refusal_page(translate("Cannot be shown"), visible_text(str(fault))),
            )
        except (Exception, RecursionError) as fault:  # an unexpected fault of a file; the next request is answered
            text = f"{type(fault).__name__}: {visible_text(first_line(fault))}"
            status, page = HTTPStatus.INTERNAL_SERVER_ERROR, refusal_page(translate("Cannot be shown"), text)
        self._send(status, page, body=body)

    def _send(self, status: HTTPStatus, page: str, *, body: bool, more: dict[str, str] | None = None) -> None:
        content = page.encode("utf-8", "replace")
        self.send_response(status)
        for name, value in {**HEADERS, **(more or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


def host_name(header: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def split_address(target: str) -> SplitResult:
    """The parts of a request's address.

    Raises:
        LookupError: If it is none.
    """
    try:
        return urlsplit(target)
    except ValueError:
        raise LookupError(target) from None


def respond(server: BoardServer, target: str) -> Answer:
    """The page of a request.

    Raises:
        LookupError: If there is none.
        TuneLabError: If it cannot be made.
    """
    address = split_address(target)
    try:
        query = parse_qs(address.query, errors="strict", max_num_fields=MAX_ENTRIES)
    except ValueError:  # bytes of no text, or thousands of fields
        raise LookupError(address.query) from None
    pages: dict[str, Callable[[], str]] = {
        "/": lambda: board_page(server.board, query.get("in", [""])[0]),
        "/report": lambda: report_page(server, query.get("path", [])),
    }
    if address.path not in pages:
        raise LookupError(address.path)
    return HTTPStatus.OK, pages[address.path]()


def report_page(server: BoardServer, names: Sequence[str]) -> str:
    """The report on one entry, or the comparison of several.

    Raises:
        LookupError: If none is named, or one is not there.
        TuneLabError: If they cannot be compared.
    """
    chosen = list(dict.fromkeys(names))
    if not chosen:
        raise TuneLabError(translate("nothing is chosen: tick two runs or more in the table, then compare"))
    if len(chosen) > MAX_COMPARED:
        raise TuneLabError(
            translate(
                "{count} are chosen; a page compares {max_compared} at most",
                count=len(chosen),
                max_compared=MAX_COMPARED,
            )
        )
    return server.report(chosen)

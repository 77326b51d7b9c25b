"""The board of a folder: what it lists, what it refuses, and that no file of a stranger ends it."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.made_up_runs import NASTY, answered_run, card, labelled_run
from support.made_up_studies import study
from tunelab.board import client_account, folder_scan
from tunelab.board.folder_scan import Board
from tunelab.board.server import BoardServer
from tunelab.errors import TuneLabError
from tunelab.runs.run_dir import RunDirectory


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with two runs and a search of four trials, two of which left folders."""
    outputs = tmp_path / "outputs"
    labelled_run(outputs / "day" / "one")
    answered_run(outputs / "other one")
    search = study(outputs / "search", 4)
    for number in (0, 1):
        labelled_run(search / str(number), seed=number)
    return outputs


@pytest.fixture
def server(root: Path) -> Iterator[BoardServer]:
    """A server of that folder."""
    with BoardServer(root, 0) as board:
        thread = threading.Thread(target=board.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield board
        board.shutdown()
        thread.join()


def ask(server: BoardServer, target: str, method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
    """Status, page and headers of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    connection.request(method, target, headers=headers)
    answer = connection.getresponse()
    page = answer.read().decode()
    connection.close()
    return answer.status, page, dict(answer.getheaders())


def paths(root: Path, inside: str = "") -> set[str]:
    """What is listed."""
    return {entry.path for entry in Board(root).scan(inside).entries}


def test_runs_and_searches_are_listed_and_trials_within_their_search(root: Path) -> None:
    assert paths(root) == {"day/one", "other one", "search"}
    assert paths(root, "search") == {"search/0", "search/1"}
    assert paths(root / "search") == {".", "0", "1"}
    one = next(entry for entry in Board(root).scan().entries if entry.path == "day/one")
    assert (one.status, one.task, one.score, one.value, one.test[0]) == (
        "finished",
        "classification",
        "val/loss",
        0.5,
        "accuracy",
    )


def test_every_page_is_served_and_nothing_is_written(server: BoardServer, root: Path) -> None:
    before = sorted(root.rglob("*"))

    status, table, headers = ask(server, "/")
    assert status == 200 and "day/one" in table and "/?in=search" in table
    assert headers["X-Frame-Options"] == "DENY" and headers["Cache-Control"] == "no-store"
    for target, words in (
        ("/?in=search", "search/0"),
        ("/report?path=other%20one", "<h2>Verdict</h2>"),
        ("/report?path=search", "What to run next"),
        ("/report?path=search%2F0&path=search%2F1", "A (trial 0) against B (trial 1)"),
    ):
        status, page, _ = ask(server, target)
        assert status == 200 and words in page, target
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize(
    "target",
    ["/report?path=..", "/report?path=../outputs/day/one", "/report?path=/etc", "/report?path=day/../day/one",
     "/report?path=%2e%2e%2f", "/report?path=a%00b", "/report?path=%ff", "/report?path=day", "/?in=../..", "/?in=no",
     "/../../etc/passwd", "/outputs/day/one/run.json", "/favicon.ico", "//etc/passwd", "/report?path=..%5c..", "//[x"],
)  # fmt: skip
def test_what_is_no_run_of_the_folder_is_not_there(server: BoardServer, target: str) -> None:
    assert ask(server, target)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_it_is_read_only(server: BoardServer, method: str) -> None:
    status, _, headers = ask(server, "/", method)
    assert status == 405 and headers["Allow"] == "GET, HEAD"


def test_head_has_the_headers_of_the_page_alone(server: BoardServer) -> None:
    status, page, headers = ask(server, "/", "HEAD")
    assert (status, page) == (200, "") and int(headers["Content-Length"]) > 1000


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "", "192.168.0.7", "[::"]
)
def test_a_name_that_is_not_this_machine_is_refused(server: BoardServer, host: str) -> None:
    assert ask(server, "/", Host=host)[0] == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9000", "LOCALHOST", "[::1]:8765"])
def test_this_machine_may_be_called_by_its_names_and_any_forwarded_port(server: BoardServer, host: str) -> None:
    assert ask(server, "/", Host=host)[0] == 200


def test_it_listens_on_the_loopback_interface_only(server: BoardServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_links_are_not_followed(root: Path, tmp_path: Path) -> None:
    # Given a run outside, a link to it, a run whose manifest is a link, and a search whose trials are one
    outside = labelled_run(tmp_path / "secret")
    (root / "link").symlink_to(outside.root)
    odd = labelled_run(root / "odd")
    odd.predictions.unlink()
    odd.predictions.symlink_to(outside.predictions)

    board = Board(root)
    entries = {entry.path: entry for entry in board.scan().entries}

    assert "link" not in entries
    assert (entries["odd"].status, entries["odd"].fault) == ("refused", "predictions.jsonl is a link")
    with pytest.raises(TuneLabError, match="which may lead outside"):
        board.reportable("odd")
    with pytest.raises(LookupError):
        board.reportable("link")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"status": 3}',
        "[" * 100_000,
        '{"config": [], "best": 1}',
        "\x00\xff",
        '{"best": {"value": "x"}}',
    ],
    ids=range(8),
)
def test_a_damaged_file_is_named_and_the_page_stands(server: BoardServer, root: Path, content: str) -> None:
    for file in ("run.json", "metrics.json", "scores.json", "data_report.json", "metrics.csv"):
        (root / "day" / "one" / file).write_text(content)
    for file in ("study.json", "search.json", "trials.jsonl"):
        (root / "search" / file).write_text(content)

    assert ask(server, "/")[0] == 200
    for target in ("/report?path=day/one", "/report?path=search"):
        assert ask(server, target)[0] in (200, 422, 500), target
    assert ask(server, "/?in=search")[0] == 200


def test_pipes_and_huge_files_neither_block_nor_fill_the_memory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_scan, "MAX_BYTES", 50)
    monkeypatch.setattr(folder_scan, "MAX_REPORT_BYTES", 1000)
    pipe = root / "piped"
    pipe.mkdir()
    (pipe / "metrics.json").write_text("{}")
    os.mkfifo(pipe / "run.json")
    os.mkfifo(pipe / "run.lock")

    board = Board(root)
    entries = {entry.path: entry for entry in board.scan().entries}

    assert entries["piped"].status == "damaged"
    assert "which no such file of ours has" in entries["day/one"].fault
    with pytest.raises(TuneLabError, match="tunelab report"):
        board.reportable("day/one")


def test_words_of_a_run_cannot_act(server: BoardServer, root: Path) -> None:
    folder = RunDirectory(root / "day" / "one")
    folder.write_manifest(card(status="finished", overrides=[f"name={NASTY}"], model={"path": NASTY}))
    (root / NASTY.replace("/", "")).mkdir()
    labelled_run(root / NASTY.replace("/", "") / "run")

    _, page, _ = ask(server, "/")

    assert NASTY not in page and "<img" not in page and page.count("<script>") == 1


def test_a_run_says_running_only_while_its_process_lives(root: Path) -> None:
    folder = RunDirectory(root / "day" / "one")
    folder.write_manifest(card(status="running", best=None))
    board = Board(root)
    status = lambda: next(entry.status for entry in board.scan().entries if entry.path == "day/one")  # noqa: E731

    assert status() == "stopped"
    held = RunDirectory.open(folder.root, write=True)
    try:
        assert status() == "running"
        ((path, rows, _),) = board.running(board.scan())
        assert path == "day/one" and rows[-1]["train/loss"] > 0
    finally:
        held.close()
    assert status() == "stopped"


def test_a_page_follows_its_run(server: BoardServer, root: Path) -> None:
    folder = RunDirectory(root / "day" / "one")
    assert "The run is failed" not in ask(server, "/report?path=day/one")[1]

    folder.write_manifest(card(status="failed", reason="the disk is full"))

    assert "The run is failed after 60 steps: the disk is full" in ask(server, "/report?path=day/one")[1]


def test_many_slow_clients_do_not_end_it(server: BoardServer) -> None:
    slow = [socket.create_connection(server.server_address, timeout=10) for _ in range(100)]
    try:
        for client in slow:
            client.close()
        assert any(ask_or_nothing(server) == 200 for _ in range(200))
    finally:
        for client in slow:
            client.close()


def ask_or_nothing(server: BoardServer) -> int:
    """The status of a request; 0 where the server hung up."""
    try:
        return ask(server, "/")[0]
    except (OSError, http.client.HTTPException):
        return 0


def test_a_folder_with_too_many_runs_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_scan, "MAX_ENTRIES", 2)
    found = Board(root).scan()
    assert len(found.entries) == 2 and found.notes == ["Only the first 2 runs are listed; open a smaller folder."]


def test_entries_are_plain_values(root: Path) -> None:
    entry = next(entry for entry in Board(root).scan().entries if entry.path == "other one")
    assert json.dumps(replace(entry).__dict__)


def test_a_folder_whose_name_is_no_text_is_left_out_with_a_note(root: Path) -> None:
    labelled_run(root / "plain")
    os.rename(root / "plain", os.fsencode(root) + b"/caf\xe9")

    scan = Board(root).scan()

    assert {entry.path for entry in scan.entries} == {"day/one", "other one", "search"}
    assert len(scan.notes) == 1 and scan.notes[0].startswith("1 folder is left out") and "caf\ufffd" in scan.notes[0]


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can ask as another account")
def test_another_account_of_the_machine_is_refused(server: BoardServer) -> None:
    port = server.server_address[1]
    code = (
        "import http.client, os, encodings.idna\n"  # before the account that may read them is left
        "os.setuid({account})\n"
        f"c = http.client.HTTPConnection('127.0.0.1', {port}, timeout=30); c.request('GET', '/')\n"
        "a = c.getresponse(); print(a.status, b'day/one' in a.read())"
    )
    for account, expected in ((0, "200 True"), (65534, "403 False")):
        asked = subprocess.run(
            [sys.executable, "-c", code.replace("{account}", str(account))], capture_output=True, text=True
        )
        assert asked.stdout.strip() == expected, asked.stderr


@pytest.mark.parametrize(("account", "allowed"), [(1000, True), (0, True), (1001, False), (None, True)])
def test_a_client_is_known_by_the_account_of_its_socket(
    account: int | None, allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(client_account, "SOCKET_TABLES", (tmp_path / "none", tmp_path / "tcp"))
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as client,
        listening.accept()[0] as connection,
    ):
        ends = [client_account.socket_key(*one.getsockname()) for one in (client, connection)]
        for before in ("", "0000000000000000FFFF0000"):  # as an IPv6 socket writes an IPv4 address
            sockets = f"   0: {before}{ends[0]} {before}{ends[1]} 01 0:0 00:0 0 {account} 0 1\n"
            (tmp_path / "tcp").write_text(head + sockets * (account is not None))
            assert client_account.is_own_client(connection) is allowed

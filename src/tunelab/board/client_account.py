"""Whose process is at the other end of a connection within this machine, where the system says so (Linux)."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

SOCKET_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))  # an IPv6 socket may speak to an IPv4 one
LOCAL, REMOTE, ACCOUNT = 1, 2, 7  # columns of a table
ROOT = 0


def is_own_client(connection: socket.socket) -> bool:
    """Whether the client runs as the account of this process or as root; True where the system keeps no such table."""
    account = client_account(connection)
    return account is None or account in (os.getuid(), ROOT)


def client_account(connection: socket.socket) -> int | None:
    """The number of the account whose process opened a connection from this machine; None where it is not known."""
    try:
        client, server = connection.getpeername()[:2], connection.getsockname()[:2]
    except OSError:  # it has hung up
        return None
    ours, theirs = socket_key(*server), socket_key(*client)
    owners = (account for end, other, account in open_sockets() if end.endswith(theirs) and other.endswith(ours))
    return next(owners, None)


def socket_key(host: str, port: int) -> str:
    """An IPv4 address and a port as the tables write them: `0100007F:1F90`, which an IPv6 form of it ends in too."""
    return f"{int.from_bytes(socket.inet_aton(host), 'little'):08X}:{port:04X}"


def open_sockets() -> Iterator[tuple[str, str, int]]:
    """Local end, remote end and account of every TCP socket of this machine."""
    for table in SOCKET_TABLES:
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            cells = line.split()
            yield cells[LOCAL], cells[REMOTE], int(cells[ACCOUNT])

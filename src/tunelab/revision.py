"""Which code ran: commit, and what differs from it."""

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

from tunelab.tracking.redact import redact

DIFF_LIMIT = 200_000  # bytes of the diff kept in the card; its sha256 covers all of it


def revision(folder: Path | None = None) -> dict[str, Any]:
    """Commit, dirty flag and diff of the code.

    Args:
        folder: A folder of the repository; that of this package unless given.

    Returns:
        `commit`, `branch`, `dirty`, `diff` (text, secrets blacked out, at most `DIFF_LIMIT` bytes), `diff_bytes`,
        `diff_sha256`, `untracked` (names); or `commit` None and `reason` where the code is under no version control.
    """
    folder = folder or Path(__file__).parent
    try:
        if not _git(folder, "ls-files", ".").strip():  # an ignored .venv inside somebody's repository is not its code
            return {"commit": None, "reason": f"{folder} is under no version control"}
        commit = _git(folder, "rev-parse", "HEAD").decode().strip()
        branch = _git(folder, "rev-parse", "--abbrev-ref", "HEAD").decode().strip()
        diff = _git(folder, "diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color", "--binary")
        top = Path(_git(folder, "rev-parse", "--show-toplevel").decode().strip())
        listed = _git(top, "ls-files", "--others", "--exclude-standard", "-z")
    except (OSError, subprocess.SubprocessError) as fault:
        answer = getattr(fault, "stderr", None) or str(fault).encode()
        return {"commit": None, "reason": str(redact(answer.decode(errors="replace").strip()))}
    untracked = sorted(name.decode(errors="replace") for name in listed.split(b"\0") if name)
    text = str(redact(diff.decode(errors="replace")))  # before the cut, which could leave half a secret unknown
    return {
        "commit": commit,
        "branch": branch,
        "dirty": bool(diff or untracked),
        "diff": text.encode()[:DIFF_LIMIT].decode(errors="ignore"),
        "diff_bytes": len(diff),
        "diff_sha256": hashlib.sha256(diff).hexdigest(),
        "untracked": untracked,
    }


def code_sha256(folder: Path | None = None) -> str:
    """One sha256 over the source files of this package: whatever version control says, this is what ran."""
    folder = folder or Path(__file__).parent
    whole = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        whole.update(
            f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(folder).as_posix()}\n".encode()
        )
    return whole.hexdigest()


def _git(folder: Path, *words: str) -> bytes:
    """What git answers; it takes no locks, so it disturbs nobody who commits at the same time."""
    quiet = os.environ | {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    done = subprocess.run(["git", *words], cwd=folder, env=quiet, capture_output=True, check=True, timeout=20)
    return done.stdout

"""Tools that look for known weaknesses, where they are installed."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from support.paths import ROOT


@pytest.mark.slow
def test_bandit_finds_nothing_severe_in_the_source() -> None:
    if find_spec("bandit") is None:
        pytest.skip("bandit is not installed: pip install bandit")
    done = subprocess.run(
        [sys.executable, "-m", "bandit", "-q", "-r", str(ROOT / "src"), "--severity-level", "high"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_no_pinned_version_has_a_known_vulnerability() -> None:
    if find_spec("pip_audit") is None:
        pytest.skip("pip-audit is not installed: pip install pip-audit")
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(ROOT / "constraints.txt"), "--no-deps"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "vulnerabilit" not in done.stdout + done.stderr:
        pytest.skip(f"pip-audit reached no data base of vulnerabilities: {done.stderr.strip().splitlines()[-1:]}")

    assert done.returncode == 0, done.stdout

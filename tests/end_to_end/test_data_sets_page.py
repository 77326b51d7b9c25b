"""docs/how_to/data_sets.md: its yaml files give data sets a name, and its commands find them."""

import re
import shlex
from pathlib import Path

import pytest

from support.documented_commands import SHORT, commands_of, furnish, run
from support.paths import ROOT
from tunelab.cli.compose_config import compose_settings

PAGE = ROOT / "docs" / "how_to" / "data_sets.md"


def write_files(folder: Path) -> None:
    for name, text in re.findall(r"```yaml\n# (\S+)\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_data_sets_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)

    reviews, helpdesk = (
        compose_settings(["--config-dir", "labconf", f"data={name}"]) for name in ("reviews", "helpdesk")
    )

    assert (reviews.data.task, reviews.data.train) == ("classification", "reviews.csv")
    assert (helpdesk.data.task, helpdesk.data.max_tokens) == ("instruction", 256)


@pytest.mark.slow
def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    write_files(furnish(tmp_path))
    with_files_of_the_page = [command for command in commands_of(PAGE) if "file://labconf" in command]
    assert len(with_files_of_the_page) == 2

    for command in with_files_of_the_page:
        more = [*SHORT, "hydra.run.dir=run"] if "train.py" in shlex.split(command) else []
        done = run(command, tmp_path, *more)
        assert done.returncode == 0, done.stderr

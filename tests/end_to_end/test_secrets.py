"""Canaries: secrets that are planted in the environment and on the command line stand nowhere in what is written."""

import os
import subprocess
from pathlib import Path

import pytest

from support import warm_processes
from support.paths import ROOT

CANARIES = {
    "OPENAI_KEY": "CANARY-plain-9f3e71",
    "AWS_ACCESS_KEY_ID": "CANARYIDAKIA777",
    "MY_SERVICE_TOKEN": "CANARY/token+5521",
    "DB_PASSWORD": "CANARY-pass-word",
}
SHAPES = ("sk-CANARY0123456789abcdef", "hf_CANARYabcdefghijklmnopqrstuv", "AKIACANARY0123456789"[:20])
TYPED = " ".join([*CANARIES.values(), *SHAPES])
WORDS = (
    "data=instruction data.train=train.jsonl data.validation=val.jsonl data.test=test.jsonl eval.generate=false "
    "model=scratch model.depth=1 model.width=32 model.heads=2 batch_size=16 lr=0.003 trainer.accelerator=cpu "
    "max_steps=2 save=false"
).split()
TRACKERS = {
    "csv": ["logger=csv"],
    "wandb": ["logger=wandb", "logger.mode=offline", f"logger.notes='{TYPED}'", f"logger.tags=['{SHAPES[0]}']"],
    "tensorboard": ["logger=tensorboard"],
    "trackio": ["logger=trackio"],
}


def write_data(place: Path) -> None:
    for split, rows in (("train", 32), ("val", 12), ("test", 12)):
        lines = [f'{{"prompt": "{split} {n} plus 1", "completion": "{n + 1} {SHAPES[1]}"}}' for n in range(rows)]
        (place / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


def run(place: Path, *words: str, module: str = "tunelab.cli.launch") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **CANARIES, "OMP_NUM_THREADS": "1", "TRACKIO_DIR": str(place / "trackio")}
    command = ["-P", "-m", module, *words]
    if module == "tunelab.cli.main":
        command = ["-P", "-c", "from tunelab.cli.main import main; main()", *words]
    source = f"{ROOT / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment["PYTHONPATH"] = source
    return warm_processes.run(command, place, environment)


def leaks(place: Path, *outputs: str) -> list[str]:
    """Files below a folder, but for the data, and outputs, in which a canary stands."""
    secrets = [*CANARIES.values(), *SHAPES]
    files = [file for file in place.rglob("*") if file.is_file() and file.parent != place]
    held = [(str(file.relative_to(place)), file.read_bytes()) for file in files]
    held += [(f"output {number}", text.encode()) for number, text in enumerate(outputs)]
    return [f"{name}: {secret}" for name, content in held for secret in secrets if secret.encode() in content]


def test_a_config_that_is_printed_with_its_variables_shows_no_secret(tmp_path: Path) -> None:
    done = run(tmp_path, *WORDS, "logger=wandb", "logger.notes=${oc.env:OPENAI_KEY}", "--cfg", "job", "--resolve")

    assert done.returncode == 0 and "notes: '[redacted]'" in done.stdout.replace(
        "notes: [redacted]", "notes: '[redacted]'"
    )
    assert not leaks(tmp_path, done.stdout, done.stderr)


def test_a_message_repeats_no_secret_that_was_typed(tmp_path: Path) -> None:
    done = run(tmp_path, *WORDS, f"+logger.api_key={SHAPES[0]}", "+my.password=CANARY-pass-word", "nonsense=1")

    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert not leaks(tmp_path, done.stdout, done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("logger", TRACKERS)
def test_no_tracker_and_no_file_of_a_run_holds_a_secret(tmp_path: Path, logger: str) -> None:
    if logger in ("trackio", "tensorboard"):
        pytest.importorskip(logger)
    write_data(tmp_path)

    done = run(tmp_path, *WORDS, *TRACKERS[logger], f"name={SHAPES[0]}", "hydra.run.dir=out/run", "data.max_tokens=64")
    page = run(tmp_path, "report", "out/run", module="tunelab.cli.main")

    assert done.returncode == 0, done.stderr
    assert page.returncode == 0, page.stderr
    assert not leaks(tmp_path, done.stdout, done.stderr, page.stdout, page.stderr)


@pytest.mark.slow
def test_no_file_of_a_search_holds_a_secret_and_the_same_command_goes_on(tmp_path: Path) -> None:
    write_data(tmp_path)
    words = ["-m", *WORDS, *TRACKERS["wandb"], "lr=0.001,0.003", "test=false", "hydra.sweep.dir=out/study"]

    done, again = run(tmp_path, *words), run(tmp_path, *words)
    page = run(tmp_path, "report", "out/study", module="tunelab.cli.main")
    best = (tmp_path / "out" / "study" / "best.yaml").read_text()

    assert (done.returncode, again.returncode, page.returncode) == (0, 0, 0), done.stderr + again.stderr + page.stderr
    assert "held a secret: logger.notes" in best
    assert not leaks(tmp_path, done.stdout, again.stdout, again.stderr, page.stdout)


@pytest.mark.slow
def test_no_file_of_a_cross_validation_or_of_a_crash_holds_a_secret(tmp_path: Path) -> None:
    write_data(tmp_path)
    words = [word for word in WORDS if not word.startswith(("data.validation", "data.test"))]
    folds = run(tmp_path, *words, *TRACKERS["wandb"], "cv.folds=2", "hydra.run.dir=out/cv")
    plugin = tmp_path / "out" / "crashing.py"
    plugin.parent.mkdir(exist_ok=True)
    plugin.write_text(
        "import os\nfrom lightning.pytorch.callbacks import Callback\nclass Crash(Callback):\n"
        "    def on_train_start(self, trainer, module):\n"
        "        raise RuntimeError('bad key ' + os.environ['OPENAI_KEY'])\n"
    )
    os.environ["PYTHONPATH"] = f"{plugin.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    crash = run(
        tmp_path, *WORDS, "plugins=[crashing]", "+callbacks.mine={_target_: crashing.Crash}", "hydra.run.dir=out/c"
    )

    assert folds.returncode == 0, folds.stderr
    assert crash.returncode == 1 and "Traceback" not in crash.stderr
    assert "bad key [redacted]" in (tmp_path / "out" / "c" / "error.log").read_text()
    assert not leaks(tmp_path, folds.stdout, folds.stderr, crash.stdout, crash.stderr)

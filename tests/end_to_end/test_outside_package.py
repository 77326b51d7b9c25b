"""A task, a metric, an optimizer, a schedule, a callback and a data format from a package outside need no edit here."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from support import warm_processes
from support.paths import ROOT
from support.tiny_runs import MODEL, QUIET, labelled, write

PACKAGE = {
    "__init__.py": "",
    "formats.py": """
from tunelab.data.conversation import Conversation, Message
from tunelab.data.formats import RecordFormat


def read(row):
    question, answer = row.text("ask", "the question"), row.text("reply", "the answer")
    return Conversation([Message("user", question), Message("assistant", answer)])


def dialogue():
    return RecordFormat(read, (("ask",), ("reply",)), prompt="ask", answer="reply")
""",
    "tasks.py": '''
from dataclasses import dataclass
from typing import ClassVar

from tunelab.config.schema import ClassificationDataConfig
from tunelab.tasks.classification import Classification
from tunelab.tasks.metrics.label_metrics import MulticlassScores
from tunelab.tasks.registry import TaskDescription


class ErrorScores(MulticlassScores):
    higher_is_better = {"error_rate": False}

    def compute(self):
        scores = super().compute()
        return scores | {"error_rate": 1 - scores["accuracy"]}


@dataclass(frozen=True, kw_only=True)
class VotingDataConfig(ClassificationDataConfig):
    """Texts with a label, and how many people gave it."""

    voters: int = 1


class Voting(Classification):
    name: ClassVar[str] = "mylab.tasks.Voting"
    description: ClassVar[TaskDescription] = TaskDescription("val/error_rate", ("error_rate",))
    data_config: ClassVar[type] = VotingDataConfig

    def __init__(self, text, label, voters=1, max_tokens=None):
        super().__init__(text, label, max_tokens=max_tokens)
        self.score_names = (*self.score_names, "error_rate")
        self.voters = voters

    def scores(self):
        return ErrorScores(self.label_names)
''',
    "training.py": """
from pathlib import Path

import torch
from lightning.pytorch import Callback


class SignSGD(torch.optim.SGD):
    @staticmethod
    def config_faults(run):
        return ["optimizer: SignSGD takes steps of one length; set batch_size above 1"] if run.batch_size == 1 else []

    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.grad.sign_()
        return super().step(closure)


def halving(step, *, total, every=4):
    return 0.5 ** (step // every)


class StepLog(Callback):
    def __init__(self, path):
        self.path = Path(path)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        with self.path.open("a") as file:
            file.write(f"{trainer.optimizers[0].param_groups[0]['lr']:.6g}\\n")
""",
}
DATA_YAML = """# Labels by vote.
defaults: [classification, _self_]
task: mylab.tasks.Voting # what is learned
voters: 3 # people who labelled each text
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    root = tmp_path / "lab" / "mylab"
    root.mkdir(parents=True)
    for name, text in PACKAGE.items():
        (root / name).write_text(text)
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "voting.yaml").write_text(DATA_YAML)
    (tmp_path / "conf" / "callbacks").mkdir()
    log = f"_target_: mylab.training.StepLog # writes rates\npath: {tmp_path / 'alone.txt'} # to this file\n"
    (tmp_path / "conf" / "callbacks" / "step_log.yaml").write_text(log)
    return root.parent


def train(package: Path, *overrides: str, plugins: str = "mylab") -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(package), str(ROOT / "src")])
    environment = os.environ | {"PYTHONPATH": path, "TUNELAB_PLUGINS": plugins, "OMP_NUM_THREADS": "1"}
    command = [ROOT / "train.py", *MODEL, *QUIET, "max_steps=6", *overrides]
    return warm_processes.run(command, package.parent, environment)


def voting(folder: Path) -> list[str]:
    return [
        f"hydra.searchpath=[file://{folder / 'conf'}]",
        "data=voting",
        f"data.train={labelled(folder)}",
        "data.text=text",
        "data.label=label",
        f"hydra.run.dir={folder / 'run'}",
    ]


def test_a_task_a_metric_an_optimizer_a_schedule_and_a_callback_of_a_package_outside_train(
    package: Path, tmp_path: Path
) -> None:
    parts = [
        "~optimizer",
        "+optimizer={_target_: mylab.training.SignSGD, momentum: 0.5}",
        "~scheduler",
        "+scheduler={_target_: mylab.training.halving, every: 2}",
        f"+callbacks.steps={{_target_: mylab.training.StepLog, path: {tmp_path / 'steps.txt'}}}",
        "+callbacks@callbacks.log=step_log",  # the same from a yaml of its own
    ]
    result = train(package, *voting(tmp_path), *parts, "lr=0.08", "batch_size=8")
    assert result.returncode == 0, result.stderr
    scores = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert scores["test/error_rate"] == pytest.approx(1 - scores["test/accuracy"])
    assert json.loads((tmp_path / "run" / "run.json").read_text())["best"]["monitor"] == "val/error_rate"
    assert (tmp_path / "steps.txt").read_text().split()[:4] == ["0.08", "0.04", "0.04", "0.02"]
    assert (tmp_path / "alone.txt").read_text() == (tmp_path / "steps.txt").read_text()


@pytest.mark.slow
def test_an_optimizer_of_a_package_outside_refuses_settings_itself(package: Path, tmp_path: Path) -> None:
    parts = ["~optimizer", "+optimizer={_target_: mylab.training.SignSGD}"]
    result = train(package, *voting(tmp_path), *parts, "lr=1e-3", "batch_size=1")
    assert result.returncode == 2 and "SignSGD takes steps of one length" in result.stderr


@pytest.mark.slow
def test_a_data_format_of_a_package_outside_is_read(package: Path, tmp_path: Path) -> None:
    rows = write(tmp_path / "talks.jsonl", [{"ask": f"say {i}", "reply": f"{i} {i}"} for i in range(24)])
    words = [f"data.train={rows}", "data.validation=null", "data.test=null", "data.format=mylab.formats.dialogue"]
    result = train(package, *words, f"hydra.run.dir={tmp_path / 'run'}")
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "run" / "data_report.json").read_text())["format"] == "mylab.formats.dialogue"


def test_a_package_that_no_command_line_names_is_refused(package: Path, tmp_path: Path) -> None:
    result = train(package, *voting(tmp_path), plugins="")
    assert result.returncode == 2 and "plugins=[mylab]" in result.stderr

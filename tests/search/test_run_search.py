"""`python train.py -m`: the whole way, with real trainings of a tiny model."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import yaml

from support.paths import ROOT, SUPPORT
from support.search_commands import command, lines, search, summary
from tunelab.config.quoting import path_word
from tunelab.runs.study_folder import StudyFolder
from tunelab.search.study_storage import STUDY_NAME, open_storage


@pytest.mark.slow
def test_a_grid_from_the_shell_leaves_all_that_is_promised(tmp_path: Path) -> None:
    study = tmp_path / "study"
    told = search("optimizer=adamw,sgd", "lr=1e-3,3e-3", f"hydra.sweep.dir={study}")

    found = lines(study)
    assert [line["number"] for line in found] == [0, 1, 2, 3]
    assert {(line["params"]["optimizer"], line["params"]["lr"]) for line in found} == {
        (name, lr) for name in ("adamw", "sgd") for lr in (1e-3, 3e-3)
    }
    assert {line["state"] for line in found} == {"complete"}
    for line in found:
        run = study / str(line["number"])
        assert json.loads((run / "run.json").read_text())["best"]["value"] == line["value"]
        scores = json.loads((run / "metrics.json").read_text())
        winner = line["number"] == summary(study)["best_trial"]
        assert any(name.startswith("test/") for name in scores) == winner  # only the winner met the test split
    best = min(found, key=lambda line: line["value"])
    assert summary(study)["best_trial"] == best["number"] and summary(study)["best_params"] == best["params"]
    assert summary(study)["counts"] == {"complete": 4, "pruned": 0, "failed": 0, "running": 0}
    assert summary(study)["test_looks"] == 1
    table = list(csv.DictReader((study / "study.csv").open()))
    assert [float(row["value"]) for row in table] == [line["value"] for line in found]
    assert yaml.safe_load((study / "best.yaml").read_text())["lr"] == best["params"]["lr"]
    assert "trial 3" in told

    again = search("optimizer=adamw,sgd", "lr=1e-3,3e-3", f"hydra.sweep.dir={study}")
    assert lines(study) == found and summary(study)["test_looks"] == 1 and "trial 0:" not in again

    rerun = [
        sys.executable,
        "train.py",
        f"experiment={study}/best",
        f"hydra.run.dir={tmp_path / 'rerun'}",
        "test=false",
    ]
    subprocess.run(rerun, cwd=ROOT, check=True, capture_output=True)
    scores = json.loads((tmp_path / "rerun" / "metrics.json").read_text())
    assert scores["val/loss"] == best["value"]


@pytest.mark.slow
def test_pruning_reaches_the_trial_and_is_no_failure(tmp_path: Path) -> None:
    study = tmp_path / "study"
    search(
        *("search=random", "search.trials=6", "search.pruner=median", "search.default_trial=false", "max_epochs=4"),
        *(
            "search.pruner_options={n_startup_trials: 2, n_warmup_steps: 0}",
            "lr=interval(1e-6,1e-2)",
            "search.test_best=false",
        ),
        f"hydra.sweep.dir={study}",
    )

    pruned = [line for line in lines(study) if line["state"] == "pruned"]
    whole = [line for line in lines(study) if line["state"] == "complete"]
    assert pruned and whole
    assert max(len(line["curve"]) for line in pruned) < 4 == max(len(line["curve"]) for line in whole)
    card = json.loads((study / str(pruned[0]["number"]) / "run.json").read_text())
    assert card["status"] == "pruned"


@pytest.mark.slow
def test_both_ranks_of_every_trial_have_the_same_hyper_parameters(tmp_path: Path) -> None:
    study = tmp_path / "study"
    search(
        *("search=random", "search.trials=3", "lr=interval(1e-5,1e-2)", "trainer.devices=2", "trainer.accelerator=cpu"),
        *("trainer.strategy=ddp", "search.test_best=false", f"hydra.sweep.dir={study}"),
    )

    found = lines(study)
    assert [line["number"] for line in found] == [0, 1, 2] and {line["state"] for line in found} == {"complete"}
    assert len({line["params"]["lr"] for line in found}) == 3
    for line in found:
        run = study / str(line["number"])
        assert yaml.safe_load((run / "config.yaml").read_text())["lr"] == line["params"]["lr"]
        assert json.loads((run / "run.json").read_text())["best"]["value"] == line["value"]
    assert not [
        path for path in study.iterdir() if path.is_dir() and path.name not in {"0", "1", "2", "engines", "report"}
    ]


@pytest.mark.slow
def test_a_search_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    study = tmp_path / "study"
    arguments = ("lr=1e-3,3e-3,5e-3", "max_epochs=3", "search.test_best=false", f"hydra.sweep.dir={study}")
    first = subprocess.Popen(command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    limit = time.monotonic() + 500
    while not (study / "1" / "metrics.csv").exists():
        assert time.monotonic() < limit
        time.sleep(0.1)
    first.send_signal(signal.SIGTERM)
    told, _ = first.communicate(timeout=500)
    assert first.returncode == 143 and f"continue with: python {ROOT / 'train.py'} -m" in told

    search(*arguments)

    assert [line["state"] for line in lines(study)] == ["complete"] * 3
    assert (
        len(json.loads((study / "1" / "run.json").read_text())["sessions"]) == 1
    )  # it was gone on with, not started anew


@pytest.mark.slow
def test_a_crashed_trial_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    study = tmp_path / "study"
    wild = ("optimizer=sgd", "lr=1e-3,100", "trainer.gradient_clip_val=0")
    told = search(*wild, f"hydra.sweep.dir={study}", "search.test_best=false")

    assert [line["state"] for line in lines(study)] == ["complete", "failed"]
    assert "failed (diverged:" in told
    assert summary(study)["best_trial"] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lr=interval(1e-5,1e-3)"], "a grid needs single values"),
        (["optimizer=sgd"], "nothing varies"),
        (
            ["search=random", "search.trials=0", "search.parallel_trials=0", "lr=1,2"],
            "search.parallel_trials=0 is out of range; it must be above 0",
        ),
        (["lr=-1,2"], "out of range"),
        (["search=random", "lr=interval(5,1)"], "is no range"),
        (["search.sampler=baysian", "lr=1,2"], "unknown"),
        (["search=bayes", "search.warm_start=[nowhere]", "lr=interval(1e-5,1e-3)"], "nowhere has no configuration"),
        (["search=random", "search.trials=2", "lrr=1,2"], "did you mean 'lr'"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_it_starts(tmp_path: Path, arguments: list[str], words: str) -> None:
    told = search(*arguments, f"hydra.sweep.dir={tmp_path / 'study'}", status=2)

    assert words in told and "Traceback" not in told
    assert not (tmp_path / "study" / "0").exists()


def test_an_inline_search_leaves_the_same_files(tmp_path: Path) -> None:
    study = tmp_path / "study"
    search("lr=1e-3,3e-3", "search.isolation=inline", "test=false", f"hydra.sweep.dir={study}")
    assert summary(study)["test_looks"] == 0  # test=false leaves the test split untouched, in a search too

    assert [line["state"] for line in lines(study)] == ["complete", "complete"]
    assert (study / "0" / "trial.log").read_text() and os.listdir(study / "1")


@pytest.mark.slow
def test_a_pruned_trial_on_two_processes_ends_at_the_same_step_on_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "study"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SUPPORT), str(ROOT / "src")]))
    words = [
        *("lr=1e-2,1e-6", "max_epochs=4", "search.pruner=median", "search.test_best=false", f"hydra.sweep.dir={study}"),
        "search.pruner_options={n_startup_trials: 1, n_warmup_steps: 0}",
        *("trainer.devices=2", "trainer.accelerator=cpu", "trainer.strategy=ddp"),
    ]
    search(*words, "plugins=[rank_log]", "+callbacks.rank_log={_target_:rank_log.RankLog}")

    whole, pruned = lines(study)
    assert (whole["state"], pruned["state"]) == ("complete", "pruned")
    assert len(whole["curve"]) == 4 and len(pruned["curve"]) == 1
    for line, epochs in ((whole, 4), (pruned, 1)):
        ranks = [json.loads((study / str(line["number"]) / f"rank_{rank}.json").read_text()) for rank in (0, 1)]
        assert [rank["pruned"] for rank in ranks] == [line is pruned] * 2
        assert [rank["reports"] for rank in ranks] == [True, False]  # one voice for the trial, one answer for all
        assert ranks[0]["step"] == ranks[1]["step"] > 0
        steps = ranks[0]["step"] / epochs
        assert steps == int(steps)
    assert summary(study)["counts"] == {"complete": 1, "pruned": 1, "failed": 0, "running": 0}
    trials = optuna.load_study(storage=open_storage(None, StudyFolder(study))[0], study_name=STUDY_NAME).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "PRUNED"]
    assert [len(trial.intermediate_values) for trial in trials] == [4, 1]  # no rank reported twice


@pytest.mark.slow
def test_forked_trials_leave_the_files_of_new_processes(tmp_path: Path) -> None:
    forked, new = tmp_path / "forked, ünusual", tmp_path / "new, ünusual"
    words = ("search=random", "search.trials=3", "search.parallel_trials=2", "lr=interval(1e-4,1e-2)", "max_steps=4")
    more = ("search.test_best=false", "search.keep=null", "regularization.dropout=0.1")
    for study, fork in ((forked, "true"), (new, "false")):
        said = search(*words, *more, f"search.fork={fork}", path_word("hydra.sweep.dir", study))
        assert "import all packages again" not in said

    timed = ("id", "started", "ended", "seconds", "memory", "energy", "sessions", "throughput")
    for number in "012":
        files = [
            sorted(path.relative_to(study / number) for path in (study / number).rglob("*") if path.is_file())
            for study in (forked, new)
        ]
        assert files[0] == files[1] and {Path("checkpoints/best.ckpt"), Path("metrics.json")} < set(files[0])
        for file in files[0]:
            one, other = ((study / number / file).read_bytes().decode("latin-1") for study in (forked, new))
            one = one.replace(f"{tmp_path}/forked", f"{tmp_path}/new")
            if file.name == "run.json":
                one, other = ({k: v for k, v in json.loads(text).items() if k not in timed} for text in (one, other))
            if file.name == "trial.log":  # which says how much memory is free
                one, other = ([line for line in t.split("\n") if not line.startswith("device ")] for t in (one, other))
            assert one == other, file

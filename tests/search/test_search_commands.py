"""Every kind of search, and what one does with a study afterwards, as a user types it."""

import json
import os
import pty
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from support.paths import ROOT
from support.search_commands import command, lines, search, summary

pytestmark = pytest.mark.slow
HERE = "search.isolation=inline"  # imports once for all trials
CLI = "from tunelab.cli.main import main; main()"
RATE = "lr=interval(1e-4,1e-1)"


def run(*words: str) -> str:
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("kind", ["random", "bayes", "hyperband", "asha", "cmaes", "qmc", "evolution", "auto"])
def test_every_kind_of_search_fills_its_study(tmp_path: Path, kind: str) -> None:
    study = tmp_path / "study"
    more = () if kind in ("cmaes", "bayes") else ("optimizer=adamw,sgd",)
    words = (f"search={kind}", "search.trials=5", RATE, "scheduler.warmup=interval(0,0.3)", *more, "max_epochs=3")
    told = search(*words, HERE, "search.test_best=false", f"hydra.sweep.dir={study}")

    found = lines(study)
    assert [line["number"] for line in found if line["overrides"]] == sorted(line["number"] for line in found)
    assert summary(study)["counts"]["complete"] + summary(study)["counts"]["pruned"] == 5
    assert found[0]["origin"] == "default" and "trial 0 (default): val/loss" in told
    assert len({json.dumps(line["params"], sort_keys=True) for line in found}) == 5
    assert summary(study)["best_value"] == min(line["value"] for line in found if line["state"] == "complete")
    assert (study / "report" / "report.html").is_file() and ("tunelab confirm" in told or "nothing better" in told)


def test_several_objectives_within_limits_leave_a_front(tmp_path: Path) -> None:
    study = tmp_path / "study"
    told = search(
        *("search=evolution", "search.trials=5", RATE, "model.width=32,64,96", HERE),
        *("search.objectives=[val/loss,model/parameters]", "search.default_trial=true"),
        *("search.constraints={model/parameters: 2e5, train/memory_mb: 1e5}", f"hydra.sweep.dir={study}"),
    )

    found = {line["number"]: line for line in lines(study)}
    front = [found[number] for number in summary(study)["front"]]
    assert front and all(line["scores"]["model/parameters"] <= 2e5 for line in front)
    for line in found.values():
        assert line["values"] == [line["scores"]["val/loss"], line["scores"]["model/parameters"]]
        assert line["excess"] == [line["values"][1] - 2e5, line["scores"]["train/memory_mb"] - 1e5]
        if line not in front and max(line["excess"]) <= 0:
            assert any(all(a <= b for a, b in zip(o["values"], line["values"], strict=True)) for o in front)
    assert 100 < front[0]["scores"]["train/memory_mb"] < 1e5
    assert "the Pareto front" in told and f"trial {front[0]['number']}: val/loss" in told
    assert summary(study)["test"]["trial"] == front[0]["number"] and summary(study)["test_looks"] == 1


def test_a_study_warms_up_the_next_is_confirmed_and_runs_again(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    search("search=random", "search.trials=3", RATE, HERE, "search.test_best=false", f"hydra.sweep.dir={first}")
    search(
        *("search=bayes", "search.trials=4", RATE, "scheduler.warmup=interval(0,0.3)", HERE, "search.test_best=false"),
        *(f"search.warm_start=[{first}]", f"hydra.sweep.dir={second}"),
    )

    order = [line["params"] for line in sorted(lines(first), key=lambda line: line["value"])]
    warm = [line for line in lines(second) if line["origin"] == f"warm start from {first}"]
    assert lines(second)[0]["origin"] == "default"
    # what was not searched then stays as it was; the default is among the first study's, and not tried twice
    assert [line["params"] for line in warm] == [p | {"scheduler.warmup": 0.05} for p in order if p["lr"] != 1e-3]

    confirm = (sys.executable, "-c", CLI, "confirm", str(first), "--top", "1", "--seeds", "2")
    told = run(*confirm)
    found = json.loads((first / "confirm" / "confirm.json").read_text())
    (label,) = found["verdicts"]
    best = min((line for line in lines(first) if line["origin"] != "default"), key=lambda line: line["value"])
    assert label == f"trial {best['number']}" and f"{label}: " in told
    assert "adopt" in told or "not proven" in told
    for name, scores in (("default", found["default"]), (label.replace(" ", "_"), found["verdicts"][label]["scores"])):
        for seed, score in zip((1000, 1001), scores, strict=True):
            config = yaml.safe_load((first / "confirm" / name / str(seed) / "config.yaml").read_text())
            assert config["seed"] == seed and (name == "default") == (config["lr"] == 1e-3)
            card = json.loads((first / "confirm" / name / str(seed) / "run.json").read_text())
            assert card["best"]["value"] == score
    assert "seed 1000:" not in run(*confirm)  # finished runs are kept

    again = tmp_path / "again"
    run(sys.executable, "train.py", f"experiment={first}", f"hydra.run.dir={again}", "test=false", "save=false")
    assert json.loads((again / "metrics.json").read_text())["val/loss"] == summary(first)["best_value"]


def test_trials_that_failed_are_tried_anew_where_that_is_asked(tmp_path: Path) -> None:
    study = tmp_path / "study"
    words = ("search=random", "search.trials=2", RATE, "search.test_best=false", f"hydra.sweep.dir={study}")
    told = search(*words, "search.trial_timeout=1", status=1)
    assert "2 failed (timeout); search.trial_timeout=SECONDS" in told and "search.retry=failed" in told
    told = search(*words, "search.retry=failed")

    assert "retrying failed trials: 0, 1" in told and "(retry of 0)" in told
    failed, anew = lines(study)[:2], lines(study)[2:]
    assert [line["state"] for line in lines(study)] == ["failed", "failed", "complete", "complete"]
    assert [line["params"] for line in failed] == [line["params"] for line in anew]
    assert summary(study)["counts"] == {"complete": 2, "pruned": 0, "failed": 0, "running": 0}


def test_on_a_terminal_a_table_shows_trials_at_work_and_stays_out_of_their_logs(tmp_path: Path) -> None:
    study = tmp_path / "study"
    words = command("lr=1e-3,1e-2", HERE, "search.test_best=false", f"hydra.sweep.dir={study}")
    child, screen = pty.fork()
    if child == 0:
        os.execve(words[0], words, {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"})
    shown = b""
    with suppress(OSError):  # the terminal is gone once the search has ended
        while piece := os.read(screen, 65536):
            shown += piece
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"rank +trial +val/loss +time +settings", text)
    assert re.search(r"running: trial 1 .* lr=0\.01", text) and re.search(r"1 +0 +\d.* lr=0\.001", text)
    assert text.count("trial 0: val/loss") == 1 and "best: trial 1" in text
    for number in (0, 1):
        log = (study / str(number) / "trial.log").read_text()
        assert "doctor" in log and not re.search(r"rank +trial", log) and "\x1b" not in log


def test_a_population_that_was_stopped_goes_on_as_one_that_never_was(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    words = (
        *("search=pbt", "search.trials=6", "search.sampler_options.population=2", "lr=interval(1e-3,1e-1)"),
        *(HERE, "search.test_best=false", "max_epochs=3"),
    )
    told = search(*words, f"hydra.sweep.dir={whole}")
    first = subprocess.Popen(command(*words, f"hydra.sweep.dir={parts}"), cwd=ROOT, stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 500
    while not (parts / "3" / "metrics.csv").exists():
        assert time.monotonic() < limit and first.poll() is None
        time.sleep(0.05)
    first.terminate()
    assert first.wait(timeout=500) == 143
    search(*words, f"hydra.sweep.dir={parts}")

    kept = ("number", "state", "params", "value", "origin", "curve", "overrides")
    one, two = ([{name: line[name] for name in kept} for line in lines(study)] for study in (whole, parts))
    assert one == two and len(one) == 6
    assert [set(line["curve"]) for line in one] == [{"1"}] * 2 + [{"2"}] * 2 + [{"3"}] * 2
    schedules = [[(step["stage"], step["params"]) for step in summary(study)["schedule"]] for study in (whole, parts)]
    assert schedules[0] == schedules[1] and [stage for stage, _ in schedules[0]] == [0, 1, 2]
    assert "(schedule in study.json)" in told and "tunelab confirm" not in told

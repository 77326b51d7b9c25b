"""`from tunelab import train, search, load`: the same runs as the command line's, from Python."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pandas
import pytest
from datasets import Dataset
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from lightning import Callback, LightningModule, Trainer

import tunelab
from support import warm_processes
from support.paths import ROOT
from support.tiny_runs import CONF, MODEL, QUIET, WORDS, instructions
from tunelab import Run, Study, load, train
from tunelab.api import as_records
from tunelab.cli.main import run_command
from tunelab.config.override_text import override_words
from tunelab.errors import ConfigError, DataError

SMALL = [*MODEL, *QUIET, "max_steps=2", "save=false"]
ROWS = [{"text": f"{WORDS[i % 2]} {WORDS[i % 10]} {i}", "label": WORDS[i % 2]} for i in range(60)]
LABELS = {"data.text": "text", "data.label": "label"}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def labels_run(rows: Any, **settings: Any) -> Run:
    return train(*SMALL, "data=classification", **{"data.train": rows}, **LABELS, **settings)


def test_a_run_from_python_is_the_run_of_the_command_line(place: Path) -> None:
    file = instructions(place)
    words = [*SMALL, "data=instruction", f"data.train={file}", "lr=1e-3"]

    one = train(*MODEL, *QUIET, max_steps=2, save=False, data="instruction", lr=1e-3, **{"data.train": file})
    two = train(*words)
    typed = warm_processes.run(["-m", "tunelab.cli.launch", *words, f"hydra.run.dir={place / 'typed'}"], place)
    assert typed.returncode == 0, typed.stderr

    losses = [{name: value for name, value in run.scores.items() if "loss" in name} for run in (one, two)]
    assert losses[0] == losses[1] == {name: load(place / "typed").scores[name] for name in losses[0]}  # type: ignore[union-attr]
    assert one.path != two.path
    assert one.status == "finished"
    assert "lr=0.001" in one.manifest["overrides"]


@pytest.mark.parametrize("as_given", [list, pandas.DataFrame, Dataset.from_list], ids=["dicts", "pandas", "datasets"])
def test_rows_in_memory_are_data_and_kept_beside_the_run(as_given: Any, place: Path) -> None:
    run = labels_run(as_given(ROWS))

    file = Path(run.manifest["config"]["data"]["train"])
    assert [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] == ROWS
    assert file.parent == place / "outputs" / "data"
    assert run.scores["test/accuracy"] >= 0


def test_predict_gives_what_the_command_writes_for_the_same_rows(place: Path) -> None:
    run = labels_run(ROWS)
    frame = pandas.DataFrame(ROWS[:5])
    frame.to_json(place / "rows.jsonl", orient="records", lines=True)

    words = ["predict", str(run.path), "--input", str(place / "rows.jsonl"), "--output", str(place / "out.jsonl")]
    assert run_command(words) == 0

    written = [json.loads(line) for line in (place / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert run.predict(ROWS[:5]) == run.predict(frame) == run.predict(place / "rows.jsonl") == written
    assert run.predict([{"words": "no column that it knows"}])[0]["prediction"] is None
    assert run.tokenizer.vocab_size > 0
    assert run.model.training is False
    with pytest.raises(ConfigError, match="gives labels or numbers"):
        run.predict(ROWS[:1], max_new_tokens=3)


def test_a_longest_answer_holds_for_one_call_only(place: Path) -> None:
    run = train(*SMALL, "data=instruction", **{"data.train": instructions(place)})
    usual = run.predict([{"instruction": "say red"}])

    run.predict([{"instruction": "say red"}], max_new_tokens=1)

    assert run.predict([{"instruction": "say red"}]) == usual


def test_callback_objects_are_called(place: Path) -> None:
    class Count(Callback):
        steps = 0

        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
            self.steps += 1

    count = Count()
    labels_run(ROWS, callbacks=[count])

    assert count.steps == 2
    with pytest.raises(ConfigError, match="objects and settings"):
        labels_run(ROWS, callbacks=[count, "default"])


def test_mistakes_are_exceptions_that_name_every_fault(place: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)did you mean 'optimizer'.*lr=abc is not a number"):
        train(optimzer="sgd", lr="abc")
    with pytest.raises(DataError):
        train(*SMALL, "data=instruction", data={"train": [{"instruction": "", "output": ""}]})
    with pytest.raises(DataError, match="no such file"):
        train(*SMALL, "data=instruction", data={"train": place / "missing.jsonl"})
    with pytest.raises(ConfigError, match="returns one run"):
        train(*SMALL, find="lr")
    with pytest.raises(ConfigError, match="is not a run"):
        load(place)


def test_the_callers_own_hydra_and_signal_handlers_are_left_alone(place: Path) -> None:
    handler = signal.signal(signal.SIGTERM, lambda number, frame: None)
    own = signal.getsignal(signal.SIGTERM)
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            labels_run(ROWS)
            assert compose("config", overrides=["optimizer=sgd"]).optimizer is not None
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, handler)
        GlobalHydra.instance().clear()


def test_a_run_in_a_thread_trains(place: Path) -> None:
    runs: list[Run] = []
    thread = threading.Thread(target=lambda: runs.append(labels_run(ROWS)))
    thread.start()
    thread.join()

    assert runs[0].status == "finished"


def test_ctrl_c_in_a_run_is_a_keyboard_interrupt_and_the_run_goes_on(place: Path) -> None:
    class Interrupt(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
            if trainer.global_step == 1:
                os.kill(os.getpid(), signal.SIGINT)

    folder = place / "cut"
    with pytest.raises(KeyboardInterrupt):
        labels_run(ROWS, callbacks=[Interrupt()], max_epochs=3, hydra={"run": {"dir": folder}})

    assert train(resume=folder).status == "finished"


def test_a_search_from_python_gives_its_trials_and_the_best(place: Path) -> None:
    study = tunelab.search(
        *MODEL,
        *QUIET,
        "data=instruction",
        search="random",
        trials=3,
        lr="interval(1e-4,1e-2)",
        max_steps=2,
        data={"train": instructions(place)},
        **{"search.isolation": "inline", "search.test_best": False},
    )

    assert [trial.number for trial in study.trials] == [0, 1, 2]
    values = [trial.value for trial in study.trials]
    assert study.best.value == min(value for value in values if value is not None)
    assert study.best.params.keys() == {"lr"}
    assert load(study.path) == study
    best = load(study.best.path)
    assert isinstance(best, Run)
    assert best.scores["val/loss"] == study.best.value
    assert study.report().read_text(encoding="utf-8").startswith("<!doctype html>")
    assert isinstance(study, Study)


def test_the_function_search_stays_one_when_its_package_is_imported() -> None:
    import tunelab.search.space

    assert callable(tunelab.search)
    from tunelab import search

    assert callable(search)


def test_importing_tunelab_loads_no_torch() -> None:
    code = "import sys; from tunelab import train, search, load; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr": 1e-4, "save": False, "resume": None}, ["lr=0.0001", "save=false", "resume=null"]),
        ({"data": {"max_tokens": 256}}, ["data.max_tokens=256"]),
        ({"regularization": ["l2", "dropout"]}, ["regularization=[l2, dropout]"]),
        ({"name": "a, b"}, ["name='a, b'"]),
        ({"data.train": Path("it's (1)=é.csv")}, [r"data.train='it\'s (1)=é.csv'"]),
        ({"callbacks": {"mine": {"_target_": "lab.Bell", "n": 2}}}, ["+callbacks.mine={_target_: lab.Bell, n: 2}"]),
    ],
)
def test_settings_become_the_words_of_the_command_line(settings: dict[str, Any], words: list[str]) -> None:
    assert override_words(settings) == words


def test_a_list_is_a_choice_only_where_one_searches() -> None:
    assert override_words({"lr": [1e-4, 1e-3], "optimizer": "adamw,sgd"}, choices=True) == [
        "lr=choice(0.0001,0.001)",
        "optimizer=adamw,sgd",
    ]
    assert override_words({"optimizer": "adamw,sgd"}) == ["optimizer='adamw,sgd'"]


def test_what_holds_no_rows_is_a_setting() -> None:
    assert as_records("classification") is None
    assert as_records([1, 2]) is None
    assert as_records([]) is None
    assert as_records(pandas.DataFrame({"a": [1.0, float("nan")]})) == [{"a": 1.0}, {"a": None}]


@pytest.mark.slow
def test_the_examples_of_the_page_run_from_top_to_bottom(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL))
    short = [
        "trainer.accelerator=cpu",
        "eval.base=false",
        "eval.generate=false",
        "eval.max_new_tokens=2",
        "eval.test_rows=8",
    ]
    assert code.count("train(") == 4
    code = re.sub(r"\b(train|search)\((?!optimzer)", rf"\1(*{short!r}, ", code)

    exec(compile(code, "python.md", "exec"), {"__name__": "page"})

    said = capsys.readouterr().out
    assert all(words in said for words in ("done after 2 steps", "did you mean 'optimizer'", "lr=fast is not a number"))

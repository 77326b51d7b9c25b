"""Words of the command line: what Hydra reads from them is what was meant, whatever signs a path holds."""

import os
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from support.tiny_runs import CONF
from tunelab.cli.compose_config import compose_settings
from tunelab.config.override_text import quote_typed, search_path_word
from tunelab.config.overrides import complete_overrides
from tunelab.config.quoting import path_word
from tunelab.errors import ConfigError

ODD_NAMES = [
    "实验", "Übung", "My Project (v2)", "it's mine", 'a "b"', "a=b", "a,b", "a[1]", "a{b}", "a$b", "a${b}", "a:b",
    "a#b", "a%b", "~a", " a", "a ", "a\\b", "a\\", "a\tb", "1e3", "null", "true", "nan", "+a", "a;b&c|d",
    "a(b", "${name}", "é'",
]  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of few settings: Hydra reads words alike whatever they set, and composes ours in a tenth of a second."""
    folder = tmp_path_factory.mktemp("small")
    text = "defaults: [_self_, {experiment: null}]\ntrial: {study: null, parent: null}\nmax_steps: 1\n"
    (folder / "config.yaml").write_text(text)
    return str(folder)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_path_of_ours_arrives_as_it_is(name: str, small: str) -> None:
    GlobalHydra.instance().clear()
    with initialize_config_dir(small, version_base="1.3"):
        config = compose(
            "config", overrides=[path_word("trial.study", f"/some/{name}"), path_word("trial.parent", name)]
        )
    assert (config.trial.study, config.trial.parent) == (f"/some/{name}", name)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_folder_of_experiments_is_found_whatever_it_is_called(name: str, small: str, tmp_path: Path) -> None:
    folder = tmp_path / name.replace("\\", "_")
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "mine.yaml").write_text("# @package _global_\nmax_steps: 7\n")
    GlobalHydra.instance().clear()
    words = [search_path_word([f"hydra.searchpath=[file://{tmp_path}]"], [folder]), "experiment=mine"]
    with initialize_config_dir(small, version_base="1.3"):
        if "${" in name:
            pytest.skip("Hydra resolves interpolations in its search path twice")
        assert compose("config", overrides=words).max_steps == 7


def test_a_path_that_a_user_types_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = [f"{name}.jsonl" for name in ODD_NAMES if "${" not in name]
    for file in files:
        Path(file).write_text('{"prompt": "a", "answer": "b"}\n', encoding="utf-8")
    for first in range(0, len(files), 3):  # three names in one config
        three = dict(zip(("train", "validation", "test"), files[first : first + 3], strict=False))
        data = compose_settings(["data=instruction", *(f"data.{split}={file}" for split, file in three.items())]).data
        assert {split: getattr(data, split) for split in three} == three


@pytest.mark.parametrize(
    ("typed", "taken"),
    [
        ("lr=1e-3,1e-4", "lr=1e-3,1e-4"),
        ("lr=interval(1e-4,1e-2)", "lr=interval(1e-4,1e-2)"),
        ("name='x y'", "name='x y'"),
        ("optimizer=sgd", "optimizer=sgd"),
        ("logger.tags=[kurz,für,3]", "logger.tags=[kurz,'für',3]"),
        ("name=é,ü", "name='é','ü'"),
        ("+x={a: é, b: 1}", "+x={a: 'é', b: 1}"),
        ("hydra.sweep.dir=new (v2)", "hydra.sweep.dir='new (v2)'"),
        ("--config-dir=été", "--config-dir=été"),
        ("-m", "-m"),
    ],
)
def test_only_what_hydra_cannot_read_is_put_in_quotes(typed: str, taken: str) -> None:
    assert quote_typed(typed) == taken


def test_a_search_over_files_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("数据.jsonl", "b (1).jsonl"):
        Path(name).touch()
    assert quote_typed("data.train=数据.jsonl,b (1).jsonl") == "data.train='数据.jsonl','b (1).jsonl'"


def test_a_text_that_cannot_be_read_is_told_once_with_its_quotes() -> None:
    with pytest.raises(ConfigError) as fault:
        compose_settings(["data=instruction", "data.train=x.jsonl", "name=My (v2)"])
    assert str(fault.value).count("\n") <= 1
    assert """put it in quotes: 'name='"'"'My (v2)'"'"''""" in str(fault.value)
    with pytest.raises(ConfigError) as fault:
        compose_settings(["data=instruction", "data.train=[a (1).jsonl"])
    assert str(fault.value).count("data.train") == 2 and "needs a value" not in str(fault.value)


@pytest.mark.parametrize("name", ["实验", "it's (mine)"])
def test_resume_and_experiment_find_a_folder_of_any_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.makedirs(name)
    Path(name, "config.yaml").write_text("seed: 1\n")
    Path(name, "best.yaml").write_text("# @package _global_\nmax_steps: 7\n")
    for typed in (f"resume={name}", f"resume={tmp_path / name}"):
        words = complete_overrides([typed])
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            assert compose("config", overrides=words[1:]).resume == typed.partition("=")[2]
            assert compose("config", overrides=words, return_hydra_config=True).hydra.run.dir == typed.partition("=")[2]
    for typed in (f"experiment={name}", f"experiment=./{name}/best", f"experiment={tmp_path / name}/best.yaml"):
        assert compose_settings(["data=instruction", "data.train=x.jsonl", typed]).max_steps == 7

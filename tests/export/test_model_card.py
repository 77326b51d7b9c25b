"""The README of an exported model."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from tunelab.export.model_card import render_model_card

SCORES = {"val/loss": 0.5, "test/loss": 0.625, "test/accuracy": 0.9, "test/pearson": float("nan")}


def written(**changes: Any) -> str:
    settings: dict[str, Any] = {
        "name": "tiny-mood",
        "task": "classification",
        "base_model": "somebody/tiny-bert",
        "data": {"name": "moods", "train": {"path": "/home/somebody/moods.csv", "records": 120}},
        "settings": {"lr": 1e-3, "optimizer": {"name": "adamw", "fused": None}},
        "scores": SCORES,
    }
    return render_model_card(**(settings | changes))


def test_a_hub_reads_the_scores_of_the_test_split() -> None:
    head = ModelCard(written(languages=["en"])).data
    assert head.pipeline_tag == "text-classification"
    assert head.base_model == "somebody/tiny-bert"
    assert head.language == ["en"]
    assert head.library_name == "transformers"
    assert head.eval_results is not None
    assert {result.metric_type: result.metric_value for result in head.eval_results} == {"loss": 0.625, "accuracy": 0.9}
    assert {(result.dataset_name, result.dataset_split) for result in head.eval_results} == {("moods", "test")}


def test_a_reader_finds_data_settings_scores_command_and_how_to_load() -> None:
    text = written(command="python train.py data=classification")
    assert "| accuracy | test | 0.9 |" in text
    assert "| loss | validation | 0.5 |" in text
    assert "| train.records | 120 |" in text
    assert "| optimizer.name | adamw |" in text
    assert "AutoModelForSequenceClassification.from_pretrained(folder)" in text
    assert "transformers 5" in text
    assert "python train.py data=classification" in text
    assert "Measured on the test split of moods" in text
    assert "More Information Needed" not in text


def test_an_instruction_model_is_loaded_as_a_causal_one() -> None:
    text = written(task="instruction")
    assert ModelCard(text).data.pipeline_tag == "text-generation"
    assert "AutoModelForCausalLM.from_pretrained" in text


@pytest.mark.parametrize(
    ("scores", "limit"),
    [({"val/loss": 0.5}, "no test split was scored"), ({}, "nothing is known"), ({"train/loss": 1.0}, "say nothing")],
)
def test_the_limits_say_what_was_not_measured(scores: dict[str, float], limit: str) -> None:
    assert limit in written(scores=scores)


@pytest.mark.parametrize("base_model", ["/home/somebody/base", "package:tunelab.starter/model", "./base", "~/base/it"])
def test_a_base_model_that_no_hub_knows_stays_out_of_the_head(base_model: str) -> None:
    text = written(base_model=base_model)
    assert ModelCard(text).data.base_model is None
    assert "/home/somebody" not in text


def test_a_local_folder_of_two_names_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert ModelCard(written(base_model="models/mine")).data.base_model is None


def test_no_secret_reaches_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKER_API_KEY", "canary-environment")
    text = written(
        settings={"logger": {"api_key": "canary-config", "note": "canary-environment"}},
        command="python train.py note=canary-environment",
    )
    assert "canary" not in text


def test_paths_inside_a_list_of_files_are_cut_down_too() -> None:
    text = written(data={"name": "moods", "files": [{"path": "/home/somebody/moods.csv"}]})
    assert "| files.0.path | moods.csv |" in text
    assert "/home/somebody" not in text


def test_scores_before_training_are_told_apart() -> None:
    assert "| accuracy | test, before training | 0.2 |" in written(scores=SCORES | {"base/accuracy": 0.2})


def test_text_with_a_bar_or_a_line_break_stays_in_its_cell() -> None:
    assert "| text | a\\|b c |" in written(settings={"text": "a|b\nc"})

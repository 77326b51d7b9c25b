"""`tunelab ensemble`, on real runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, log_loss
from transformers import AutoModelForCausalLM

import tunelab.generation.decode as decoding
from support.tiny_runs import MODEL, QUIET, labelled, settings
from tunelab.ensemble.ensemble_inference import load_ensemble
from tunelab.ensemble.model_mixture import MixtureModel
from tunelab.ensemble.model_soup import merge_adapter_into_base
from tunelab.generation.decode import decode
from tunelab.runs.atomic_files import read_json_lines
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.load_run import load_run
from tunelab.training.run import fine_tune

Talk = Callable[..., tuple[int, str, str]]


def facts_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "ensemble.json").read_text()))


def test_a_soft_vote_is_the_mean_of_the_runs_own_predictions(
    sorters: list[RunDirectory], tmp_path: Path, tunelab: Talk
) -> None:
    status, out, err = tunelab("ensemble", *[run.root for run in sorters], "--output", tmp_path / "all")

    # Then each probability is the mean of those that the runs left themselves
    assert (status, err) == (0, "")
    rows = RunDirectory(tmp_path / "all").read_predictions()
    own = [run.read_predictions() for run in sorters]
    for row, *others in zip(rows, *own, strict=True):
        assert {row["row"]} == {other["row"] for other in others}
        for name, chance in row["probabilities"].items():
            assert chance == pytest.approx(np.mean([other["probabilities"][name] for other in others]), abs=1e-6)

    # and the scores are those of scikit-learn
    folder, names = RunDirectory(tmp_path / "all"), sorted(rows[0]["probabilities"])
    scores = folder.read_scores()
    wanted, guessed = [row["label"] for row in rows], [row["prediction"] for row in rows]
    assert scores["test/f1"] == pytest.approx(f1_score(wanted, guessed, average="macro"))
    table = [[row["probabilities"][name] for name in names] for row in rows]
    assert scores["test/loss"] == pytest.approx(log_loss(wanted, table, labels=names), abs=1e-6)

    # and the model card says what it is
    card = folder.read_manifest()
    assert card["status"] == "finished"
    assert [member["run"] for member in card["ensemble"]["members"]] == [str(run.root) for run in sorters]
    assert set(facts_of(tmp_path / "all")["gains"]) == {"accuracy", "f1", "loss"}
    assert "95 % interval" in out
    assert 0 <= scores["test/ece"] <= 1
    best = facts_of(tmp_path / "all")["best_single"]
    assert facts_of(tmp_path / "all")["gains"]["loss"]["single"] == pytest.approx(
        RunDirectory(Path(best)).read_scores()["test/loss"], abs=1e-5
    )


@pytest.mark.parametrize("method", ["hard", "weighted", "stack"])
def test_every_rule_gives_a_run_folder(method: str, sorters: list[RunDirectory], tmp_path: Path, tunelab: Talk) -> None:
    given = [run.root for run in sorters]

    assert tunelab("ensemble", *given, "--method", method, "--output", tmp_path / "all")[0] == 0

    folder = RunDirectory(tmp_path / "all")
    counted = sum(map(sum, folder.read_score_tables()["test"]["confusion"]))
    assert len(folder.read_predictions()) == counted > 0
    assert 0 <= folder.read_scores()["test/accuracy"] <= 1
    if method == "weighted":
        weights = [member["weight"] for member in facts_of(tmp_path / "all")["members"]]
        assert sum(weights) == pytest.approx(1)
        assert len(set(weights)) > 1


def test_numbers_are_averaged_in_their_own_units(raters: list[RunDirectory], tmp_path: Path, tunelab: Talk) -> None:
    assert tunelab("ensemble", *[run.root for run in raters], "--output", tmp_path / "all")[0] == 0

    own = [run.read_predictions() for run in raters]
    for row, *others in zip(RunDirectory(tmp_path / "all").read_predictions(), *own, strict=True):
        assert row["prediction"] == pytest.approx(np.mean([other["prediction"] for other in others]), abs=1e-6)


def test_a_soup_of_adapters_is_the_mean_of_the_merged_weights(
    speakers: list[RunDirectory], tmp_path: Path, tunelab: Talk
) -> None:
    given = [run.root for run in speakers]

    status, _, err = tunelab("ensemble", *given, "--method", "soup", "--output", tmp_path / "soup")

    assert (status, err) == (0, "")
    export: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "soup" / "export")
    members = [merge_adapter_into_base(load_run(root)).model.state_dict() for root in given]
    assert any(not torch.equal(members[0][name], members[1][name]) for name in members[0])
    for name, weight in export.state_dict().items():
        torch.testing.assert_close(weight, (members[0][name] + members[1][name]) / 2)
    # and it is a run that can be used, and that says how its export came about
    assert load_run(tmp_path / "soup").model.num_parameters() == export.num_parameters()
    assert "test" in RunDirectory(tmp_path / "soup").read_manifest()["scores"]


def test_a_mixture_of_language_models_averages_probabilities_token_by_token(
    speakers: list[RunDirectory], tmp_path: Path, tunelab: Talk
) -> None:
    given = [run.root for run in speakers]

    assert tunelab("ensemble", *given, "--method", "weighted", "--output", tmp_path / "all")[0] == 0

    facts, scores = facts_of(tmp_path / "all"), RunDirectory(tmp_path / "all").read_scores()
    weights = [member["weight"] for member in facts["members"]]
    assert sum(weights) == pytest.approx(1)
    assert facts["gains"]["loss"]["ensemble"] == pytest.approx(scores["test/loss"], abs=1e-6)
    best = RunDirectory(Path(facts["best_single"])).read_scores()
    assert facts["gains"]["loss"]["single"] == pytest.approx(best["test/loss"], abs=1e-5)
    # by the concavity of the logarithm the loss of a mixture is at most the mean of the losses
    losses = [run.read_scores()["val/loss"] for run in speakers]
    assert scores["val/loss"] <= sum(w * one for w, one in zip(weights, losses, strict=True)) + 1e-6
    assert scores["val/loss"] <= min(losses) + 1e-5, "weights that fit validation are no worse there than any member"
    assert "test/exact_match" in scores


def test_a_mixture_speaks_as_its_distributions_say(speakers: list[RunDirectory]) -> None:
    # Given two models, whose mean distribution is computed by hand on whole sequences
    members = [load_run(run.root).model for run in speakers]
    both: Any = MixtureModel(members, [0.9, 0.1])
    prompt, ids = [5, 9, 12, 7], [5, 9, 12, 7]
    with torch.no_grad():
        for step in range(6):
            said = [model(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1) for model in members]
            chances = 0.9 * said[0] + 0.1 * said[1]
            if step == 0:
                tokens = torch.tensor([ids])
                found = both(tokens, torch.ones_like(tokens), both.new_cache()).logits[0, 0].exp()
                torch.testing.assert_close(found, chances)
                assert not torch.allclose(found, (said[0] + said[1]) / 2)
            ids.append(int(chances.argmax()))

    # When they answer through their caches, beside a longer prompt
    answer, _ = decode(both, [prompt, [3, *prompt]], stop=[0], max_new_tokens=6)

    # Then it is token for token the same
    new = ids[len(prompt) :]
    assert answer.ids == new[: new.index(0) if 0 in new else 6]


def test_one_model_that_is_asked_several_times_votes_with_itself(
    speakers: list[RunDirectory], tmp_path: Path, tunelab: Talk
) -> None:
    words = ["ensemble", speakers[0].root, "--method", "hard", "--samples", 3, "--pattern", r"([a-z]+)\W*$"]

    assert tunelab(*words, "--output", tmp_path / "one")[0] == 0
    assert tunelab(*words, "--output", tmp_path / "two")[0] == 0

    rows = RunDirectory(tmp_path / "one").read_predictions()
    assert rows == RunDirectory(tmp_path / "two").read_predictions(), "the same seed draws the same answers"
    assert {round(row["agreement"] * 3) for row in rows} <= {1, 2, 3}
    assert "answer_match" in facts_of(tmp_path / "one")["gains"]


def test_runs_on_other_rows_are_refused(
    sorters: list[RunDirectory], place: Path, tmp_path: Path, tunelab: Talk
) -> None:
    # Given a run whose splits another seed has made
    file = labelled(place, 120)
    given = ["data=classification", f"data.train={file}", "data.text=text", "data.label=label", *MODEL, *QUIET]
    given += ["data.split.validation=0.2", "data.split.test=0.2", "seed=1", "max_steps=1", "save=false", "test=false"]
    fine_tune(settings(*given), tmp_path / "other")

    status, _, err = tunelab("ensemble", sorters[0].root, tmp_path / "other", "--output", tmp_path / "all")

    assert status == 2
    assert "other validation and test rows" in err
    assert not (tmp_path / "all").exists()


def test_what_cannot_be_combined_is_told(
    sorters: list[RunDirectory], speakers: list[RunDirectory], tmp_path: Path, tunelab: Talk
) -> None:
    one, other = sorters[0].root, speakers[0].root
    for words, told in (
        ([one], "nothing to combine"),
        ([one, one], "named twice"),
        ([one, other], "was trained for data.task=instruction"),
        ([other, speakers[1].root, "--method", "stack"], "take --method weighted"),
        ([one, sorters[1].root, "--method", "snapshot"], "kept no snapshots"),
        (["--from", tmp_path], "is no study"),
        ([one, other, "--from", tmp_path], "not both"),
        ([one, other, "--samples", 3], "belong to a vote"),
    ):
        status, _, err = tunelab("ensemble", *words, "--output", tmp_path / "all")
        assert (status, told in err) == (2, True), (words, err)


def test_snapshots_of_one_run_are_an_ensemble(place: Path, tmp_path: Path, tunelab: Talk) -> None:
    # Given a run of three cycles
    file = labelled(place, 120)
    given = ["data=classification", f"data.train={file}", "data.text=text", "data.label=label", *MODEL, *QUIET]
    given += ["data.split.validation=0.2", "data.split.test=0.2", "scheduler=cosine_restarts", "callbacks.snapshots=3"]
    fine_tune(settings(*given, "batch_size=8", "max_epochs=3", "save=false", "lr=3e-3"), tmp_path / "run")
    kept = sorted(path.stem for path in (tmp_path / "run" / "checkpoints").glob("snapshot_*.ckpt"))
    rates = [row["train/lr"] for row in RunDirectory(tmp_path / "run").read_curves() if "train/lr" in row]
    assert len(kept) == 3 and rates

    # When they speak together
    words = ["ensemble", tmp_path / "run", "--method", "snapshot", "--output", tmp_path / "all"]
    assert tunelab(*words)[0] == 0

    # Then they are the members
    members = [member["run"] for member in facts_of(tmp_path / "all")["members"]]
    assert [name.rpartition(":")[2] for name in members] == kept

    # and new rows are answered by the snapshots, not three times by the best checkpoint
    said = ["predict", tmp_path / "all", "--input", file, "--output", tmp_path / "said.jsonl"]
    assert tunelab(*said)[0] == 0
    ensemble = load_ensemble(tmp_path / "all")
    assert ensemble is not None
    assert [member.source.stem for member in ensemble.members] == kept
    test = {row["text"]: row["probabilities"] for row in RunDirectory(tmp_path / "all").read_predictions()}
    found = {row["text"]: row["probabilities"] for row in read_json_lines(tmp_path / "said.jsonl")}
    assert len(test) > 5
    assert all(found[text] == pytest.approx(chances, abs=1e-5) for text, chances in test.items())


def test_members_come_from_a_study_by_what_they_add(sorters: list[RunDirectory], tmp_path: Path, tunelab: Talk) -> None:
    # Given the folder of a search with three finished trials
    (tmp_path / "search.json").write_text(json.dumps({"modes": ["max"], "objectives": ["val/f1"]}))
    lines = []
    for number, run in enumerate(sorters):
        (tmp_path / str(number)).symlink_to(run.root)
        value = run.read_manifest()["best"]["value"]
        lines.append(json.dumps({"number": number, "state": "complete", "values": [value]}))
    (tmp_path / "trials.jsonl").write_text("\n".join(lines) + "\n")

    words = ["ensemble", "--from", tmp_path, "--top", 2, "--output", tmp_path / "all"]
    assert tunelab(*words)[0] == 0

    facts = facts_of(tmp_path / "all")
    assert len(facts["members"]) == 2
    assert len(facts["validation_of_singles"]) == 3
    assert read_json_lines(tmp_path / "all" / "predictions.jsonl")


@pytest.mark.slow
def test_runs_on_preferences_can_be_a_soup(tmp_path: Path, tunelab: Talk) -> None:
    pairs = [{"prompt": f"say {i}", "chosen": f"it is {i}", "rejected": "no"} for i in range(40)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    given = ["data=preference", f"data.train={file}", *QUIET, "save=false", "max_steps=2", "data.split.test=0.3"]
    for rate in ("1e-4", "3e-4"):
        fine_tune(settings(*given, f"lr={rate}"), tmp_path / rate)

    words = ["ensemble", tmp_path / "1e-4", tmp_path / "3e-4", "--method", "greedy_soup", "--output", tmp_path / "all"]
    assert tunelab(*words)[0] == 0

    assert set(facts_of(tmp_path / "all")["gains"]) == {"reward_accuracy", "reward_margin"}
    assert (tmp_path / "all" / "export" / "config.json").is_file()


def test_predictions_of_a_run_and_answers_of_a_mixture_come_from_rows_that_are_refilled(
    speakers: list[RunDirectory], tmp_path: Path, tunelab: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    refilled, asked = decoding.decode_refilled, list[int]()

    def counted(model: Any, prompts: Any, *more: Any) -> list[list[int]]:
        asked.append(len(prompts))
        return refilled(model, prompts, *more)

    monkeypatch.setattr(decoding, "decode_refilled", counted)
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(f'{{"prompt": "repeat {"word " * (row % 9)}"}}\n' for row in range(30)))

    status, _, error = tunelab("predict", speakers[0].root, "--input", file, "--output", tmp_path / "said.jsonl")
    assert (status, sum(asked)) == (0, 30), error

    asked.clear()
    status, _, error = tunelab("ensemble", *(run.root for run in speakers), "--output", tmp_path / "together")
    assert status == 0, error
    assert asked and len(asked) <= 6, "each member and the mixture answer all rows of a split at once"

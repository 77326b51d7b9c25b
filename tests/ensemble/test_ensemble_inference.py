"""An ensemble of predictions in use: what it says of new rows follows by hand from what its members say of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax

from support.tiny_runs import MODEL, QUIET, WORDS, settings, write
from tunelab.ensemble.ensemble_inference import load_ensemble
from tunelab.generation import prediction
from tunelab.runs.atomic_files import read_json_lines
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.run import fine_tune

Talk = Callable[..., tuple[int, str, str]]
NEW = [{"text": f"{WORDS[i % 3]} {WORDS[(i * 7) % 10]} new {i}"} for i in range(30)]  # in no split of any run


def slow(*values: Any) -> Any:
    """A case that the fast tests leave out."""
    return pytest.param(*values, marks=pytest.mark.slow)


Known = dict[tuple[Any, ...], Any]


@pytest.fixture(scope="session")
def known() -> Known:
    """Ensembles that are made and answers that are given already, so that no two tests pay for the same."""
    return {}


def asked(
    tunelab: Talk, run: Path, rows: list[dict[str, Any]], tmp_path: Path, known: Known, *more: Any
) -> list[dict[str, Any]]:
    """Predictions of `tunelab predict` for rows."""
    if (key := (run, json.dumps(rows), more)) not in known:
        file, out = write(tmp_path / "new.jsonl", rows), tmp_path / f"{run.name}_said.jsonl"
        status, _, err = tunelab("predict", run, "--input", file, "--output", out, *more)
        assert (status, err) == (0, "")
        known[key] = read_json_lines(out)
        out.unlink()
    return list(known[key])


def combine(tunelab: Talk, runs: list[RunDirectory], method: str, known: Known, *more: Any) -> Path:
    """The folder of an ensemble of runs."""
    words = [run.root for run in runs]
    if (key := (*words, method, *more)) not in known:
        known[key] = words[0].parent / f"all_{len(known)}"
        status, _, err = tunelab("ensemble", *words, "--method", method, "--output", known[key], *more)
        assert status == 0, err
    return Path(known[key])


def facts_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "ensemble.json").read_text()))


@pytest.mark.parametrize("method", [slow("soft"), "hard", slow("weighted"), "stack"])
def test_labels_of_new_rows_are_the_members_own_combined_by_hand(
    method: str, sorters: list[RunDirectory], tmp_path: Path, tunelab: Talk, known: Known
) -> None:
    # Given what each member says of rows that none has seen, by itself
    ensemble = combine(tunelab, sorters, method, known)
    facts = facts_of(ensemble)
    own = [asked(tunelab, run.root, NEW, tmp_path, known) for run in sorters]
    names = sorted(own[0][0]["probabilities"])
    table = np.array([[[row["probabilities"][name] for name in names] for row in said] for said in own])  # (K, N, C)
    assert np.abs(table[0] - table[1]).max() > 1e-3

    # When it is combined by hand, with what was fitted on validation
    if method == "soft":
        wanted = table.mean(axis=0)
    elif method == "hard":
        votes = np.stack([(table.argmax(axis=2) == place).mean(axis=0) for place in range(len(names))], axis=1)
        wanted = 0.99 * votes + 0.01 * table.mean(axis=0)
    elif method == "weighted":
        wanted = sum(member["weight"] * said for member, said in zip(facts["members"], table, strict=True))
    else:
        top = facts["stack"]
        wanted = softmax((np.array(top["weights"])[:, None] * np.log(table)).sum(axis=0) + top["bias"], axis=1)

    # Then the ensemble says the same, row for row
    found = asked(tunelab, ensemble, NEW, tmp_path, known)
    assert [row["text"] for row in found] == [row["text"] for row in NEW]
    said = np.array([[row["probabilities"][name] for name in names] for row in found])
    np.testing.assert_allclose(said, wanted, atol=2e-6)
    assert [row["prediction"] for row in found] == [names[place] for place in wanted.argmax(axis=1)]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["soft", "hard"])
def test_each_label_of_several_is_combined_by_itself(method: str, tmp_path: Path, tunelab: Talk) -> None:
    # Given two runs that learned any number of labels a text
    rows = [{"text": f"{i} {'hot' * (i % 2)} {'wet' * (i % 3 == 0)}"} for i in range(90)]
    wanted = [{**row, "labels": ["hot"] * (i % 2) + ["wet"] * (i % 3 == 0)} for i, row in enumerate(rows)]
    file = write(tmp_path / "several.jsonl", wanted)
    given = ["data=classification", f"data.train={file}", "data.text=text", "data.label=labels", *MODEL, *QUIET]
    given += ["data.multilabel=true", "data.split.validation=0.2", "data.split.test=0.2", "max_epochs=2", "save=false"]
    for rate in ("1e-3", "4e-3"):
        fine_tune(settings(*given, f"lr={rate}"), tmp_path / rate)
    words = [tmp_path / "1e-3", tmp_path / "4e-3", "--method", method, "--output", tmp_path / "all"]
    assert tunelab("ensemble", *words)[0] == 0

    # When all three are asked the same
    new = [{"text": row["text"] + " new"} for row in rows[:20]]
    one, other, found = (asked(tunelab, tmp_path / name, new, tmp_path, {}) for name in ("1e-3", "4e-3", "all"))

    # Then each label's probability follows from the members' own, and those that reach the threshold are named
    for row, left, right in zip(found, one, other, strict=True):
        for label, chance in row["probabilities"].items():
            pair = [left["probabilities"][label], right["probabilities"][label]]
            agree = (pair[0] >= 0.5) == (pair[1] >= 0.5)
            mean = (pair[0] + pair[1]) / 2
            assert chance == pytest.approx(mean if method == "soft" or not agree else float(pair[0] >= 0.5), abs=1e-5)
        named = [label for label, chance in row["probabilities"].items() if chance >= 0.5]
        assert sorted(row["prediction"]) == sorted(named)


@pytest.mark.parametrize(("method", "middle"), [slow("soft", np.mean), ("hard", np.median)])
def test_numbers_of_new_rows_are_in_the_users_units(
    method: str, middle: Any, raters: list[RunDirectory], tmp_path: Path, tunelab: Talk, known: Known
) -> None:
    ensemble = combine(tunelab, raters, method, known)
    own = [[row["prediction"] for row in asked(tunelab, run.root, NEW, tmp_path, known)] for run in raters]

    found = [row["prediction"] for row in asked(tunelab, ensemble, NEW, tmp_path, known)]

    np.testing.assert_allclose(found, middle(own, axis=0), atol=1e-5)


def test_a_mixture_answers_new_rows_by_the_mean_distribution(
    speakers: list[RunDirectory], tmp_path: Path, tunelab: Talk, known: Known
) -> None:
    folder = combine(tunelab, speakers, "weighted", known)
    rows = [{"instruction": f"say {word}", "input": " ".join(WORDS[:at])} for at, word in enumerate(WORDS[:5])]

    found = asked(tunelab, folder, rows, tmp_path, known, "--max-new-tokens", 6)

    # by hand: every token anew from whole sequences, no cache, one row at a time
    ensemble = load_ensemble(folder)
    assert ensemble is not None and ensemble.weights is not None
    first = ensemble.members[0].task
    for place, record in enumerate(rows):
        ids = list(first.encode_prompt(record, place).ids)
        start = len(ids)
        while len(ids) < start + 6 and (len(ids) == start or ids[-1] not in first.template.stop_ids):  # type: ignore[attr-defined]
            with torch.no_grad():
                each = [m.model(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1) for m in ensemble.members]
            ids.append(int(sum(w * one for w, one in zip(ensemble.weights, each, strict=True)).argmax()))
        assert found[place]["prediction"] == first.tokenizer.decode(ids[start:], skip_special_tokens=True).strip()


def test_a_vote_over_answers_takes_one_that_members_gave_and_says_how_many_agree(
    speakers: list[RunDirectory], tmp_path: Path, tunelab: Talk, known: Known
) -> None:
    ensemble = combine(tunelab, speakers, "hard", known)
    rows = [{"instruction": f"say {word}"} for word in WORDS]
    own = [[row["prediction"] for row in asked(tunelab, run.root, rows, tmp_path, known)] for run in speakers]

    found = asked(tunelab, ensemble, rows, tmp_path, known)

    for row, one, other in zip(found, *own, strict=True):
        assert row["prediction"] == one, "of equally many, the one heard first"
        assert row["agreement"] == (1.0 if one == other else 0.5)


@pytest.mark.slow
def test_drawn_answers_are_the_same_each_time(
    speakers: list[RunDirectory], tmp_path: Path, tunelab: Talk, known: Known
) -> None:
    ensemble = combine(tunelab, speakers[:1], "hard", known, "--samples", 3)
    rows = [{"instruction": f"say {word}"} for word in WORDS[:4]]

    found = asked(tunelab, ensemble, rows, tmp_path, known)

    assert found == asked(tunelab, ensemble, rows, tmp_path, {})
    assert {round(row["agreement"] * 3) for row in found} <= {1, 2, 3}


@pytest.mark.parametrize(
    ("kind", "method"),
    [("sorters", "stack"), slow("raters", "weighted"), slow("speakers", "soft"), slow("speakers", "hard")],
)
def test_evaluate_on_the_test_rows_gives_the_scores_of_the_ensemble(
    kind: str, method: str, request: pytest.FixtureRequest, tmp_path: Path, tunelab: Talk, known: Known
) -> None:
    runs = request.getfixturevalue(kind)
    made = combine(tunelab, runs, method, known)
    ensemble, folder = load_ensemble(made), RunDirectory(made)
    assert ensemble is not None
    whole = read_json_lines(Path(ensemble.settings.data.train))
    shown = {row.get("text") or row.get("row") for row in folder.read_predictions()}
    rows = [row for row in whole if row.get("text") in shown] if kind != "speakers" else test_rows(ensemble)

    file = write(tmp_path / "test.jsonl", rows)
    status, out, err = tunelab("evaluate", made, "--data", file, "--output", tmp_path / "scores.json")

    assert (status, err) == (0, "")
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]
    known = {name.removeprefix("test/"): value for name, value in folder.read_scores().items() if "test/" in name}
    assert len(scores) >= 3 and set(scores) <= set(known)
    assert scores == pytest.approx({name: known[name] for name in scores}, rel=1e-5)
    assert "evaluation 1 of this run on this file" in out


def test_rows(ensemble: Any) -> list[dict[str, Any]]:
    """The test split of the first member."""
    from tunelab.ensemble.ensemble_members import read_run_splits

    return [dict(row) for row in read_run_splits(ensemble.members[0]).splits["test"].rows]


test_rows.__test__ = False  # type: ignore[attr-defined]


def test_an_ensemble_that_was_cut_off_goes_on_and_gives_the_same(
    sorters: list[RunDirectory], tmp_path: Path, tunelab: Talk, known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a prediction that fails in its third window
    ensemble = combine(tunelab, sorters, "soft", known)
    rows = [*NEW[:8], {"text": " "}, *NEW[8:]]
    monkeypatch.setattr(prediction, "WINDOW_ROWS", 7)
    whole = asked(tunelab, ensemble, rows, tmp_path, {})
    file, out = tmp_path / "new.jsonl", tmp_path / "out.jsonl"
    words = ("predict", ensemble, "--input", file, "--output", out)
    real, calls = prediction.encode_prompts, iter(range(99))
    monkeypatch.setattr(prediction, "encode_prompts", lambda *given: real(*given) if next(calls) < 6 else 1 / 0)
    monkeypatch.setattr("tunelab.ensemble.ensemble_inference.encode_prompts", prediction.encode_prompts)
    assert tunelab(*words)[0] == 1
    assert not out.exists()

    # When the last line that it left is torn, and it is started again
    part = tmp_path / "out.jsonl.partial"
    part.write_bytes(part.read_bytes()[:-20])
    monkeypatch.setattr("tunelab.ensemble.ensemble_inference.encode_prompts", real)
    status, told, err = tunelab(*words)

    # Then every row is there once, the blank one with its fault
    assert (status, err) == (0, "")
    assert "continuing after row 13 of 31" in told
    assert read_json_lines(out) == whole
    assert [place for place, row in enumerate(whole) if "error" in row] == [8]


def test_members_that_are_gone_or_have_changed_are_told_all_at_once(
    sorters: list[RunDirectory], tmp_path: Path, tunelab: Talk, known: Known
) -> None:
    # Given an ensemble of copies, which were moved together with it
    old, new = tmp_path / "old", tmp_path / "new"
    for place, run in enumerate(sorters):
        shutil.copytree(run.root, old / str(place))
    words = [old / str(place) for place in range(3)]
    assert tunelab("ensemble", *words, "--output", old / "all")[0] == 0
    old.rename(new)
    assert asked(tunelab, new / "all", NEW[:2], tmp_path, known)[0]["prediction"]

    # When one is deleted and another one's weights are replaced
    shutil.rmtree(new / "0")
    shutil.copy(sorters[2].best, new / "1" / "checkpoints" / "best.ckpt")
    file = write(tmp_path / "new.jsonl", NEW)
    status, _, err = tunelab("predict", new / "all", "--input", file, "--output", tmp_path / "out.jsonl")

    assert status == 2
    assert "is gone" in err and "learned on since" in err
    assert not (tmp_path / "out.jsonl").exists()


def test_what_needs_one_model_says_that_this_is_none(speakers: list[RunDirectory], tunelab: Talk, known: Known) -> None:
    status, _, err = tunelab("chat", combine(tunelab, speakers, "soft", known))

    assert status == 2
    assert "is an ensemble of predictions and no single model" in err

"""Two runs, several runs, two studies: what differs, and whether it may be chance."""

from pathlib import Path

import pytest

from support.made_up_runs import answered_run, card, labelled_run, numbers_run
from support.made_up_studies import study
from tunelab.errors import ConfigError
from tunelab.report.compose import compose_report
from tunelab.report.document import Document, Table
from tunelab.report.render import render_html, render_markdown


def grid(document: Document, name: str) -> Table:
    """A table by its name."""
    return next(one for one in document.tables() if one.name == name)


def settings(lr: float, seed: int = 0) -> dict[str, object]:
    """A run's config."""
    return {"name": "made", "lr": lr, "seed": seed, "data": {"task": "classification"}}


def best_of(value: float) -> dict[str, object]:
    """The best checkpoint of a run."""
    return {"step": 30, "monitor": "val/loss", "value": value}


def test_the_better_of_two_runs_is_named_with_how_sure_that_is(tmp_path: Path) -> None:
    weak = labelled_run(tmp_path / "weak", skill=0.3, config=settings(1e-4))
    good = labelled_run(tmp_path / "good", seed=1, skill=0.95, config=settings(1e-3))

    document = compose_report([weak.root, good.root])
    row = dict(zip(grid(document, "paired").columns, grid(document, "paired").rows[0], strict=True))

    assert row["score"] == "accuracy" and float(row["low"] or 0) > 0 and float(row["McNemar p"] or 0) < 0.01
    assert "accuracy: B (good) is better than A (weak)" in render_markdown(document)
    assert [list(one) for one in grid(document, "settings").rows] == [["lr", 1e-4, 1e-3]]
    assert "only B is right" in render_markdown(document)


def test_a_run_against_its_twin_is_told_equal(tmp_path: Path) -> None:
    one, twin = labelled_run(tmp_path / "one"), labelled_run(tmp_path / "twin")

    text = render_markdown(compose_report([one.root, twin.root]))

    assert (
        "A (one) and B (twin) are equal" in text
        and "Both have the same settings" in text
        and "is better than" not in text
    )


def test_runs_on_other_test_data_are_not_compared_row_by_row(tmp_path: Path) -> None:
    one, other = labelled_run(tmp_path / "one"), answered_run(tmp_path / "other")

    assert "another right answer" in render_markdown(compose_report([one.root, other.root]))


def test_lower_errors_are_better(tmp_path: Path) -> None:
    one, other = numbers_run(tmp_path / "one"), numbers_run(tmp_path / "other")
    other.write_predictions([row | {"prediction": row["target"]} for row in one.read_predictions()])

    assert "mse: B (other) is better than A (one)" in render_markdown(compose_report([one.root, other.root]))


def test_a_set_of_runs_is_ranked_by_what_differs(tmp_path: Path) -> None:
    roots = [
        labelled_run(
            tmp_path / str(at), seed=at, config=settings(10.0 ** (at - 6)), best=best_of(0.5 + abs(at - 2) / 10)
        ).root
        for at in range(6)
    ]

    document = compose_report(roots)
    table = grid(document, "ranked")

    assert [row[0] for row in table.rows] == [1, 2, 3, 4, 5, 6] and table.rows[0][1] == "2"
    assert table.columns[-1] == "lr" and table.rows[0][-1] == pytest.approx(1e-4)
    assert len(grid(document, "against_best").rows) == 5
    assert "cannot be shown:" not in render_markdown(document)


def test_runs_that_differ_in_nothing_but_the_seed_are_one_configuration(tmp_path: Path) -> None:
    roots = [
        labelled_run(tmp_path / str(at), config=settings(1e-3, seed=at), best=best_of(0.5 + at / 100)).root
        for at in range(3)
    ]

    document = compose_report(roots)

    assert len(grid(document, "ranked").rows) == 1
    assert "Seeds of one configuration differ by 0.01 " in render_markdown(document)


def test_studies_are_compared_for_the_same_number_of_trials(tmp_path: Path) -> None:
    near, far = study(tmp_path / "near", 20, wanted=1e-3), study(tmp_path / "far", 40, wanted=1e-1)

    text = render_markdown(compose_report([near, far]))

    assert "near has the best val/loss" in text and "For 20 configurations each" in text
    assert "cannot be shown:" not in text


def test_a_run_and_a_study_are_no_pair(tmp_path: Path) -> None:
    run, found = labelled_run(tmp_path / "run"), study(tmp_path / "study", 6)

    with pytest.raises(ConfigError, match="are no pair"):
        compose_report([run.root, found])


def test_a_run_that_diverged_counts_as_a_failed_trial(tmp_path: Path) -> None:
    roots = [labelled_run(tmp_path / str(at), config=settings(1e-3 * (at + 1))).root for at in range(3)]
    broken = labelled_run(tmp_path / "broken", config=settings(1.0))
    broken.write_manifest(card(config=settings(1.0), status="diverged", best=None, reason="loss is not finite"))

    assert "1 of 4 trials left no score (1 diverged)" in render_markdown(compose_report([*roots, broken.root]))


def trial_of(root: Path, number: int, value: float, **more: object) -> Path:
    """A trial of a study: validated, never tested."""
    folder = labelled_run(root / str(number), best=best_of(value), config=settings(10.0**-number), **more)
    folder.predictions.unlink()
    folder.write_scores({"val/loss": value, "val/accuracy": 1 - value, **({"train/spikes": 1.0} if number else {})})
    return folder.root


def test_two_trials_are_compared_by_validation_and_what_is_not_known_is_said(tmp_path: Path) -> None:
    root = study(tmp_path / "study", 4)

    document = compose_report([trial_of(root, 0, 0.5), trial_of(root, 1, 0.4)])
    text = render_markdown(document)

    assert "val/loss: B (trial 1) is better than A (trial 0), 0.4 against 0.5 (by 0.1). Not proven" in text
    assert "Seed variance unknown" in text and "tunelab confirm" in text and "no interval over rows is known" in text
    assert all(
        None not in row for row in grid(document, "scores").rows
    ) and "Only B (trial 1) has train/spikes" in text.replace("\\", "")


def test_two_trials_of_a_study_with_seeds_are_measured_by_their_noise(tmp_path: Path) -> None:
    root = study(tmp_path / "study", 4, seeds=3)

    assert "times what two seeds differ by" in render_markdown(
        compose_report([trial_of(root, 0, 0.5), trial_of(root, 1, 0.1)])
    )


def test_trials_with_other_validation_data_are_not_compared(tmp_path: Path) -> None:
    root = study(tmp_path / "study", 4)
    one = trial_of(root, 0, 0.5, data={"files": {"a": "1"}})
    other = trial_of(root, 1, 0.4, data={"files": {"b": "2"}})

    assert "of different validation data" in render_markdown(compose_report([one, other]))


def test_a_setting_that_only_one_run_has_is_folded_and_one_that_follows_another_is_told_once(tmp_path: Path) -> None:
    one = labelled_run(tmp_path / "one", config={"lr": 1e-3, "optimizer": {"lr": 1e-3, "name": "adamw"}, "only": 1})
    two = labelled_run(tmp_path / "two", config={"lr": 2e-3, "optimizer": {"lr": 2e-3, "name": "adamw"}})

    document = compose_report([one.root, two.root])

    assert [row[0] for row in grid(document, "settings").rows] == ["lr"]
    assert [row[0] for row in grid(document, "settings_of_one").rows] == ["only"]
    assert "1 setting that only one of them has" in render_html(document)


def test_a_run_without_settings_is_said_to_have_left_none(tmp_path: Path) -> None:
    one, two = labelled_run(tmp_path / "one"), labelled_run(tmp_path / "two", config={})

    assert "B (two) left no settings" in render_markdown(compose_report([one.root, two.root]))


def test_the_seeds_that_a_comparison_suggests_are_none_of_the_two(tmp_path: Path) -> None:
    one = labelled_run(tmp_path / "one", config=settings(1e-3, seed=0))
    other = labelled_run(tmp_path / "other", config=settings(1e-3, seed=2))

    text = render_markdown(compose_report([one.root, other.root]))

    assert "the same command with seed=1, 3, 4 for each" in text

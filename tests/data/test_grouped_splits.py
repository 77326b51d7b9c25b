"""Made splits that keep groups and near duplicates on one side, labels spread, no side empty."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from support.tiny_runs import settings, write
from tunelab.data.data_sources import DataSplits, read_splits
from tunelab.data.folds import FoldSpec
from tunelab.data.grouped_splits import deal_splits
from tunelab.data.near_duplicates import near_duplicate_clusters
from tunelab.errors import ConfigError, DataError
from tunelab.training.components import build_task

SHARES = {"train": 0.8, "test": 0.2}


@given(
    groups=st.lists(st.integers(0, 12), min_size=3, max_size=80).filter(lambda groups: len(set(groups)) > 2),
    labels=st.integers(0, 4),
    shares=st.sampled_from([SHARES, {"train": 0.7, "validation": 0.2, "test": 0.1}]),
    seed=st.integers(0, 99),
)
def test_no_set_is_parted_and_no_split_is_empty(
    groups: list[int], labels: int, shares: dict[str, float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    names = [[str(rng.integers(labels))] if labels else [] for _ in groups]

    sides = deal_splits(groups, names, rng.random(len(groups)).tolist(), shares)

    assert set(sides) == set(shares)
    assert len(set(zip(groups, sides, strict=True))) == len(set(groups))


def test_labels_are_spread_as_evenly_as_scikit_learns_group_folds_leave_them() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = list[float](), list[float]()
    for _ in range(30):
        groups = rng.integers(0, 25, 200)
        labels = (rng.random(200) < rng.random(25)[groups]).astype(int)
        sides = deal_splits(groups.tolist(), [[str(label)] for label in labels], rng.random(200).tolist(), SHARES)
        test = np.array(sides) == "test"
        _, reference = next(StratifiedGroupKFold(5).split(labels, labels, groups))
        for chosen, distances in ((test, ours), (reference, theirs)):
            distances.append(abs(labels[chosen].mean() - labels.mean()) + abs(len(labels[chosen]) / 200 - 0.2))

    assert np.mean(ours) <= np.mean(theirs) + 0.01


def test_sets_too_few_for_the_splits_are_refused() -> None:
    with pytest.raises(DataError, match="4 rows make 2 sets .* need one each"):
        deal_splits([0, 0, 1, 1], [[]] * 4, [0.1, 0.2, 0.3, 0.4], {"train": 0.8, "validation": 0.1, "test": 0.1})


def test_every_pair_that_is_alike_enough_shares_a_cluster() -> None:
    rng = np.random.default_rng(1)
    words = [f"w{i}" for i in range(300)]
    texts = [" ".join(rng.choice(words, 20)) for _ in range(60)]
    texts += [" ".join([*text.split()[:-1], "changed"]) for text in texts[:40]]

    clusters = near_duplicate_clusters(texts, threshold=0.8)

    assert [clusters[60 + i] for i in range(40)] == clusters[:40]
    assert len(set(clusters)) == 60


def talks(folder: Path) -> Path:
    """Texts of thirty speakers, three each, which differ in a number only."""
    records = [
        {
            "text": f"Good morning, this is speaker {i // 3} and I would like to order lamp number {i}",
            "label": "ab"[i // 3 % 2],
            "score": i % 7,
            "speaker": f"s{i // 3}",
        }
        for i in range(90)
    ]
    return write(folder / "talks.jsonl", records)


def splits(folder: Path, *words: str, fold: FoldSpec | None = None) -> DataSplits:
    run = settings(f"data.train={talks(folder)}", "data.text=text", "seed=5", *words)
    return read_splits(run.data, build_task(run), seed=run.seed, fold=fold)


@pytest.mark.parametrize("task", ["data=classification data.label=label", "data=regression data.target=score"])
def test_a_group_stays_on_one_side_of_a_made_split(task: str, tmp_path: Path) -> None:
    sources = splits(tmp_path, *task.split(), "data.group=speaker")

    sides = {name: {row["speaker"] for row in split.rows} for name, split in sources.splits.items()}
    assert [len(split.rows) for split in sources.splits.values()] == [72, 9, 9]
    assert not sides["train"] & sides["validation"]
    assert not sides["train"] & sides["test"]
    assert not sides["validation"] & sides["test"]
    if "classification" in task:
        for split in sources.splits.values():
            counts = Counter(row["label"] for row in split.rows)
            assert abs(counts["a"] - counts["b"]) <= 3
    assert "test: 9 of 90 rows of the training file, with each speaker on one side" in sources.notes


def test_folds_keep_the_groups_too_and_hold_out_the_test_rows_of_an_ordinary_run(tmp_path: Path) -> None:
    words = ["data=classification", "data.label=label", "data.group=speaker"]
    ordinary = splits(tmp_path, *words).splits["test"].rows

    for index in range(3):
        fold = splits(tmp_path, *words, fold=FoldSpec(index, 3)).splits
        assert fold["test"].rows == ordinary
        assert not {row["speaker"] for row in fold["train"].rows} & {row["speaker"] for row in fold["validation"].rows}
    with pytest.raises(ConfigError, match="tie different rows together"):
        settings(*words, f"data.train={talks(tmp_path)}", "data.text=text", "cv.folds=3", "cv.group=score")


def test_near_duplicates_stay_on_one_side_of_a_made_split(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(400)]
    rng = np.random.default_rng(2)
    texts = [" ".join(rng.choice(words, 25)) for _ in range(40)]
    records = [{"text": f"{text} {again}", "label": "ab"[i % 2]} for i, text in enumerate(texts) for again in (1, 2)]
    file = write(tmp_path / "near.jsonl", records)
    run = settings(
        "data=classification", f"data.train={file}", "data.text=text", "data.label=label",
        "data.near_duplicates=keep_together",
    )  # fmt: skip

    sources = read_splits(run.data, build_task(run), seed=0)

    assert run.data.near_threshold == 0.8
    sides = {name: {row["text"][:-2] for row in split.rows} for name, split in sources.splits.items()}
    assert sum(map(len, sides.values())) == 40
    assert all(sides.values())


def test_groups_that_given_files_share_are_said(tmp_path: Path) -> None:
    test = write(
        tmp_path / "test.jsonl", [{"text": f"Another text {i}", "label": "a", "speaker": f"s{i}"} for i in (1, 2)]
    )

    notes = splits(tmp_path, "data=classification", "data.label=label", "data.group=speaker", f"data.test={test}").notes

    assert any("values of speaker occur in both train and test" in note for note in notes)


def test_a_group_that_is_no_column_or_has_no_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.group=speeker: talks.jsonl has no such column; did you mean 'speaker'"):
        splits(tmp_path, "data=classification", "data.label=label", "data.group=speeker")
    test = write(tmp_path / "test.jsonl", [{"text": "Another text", "label": "a"}])
    with pytest.raises(DataError, match="test.jsonl line 1: data.group=speaker: no value there"):
        splits(tmp_path, "data=classification", "data.label=label", "data.group=speaker", f"data.test={test}")

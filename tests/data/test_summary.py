"""The data report says what is in the data: counted by hand on small files."""

import json
import re
from pathlib import Path
from statistics import median_low
from typing import Any

import pytest

from support.tiny_runs import MODEL, QUIET, WORDS, settings, write
from tunelab.data import leakage
from tunelab.data.summary import length_distribution, summarize_data
from tunelab.data.summary_text import detail_sections, summary_lines
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.components import EncodedData, encode_data
from tunelab.training.run import fine_tune

LONG = "the quick brown fox jumps over the lazy dog and runs away from the big bad wolf in the dark wood at night"


def read(*overrides: str) -> EncodedData:
    return encode_data(settings(*MODEL, *overrides))


def report_on(encoded: EncodedData, threshold: float | None = 0.8) -> dict[str, Any]:
    return summarize_data(encoded.task, encoded.sources, encoded.examples, encoded.counts, threshold=threshold)


def answers(folder: Path, **files: list[str]) -> list[str]:
    """Overrides for files of prompts, each with the same answer."""
    given = ["data=instruction", "data.split.validation=0", "data.split.test=0"]
    for name, prompts in files.items():
        path = write(folder / f"{name}.jsonl", [{"prompt": text, "completion": "yes"} for text in prompts])
        given.append(f"data.{name}={path}")
    return given


def classes(folder: Path, rows: list[tuple[str, str]], *overrides: str) -> list[str]:
    path = write(folder / "classes.jsonl", [{"text": text, "label": label} for text, label in rows])
    made = ["data.split.validation=0", "data.split.test=0"]
    return ["data=classification", f"data.train={path}", "data.text=text", "data.label=label", *made, *overrides]


def test_repeats_copies_and_lookalikes_are_counted_with_their_places(tmp_path: Path) -> None:
    other = [f"{word} is a colour that I like" for word in WORDS]
    given = answers(
        tmp_path,
        train=[*other, LONG, other[0], other[0]],
        validation=[other[1], "rain again"],
        test=[LONG.replace("night", "noon"), other[1], f"  {other[2]}"],
    )

    report = report_on(read(*given))

    assert report["duplicates"] == {
        "train": {
            "texts": 1,
            "repeats": 2,
            "examples": [{"text": other[0], "places": [f"train.jsonl line {line}" for line in (1, 12, 13)]}],
        }
    }
    exact = {tuple(entry["splits"]): (entry["rows"], entry["of"]) for entry in report["leaks"]["exact"]}
    assert exact == {("train", "validation"): (1, 2), ("train", "test"): (2, 3), ("validation", "test"): (1, 3)}
    (near,) = report["leaks"]["near"]["pairs"]
    assert (near["splits"], near["rows"], near["of"]) == (["train", "test"], 1, 3)
    assert near["examples"][0]["places"] == ["train.jsonl line 11", "test.jsonl line 1"]
    assert near["examples"][0]["likeness"] == round(20 / 22, 3)  # 22 words: 20 triples, the last of them differs
    told = summary_lines(report)
    assert told["duplicates"] == "2 duplicate rows in train"
    assert "1 of 2 validation and 2 of 3 test rows are exact duplicates of train rows; 1 of 3" in told["leaks"]
    assert "1 of 3 test rows are near-duplicates of train rows (similarity 0.8 or more)" in told["leaks"]


def test_near_duplicates_are_not_looked_for_where_nobody_asks(tmp_path: Path) -> None:
    encoded = read(*answers(tmp_path, train=[LONG, "b"], test=[f"{LONG} x"]), "data.near_duplicates=null")

    report = report_on(encoded, encoded.settings.data.near_duplicates)

    assert report["leaks"]["near"] is None
    assert "not searched" in summary_lines(report)["leaks"]


def test_what_was_searched_in_part_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leakage, "MAX_TRAIN_ROWS", 4)
    encoded = read(*answers(tmp_path, train=[f"{word} or not" for word in WORDS], test=["what", "else"]))

    report = report_on(encoded)

    assert report["leaks"]["near"]["searched"] == {"train": [4, 10], "validation": [0, 0], "test": [2, 2]}
    assert summary_lines(report)["leaks"] == "none; 4 of 10 rows of train were searched, evenly spaced"


def test_of_long_texts_fewer_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leakage, "MAX_CHARACTERS", 50)
    encoded = read(*answers(tmp_path, train=["twenty letters here." + str(i) for i in range(10)], test=["short"]))

    found = leakage.near_leaks(encoded.task, encoded.sources, 0.8)

    assert found and found["searched"] == {"train": [2, 10], "validation": [0, 0], "test": [1, 1]}


def test_lengths_and_what_is_trained_agree_with_the_examples(tmp_path: Path) -> None:
    encoded = read(*answers(tmp_path, train=[" ".join(WORDS[: i % 9]) + str(i) for i in range(40)], test=["red"]))

    report = report_on(encoded)

    lengths = [len(example.ids) for example in encoded.examples["train"]]
    held = report["lengths"]["train"]
    assert sum(held["rows"]) == len(lengths)
    for low, after, rows in zip(held["edges"], held["edges"][1:], held["rows"], strict=False):
        assert rows == sum(low <= length < after for length in lengths)
    assert held["quantiles"]["median"] == median_low(lengths)
    assert (held["quantiles"]["least"], held["quantiles"]["most"]) == (min(lengths), max(lengths))
    share = sum(example.loss_weight for example in encoded.examples["train"]) / sum(lengths)
    assert report["trained"]["train"] == pytest.approx(share, abs=1e-4)


@pytest.mark.parametrize("lengths", [[5], [1, 2], [3] * 9, list(range(1, 13)), [1, 1000], list(range(7, 400, 3))])
def test_a_histogram_holds_every_row_in_at_most_twelve_bars(lengths: list[int]) -> None:
    held = length_distribution(lengths)

    assert sum(held["rows"]) == len(lengths)
    assert len(held["rows"]) <= 12
    assert held["edges"][0] == min(lengths)
    assert held["edges"][-2] <= max(lengths) < held["edges"][-1]
    assert held["rows"][0] > 0 < held["rows"][-1]


def test_labels_are_counted_and_texts_with_two_labels_are_told(tmp_path: Path) -> None:
    rows = [("good", "up"), ("bad", "down"), ("fine", "up"), ("good", "down"), ("bad", "down")]

    report = report_on(read(*classes(tmp_path, rows)))

    assert report["labels"] == {"train": {"down": 3, "up": 2}}
    assert report["conflicts"]["texts"] == 1
    assert report["conflicts"]["examples"][0]["places"] == ["classes.jsonl line 1: up", "classes.jsonl line 4: down"]
    assert "1 duplicate text with different labels" in summary_lines(report)["duplicates"]
    assert "trained" not in report


def test_each_of_several_labels_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "many.jsonl", [{"text": f"t{i}", "label": ["a", "b"][: i % 3]} for i in range(6)])
    given = ["data=classification", f"data.train={path}", "data.text=text", "data.label=label", "data.multilabel=true"]

    report = report_on(read(*given, "data.split.validation=0", "data.split.test=0"))

    assert report["labels"] == {"train": {"a": 4, "b": 2}}


def test_numbers_are_summed_up_in_their_own_units(tmp_path: Path) -> None:
    path = write(tmp_path / "n.jsonl", [{"text": f"t {i}", "cold": i * 0.7, "hot": 100 - i} for i in range(21)])
    given = ["data=regression", f"data.train={path}", "data.text=text", "data.target=[cold,hot]"]

    report = report_on(read(*given, "data.split.validation=0", "data.split.test=0"))

    found = report["targets"]["cold"]["train"]
    assert (found["least"], found["median"], found["most"]) == (0, 10 * 0.7, 20 * 0.7)
    assert report["targets"]["hot"]["train"]["p25"] == 85
    assert summary_lines(report)["hot"] == "train 80 to 100, median 90"


def test_the_short_form_is_short_and_the_long_one_names_every_split() -> None:
    encoded = read("data=starter")
    report = report_on(encoded)

    table = 2 + len(encoded.counts)
    assert table + sum(len(text.splitlines()) for text in summary_lines(report).values()) <= 12
    titles = [title for title, _ in detail_sections(report)]
    assert [title.split(",")[0] for title in titles[:3]] == [f"lengths of {name}" for name in encoded.counts]
    assert {"trained", "sources", "duplicates", "leaks", "template"} <= set(titles)
    assert report == json.loads(json.dumps(report))


def test_a_run_opens_with_the_report_and_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = answers(tmp_path, train=[*WORDS, WORDS[0]], test=[WORDS[1], "never seen before"])

    fine_tune(settings(*MODEL, *QUIET, *given, "max_steps=1"), tmp_path / "run")

    said = capsys.readouterr().out
    assert re.search(r"duplicates: 1 duplicate row in train", said)
    assert re.search(r"warning: leakage: 1 of 2 test rows are exact duplicates of train rows", said)
    kept = json.loads(RunDirectory(tmp_path / "run").data_report.read_text())
    assert {"splits", "notes", "files", "lengths", "sources", "leaks", "trained"} <= set(kept)
    assert kept["sources"]["train"] == {"train.jsonl": 11}

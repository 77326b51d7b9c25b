"""The report on a run: what it holds, and that nothing a run leaves, or does not leave, breaks it."""

import base64
import csv
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from support.made_up_runs import NASTY, answered_run, card, labelled_run, numbers_run
from tunelab.errors import ConfigError
from tunelab.report import run_reader
from tunelab.report.baselines import trivial_baseline
from tunelab.report.document import (
    BulletList,
    Chart,
    Command,
    Document,
    Examples,
    Fold,
    Section,
    Table,
    Verdict,
    walk_blocks,
)
from tunelab.report.next_run import twice_as_long
from tunelab.report.render import grouped_columns, render_html, render_markdown, write_report
from tunelab.report.run_reader import RunResults, check_report_paths, read_run_results
from tunelab.report.run_report import build_run_report
from tunelab.runs.run_dir import RunDirectory
from tunelab.tasks.registry import TaskDescription


class Attributes(HTMLParser):
    """The names of all attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names |= {name for name, _ in attrs}


def report(folder: RunDirectory) -> Document:
    """The report on a run."""
    return build_run_report(read_run_results(folder.root))


def titles(document: Document) -> list[str]:
    """Its sections."""
    return [section.title for section in document.sections]


def told(document: Document) -> str:
    """Every verdict."""
    lines: list[str] = []
    for block in document.walk():
        lines += [block.text] if isinstance(block, Verdict) else []
        lines += [line.text for line in block.lines] if isinstance(block, BulletList) else []
    return "\n".join(lines)


def verdicts(document: Document) -> list[tuple[str, str]]:
    """The large sentences at the top, with their tones."""
    return [(block.tone, block.text) for block in document.sections[0].blocks if isinstance(block, Verdict)]


def grid(document: Document, name: str) -> Table:
    """A table."""
    return next(found for found in document.tables() if found.name == name)


def test_labels_get_classes_worst_errors_and_calibration(tmp_path: Path) -> None:
    document = report(labelled_run(tmp_path / "run"))

    assert titles(document) == [
        "Verdict",
        "What to run next",
        "Curves",
        "Scores",
        "Classes",
        "Worst errors",
        "Calibration",
        "Provenance",
    ]
    worst = grid(document, "worst_errors").rows
    assert all(row[1] != row[2] for row in worst)
    assert [row[3] for row in worst] == sorted((row[3] for row in worst), reverse=True), "the surest mistake first"
    assert "it over-fits from there on" in told(document)


def test_answers_are_shown_before_and_after_training(tmp_path: Path) -> None:
    document = report(answered_run(tmp_path / "run"))

    answers = next(b for s in document.sections for b in s.blocks if isinstance(b, Examples) and b.name == "answers")
    assert [name for name, _ in answers.examples[0].fields] == ["question", "reference"]
    assert [answer.name for answer in answers.examples[0].answers] == ["before training", "after training"]
    assert {sample.tone for sample in answers.examples} == {"good", "bad"}, "right and wrong ones"
    wrong = next(sample for sample in answers.examples if sample.tone == "bad").answers[1]
    assert wrong.pieces == [("it is ", True), ("no", False)], "what differs from the reference is marked"
    assert "0 for the model before training" in told(document)


def test_numbers_that_play_safe_are_told(tmp_path: Path) -> None:
    document = report(numbers_run(tmp_path / "run"))

    assert "Predictions vary 0.33 times as much as the true values" in told(document)
    assert "Curves" in titles(document), "it says that there are none"
    assert "metrics.csv is missing" in told(document)


@pytest.mark.parametrize("lost", ["run.json", "metrics.json", "metrics.csv", "predictions.jsonl", "scores.json"])
@pytest.mark.parametrize("how", ["missing", "torn", "another"])
def test_a_file_that_is_gone_or_torn_is_told_and_the_rest_stands(tmp_path: Path, lost: str, how: str) -> None:
    # Given a run whose file is gone, cut short, or holds something else
    folder = labelled_run(tmp_path / "run")
    file = folder.root / lost
    text = file.read_text()
    file.unlink()
    if how == "torn":
        file.write_text(text[: len(text) // 2])
    elif how == "another":
        file.write_text('[{"row": 1, "label": 3}]\n')

    # When it is reported on
    document = report(folder)

    # Then there is a page
    assert len(render_html(document)) > 10_000
    assert "Verdict" in titles(document)
    if how == "missing" and lost != "scores.json":
        assert f"{lost} is missing" in told(document)


@pytest.mark.parametrize("status", ["diverged", "failed", "pruned", "pre-empted"])
def test_how_a_run_ended_stands_first(tmp_path: Path, status: str) -> None:
    folder = labelled_run(tmp_path / "run", status=status, reason=f"because {NASTY}")

    assert f"The run is {status} after 60 steps: because" in told(report(folder)).splitlines()[0]


def test_a_run_that_says_running_is_so_only_while_its_process_lives(tmp_path: Path) -> None:
    folder = labelled_run(tmp_path / "run", status="running")

    assert "The run says running, and its process is gone" in render_markdown(report(folder))
    with RunDirectory.open(folder.root, write=True):
        assert "its process is gone" not in render_markdown(report(folder))


def test_a_good_end_stands_in_the_list_below_the_verdict(tmp_path: Path) -> None:
    document = report(labelled_run(tmp_path / "run", status="early-stopped", reason="no gain for 3 validations"))

    verdicts = [block.text for block in document.sections[0].blocks if isinstance(block, Verdict)]
    assert len(verdicts) == 1 and verdicts[0].startswith("Test accuracy")
    assert "The run is early-stopped after 60 steps: no gain for 3 validations." in told(document)


def test_a_run_without_scores_is_resumed_only_where_it_left_a_checkpoint(tmp_path: Path) -> None:
    folder = RunDirectory(tmp_path / "run")
    folder.root.mkdir()
    folder.write_manifest(card(status="failed"))
    assert "no checkpoint to go on from" in render_markdown(report(folder))
    assert "resume=" not in render_markdown(report(folder))
    folder.last.parent.mkdir()
    folder.last.touch()
    assert "resume=" in render_markdown(report(folder))


def test_a_page_says_what_a_score_is_and_its_file_keeps_the_key(tmp_path: Path) -> None:
    folder = labelled_run(tmp_path / "run")
    folder.write_scores({"test/accuracy": 0.5, "test/f1_all": 0.4, "train/plain_loss": 0.3, "val/loss": 0.5})
    written = write_report(report(folder), tmp_path / "out")

    page, text = (written[name].read_text() for name in ("report", "as text"))
    assert ">loss in eval mode<" in page and "plain_loss" not in page.partition("every setting")[0]
    assert "| loss in eval mode |" in text and "| f1 over all classes |" in text
    keys = {line.partition(",")[0] for line in (tmp_path / "out" / "scores.csv").read_text().splitlines()}
    assert {"plain_loss", "f1_all", "accuracy"} <= keys


def test_whole_numbers_of_a_column_have_commas_all_or_none() -> None:
    table = Table("t", ["tokens", "rows", "share"], [[21159, 300, 0.5], [6545, 9999, 12000.5]])
    assert grouped_columns(table) == [True, False, False]
    page = render_html(Document("t", "", [Section("s", [table])]))
    assert ">6,545<" in page and ">9999<" in page


def test_scores_that_are_no_numbers_are_gaps(tmp_path: Path) -> None:
    folder = labelled_run(tmp_path / "run")
    folder.metrics.write_text('{"test/accuracy": null, "val/loss": null, "test/loss": 1.5}')

    document = report(folder)

    assert "nan" not in render_markdown(document).lower().replace("provenance", "")
    write_report(document, tmp_path / "out")
    lines = list(csv.reader((tmp_path / "out" / "scores.csv").open()))
    table = {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[1:]}
    assert (table["loss"]["test"], table["loss"]["val"], table["accuracy"]["test"]) == ("1.5", "", "")


def test_text_of_the_data_cannot_act(tmp_path: Path) -> None:
    page = render_html(report(labelled_run(tmp_path / "run")))

    assert NASTY not in page
    assert page.count("<script>") == 1
    assert "<img" not in page
    found = Attributes()
    found.feed(page)
    assert not [name for name in found.names if name.startswith("on")]


def test_the_page_lets_its_own_script_run_and_nothing_else(tmp_path: Path) -> None:
    page = render_html(report(labelled_run(tmp_path / "run")))

    script = page[page.index("<script>") + 8 : page.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page
    assert not re.search(r"(?:src|href)=\"(?!#|data:,)", page), "nothing is loaded"


def test_every_table_is_a_file_and_every_drawing_too(tmp_path: Path) -> None:
    document = report(labelled_run(tmp_path / "run"))

    write_report(document, tmp_path / "out")

    names = [one.name for one in [*document.tables(), *document.charts()]]
    assert len(set(names)) == len(names)
    for one in document.tables():
        rows = list(csv.reader((tmp_path / "out" / f"{one.name}.csv").open(encoding="utf-8")))
        assert len(rows) == len(one.rows) + 1
    text = (tmp_path / "out" / "report.md").read_text()
    for name in re.findall(r"\]\((figures/.*?)\)", text):
        assert (tmp_path / "out" / name).is_file()


def test_a_cell_that_a_spreadsheet_would_carry_out_is_quoted(tmp_path: Path) -> None:
    grid = Table("t", ["=1+1"], [["=HYPERLINK(1)"], [-1.5]])
    write_report(Document("t", "", []), tmp_path)
    from tunelab.report.render import render_csv

    assert render_csv(grid) == "'=1+1\n'=HYPERLINK(1)\n-1.5\n"


def test_a_path_that_is_neither_run_nor_study_is_refused_with_a_way_out(tmp_path: Path) -> None:
    labelled_run(tmp_path / "runs" / "one")
    (tmp_path / "file").write_text("")
    wrong = [tmp_path / "nothing", tmp_path / "file", tmp_path / "runs", tmp_path / "runs" / "one" / "checkpoints"]
    wrong[-1].mkdir()

    with pytest.raises(ConfigError) as refused:
        check_report_paths([*wrong, tmp_path / "runs" / "one"])

    lines = str(refused.value).splitlines()[1:]
    assert len(lines) == 4
    for line, words in zip(
        lines,
        [
            "does not exist",
            "is a file",
            f"holds 1 run or study but is none itself; give them one by one: {tmp_path}/runs/one",
            "neither a run",
        ],
        strict=True,
    ):
        assert words in line


def test_the_command_can_be_pasted_whatever_the_folder_is_called(tmp_path: Path) -> None:
    folder = labelled_run(tmp_path / "a run; with $words")

    commands = [b.text for s in report(folder).sections for b in s.blocks if isinstance(b, Command)]

    assert commands[-2:] == ["python train.py lr=1e-3", f"tunelab reproduce '{folder.root}'"]


def test_a_run_that_overfits_is_followed_by_a_search_and_by_other_seeds(tmp_path: Path) -> None:
    folder = labelled_run(tmp_path / "run")

    assert next_commands(report(folder)) == {
        "python train.py -m search=bayes search/space=classification lr=1e-3": "It was better before its end: search "
        "for another rate and more regularization:",
        "python train.py -m seed=0,1,2 lr=1e-3": "How far the score depends on luck: the same settings with other "
        "seeds:",
    }


def test_what_belongs_to_one_run_alone_is_not_handed_on(tmp_path: Path) -> None:
    folder = labelled_run(tmp_path / "run")
    manifest = json.loads(folder.manifest.read_text())
    typed = ["lr=1e-3", "seed=7", "resume=outputs/a", "hydra.run.dir=here", "+optimizer.eps=1e-6", "name=a b"]
    folder.manifest.write_text(json.dumps(manifest | {"overrides": typed}))

    assert all(
        command.endswith(" lr=1e-3 +optimizer.eps=1e-6 'name=a b'") and "seed=7" not in command
        for command in next_commands(report(folder))
    )


def test_a_resumed_run_keeps_the_settings_that_it_began_with(tmp_path: Path) -> None:
    folder = labelled_run(tmp_path / "run")
    manifest = json.loads(folder.manifest.read_text())
    first = {"overrides": ["adapter=lora", "max_steps=5"], "command": "python train.py --config-dir my adapter=lora"}
    again = {"sessions": [first], "overrides": ["resume=outputs/a", "max_steps=9"]}
    folder.manifest.write_text(json.dumps(manifest | again))

    assert "python train.py --config-dir my -m seed=0,1,2 adapter=lora max_steps=9" in next_commands(report(folder))


@pytest.mark.parametrize(("seed", "seeds"), [(0, "1,2,3"), (1, "0,2,3"), (2, "0,1,3"), (7, "0,1,2")])
def test_other_seeds_are_others_than_that_of_the_run(tmp_path: Path, seed: int, seeds: str) -> None:
    folder = labelled_run(tmp_path / "run", config={"seed": seed, "data": {"task": "classification"}})

    assert f"python train.py -m seed={seeds} lr=1e-3" in next_commands(report(folder))


@pytest.mark.parametrize(
    ("config", "longer"),
    [
        ({"max_steps": 4, "max_epochs": 8}, "max_steps=8"),
        ({"max_steps": 100, "max_epochs": 8}, "max_epochs=16"),
        ({"max_steps": -1, "max_epochs": 2}, "max_epochs=4"),
    ],
)
def test_a_run_is_made_longer_by_what_ended_it(config: dict[str, int], longer: str) -> None:
    ended = RunResults(Path(), {"status": "finished", "config": config}, curves=[{"step": 3.0}])

    assert twice_as_long(ended) == longer


def test_a_trial_leaves_what_to_run_next_to_its_study(tmp_path: Path) -> None:
    folder = labelled_run(tmp_path / "run")
    manifest = json.loads(folder.manifest.read_text())
    manifest["config"]["trial"] = {"id": 3, "study": "outputs/study"}
    folder.manifest.write_text(json.dumps(manifest))

    assert next_commands(report(folder)) == {}


def next_commands(document: Document) -> dict[str, str]:
    """What the section on the next run says, by command."""
    blocks = [block for one in document.sections if one.title == "What to run next" for block in one.blocks]
    return {block.text: block.description for block in blocks if isinstance(block, Command)}


def test_findings_of_the_doctor_are_shown_with_what_to_try(tmp_path: Path) -> None:
    folder = labelled_run(tmp_path / "run")
    finding = {"verdict": "exploding gradients", "says": "the norm is 1e4.", "value": 1e4, "attempt": "Halve lr."}
    doctor = folder.root / "doctor.json"
    doctor.write_text(json.dumps({"findings": [finding]}))
    assert "exploding gradients: the norm is 1e4. Halve lr." in told(report(folder))

    doctor.write_text(json.dumps({"findings": [], "looked_for": ["a", "b"]}))
    assert "found nothing amiss: 2 ailments looked for" in told(report(folder))


def test_doubts_about_the_code_are_told(tmp_path: Path) -> None:
    folder = labelled_run(tmp_path / "run", git={"commit": "abc", "dirty": True, "diff_bytes": 12}, sessions=[{}])

    text = render_markdown(report(folder))

    assert "changes that no commit holds" in text
    assert "resumed 1 time" in text
    assert card()["command"] in text


OUTSIDE = """
from tunelab.analysis.row_scores import mean_score
from tunelab.report.document import Paragraph, Section

def ranks_section(run):
    return [Section("Ranks", [Paragraph(f"{len(run.predictions)} rows")])]

def row_scores(rows):
    return {"half": mean_score([place % 2 for place in range(len(rows))])}
"""


def test_a_task_brings_its_sections_and_its_scores_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a task of another package, which says what makes its sections and its scores
    (tmp_path / "ranking_lab.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(str(tmp_path))
    task = TaskDescription(
        headline_scores=("half",),
        report_sections=("ranking_lab:ranks_section",),
        row_scores="ranking_lab:row_scores",
    )
    monkeypatch.setattr(run_reader, "describe_task", lambda name: task)
    folder = labelled_run(tmp_path / "run")
    folder.write_scores({"test/half": 0.5})

    # When a run of it is reported on
    document = report(folder)

    # Then they take the place of the sections that go by columns
    assert titles(document) == ["Verdict", "What to run next", "Curves", "Scores", "Ranks", "Provenance"]
    assert interval_beside(document, "half") == "0.4119 to 0.5881"


def test_a_run_whose_task_is_not_here_is_reported_on_by_its_columns(tmp_path: Path) -> None:
    folder = labelled_run(tmp_path / "run", config={"data": {"task": "elsewhere.tasks.Ranking"}})

    assert "Calibration" in titles(report(folder))


def interval_beside(document: Document, name: str) -> str:
    """What stands beside a test score in the column of intervals."""
    table = grid(document, "scores")
    place = next(at for at, column in enumerate(table.columns) if column.startswith("95 % interval"))
    return str(next(row[place] for row in table.rows if row[0] == name))


def test_a_score_stands_in_its_interval_or_the_reason_stands_there_instead(tmp_path: Path) -> None:
    # Given a run with enough rows of each class, and one with hardly any
    notes = {}
    for rows in (120, 8):
        folder = labelled_run(tmp_path / str(rows), rows=rows)
        score = read_run_results(folder.root).row_scores(folder.read_predictions())["f1"]
        folder.write_scores(folder.read_scores() | {"test/f1": score.value})
        notes[rows] = interval_beside(report(folder), "f1")

    # Then the first has its interval with the score inside, and the second says why it has none
    low, high = map(float, re.findall(r"[\d.]+", notes[120])[:2])
    assert low < RunDirectory(tmp_path / "120").read_scores()["test/f1"] < high
    assert notes[8].startswith("no interval: 8 rows of 4 classes are too few")


def test_a_score_that_its_predictions_do_not_give_has_no_interval(tmp_path: Path) -> None:
    folder = labelled_run(tmp_path / "run")
    folder.write_scores(folder.read_scores() | {"test/f1": 0.123})
    assert interval_beside(report(folder), "f1").startswith("no interval: the predictions give 0.")


def test_the_verdict_names_the_baseline_that_scikit_learn_gives(tmp_path: Path) -> None:
    from sklearn.dummy import DummyClassifier
    from sklearn.metrics import accuracy_score, f1_score

    folder = labelled_run(tmp_path / "run")
    rows = folder.read_predictions()
    folder.write_scores(folder.read_scores() | {"test/f1": 0.8})
    folder.write_data_report(minimal_data_report(["ham"] * 5 + ["spam"] * 3 + [row["label"] for row in rows[:2]]))
    truth = [row["label"] for row in rows]
    always = DummyClassifier(strategy="most_frequent").fit([[0]] * 2, ["ham", "ham"]).predict([[0]] * len(truth))

    row = dict(zip(grid(report(folder), "scores").columns, next(
        row for row in grid(report(folder), "scores").rows if row[0] == "accuracy"), strict=True))  # fmt: skip
    baseline = trivial_baseline(read_run_results(folder.root), "test")

    assert baseline is not None and row["majority class (ham)"] == pytest.approx(accuracy_score(truth, always))
    assert baseline.scores["f1"] == pytest.approx(f1_score(truth, always, average="macro", zero_division=0))


def minimal_data_report(labels: list[str]) -> dict[str, object]:
    """A data report with counts of training labels."""
    counts = {name: labels.count(name) for name in dict.fromkeys(labels)}
    return {
        "splits": {"train": {"rows": 9, "dropped": 4, "too_long": 3, "no_target": 1, "truncated": 2}},
        "labels": {"train": counts},
        "duplicates": {}, "leaks": {"exact": [{"splits": ["train", "test"], "rows": 2, "of": 9, "examples": []}],
        "near": None}, "files": {}, "notes": [], "lengths": {}, "unknown_tokens": {"train": 0.66},
    }  # fmt: skip


def test_a_model_that_is_no_better_than_a_constant_is_not_called_good(tmp_path: Path) -> None:
    folder = labelled_run(tmp_path / "run", skill=0.0)
    rows = [row | {"prediction": "ham"} for row in folder.read_predictions()]
    folder.write_predictions(rows)
    folder.write_scores({"test/accuracy": sum(row["label"] == "ham" for row in rows) / len(rows)})

    ((tone, text),) = verdicts(report(folder))

    assert tone in ("warn", "bad") and text.startswith(("Not proven", "Not good")) and "majority class (ham)" in text


def test_a_gain_within_noise_is_not_called_good(tmp_path: Path) -> None:
    folder = labelled_run(tmp_path / "run")
    rows = [row | {"prediction": "ham" if at > 3 else row["label"]} for at, row in enumerate(folder.read_predictions())]
    folder.write_predictions(rows[:16])
    folder.write_scores({"test/accuracy": sum(row["label"] == row["prediction"] for row in rows[:16]) / 16})

    ((tone, text),) = verdicts(report(folder))

    assert tone == "warn" and "is within noise (95 % of the difference:" in text


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [(answered_run, "copy of the input", None), (numbers_run, "mean of the test targets", 8.25)],
)
def test_answers_and_numbers_have_their_own_baseline(
    tmp_path: Path, make: Callable[[Path], RunDirectory], name: str, value: float | None
) -> None:
    folder = make(tmp_path / "run")
    document = report(folder)

    ((tone, text),) = verdicts(document)

    assert tone == "good" and name in text
    table = grid(document, "scores")
    assert name in table.columns
    if value is not None:
        assert next(row for row in table.rows if row[0] == "mse")[table.columns.index(name)] == pytest.approx(value)


def test_every_warning_stands_at_the_top_and_nowhere_else(tmp_path: Path) -> None:
    folder = labelled_run(tmp_path / "run")
    folder.write_data_report(minimal_data_report(["ham", "spam"]))
    tables = folder.read_score_tables()
    tables["test"]["per_class"][1]["recall"] = 0.0
    tables["test"]["confusion"] = [[sum(row), 0, 0, 0] for row in tables["test"]["confusion"]]
    folder.write_score_tables(tables)

    document = report(folder)
    lists = [block for block in document.sections[0].blocks if isinstance(block, BulletList)]
    top = "\n".join(line.text for block in lists for line in block.lines)

    assert "Classes never predicted: spam" in top and "it over-fits from there on" in top
    assert "train: dropped 4 of 9 rows (3 too long, 1 without target tokens)" in top and "train: cut 2 of 9 rows" in top
    assert "train 66.0%" in top and "Leaks: 2 of 9 test rows" in top
    below = [b for section in document.sections[1:] for b in walk_blocks(section.blocks) if isinstance(b, BulletList)]
    assert [line.text for block in below for line in block.lines if line.tone in ("warn", "bad")] == []
    assert lists[0].lines[0].tone == "bad", "the gravest first"


def test_the_confusion_is_one_matrix_with_counts_and_shares(tmp_path: Path) -> None:
    page = render_html(report(labelled_run(tmp_path / "run")))

    assert page.count('class="matrix"') == 1 and page.count("number diagonal") == 4
    cells = re.findall(r'<td class="number[^"]*" data-v="(\d+)"[^>]*>\d+ <small>([\d.]+)', page)
    assert cells and all(float(share) == pytest.approx(100 * int(count) / 30, abs=0.06) for count, share in cells)


def test_loss_and_the_monitored_score_stand_open_and_other_curves_are_folded(tmp_path: Path) -> None:
    document = report(labelled_run(tmp_path / "run"))
    blocks = next(section for section in document.sections if section.title == "Curves").blocks

    assert [block.name for block in blocks if isinstance(block, Chart)] == ["curve_val_loss", "curve_val_accuracy"]
    (fold,) = [block for block in blocks if isinstance(block, Fold)]
    assert [block.name for block in fold.blocks if isinstance(block, Chart)] == [
        "curve_train_lr",
        "curve_train_grad_norm",
    ]


def test_test_and_validation_are_the_first_columns_of_scores(tmp_path: Path) -> None:
    folder = labelled_run(tmp_path / "run")
    scores = {"train/loss": 0.1, "last/loss": 0.7, "val/loss": 0.5, "base/loss": 3.0, "test/loss": 0.6}
    folder.write_scores(scores)

    columns = grid(report(folder), "scores").columns

    assert [name for name in columns if name in ("test", "val", "train")] == ["test", "val", "train"]
    assert columns[1] == "test" and columns[-1] == "train"


def test_a_model_that_a_baseline_beats_by_another_headline_score_is_mixed(tmp_path: Path) -> None:
    folder = labelled_run(tmp_path / "run")
    rows = folder.read_predictions()
    f1 = read_run_results(folder.root).row_scores(rows)["f1"].value
    folder.write_scores({"test/f1": f1, "test/accuracy": 0.2})

    ((tone, text),) = verdicts(report(folder))

    assert tone == "warn" and "accuracy 0.2 is worse than the majority class (ham) (0.25)" in text

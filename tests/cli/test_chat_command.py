"""Talking: what is said is what the model answers, and nothing else is printed through a pipe."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from support.tiny_runs import write
from tunelab.data.conversation import Message
from tunelab.generation.chat import AnswerStreamer, ChatModel, load_chat_model
from tunelab.runs.run_dir import RunDirectory

STARTER = "package:tunelab.starter/model"


def predicted(run: RunDirectory, text: str, tunelab: Any, folder: Path) -> str:
    """The greedy answer that `predict` gives."""
    file = write(folder / "asked.jsonl", [{"instruction": text}])
    words = ("predict", run.root, "--input", file, "--output", folder / "said.jsonl", "--max-new-tokens", "12")
    status, _, err = tunelab(*words, "--overwrite")
    assert status == 0, err
    return str(json.loads((folder / "said.jsonl").read_text())["prediction"])


@pytest.mark.parametrize("kind", ["instruction", "adapted"])
def test_a_chat_answers_what_predict_answers(
    kind: str, request: pytest.FixtureRequest, tunelab: Any, tmp_path: Path
) -> None:
    run = request.getfixturevalue(kind)

    status, out, err = tunelab("chat", run.root, "--max-new-tokens", "12", says="say red\n/reset\nsay blue\n")

    assert status == 0, err
    assert out == "".join(predicted(run, text, tunelab, tmp_path) + "\n" for text in ("say red", "say blue"))
    assert out.strip(), "an empty answer would prove nothing"
    assert err.strip().endswith("(new conversation)")


def test_an_export_an_adapter_and_their_run_say_the_same(adapted: RunDirectory, tunelab: Any) -> None:
    found = [
        tunelab("chat", place, "--max-new-tokens", "12", says="say teal\n")
        for place in (adapted.root, adapted.export, adapted.export / "adapter")
    ]

    assert [status for status, _, _ in found] == [0, 0, 0], found
    assert len({out for _, out, _ in found}) == 1


def test_a_model_folder_answers_as_transformers_generates(tunelab: Any, adapted: RunDirectory) -> None:
    tokenizer = AutoTokenizer.from_pretrained(adapted.export)
    model = AutoModelForCausalLM.from_pretrained(adapted.export)
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "say gold"}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        whole = model.generate(ids, max_new_tokens=12, do_sample=False)
    wanted = tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True).strip()

    status, out, _ = tunelab(
        "chat", adapted.export, "--system", "Be kind.", "--max-new-tokens", "12", says="say gold\n"
    )

    assert status == 0 and out == wanted + "\n"


def test_earlier_turns_are_part_of_the_question_until_they_are_forgotten(tunelab: Any, adapted: RunDirectory) -> None:
    say = ("chat", adapted.root, "--max-new-tokens", "12")
    alone = tunelab(*say, says="say gold\n")[1]

    later = tunelab(*say, says="say red green blue\nsay gold\n")[1].splitlines()[-1]
    fresh = tunelab(*say, says="say red green blue\n/reset\nsay gold\n")[1].splitlines()[-1]

    assert fresh == alone.strip()
    assert later != fresh


@pytest.mark.parametrize("says", ["", "/exit\nsay red\n", "\n\n"])
def test_the_end_of_input_and_exit_leave_with_status_0(says: str, tunelab: Any, instruction: RunDirectory) -> None:
    assert tunelab("chat", instruction.root, says=says)[:2] == (0, "")


def test_draws_differ_with_the_seed_and_repeat_with_it(tunelab: Any) -> None:
    def drawn(seed: int) -> str:
        words = ("chat", STARTER, "--temperature", "2", "--max-new-tokens", "12", "--seed", seed)
        return str(tunelab(*words, says="say red\n")[1])

    assert drawn(1) == drawn(1) != drawn(2)


def test_a_run_that_gives_labels_is_refused_with_what_to_use(classification: RunDirectory, tunelab: Any) -> None:
    for place in (classification.root, classification.export):
        status, _, err = tunelab("chat", place, says="hello\n")
        assert status == 2 and "tunelab predict" in err


def test_what_is_nothing_to_talk_with_is_told(tunelab: Any, tmp_path: Path) -> None:
    for place, told in ((tmp_path, "has none of them"), (tmp_path / "x", "no such folder")):
        status, _, err = tunelab("chat", place)
        assert status == 2 and told in err and "adapter_config.json" in err
    assert tunelab("chat", tmp_path, "--temperature", "-1", "--max-new-tokens", "0")[2].count("out of range") == 2


def test_an_adapter_without_its_base_says_what_is_missing(tunelab: Any, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/no/such/model"}))

    status, _, err = tunelab("chat", tmp_path)

    assert status == 2 and "/no/such/model" in err


def talk(speaker: ChatModel, messages: list[Message]) -> tuple[str, list[int]]:
    lost: list[int] = []
    said = speaker.answer(
        messages, max_new_tokens=12, temperature=0, on_text=lambda text: None, on_messages_dropped=lost.append
    )
    return said, lost


def test_a_long_talk_forgets_its_oldest_turns_and_keeps_the_system_prompt() -> None:
    speaker = load_chat_model(STARTER)
    opening, question = Message("system", "Be brief."), Message("user", "say gold")
    short = [opening, question]
    old = [Message("user", "say red " * 60), Message("assistant", "red " * 60)]
    assert speaker.limit is not None
    long = [opening, *old * 6, question]

    said, lost = talk(speaker, long)

    assert lost and lost[0] % 2 == 0
    assert long[0] == opening and long[-1] == question and len(long) == 14 - lost[0]
    speaker.limit = 40
    assert talk(speaker, [opening, *old, question])[0] == talk(speaker, short)[0]
    assert said


def test_pieces_of_an_answer_add_up_to_it_and_never_break_a_letter() -> None:
    tokenizer = AutoTokenizer.from_pretrained(load_chat_model(STARTER).tokenizer.name_or_path)
    text = " 雪 on the roof \n "
    pieces: list[str] = []
    teller = AnswerStreamer(tokenizer, stop=[0], on_text=pieces.append)
    teller.put(torch.tensor([[1, 2, 3]]))
    for token in [*tokenizer(text, add_special_tokens=False)["input_ids"], 0]:
        teller.put(torch.tensor([token]))
    teller.end()

    assert "".join(pieces) == teller.text == text.strip()
    assert len(pieces) > 2
    assert not any("\ufffd" in piece for piece in pieces)

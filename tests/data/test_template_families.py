"""Whatever a template does with a record, all of the record reaches the model, or the record is refused by its turn."""

import json
import random
import re
from collections.abc import Iterator
from datetime import date
from functools import cache
from typing import Any

import pytest

from support.template_families import TEMPLATES, family_tokenizer
from tunelab.data.chat_template import ChatTemplate
from tunelab.data.conversation import Conversation, Message
from tunelab.data.data_sources import DataSplits, Split, encode_splits
from tunelab.data.examples import IGNORE
from tunelab.data.formats import to_conversation
from tunelab.errors import DataError
from tunelab.tasks.instruction import Instruction

EARLIER_STRIPPED = "strips earlier thinking, splits on the end mark"
OPENED, NEVER = "opens a thought in its prompt", "never shows thinking, opens a thought in its prompt"
RETURNS, NEXT_TURN = "ends the last answer otherwise", "leaves the end to the next turn"
THOUGHT = "<think>\nTwo and two.\n</think>\n\nFour"
SAID = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"place": "Bern"}}}
OTHER_CALL = {"type": "function", "function": {"name": "weather", "arguments": {"place": "Rome"}}}


@cache
def template_of(name: str, *, reasons: bool = True) -> ChatTemplate:
    return ChatTemplate(family_tokenizer(name), reasons=reasons, day=date(2024, 2, 3))


def talk(*turns: str) -> Conversation:
    return Conversation(tuple(Message(SAID[turn[0]], turn[2:]) for turn in turns))


def as_dicts(conversation: Conversation) -> list[dict[str, Any]]:
    return [
        {"role": m.role, "content": m.content}
        | ({"reasoning_content": m.reasoning} if m.reasoning else {})
        | ({"tool_calls": m.tool_calls} if m.tool_calls else {})
        for m in conversation.messages
    ]


def texts(name: str, conversation: Conversation) -> list[tuple[str, str]]:
    """Of each sequence all of its text, and what is learned of it."""
    template = template_of(name)
    decode = template.tokenizer.decode
    return [
        (str(decode(ids)), str(decode([label for label in labels if label != IGNORE])))
        for ids, labels in template.sequences(conversation)
    ]


@pytest.mark.parametrize("name", ["chatml", EARLIER_STRIPPED, OPENED, RETURNS, "trims", "blocks"])
def test_reasoning_is_the_templates_own_tokens_and_no_other_character(name: str) -> None:
    # a mark around "<think>" inside the text would be taken apart with it, and learned
    template = template_of(name)
    conversation = talk("u 2+2?", f"a {THOUGHT}")

    ids, _ = template.encode(conversation)

    theirs = template.tokenizer.apply_chat_template(as_dicts(conversation), return_dict=False)
    assert ids == theirs
    assert all(not "\ue000" <= letter <= "\uf8ff" for letter in template.tokenizer.decode(ids))


def test_where_earlier_reasoning_is_left_out_each_answer_is_learned_as_a_model_is_asked_for_it() -> None:
    conversation = talk("u 2+2?", f"a {THOUGHT}", "u Sure?", "a <think>\nYes.\n</think>\n\nQuite")
    template = template_of(EARLIER_STRIPPED)

    first, second = texts(EARLIER_STRIPPED, conversation)

    assert first[1] == f"{THOUGHT}<|im_end|>"
    assert second[1] == "<think>\nYes.\n</think>\n\nQuite<|im_end|>"
    assert "Two and two" not in second[0]
    for sequence, turns in zip(template.sequences(conversation), (1, 3), strict=True):
        prompt = template.reply_ids(Conversation(conversation.messages[:turns]))
        assert sequence[0][: len(prompt)] == prompt


def test_calls_that_belong_to_one_question_stay_in_one_sequence() -> None:
    turns = (
        Message("user", "Weather?"),
        Message("assistant", "Let me look.", tool_calls=[CALL]),
        Message("tool", "sun"),
    )
    conversation = Conversation((*turns, Message("assistant", "Sunny")))

    ((_, learned),) = texts(EARLIER_STRIPPED, conversation)

    assert learned.count("<|im_end|>") == 2
    assert "Let me look." in learned and "Bern" in learned and learned.endswith("Sunny<|im_end|>")


@pytest.mark.parametrize("name", [EARLIER_STRIPPED, OPENED, RETURNS])
def test_reasoning_under_a_key_of_its_own_is_learned_where_the_template_takes_it(name: str) -> None:
    conversation = Conversation((Message("user", "2+2?"), Message("assistant", "Four", reasoning="Two and two.")))

    ((_, learned),) = texts(name, conversation)

    assert "Two and two." in learned and "Four" in learned
    theirs = template_of(name).tokenizer.apply_chat_template(as_dicts(conversation), return_dict=False)
    assert template_of(name).encode(conversation)[0] == theirs


@pytest.mark.parametrize("name", ["chatml", "trims", "blocks"])
def test_reasoning_that_a_template_is_deaf_to_is_refused_by_its_name_and_turn(name: str) -> None:
    conversation = Conversation((Message("user", "2+2?"), Message("assistant", "Four", reasoning="Two and two.")))

    with pytest.raises(DataError, match=r"leaves out reasoning_content \(turn 2\).*<think>"):
        template_of(name).sequences(conversation)


def test_a_thought_that_the_prompt_opens_is_learned_even_where_the_template_never_writes_one() -> None:
    for answer in (Message("assistant", THOUGHT), Message("assistant", "Four", reasoning="Two and two.")):
        ((whole, learned),) = texts(NEVER, Conversation((Message("user", "2+2?"), answer)))

        assert learned == "Two and two.\n</think>\n\nFour<|im_end|>"
        assert whole.endswith("<|im_start|>assistant\n<think>\n" + learned + "\n")


def test_a_run_without_reasoning_is_asked_without_an_opened_thought_and_so_is_its_export() -> None:
    conversation = talk("u 2+2?", "a Four")
    for name in (OPENED, NEVER):
        template = template_of(name, reasons=False)
        prompt = template.reply_ids(talk("u 2+2?"))

        ids, labels = template.encode(conversation)
        asked = template.tokenizer.apply_chat_template(
            as_dicts(talk("u 2+2?")),
            chat_template=template.export_template,
            add_generation_prompt=True,
            return_dict=False,
        )

        assert asked == prompt == ids[: len(prompt)]
        assert ids == template.tokenizer.apply_chat_template(as_dicts(conversation), return_dict=False)
        assert labels[len(prompt)] != IGNORE


def test_an_end_that_the_template_leaves_to_the_next_turn_is_learned() -> None:
    conversation = talk("u 2+2?", "a Four", "u Sure?", "a Quite")

    ((whole, learned),) = texts(NEXT_TURN, conversation)

    assert learned == "\nFour<|user|>\nQuite<|user|>"
    assert whole.endswith("Quite<|user|>")
    calls = Conversation((Message("user", "Weather?"), Message("assistant", "", tool_calls=[CALL])))
    assert texts(NEXT_TURN, calls)[0][1].endswith("</tool_call><|observation|>")


@pytest.mark.parametrize(
    ("name", "conversation", "part"),
    [
        ("drops a later system turn", talk("u Hi", "a Ho", "s Be kind", "u Hm", "a Hu"), r"system turns \(turn 3\)"),
        (
            "drops text beside a call",
            Conversation((Message("user", "Hi"), Message("assistant", "Let me look.", tool_calls=[CALL]))),
            r"answers \(turn 2\)",
        ),
        (
            "writes the first call only",
            Conversation((Message("user", "Hi"), Message("assistant", "", tool_calls=[CALL, OTHER_CALL]))),
            r"tool calls \(turn 2\)",
        ),
        ("requires alternation", talk("u Hi", "a Ho", "u Hm", "a Hu"), ""),
        (NEVER, Conversation((Message("user", "Hi"), Message("assistant", THOUGHT, tool_calls=[CALL]))), "reasoning"),
    ],
)
def test_what_a_template_leaves_out_in_some_places_is_refused_there(
    name: str, conversation: Conversation, part: str
) -> None:
    if not part:
        assert len(template_of(name).sequences(conversation)) == 1
        return
    with pytest.raises(DataError, match=f"leaves out .*{part}"):
        template_of(name).sequences(conversation)


def test_a_short_text_is_not_mistaken_for_the_same_letters_elsewhere() -> None:
    # "s" stands in every "assistant": only its place in the text tells that it is gone
    with pytest.raises(DataError, match="turn 3"):
        template_of("drops a later system turn").sequences(talk("u a", "a s", "s s", "u a", "a s"))


def test_a_row_that_ends_on_a_user_turn_teaches_its_last_answer() -> None:
    conversation = talk("u 2+2?", f"a {THOUGHT}", "u thanks")

    ((_, learned),) = texts(EARLIER_STRIPPED, conversation)

    assert learned == f"{THOUGHT}<|im_end|>"
    assert template_of(EARLIER_STRIPPED).sequences(conversation, "last_answer") == template_of(
        EARLIER_STRIPPED
    ).sequences(Conversation(conversation.messages[:2]))


def test_the_date_is_the_one_given_and_stays_in_the_template() -> None:
    name = "writes today's date"
    template = template_of(name)

    assert "Today is 03 Feb 2024." in template.tokenizer.decode(template.reply_ids(talk("u Hi")))
    assert template.date == "2024-02-03"
    tokenizer = family_tokenizer("chatml")
    tokenizer.chat_template, own = template.source, tokenizer.chat_template
    try:
        assert ChatTemplate(tokenizer).date == "2024-02-03"  # what is kept with a run
        assert ChatTemplate(tokenizer, day=date(2025, 1, 1)).date == "2025-01-01"
    finally:
        tokenizer.chat_template = own
    assert template.export_template == TEMPLATES[name]  # served, it writes the day again
    assert template_of("chatml").date is None


def test_a_template_that_takes_arguments_as_json_text_only_gets_them_so() -> None:
    conversation = Conversation((Message("user", "Weather?"), Message("assistant", "", tool_calls=[CALL])))

    ((_, learned),) = texts("glues text to the arguments", conversation)

    assert learned == '<tool_call>weather\n{"place": "Bern"}</tool_call><|im_end|>'


# --- any conversation through any template

WORDS = "lamp boat Bern 12 a s </think> <|im_end|> {x} naïve 你好 \U0001f600 <b>bold</b> [INST] /no_think zqv".split()
WORDS += ["\n", "two\n\nlines", '"quoted"', "it's", "\\n", "\ue000"]
NAMES = list(TEMPLATES)


def random_text(random: random.Random) -> str:
    return " ".join(random.choice(WORDS) for _ in range(random.randint(1, 5))).strip() or "x"


def random_record(random: random.Random) -> dict[str, Any]:
    """A conversation in a legal order, with reasoning in the content or apart, calls, results and system turns."""
    turns: list[dict[str, Any]] = []
    if random.random() < 0.3:
        turns.append({"role": "system", "content": random_text(random)})
    for _ in range(random.randint(1, 3)):
        turns.append({"role": "user", "content": random_text(random)})
        if random.random() < 0.25:
            called = [
                {"name": "look" + str(k), "arguments": {"place": random_text(random), "n": k}}
                for k in range(random.randint(1, 2))
            ]
            beside = random_text(random) if random.random() < 0.3 else ""
            turns.append({"role": "assistant", "content": beside, "tool_calls": called})
            turns += [{"role": "tool", "content": random_text(random)} for _ in called]
        answer: dict[str, Any] = {"role": "assistant", "content": random_text(random).replace("</think>", "mark")}
        kind = random.random()
        if kind < 0.2:
            answer["reasoning_content"] = random_text(random).replace("</think>", "mark")
        elif kind < 0.4:
            answer["content"] = (
                f"<think>\n{random_text(random).replace('</think>', 'mark')}\n</think>\n\n" + answer["content"]
            )
        turns.append(answer)
        if random.random() < 0.1:
            turns.append({"role": "system", "content": random_text(random)})
    if random.random() < 0.15:
        turns.append({"role": "user", "content": random_text(random)})
    return {"messages": turns}


def forms(text: str) -> Iterator[str]:
    yield text
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    inner = json.dumps(text, ensure_ascii=False)
    yield json.dumps(inner, ensure_ascii=False)[1:-1]


def holds(whole: str, text: str) -> bool:
    return any(form in whole for form in forms(text.strip()))


def check_record(name: str, record: dict[str, Any]) -> bool:
    """Whether the record was taken; whatever is taken is there, and learned once."""
    template = template_of(name)
    conversation = to_conversation(record, "messages")
    assert isinstance(conversation, Conversation)
    tails = template.tails_left_out
    try:
        sequences = template.sequences(conversation)
    except DataError as fault:
        assert str(fault)
        return False
    decode = template.tokenizer.decode
    wholes = [str(decode(ids)) for ids, _ in sequences]
    learned = [str(decode([label for label in labels if label != IGNORE])) for _, labels in sequences]
    private = {letter for letter in "".join(wholes) if "\ue000" <= letter <= "\uf8ff"}
    assert not private - set(json.dumps(record, ensure_ascii=False))
    kept = conversation.messages
    if template.tails_left_out > tails:  # counted, and told in the notes of a run
        kept = kept[: (conversation.last_assistant_turn() or 0) + 1]
    for message in kept:
        for text in (*re.split(r"</?think>", message.content), message.reasoning):
            places = learned if message.role == "assistant" else wholes[-1:]
            assert not text.strip() or any(holds(place, text) for place in places), (name, message, wholes)
        for call in message.tool_calls or []:
            assert any(holds(place, call["function"]["arguments"]["place"]) for place in learned)
    ends = set(template.stop_ids)
    for ids, labels in sequences:
        stretch = [label for label in labels if label != IGNORE]
        assert stretch and stretch[-1] in ends
        assert all(label in (IGNORE, token) for token, label in zip(ids, labels, strict=True))
    answers = [m for m in conversation.messages if m.role == "assistant"]
    assert sum(label in ends for _, labels in sequences for label in labels) >= len(answers)
    return True


def run_fuzz(count: int, seed: int) -> dict[str, tuple[int, int]]:
    """Of each template, how many of `count` records were taken and how many were refused."""
    source = random.Random(seed)
    records = [random_record(source) for _ in range(count)]
    taken = {name: sum(check_record(name, record) for record in records) for name in NAMES}
    return {name: (n, count - n) for name, n in taken.items()}


def test_a_few_random_conversations_reach_the_model_whole_or_are_refused() -> None:
    taken = run_fuzz(12, seed=1)

    assert set(taken) == set(TEMPLATES)
    assert taken["chatml"][0] > 6


@pytest.mark.slow
def test_two_thousand_random_conversations_reach_the_model_whole_or_are_refused() -> None:
    taken = run_fuzz(2000, seed=0)

    print(taken)
    assert len(taken) >= 15
    assert all(n > 0 for n, _ in taken.values())


def test_a_few_rows_that_the_template_cannot_take_are_left_out_on_request_and_named() -> None:
    # Given 2 of 300 rows with a call too many, both in the small split
    good = [
        {"messages": [{"role": "user", "content": f"Q{n}"}, {"role": "assistant", "content": "A"}]} for n in range(300)
    ]
    calls = [{"name": "look", "arguments": {"n": "one"}}, {"name": "look", "arguments": {"n": "two"}}]
    bad = {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "", "tool_calls": calls}]}
    task = Instruction(format="messages")
    task.set_tokenizer(family_tokenizer("writes the first call only"), None)
    train, small = Split(good[:280]), Split([*good[280:298], bad, bad], [f"f line {n}" for n in range(1, 21)])
    splits = DataSplits({"train": train, "validation": small}, {}, [])

    encoded = encode_splits(splits, task, task.tokenizer, 1.0, skip_bad=True)

    assert len(encoded.examples["validation"]) == 18
    assert [note[:18] for note in encoded.notes[:2]] == ["skipped: f line 19", "skipped: f line 20"]
    assert all("tool calls (turn 2)" in note for note in encoded.notes[:2])
    with pytest.raises(DataError, match="2 unusable records"):
        encode_splits(splits, task, task.tokenizer, 1.0)
    few = DataSplits({"train": Split(good[:100]), "validation": small}, {}, [])
    with pytest.raises(DataError, match="2 unusable records of 120, and data.on_bad=skip stops above 1%"):
        encode_splits(few, task, task.tokenizer, 1.0, skip_bad=True)


def test_a_row_of_several_sequences_is_predicted_once() -> None:
    task = Instruction(format="messages")
    task.set_tokenizer(family_tokenizer(EARLIER_STRIPPED), None)
    turns = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": THOUGHT}]

    examples = task.encode_all({"messages": turns * 2}, 7)
    micro = task.collate(examples)

    assert [example.predicts for example in examples] == [False, True]
    assert micro.row_indices.tolist() == [7, 7] and micro.predicted_rows() == [7]
    with pytest.raises(DataError, match="2 sequences and not one"):
        task.encode({"messages": turns * 2}, 7)

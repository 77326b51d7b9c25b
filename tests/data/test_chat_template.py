"""The prompt of a model, the tokens it learns, and that it learns to stop: for every template and tokenizer at hand."""

import json
import re
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from support.paths import ROOT
from tunelab.data.chat_template import ChatTemplate
from tunelab.data.conversation import ROLES, Conversation, Message
from tunelab.data.examples import IGNORE
from tunelab.data.formats import detect_format, to_conversation
from tunelab.data.template_rendering import SHIPPED_TEMPLATES
from tunelab.errors import ConfigError, DataError

SHARED = ROOT / "../shared"
LINES = ["user:\nHow many birds?\n\nassistant:\nTwo birds  sit there.\n", "def f(x):\n    return {'a': 1}\n"] * 5
LINES += [
    "A: Alpha it is. A: Alpha it is",
    "one\n\n\n    two\n\n\n    three",
] * 5  # joins space with word, newlines too
KINDS = ["begins", "no_begin", "one_for_all", "markers"]
NATIVE_CHATML = (  # as model makers ship it: no generation block, a newline after the end marker
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WITHOUT_END = (
    "{% for m in messages %}{{ m.role + ':\n' + m.content + '\n' }}{% endfor %}"
    "{{ 'assistant:\n' if add_generation_prompt }}"
)


@cache
def tokenizer_of(kind: str, template: str | None = None) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most 400 entries.

    "begins": a begin token before every text.  "no_begin": none, and the pad token is the end token.
    "one_for_all": begin, end and pad are one token that no text begins with, as in GPT-2.
    "markers": has the ChatML markers, and an end-of-text token besides.
    """
    specials = {
        "begins": ["<s>", "</s>"],
        "no_begin": ["<|endoftext|>"],
        "one_for_all": ["<|endoftext|>"],
        "markers": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    }[kind]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        LINES, trainers.BpeTrainer(vocab_size=400, special_tokens=specials, initial_alphabet=alphabet)
    )
    names: dict[str, Any] = {"eos_token": "</s>" if kind == "begins" else "<|endoftext|>"}
    if kind == "begins":
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
        names["bos_token"] = "<s>"
    if kind == "no_begin":
        names["pad_token"] = "<|endoftext|>"
    if kind == "one_for_all":
        names |= {"bos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **names)
    tokenizer.chat_template = template
    return tokenizer


@cache
def stories() -> Any:
    if not (SHARED / "models/stories260K").exists():
        pytest.skip("stories260K is not beside the checkout")
    return AutoTokenizer.from_pretrained(SHARED / "models/stories260K")


def tokenizer_named(kind: str) -> Any:
    return stories() if kind == "stories" else tokenizer_of(kind)


def talk(*turns: str, tools: list[dict[str, Any]] | None = None) -> Conversation:
    """`u` user, `a` assistant, `s` system, `t` tool, `x` an assistant turn that is not learned."""
    roles = {"u": "user", "a": "assistant", "s": "system", "t": "tool", "x": "assistant"}
    return Conversation(tuple(Message(roles[turn[0]], turn[2:], turn[0] != "x") for turn in turns), tools)


def learned_text(template: ChatTemplate, conversation: Conversation, train_on: str = "answers") -> str:
    _, labels = template.encode(conversation, train_on)
    return str(template.tokenizer.decode([label for label in labels if label != IGNORE]))


def learned_of(template: ChatTemplate, labels: list[int]) -> str:
    return str(template.tokenizer.decode([label for label in labels if label != IGNORE]))


def ending(template: ChatTemplate) -> str:
    """The end-of-turn token that a supervised answer ends with."""
    _, labels = template.encode(talk("u Hi", "a Ho"))
    return str(template.tokenizer.decode([label for label in labels if label != IGNORE][-1:]))


CALL = {"type": "function", "function": {"name": "weather", "arguments": {"place": "Bern"}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Look", "parameters": {"type": "object"}}}
TALKS = {
    "one turn": (talk("u How many?", "a Two birds"), ["Two birds"]),
    "two turns": (talk("u How many?", "a Two", "u Sure?", "a Yes, two."), ["Two", "Yes, two."]),
    "three turns": (talk("u a", "a b", "u c", "a d\n\ne", "u f", "a g"), ["b", "d\n\ne", "g"]),
    "system": (talk("s Be brief", "u How many?", "a Two"), ["Two"]),
    "tool": (
        Conversation(
            (
                Message("user", "Weather?"),
                Message("assistant", "", tool_calls=[CALL]),
                Message("tool", "sun"),
                Message("assistant", "Sunny"),
            ),
            [TOOL],
        ),
        ['<tool_call>{"name": "weather", "arguments": {"place": "Bern"}}</tool_call>', "Sunny"],
    ),
    "empty thought": (talk("u Hi", "a <think>\n\n</think>\n\nHo"), ["<think>\n\n</think>\n\nHo"]),
    "no question": (talk("a Hello, how can I help?"), ["Hello, how can I help?"]),
}
every_template = pytest.mark.parametrize("name", SHIPPED_TEMPLATES)
every_tokenizer = pytest.mark.parametrize("kind", [*KINDS, "stories"])


@every_template
@every_tokenizer
@pytest.mark.parametrize("case", TALKS)
def test_what_is_learned_is_every_answer_and_its_end(name: str, kind: str, case: str) -> None:
    template = ChatTemplate(tokenizer_named(kind), name)
    conversation, answers = TALKS[case]
    end = ending(template)

    text = learned_text(template, conversation)

    assert template.tokenizer.convert_tokens_to_ids(end) in template.stop_ids
    assert text == "".join(answer + end for answer in answers)


@every_template
@every_tokenizer
@pytest.mark.parametrize("case", TALKS)
def test_ids_are_the_encoding_of_the_whole_text_and_start_with_the_prompt(name: str, kind: str, case: str) -> None:
    tokenizer = tokenizer_named(kind)
    template = ChatTemplate(tokenizer, name)
    conversation, _ = TALKS[case]
    turns = [
        {"role": m.role, "content": m.content} | ({"tool_calls": m.tool_calls} if m.tool_calls else {})
        for m in conversation.messages
    ]

    ids, labels = template.encode(conversation)
    prompt = template.prompt_ids(conversation)

    # transformers, given the template that is exported, makes the same ids for training and for asking
    options = {"chat_template": template.export_template, "tools": conversation.tools, "return_dict": False}
    assert ids == tokenizer.apply_chat_template(turns, **options)
    assert (
        prompt == tokenizer.apply_chat_template(turns[:-1], add_generation_prompt=True, **options)
        if turns[:-1]
        else True
    )
    assert ids[: len(prompt)] == prompt
    assert len(ids) == len(labels)
    assert labels[len(prompt)] != IGNORE


@every_template
@every_tokenizer
def test_the_mask_is_that_of_transformers(name: str, kind: str) -> None:
    tokenizer = tokenizer_named(kind)
    template = ChatTemplate(tokenizer, name)
    conversation, _ = TALKS["two turns"]
    turns = [{"role": message.role, "content": message.content} for message in conversation.messages]

    ids, labels = template.encode(conversation)
    theirs = tokenizer.apply_chat_template(
        turns, chat_template=template.source, return_dict=True, return_assistant_tokens_mask=True
    )

    assert ids == theirs["input_ids"]
    assert [int(label != IGNORE) for label in labels] == theirs["assistant_masks"]


@every_template
@pytest.mark.parametrize(("kind", "begins"), [("begins", 1), ("stories", 1), ("no_begin", 0), ("markers", 0)])
def test_there_is_one_begin_token_or_none(name: str, kind: str, begins: int) -> None:
    tokenizer = tokenizer_named(kind)
    template = ChatTemplate(tokenizer, name)
    conversation = talk("u What does <s> mean?", "a <s> begins a text")

    sequences = [
        template.encode(conversation)[0],
        template.prompt_ids(conversation),
        template.encode("<s> in a text")[0],
    ]

    for ids in sequences:
        assert ids.count(tokenizer.bos_token_id) == begins
        assert begins == 0 or ids[0] == tokenizer.bos_token_id
        assert "<s>" in tokenizer.decode(ids[begins:])  # the written-out token is still there, as text


def test_a_begin_token_that_the_template_leaves_to_the_tokenizer_is_written_by_the_exported_one() -> None:
    # rendering a template and encoding without special tokens would lose it
    tokenizer = tokenizer_of(
        "begins",
        "{% for m in messages %}{{ m.role + ':\n' + m.content }}{% if m.role == 'assistant' "
        "%}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}{{ 'assistant:\n' if add_generation_prompt }}",
    )
    template = ChatTemplate(tokenizer)
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]

    ids, _ = template.encode(talk("u Hi", "a Ho"))

    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids == tokenizer.apply_chat_template(turns, chat_template=template.export_template, return_dict=False)


def test_two_begin_tokens_are_refused() -> None:
    template = "{{ bos_token }}<s>{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"

    with pytest.raises(ConfigError, match="two begin tokens"):
        ChatTemplate(tokenizer_of("begins", template))


def test_begin_end_and_pad_in_one_token_still_give_one_learned_end() -> None:
    template = ChatTemplate(tokenizer_of("one_for_all"), "plain")

    ids, labels = template.encode(talk("u Hi", "a Ho"))

    assert template.bos is None
    assert ids.count(template.tokenizer.eos_token_id) == 1
    assert labels[-1] == template.tokenizer.eos_token_id


@every_template
@pytest.mark.parametrize("kind", ["begins", "stories"])
def test_an_end_token_written_out_in_a_message_ends_nothing(name: str, kind: str) -> None:
    template = ChatTemplate(tokenizer_named(kind), name)

    ids, labels = template.encode(talk("u What is </s>?", "a </s> ends a text."))
    learned = [label for label in labels if label != IGNORE]

    assert template.tokenizer.decode(learned) == "</s> ends a text.</s>"
    assert [token in template.stop_ids for token in learned] == [False] * (len(learned) - 1) + [True]
    assert template.prompt_ids(talk("u What is </s>?", "a No")) == ids[: labels.index(learned[0])]


def test_markers_are_tokens_where_the_vocabulary_has_them_and_else_the_end_of_sequence_ends_a_turn() -> None:
    native, plain = tokenizer_of("markers"), tokenizer_of("no_begin")

    assert ending(ChatTemplate(native, "chatml")) == "<|im_end|>"
    assert ChatTemplate(native, "chatml").stop_ids == sorted(
        native.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    )
    assert ending(ChatTemplate(plain, "chatml")) == "<|endoftext|>"
    assert ending(ChatTemplate(native, "llama3")) == "<|endoftext|>"


def test_the_newline_after_an_end_marker_is_not_learned() -> None:
    template = ChatTemplate(tokenizer_of("markers"), "chatml")

    ids, labels = template.encode(talk("u Hi", "a Ho"))

    assert template.tokenizer.decode(ids[-1:]) == "\n"
    assert labels[-1] == IGNORE
    assert labels[-2] == template.tokenizer.convert_tokens_to_ids("<|im_end|>")


@pytest.mark.parametrize("case", ["one turn", "two turns", "three turns", "system", "empty thought"])
def test_a_template_without_generation_blocks_learns_the_same_as_one_with(case: str) -> None:
    conversation, answers = TALKS[case]
    without = ChatTemplate(tokenizer_of("markers", NATIVE_CHATML))

    assert without.origin == "the tokenizer's own chat template"
    assert "difference" in without.describe()[2]
    assert without.encode(conversation) == ChatTemplate(tokenizer_of("markers"), "chatml").encode(conversation)
    assert learned_text(without, conversation) == "".join(answer + "<|im_end|>" for answer in answers)


def blocks_around(inside: str, after: str) -> str:
    return (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}{% generation %}"
        + inside
        + "{% endgeneration %}"
        + after
        + "{% else %}{{ m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
        "{{ '<|im_start|>assistant\n' if add_generation_prompt }}"
    )


@pytest.mark.parametrize(
    ("inside", "after"),
    [
        ("{{ m.content }}", "{{ '<|im_end|>\n' }}"),
        ("{{ m.content }}", "{{ '\n<|im_end|>\n' }}"),
        ("{{ m.content + '<|im_end|>\n' }}", ""),
        ("{{ m.content + '<|im_end|>' }}", "{{ '\n' }}"),
    ],
)
def test_learning_reaches_the_end_marker_and_no_further_wherever_the_block_ends(inside: str, after: str) -> None:
    template = ChatTemplate(tokenizer_of("markers", blocks_around(inside, after)))

    learned = learned_text(template, talk("u Hi", "a Ho", "u Hi", "a Hu"))

    assert re.sub(r"\n", "", learned) == "Ho<|im_end|>Hu<|im_end|>"
    assert learned.endswith("<|im_end|>")


def test_a_block_that_starts_before_the_answer_is_not_trusted() -> None:
    # a header inside the block would be learned, though a model is always given it
    header = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}"
        "{{ '<|im_start|>assistant\n' + m.content + '<|im_end|>' }}{% endgeneration %}"
    )
    rest = (
        "{% else %}{{ '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}{% endif %}"
        "{% endfor %}{{ '<|im_start|>assistant\n' if add_generation_prompt }}"
    )

    template = ChatTemplate(tokenizer_of("markers", header + rest))

    assert learned_text(template, talk("u Hi", "a Ho")) == "Ho<|im_end|>"


def test_a_template_that_never_ends_an_answer_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="no model would learn to stop"):
        ChatTemplate(tokenizer_of("no_begin", WITHOUT_END))


def test_ordinary_text_does_not_count_as_an_end() -> None:
    with pytest.raises(ConfigError, match="followed by '#.*not by a control token"):
        ChatTemplate(tokenizer_of("no_begin", WITHOUT_END.replace("m.content + '", "m.content + '###")))


def test_blank_lines_after_an_end_token_do_not_hide_the_end() -> None:
    # byte-level tokenizers cut "\n\n" and "\n\nuser" in different places
    spaced = (
        "{% for m in messages %}{{ m.role + ':\n' + m.content + (eos_token if m.role == 'assistant' else '') }}"
        "{{ '\n\n' }}{% endfor %}{{ 'assistant:\n' if add_generation_prompt }}"
    )

    template = ChatTemplate(tokenizer_of("no_begin", spaced))

    assert learned_text(template, talk("u Hi", "a Ho", "u Hi", "a Hu")) == "Ho<|endoftext|>Hu<|endoftext|>"


@every_template
def test_blanks_around_an_answer_are_not_learned(name: str) -> None:
    template = ChatTemplate(tokenizer_of("begins"), name)

    assert learned_text(template, talk("u Hi", "a \n\n    Ho \n", "u Hi", "a  Hu")) == "Ho</s>Hu</s>"


def test_an_end_only_after_the_last_answer_is_found_out_in_longer_talks() -> None:
    only_last = (
        "{% for m in messages %}{{ m.role + ':\n' + m.content }}"
        "{{ eos_token if loop.last and m.role == 'assistant' else '\n' }}"
        "{% endfor %}{{ 'assistant:\n' if add_generation_prompt }}"
    )
    template = ChatTemplate(tokenizer_of("no_begin", only_last))
    longer = talk("u Hi", "a Ho", "u Hi", "a Hu")

    assert learned_text(template, talk("u Hi", "a Ho")) == "Ho<|endoftext|>"
    assert learned_text(template, longer, "last_answer") == "Hu<|endoftext|>"
    with pytest.raises(DataError, match="last_answer"):
        template.encode(longer)


def test_an_answer_whose_end_comes_only_while_it_is_the_last_is_learned_in_a_text_of_its_own() -> None:
    # Given a template that says what is learned, and closes the last answer only
    only_last = (
        "{% for m in messages %}{{ m.role + ':\n' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
        "{% endgeneration %}{{ eos_token if loop.last else '\n' }}{% else %}{{ m.content + '\n' }}{% endif %}"
        "{% endfor %}{{ 'assistant:\n' if add_generation_prompt }}"
    )
    template = ChatTemplate(tokenizer_of("no_begin", only_last))

    sequences = template.sequences(talk("u Hi", "a Ho", "u Hi", "a Hu"))

    assert learned_text(template, talk("u Hi", "a Ho")) == "Ho<|endoftext|>"
    assert [learned_of(template, labels) for _, labels in sequences] == ["Ho<|endoftext|>", "Hu<|endoftext|>"]


def test_a_prompt_that_melts_into_its_answer_is_refused_with_both_readings() -> None:
    # "A:" and " Alpha" would be stable; "A: " and "Alpha" are not, as byte-level tokenizers join a space with its word
    melting = (
        "{% for m in messages %}{{ ('Q: ' if m.role == 'user' else 'A: ') + m.content + eos_token }}{% endfor %}"
        "{{ 'A: ' if add_generation_prompt }}"
    )

    with pytest.raises(ConfigError, match="no token prefix of the whole"):
        ChatTemplate(tokenizer_of("no_begin", melting))


def test_an_answer_that_starts_with_a_newline_is_refused_where_it_would_melt() -> None:
    own = ChatTemplate(tokenizer_of("markers", NATIVE_CHATML))

    with pytest.raises(DataError, match="no token prefix"):
        own.encode(talk("u Hi", "a \n\n    indented"))
    assert learned_text(ChatTemplate(tokenizer_of("markers"), "chatml"), talk("u Hi", "a \n\nHo ")) == "Ho<|im_end|>"


def test_a_template_that_rewrites_the_past_is_refused_for_all_but_the_last_answer() -> None:
    forgetful = (  # thoughts of earlier turns are taken out, as reasoning models do
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{{ m.content if loop.last or m.role == 'user' else m.content.split('</think>')[-1] }}{{ '<|im_end|>\n' }}"
        "{% endfor %}{{ '<|im_start|>assistant\n' if add_generation_prompt }}"
    )
    template = ChatTemplate(tokenizer_of("markers", forgetful))
    conversation = talk("u Hi", "a <think>hm</think>Ho", "u Hi", "a <think>hm</think>Hu")

    with pytest.raises(DataError, match="differently once the turn is there"):
        template.encode(conversation)
    assert learned_text(template, conversation, "last_answer") == "<think>hm</think>Hu<|im_end|>"


@pytest.mark.parametrize(
    ("conversation", "part"),
    [
        (talk("s Be brief", "u Hi", "a Ho"), "system turns"),
        (talk("u Hi", "a Ho", tools=[TOOL]), "tools"),
        (TALKS["tool"][0], "tools"),
        (talk("u Hi", "a Ho", "t sun", "a Sunny"), "tool turns"),
    ],
)
def test_parts_that_a_template_leaves_out_in_silence_are_refused(conversation: Conversation, part: str) -> None:
    deaf = (
        "{% for m in messages if m.role in ('user', 'assistant') %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
        "{{ '<|im_end|>' }}{% endfor %}{{ '<|im_start|>assistant\n' if add_generation_prompt }}"
    )

    with pytest.raises(DataError, match=f"leaves out {part}"):
        ChatTemplate(tokenizer_of("markers", deaf)).encode(conversation)


def test_a_template_that_refuses_a_turn_is_quoted() -> None:
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + NATIVE_CHATML

    with pytest.raises(DataError, match="no system here"):
        ChatTemplate(tokenizer_of("markers", strict)).encode(talk("s Be brief", "u Hi", "a Ho"))


def test_turns_marked_as_not_learned_are_not() -> None:
    template = ChatTemplate(tokenizer_of("begins"), "plain")
    conversation = talk("u Hi", "x Wrong", "u Hm?", "a Right")

    assert learned_text(template, conversation) == "Right</s>"
    assert "Wrong" not in learned_text(template, conversation, "all")
    assert "Hm?" in learned_text(template, conversation, "all")
    with pytest.raises(DataError, match="no assistant turn is learned"):
        template.encode(talk("u Hi", "a Ho", "u Hm?", "x Wrong"), "last_answer")


def test_the_last_answer_alone_can_be_learned() -> None:
    template = ChatTemplate(tokenizer_of("begins"), "plain")

    assert learned_text(template, TALKS["three turns"][0], "last_answer") == "g</s>"


@every_tokenizer
def test_a_text_is_learned_whole_between_its_begin_and_its_end(kind: str) -> None:
    tokenizer = tokenizer_named(kind)
    template = ChatTemplate(tokenizer, "plain")

    ids, labels = template.encode("Once upon a time")

    assert ids == labels
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "Once upon a time"
    with pytest.raises(DataError, match="empty"):
        template.encode(" ")


def test_the_reference_is_the_last_answer() -> None:
    template = ChatTemplate(tokenizer_of("begins"), "plain")

    assert template.reference_answer(talk("u Hi", "a Ho", "u Hi", "a  Hu\n")) == "Hu"
    calls = Conversation(TALKS["tool"][0].messages[:2], [TOOL])
    assert template.reference_answer(calls) == TALKS["tool"][1][0]
    with pytest.raises(DataError, match="no assistant turn"):
        template.reference_answer(talk("u Hi"))


def test_a_reply_can_be_asked_for_whoever_spoke_last() -> None:
    template = ChatTemplate(tokenizer_of("begins"), "plain")
    asked = talk("u Hi", "a Ho", "u Why?")

    assert template.tokenizer.decode(template.reply_ids(asked)).endswith("user:\nWhy?\nassistant:\n")
    assert template.prompt_ids(asked) == template.reply_ids(talk("u Hi"))


@pytest.mark.parametrize(
    "file", ["toolcall/glaive_toolcall_zh.json", "oasst/messages.jsonl", "crosswoz/messages.jsonl"]
)
@every_template
def test_real_conversations_are_learned_answer_by_answer(file: str, name: str) -> None:
    path = SHARED / "data" / file
    if not path.exists():
        pytest.skip(f"{file} is not beside the checkout")
    text = path.read_text(encoding="utf-8")
    rows = json.loads(text) if file.endswith(".json") else [json.loads(line) for line in text.split("\n") if line]
    template = ChatTemplate(stories(), name)

    for row in rows[:15]:
        conversation = to_conversation(row, detect_format(list(row)))
        assert isinstance(conversation, Conversation)
        ids, _ = template.encode(conversation)
        prompt = template.prompt_ids(conversation)
        said = [m.content.strip() for m in conversation.messages if m.role == "assistant" and not m.tool_calls]
        learned = [part.strip() for part in learned_text(template, conversation).split("</s>")[:-1]]

        assert ids[: len(prompt)] == prompt
        assert [part for part in learned if not part.startswith("<tool_call>")] == said
        assert len(learned) == sum(m.role == "assistant" for m in conversation.messages)


@every_template
def test_the_exported_template_has_no_tags_and_writes_the_same(name: str) -> None:
    template = ChatTemplate(tokenizer_of("markers"), name)
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]

    written = [
        template.tokenizer.apply_chat_template(turns, chat_template=source, tokenize=False)
        for source in (template.source, template.export_template)
    ]

    assert "{%- generation" in template.source
    assert "generation %}" not in template.export_template
    assert written[0] == written[1]


def test_without_a_template_of_its_own_a_tokenizer_gets_the_plain_one_and_is_told_so() -> None:
    assert ChatTemplate(tokenizer_of("begins")).origin == "the template 'plain': the tokenizer has none of its own"
    assert ChatTemplate(tokenizer_of("markers", NATIVE_CHATML), "plain").origin == "the template 'plain'"


def test_a_template_can_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text(NATIVE_CHATML, encoding="utf-8")

    template = ChatTemplate(tokenizer_of("markers"), str(file))

    assert str(file) in template.origin
    assert learned_text(template, talk("u Hi", "a Ho")) == "Ho<|im_end|>"


@pytest.mark.parametrize("name", ["chatmel", "missing.jinja", ""])
def test_an_unknown_template_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match="known: auto, chatml, llama3, alpaca, plain"):
        ChatTemplate(tokenizer_of("begins"), name)


def test_a_template_that_is_not_jinja_is_a_config_error(tmp_path: Path) -> None:
    file = tmp_path / "broken.jinja"
    file.write_text("{% for m in messages %}", encoding="utf-8")

    with pytest.raises(ConfigError, match=r"broken\.jinja cannot be used.*TemplateSyntaxError"):
        ChatTemplate(tokenizer_of("begins"), str(file))


def test_a_tokenizer_without_an_end_is_refused() -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))

    with pytest.raises(ConfigError, match="never stops"):
        ChatTemplate(tokenizer, "plain")


def test_broken_unicode_is_a_data_error() -> None:
    with pytest.raises(DataError, match="not valid Unicode"):
        ChatTemplate(tokenizer_of("begins"), "plain").encode(talk("u \ud800", "a Ho"))


texts = st.text(st.sampled_from("ab \n\t</s>|{}%\u00e4\u00a0\u3000\U0001f600\ue000"), max_size=12)
calls = st.none() | st.just([CALL])
messages = st.builds(Message, st.sampled_from(ROLES), texts, st.booleans(), calls)
conversations = st.builds(Conversation, st.lists(messages, max_size=5).map(tuple), st.none() | st.just([TOOL]))


@every_template
@pytest.mark.parametrize("kind", ["begins", "markers"])
@settings(max_examples=40, deadline=None)
@given(conversation=conversations, train_on=st.sampled_from(["answers", "last_answer", "all"]))
def test_any_conversation_keeps_every_promise_or_is_refused_in_words(
    name: str, kind: str, conversation: Conversation, train_on: str
) -> None:
    template = template_of(kind, name)
    try:
        ids, labels = template.encode(conversation, train_on)
        prompt = template.prompt_ids(conversation)
    except DataError as fault:
        assert "no assistant turn is learned" in str(fault)
        return
    answers = [message for message in conversation.messages if message.role == "assistant"]
    assert ids[: len(prompt)] == prompt
    assert all(label in (token, IGNORE) for token, label in zip(ids, labels, strict=True))
    assert template.bos is None or ids.count(template.bos) == 1
    if train_on != "all":
        learned = [label for label in labels if label != IGNORE]
        wanted = [answer for answer in (answers if train_on == "answers" else answers[-1:]) if answer.train]
        assert sum(label in template.stop_ids for label in learned) == len(wanted)
        assert learned[-1] in template.stop_ids


@cache
def template_of(kind: str, name: str) -> ChatTemplate:
    return ChatTemplate(tokenizer_of(kind), name)


def test_four_thousand_records_take_seconds() -> None:
    template = ChatTemplate(tokenizer_of("begins"), "plain")
    conversation = talk("u How many birds sit there? " * 5, "a Two birds sit there. " * 10)

    start = time.process_time()
    for _ in range(400):
        template.encode(conversation)

    assert (time.process_time() - start) * 10 < 20  # seconds of one slow core; 2 to 4 are usual

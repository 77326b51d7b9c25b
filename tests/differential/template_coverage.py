"""Chat templates of today's families, from TRL's package, beside ours: a table of what is equal and what is not.

`cd tests && python -m differential.template_coverage` writes it into `docs/correctness.md`.  No text of a template is
kept.
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from support.paths import ROOT
from support.template_families import without_begin_token
from tunelab.config.resource_paths import resolve_path
from tunelab.data.chat_template import ChatTemplate
from tunelab.data.conversation import Conversation, Message
from tunelab.data.examples import IGNORE
from tunelab.errors import DataError

FAMILIES: Final = {  # a template of TRL: the family as people know it
    "qwen2_5": "Qwen2.5",
    "qwen3": "Qwen3",
    "qwen3_training": "Qwen3, marked by TRL",
    "qwen3_instruct_2507": "Qwen3 Instruct 2507",
    "qwen3_5_think": "Qwen3.5, thinking",
    "qwen3_5_nothink": "Qwen3.5, not thinking",
    "qwen3_6": "Qwen3.6",
    "qwen3_6_training": "Qwen3.6, marked by TRL",
    "nemotron_3_nano": "Nemotron 3 Nano",
    "nemotron_3_ultra": "Nemotron 3 Ultra",
    "deepseekv3": "DeepSeek V3",
    "deepseek_r1_distill": "DeepSeek R1 distilled",
    "glm4moe": "GLM 4.5",
    "gptoss": "gpt-oss",
    "lfm2": "LFM2",
    "lfm2_2_5": "LFM2.5",
    "gemma": "Gemma, Gemma 2",
    "gemma3": "Gemma 3",
    "llama3": "Llama 3",
    "llama3_1": "Llama 3.1",
    "llama3_2": "Llama 3.2",
    "phi3": "Phi-3",
    "cohere2": "Cohere 2",
}
TABLE_START, TABLE_END = "<!-- template coverage -->", "<!-- /template coverage -->"
CONTROL: Final = re.compile(
    r"<\|[\w▁]+\|?>|<｜[\w▁]+｜>|</?(?:think|tool_call|tool_response|start_of_turn|end_of_turn)>|<sop>|\[gMASK\]"
)
CALL: Final = {"type": "function", "function": {"name": "weather", "arguments": {"place": "Bern"}}}
TOOL: Final = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Look",
        "parameters": {"type": "object", "properties": {"place": {"type": "string", "description": "Where"}}},
    },
}


def talk(*turns: Message, tools: list[dict[str, Any]] | None = None) -> Conversation:
    return Conversation(turns, tools)


ASK, MORE = Message("user", "How many birds?"), Message("user", "Sure?")
RECORDS: Final = {
    "one answer": talk(ASK, Message("assistant", "Two birds")),
    "several answers": talk(
        Message("system", "Be brief"), ASK, Message("assistant", "Two"), MORE, Message("assistant", "Yes, two.")
    ),
    "reasoning in the content": talk(ASK, Message("assistant", "<think>\nI count.\n</think>\n\nTwo birds")),
    "reasoning_content": talk(ASK, Message("assistant", "Two birds", reasoning="I count.")),
    "several with reasoning": talk(
        ASK,
        Message("assistant", "<think>\nI count.\n</think>\n\nTwo"),
        MORE,
        Message("assistant", "<think>\nAgain.\n</think>\n\nYes"),
    ),
    "call and result": talk(
        Message("user", "Weather?"),
        Message("assistant", "", tool_calls=[CALL]),
        Message("tool", "sun"),
        Message("assistant", "Sunny"),
        tools=[TOOL],
    ),
    "text beside a call": talk(
        Message("user", "Weather?"),
        Message("assistant", "Let me look.", tool_calls=[CALL]),
        Message("tool", "sun"),
        Message("assistant", "Sunny"),
        tools=[TOOL],
    ),
}


@dataclass(frozen=True)
class Outcome:
    """One record through one template.

    Attributes:
        sequences: How many it gives here; 0 where it is refused.
        known_to_trl: Whether TRL's marked template takes the record, and shows all of it.
        ids_equal: Whether ids are those of TRL; of one sequence.
        mask_equal: Whether the same tokens are learned.
        mask_explained: Whether we leave out blanks after an end, or what the prompt gives, and learn nothing else.
        reason: Why it is refused.
    """

    sequences: int
    known_to_trl: bool = False
    ids_equal: bool = False
    mask_equal: bool = False
    mask_explained: bool = False
    reason: str = ""


def template_folder() -> Path | None:
    """The folder of TRL's templates; None where TRL is not installed."""
    found = find_spec("trl")
    folder = Path(found.origin).parent / "chat_templates" if found and found.origin else None
    return folder if folder and folder.is_dir() else None


@cache
def family_template(name: str) -> str:
    folder = template_folder()
    assert folder is not None
    return (folder / f"{name}.jinja").read_text(encoding="utf-8")


def family_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The built-in tokenizer with the control tokens that a template writes."""
    tokenizer: Any = AutoTokenizer.from_pretrained(resolve_path("package:tunelab.starter/model"))
    tokenizer.add_special_tokens({"extra_special_tokens": sorted(set(CONTROL.findall(source)))})
    tokenizer.chat_template = source
    if "bos_token" not in source:
        without_begin_token(tokenizer)
    return tokenizer


def compare_family(name: str) -> dict[str, Outcome]:
    """What becomes of each record in one template, ours beside TRL's."""
    source = family_template(name)
    folder = template_folder()
    assert folder is not None
    marked = folder / f"{name}_training.jinja"
    theirs = marked.read_text(encoding="utf-8") if marked.is_file() else source
    tokenizer = family_tokenizer(source)
    template = ChatTemplate(tokenizer)
    return {record: compare_record(template, theirs, RECORDS[record]) for record in RECORDS}


def compare_record(template: ChatTemplate, marked: str, conversation: Conversation) -> Outcome:
    """What becomes of one record."""
    try:
        sequences = template.sequences(conversation)
    except DataError as fault:
        return Outcome(0, reason=str(fault))
    turns = [
        {"role": m.role, "content": m.content}
        | ({"reasoning_content": m.reasoning} if m.reasoning else {})
        | ({"tool_calls": m.tool_calls} if m.tool_calls else {})
        for m in conversation.messages
    ]
    tokenizer = template.tokenizer
    encoded: Any = tokenizer.apply_chat_template(
        turns, tools=conversation.tools, chat_template=marked, return_dict=True, return_assistant_tokens_mask=True
    )
    whole = str(tokenizer.decode(encoded["input_ids"]))
    known = all(
        m.reasoning in whole and ("I count." in whole or "I count." not in m.content) for m in conversation.messages
    )
    if len(sequences) > 1:
        return Outcome(len(sequences), known)
    ids, labels = sequences[0]
    ours, mask = [int(label != IGNORE) for label in labels], encoded["assistant_masks"]
    return Outcome(
        1, known, ids == encoded["input_ids"], ours == mask, explained(template, conversation, ids, ours, mask)
    )


def explained(
    template: ChatTemplate, conversation: Conversation, ids: list[int], ours: list[int], theirs: list[int]
) -> bool:
    """Whether TRL learns besides only blanks after an end, control tokens, and words that a prompt gives."""
    if not any(theirs):  # TRL has no marked copy of this template, so nothing to compare with
        return True
    if len(ours) != len(theirs):
        return False
    given = set(template.prompt_ids(conversation)) | set(template.tokenizer.added_tokens_decoder)
    return all(
        mine == theirs[place]
        or (not mine and (ids[place] in given or not template.tokenizer.decode([ids[place]]).strip()))
        for place, mine in enumerate(ours)
    )


SIGNS: Final = (
    ("refused", lambda o: o.sequences == 0),
    ("{n} sequences", lambda o: o.sequences > 1),
    ("lost by TRL", lambda o: not o.known_to_trl),
    ("ids, mask", lambda o: o.ids_equal and o.mask_equal),
    ("ids", lambda o: o.ids_equal and o.mask_explained),
    ("differs", lambda o: True),
)


def sign(outcome: Outcome) -> str:
    """The word of a cell."""
    return next(word for word, holds in SIGNS if holds(outcome)).format(n=outcome.sequences)


def coverage_table() -> str:
    """The table, one family a line."""
    lines = ["|family | " + " | ".join(RECORDS) + " |", "|---|" + "---|" * len(RECORDS)]
    for name, words in FAMILIES.items():
        outcomes = compare_family(name)
        lines.append(f"|{words} | " + " | ".join(sign(outcomes[record]) for record in RECORDS) + " |")
    return "\n".join(lines)


def main() -> None:
    """Write the table into the page."""
    page = ROOT / "docs/correctness.md"
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(TABLE_START)
    _, _, after = rest.partition(TABLE_END)
    page.write_text(f"{before}{TABLE_START}\n{coverage_table()}\n{TABLE_END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()

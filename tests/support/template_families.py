"""Small templates of our own that do what those of today's families do, and a tokenizer with their control tokens.

Each imitates one behaviour or several: it is no copy of anyone's text.
"""

from functools import cache
from typing import Any

from tokenizers.processors import ByteLevel
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tunelab.config.resource_paths import resolve_path

MARKS = ["<|im_start|>", "<|im_end|>", "<|return|>", "<|stop|>", "<think>", "</think>", "<|call|>", "<|user|>"]
MARKS += ["<|assistant|>", "<|system|>", "<|observation|>", "<|channel|>"]

OPEN = "{{ '<|im_start|>' + m.role + '\\n' }}"
CLOSE = "{{ '<|im_end|>\\n' }}"
ASK = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
CALLS = (
    "{% for c in m.tool_calls or [] %}{{ '<tool_call>' + (c.function | tojson) + '</tool_call>' }}{% endfor %}"
)  # fmt: skip
TOOLS = "{% if tools %}{{ '<|im_start|>system\\n' + (tools | tojson) + '<|im_end|>\\n' }}{% endif %}"
EACH = "{% for m in messages %}"
LAST_USER = (
    "{% set ns = namespace(user=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.user = loop.index0 %}{% endif %}{% endfor %}"
)
TAKEN_APART = (  # the reasoning from its own key, else from before the mark in the content
    "{% set content = m.content or '' %}{% set thought = m.reasoning_content or '' %}"
    "{% if not thought and '</think>' in content %}"
    "{% set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}"
    "{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
)
THINKING_AFTER_LAST_USER = (  # every turn; the reasoning of answers behind the last question only
    LAST_USER
    + EACH
    + OPEN
    + "{% if m.role == 'assistant' %}"
    + TAKEN_APART
    + "{% if loop.index0 > ns.user %}{{ '<think>\\n' + thought + '\\n</think>\\n\\n' }}{% endif %}{{ content }}"
    + CALLS
    + "{% else %}{{ m.content }}{% endif %}"
    + CLOSE
)
TEMPLATES: dict[str, str] = {
    "chatml": TOOLS + EACH + OPEN + "{{ m.content or '' }}" + CALLS + CLOSE + "{% endfor %}" + ASK,
    "strips earlier thinking, splits on the end mark": TOOLS + THINKING_AFTER_LAST_USER + "{% endfor %}" + ASK,
    "opens a thought in its prompt": TOOLS
    + THINKING_AFTER_LAST_USER
    + "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '\\n</think>\\n\\n' }}{% endif %}{% endif %}",
    "never shows thinking, opens a thought in its prompt": EACH
    + OPEN
    + "{{ (m.content or '').split('</think>')[-1].lstrip('\\n') if m.role == 'assistant' else m.content }}"
    + CALLS
    + CLOSE
    + "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}",
    "ends the last answer otherwise": "{% if messages[0].role == 'system' %}"
    "{{ '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{% set messages = messages[1:] %}{% endif %}"
    + EACH
    + "{% if m.role == 'assistant' and m.tool_calls %}{{ '<|im_start|>assistant to=' + m.tool_calls[0].function.name + "
    "'\\n' + (m.tool_calls[0].function.arguments | tojson) + '<|call|>' }}"
    "{% elif m.role == 'assistant' %}{% if loop.last and m.reasoning_content %}"
    "{{ '<|im_start|>assistant<|channel|>analysis\\n' + m.reasoning_content + '<|im_end|>' }}{% endif %}"
    "{{ '<|im_start|>assistant<|channel|>final\\n' + m.content + ('<|return|>' if loop.last else '<|im_end|>') }}"
    "{% elif m.role == 'tool' %}{{ '<|im_start|>tool\\n' + (m.content | tojson) + '<|im_end|>' }}"
    "{% elif m.role == 'user' %}{{ '<|im_start|>user\\n' + m.content + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{{ '<|im_start|>assistant' if add_generation_prompt }}",
    "leaves the end to the next turn": TOOLS
    + EACH
    + "{{ {'user': '<|user|>', 'assistant': '<|assistant|>', 'system': '<|system|>', 'tool': '<|observation|>'}[m.role]"
    " + '\\n' + (m.content or '').strip() }}" + CALLS + "{% endfor %}{{ '<|assistant|>' if add_generation_prompt }}",
    "drops a later system turn": EACH
    + "{% if m.role != 'system' or loop.first %}"
    + OPEN
    + "{{ m.content or '' }}"
    + CALLS
    + CLOSE
    + "{% endif %}{% endfor %}"
    + ASK,
    "drops text beside a call": EACH
    + OPEN
    + "{% if m.tool_calls %}"
    + CALLS
    + "{% else %}{{ m.content }}{% endif %}"
    + CLOSE
    + "{% endfor %}"
    + ASK,
    "writes the first call only": EACH
    + OPEN
    + "{{ m.content or '' }}{% if m.tool_calls %}{{ (m.tool_calls[0].function | tojson) }}{% endif %}"
    + CLOSE
    + "{% endfor %}"
    + ASK,
    "has a system prompt of its own": "{% if messages[0].role != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    + EACH
    + OPEN
    + "{{ m.content or '' }}"
    + CALLS
    + CLOSE
    + "{% endfor %}"
    + ASK,
    "writes today's date": "{{ '<|im_start|>system\\nToday is ' + strftime_now('%d %b %Y') + '.<|im_end|>\\n' }}"
    + EACH
    + OPEN
    + "{{ m.content or '' }}"
    + CALLS
    + CLOSE
    + "{% endfor %}"
    + ASK,
    "trims": EACH + OPEN + "{{ (m.content or '') | trim }}" + CALLS + CLOSE + "{% endfor %}" + ASK,
    "requires alternation": "{% set first = messages[0].content if messages[0].role == 'system' else '' %}"
    "{% for m in (messages[1:] if first else messages) %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    + OPEN
    + "{{ (first + '\\n\\n' if first and loop.first else '') + (m.content | trim) }}"
    + CLOSE
    + "{% endfor %}"
    + ASK,
    "system into the last user turn": "{% set first = messages[0].content if messages[0].role == 'system' else '' %}"
    + LAST_USER
    + EACH
    + "{% if m.role == 'user' %}{{ '<|user|>' + (first + '\\n\\n' if first and loop.index0 == ns.user else '') }}"
    "{{ m.content + '<|assistant|>' }}{% elif m.role == 'assistant' %}{{ m.content + '<|stop|>' }}"
    "{% elif m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}{% endfor %}",
    "contents as lists of parts": EACH
    + OPEN
    + "{% for part in m.content %}{{ part.text }}{% endfor %}"
    + CALLS
    + CLOSE
    + "{% endfor %}"
    + ASK,
    "glues text to the arguments": EACH
    + OPEN
    + "{{ m.content or '' }}{% for c in m.tool_calls or [] %}{{ '<tool_call>' + c.function.name + '\\n' + "
    "c.function.arguments + '</tool_call>' }}{% endfor %}" + CLOSE + "{% endfor %}" + ASK,
    "blocks": EACH
    + OPEN
    + "{% if m.role == 'assistant' %}{% generation %}{{ m.content or '' }}"
    + CALLS
    + CLOSE
    + "{% endgeneration %}{% else %}{{ m.content }}"
    + CLOSE
    + "{% endif %}{% endfor %}"
    + ASK,
}


@cache
def family_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The built-in tokenizer with the control tokens of the families, and the template of that name."""
    tokenizer: Any = AutoTokenizer.from_pretrained(resolve_path("package:tunelab.starter/model"))
    tokenizer.add_special_tokens({"extra_special_tokens": MARKS})
    without_begin_token(tokenizer)
    tokenizer.chat_template = TEMPLATES[name]
    return tokenizer


def without_begin_token(tokenizer: Any) -> None:
    """Make a tokenizer put no begin token before a text."""
    tokenizer.backend_tokenizer.post_processor = ByteLevel(trim_offsets=False)
    tokenizer.bos_token = None

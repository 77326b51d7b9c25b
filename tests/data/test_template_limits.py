"""A chat template that would take hours or all memory is stopped in seconds, and says why."""

import time
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tunelab.config.resource_paths import resolve_path
from tunelab.data import template_limits
from tunelab.data.template_rendering import render_conversation
from tunelab.errors import ConfigError, DataError

TURNS = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    place = resolve_path("package:tunelab.starter/model")
    assert isinstance(place, Path)
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(place)
    return loaded


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' * 10000000000 }}",
        "{{ 10000000000 * 'x' }}",
        "{{ ('x' * 1000000) * 1000000 }}",
        "{{ [1] * 10000000000 }}",
        "{{ 10 ** 100000000 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ 'x' | center(1000000000) }}",
        "{{ 'x'.ljust(1000000000) }}",
        "{{ 'x' | indent(1000000000, true) }}",
        "{{ ('x' * 10000000) | replace('x', 'y' * 100) }}",
    ],
)
def test_a_step_that_makes_a_giant_is_refused_before_it_is_made(
    tokenizer: PreTrainedTokenizerBase, source: str
) -> None:
    before = template_limits.process_bytes()

    with pytest.raises(ConfigError, match="the chat template is stopped"):
        render_conversation(tokenizer, source, TURNS, None)

    assert template_limits.process_bytes() - before < 2**30


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% for i in range(9999) %}{{ f(n) if n < 0 }}{% endfor %}{% endmacro %}"
        "{% for i in range(99999) %}{{ f(i) }}{% endfor %}",
    ],
)
def test_loops_without_end_are_stopped_by_the_clock(
    tokenizer: PreTrainedTokenizerBase, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_limits, "MAX_SECONDS", 0.2)
    started = time.process_time()

    with pytest.raises(ConfigError, match="takes more than"):
        render_conversation(tokenizer, source, TURNS, None)

    assert time.process_time() - started < 3


def test_a_text_that_doubles_is_stopped_by_its_size(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_limits, "MAX_BYTES", 2**26)
    source = "{% set n = namespace(t='x' * 1000) %}{% for i in range(24) %}{% set n.t = n.t ~ n.t %}{% endfor %}"

    with pytest.raises((ConfigError, DataError)):
        render_conversation(tokenizer, source, TURNS, None)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ '-' * 5 }}{{ 2 ** 10 }}{{ '%05d' % 7 }}", "-----102400007"),
        ("{{ 'a,b' | replace(',', ';') }}{{ ['x', 'y'] | join('+') }}", "a;bx+y"),
        ("{{ 'x' | center(5) }}|{{ 'y'.rjust(3) }}|{{ '{:3}'.format(4) }}", "  x  |  y|  4"),
        ("{% for m in messages %}{{ m.content + '!' }}{% endfor %}", "hello!"),
    ],
)
def test_what_templates_do_is_as_before(tokenizer: PreTrainedTokenizerBase, source: str, text: str) -> None:
    assert render_conversation(tokenizer, source, TURNS, None).text == text

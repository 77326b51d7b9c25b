"""The tokenizer of the built-in model: byte-level BPE learned from the world's own text, and a chat template."""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

BOS, EOS, PAD, UNKNOWN = "<|begin|>", "<|end|>", "<|pad|>", "<|unknown|>"
ROLE_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>")
VOCABULARY_SIZE = 1536  # entries, special tokens included
MAX_LENGTH = 512  # tokens

# A word keeps the space before it, but the space before a capital or a digit goes to the word or mark before: so a name
# is the same piece at the start of a line, inside quotes and after a space, and can be copied from any to any other.
# A price and a time of day are one piece each.
_WORD_PATTERN = r"(?: ?\p{L}+| ?[^\s\p{L}\d]+) (?=[\p{Lu}\d])|\d+(?::\d\d)?| ?\p{L}+| ?[^\s\p{L}\d]+|\s+(?!\S)|\s+"

CHAT_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] == 'system' %}
        {{- '<|system|>' + message['content'] | trim + '<|end|>' }}
    {%- elif message['role'] == 'user' %}
        {{- '<|user|>' + message['content'] | trim + '<|end|>' }}
    {%- elif message['role'] == 'assistant' %}
        {{- '<|assistant|>' }}
        {%- generation %}
        {{- message['content'] | trim + '<|end|>' }}
        {%- endgeneration %}
    {%- else %}
        {{- raise_exception('unknown role ' + message['role'] + '; use system, user or assistant') }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>' }}
{%- endif %}
"""


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Learn the pieces of a text.

    Args:
        texts: Documents, without special tokens.

    Returns:
        A tokenizer of `VOCABULARY_SIZE` entries that can spell any text (its alphabet is the 256 bytes).  The end of an
        answer, `<|end|>`, is its end-of-text token and is never used for padding.
    """
    core = Tokenizer(models.BPE(unk_token=None))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[PAD, BOS, EOS, UNKNOWN, *ROLE_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, core.token_to_id(BOS))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        additional_special_tokens=list(ROLE_TOKENS),
        model_max_length=MAX_LENGTH,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer

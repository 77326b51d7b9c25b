"""The inputs of the benchmark: seeded models and rows, written once into a folder.

    python workloads.py FOLDER

W1, instructions: a byte-pair tokenizer, two Llama-like models (m15: 15.2 million parameters, m2: 1.8 million) and 2,000
pairs of prompt and completion each, whose token counts follow a log-normal law (median about 90, at most 512).
W2, labels: 6,400 texts of four made-up topics, for the sentence encoder MiniLM.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

SIZES = {"m15": (16000, 288, 6, 6, 768), "m2": (4000, 128, 4, 4, 352)}  # vocabulary, width, depth, heads, inner width
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]
ROWS, MEDIAN, SIGMA, LONGEST = 2000, 90, 0.8, 512
TOPICS = {
    "sport": "match goal team coach league striker final season stadium referee injury transfer keeper penalty fans",
    "money": "bank rate market bond share profit loan trader inflation budget quarter merger fund currency debt",
    "science": "cell particle orbit genome telescope theory sample enzyme quantum fossil reactor protein climate laser",
    "food": "oven salt butter recipe garlic pan flavour dough sauce simmer lemon pepper roast soup sugar",
}
GLUE = "the a of and to in that was for on with said this after new more about from has had will it one".split()
LABEL_BATCH, LABEL_STEPS = 32, 200


def make_words(chance: Any, count: int) -> Any:
    """Pronounceable words, each once."""
    import numpy as np

    consonants, vowels = list("bcdfghjklmnprstvwz"), list("aeiou")
    words = dict[str, None]()
    while len(words) < count:
        pairs = range(chance.integers(1, 5))
        words["".join(chance.choice(consonants) + chance.choice(vowels) for _ in pairs)] = None
    return np.array(list(words))


def make_tokenizer(vocabulary: int, texts: Any) -> Any:
    """A byte-pair tokenizer trained on the texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=SPECIAL, show_progress=False, initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def write_instructions(folder: Path, name: str) -> None:
    """A model folder `NAME/` and its rows `NAME.jsonl`."""
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary, width, depth, heads, inner = SIZES[name]
    chance = np.random.default_rng(0)
    lexicon = make_words(chance, vocabulary * 2)
    frequency = 1.0 / np.arange(1, len(lexicon) + 1) ** 0.9
    frequency /= frequency.sum()

    def text(words: int) -> str:
        return " ".join(chance.choice(lexicon, size=words, p=frequency))

    tokenizer = make_tokenizer(vocabulary, (text(200) for _ in range(1500)))

    def cut(tokens: int) -> str:
        return str(tokenizer.decode(tokenizer.encode(text(tokens)).ids[:tokens]))

    lines = []
    for length in np.clip(np.exp(chance.normal(np.log(MEDIAN), SIGMA, ROWS)), 8, LONGEST - 16).astype(int):
        prompt = max(3, int((length - 1) * chance.uniform(0.2, 0.5)))
        lines.append({"prompt": cut(prompt - 1) + "\n", "completion": cut(length - 1 - prompt)})
    write_lines(folder / f"{name}.jsonl", lines)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        model_max_length=LONGEST,
    ).save_pretrained(folder / name)  # fmt: skip
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads,
        num_key_value_heads=heads, intermediate_size=inner, max_position_embeddings=LONGEST, rms_norm_eps=1e-5,
        tie_word_embeddings=False, pad_token_id=0, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / name)


def write_labels(folder: Path) -> None:
    """Rows `labels.jsonl`: a text of 6 to 110 words, and its topic."""
    chance = random.Random(0)
    words = {topic: text.split() for topic, text in TOPICS.items()}
    every = [word for of_topic in words.values() for word in of_topic]

    def word(topic: str) -> str:
        source = words[topic] if chance.random() < 0.18 else every if chance.random() < 0.1 else GLUE
        return chance.choice(source)

    lines = []
    for _ in range(LABEL_BATCH * LABEL_STEPS):
        topic = chance.choice(list(TOPICS))
        count = max(6, min(110, int(chance.lognormvariate(3.2, 0.6))))
        lines.append({"text": " ".join(word(topic) for _ in range(count)), "label": topic})
    write_lines(folder / "labels.jsonl", lines)


def write_lines(file: Path, rows: list[dict[str, str]]) -> None:
    """Write JSON lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    for size in SIZES:
        write_instructions(place, size)
    write_labels(place)

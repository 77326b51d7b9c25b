"""The model and the loss of torchtune on W1, in a plain loop; its environment is its own.

    python torchtune_peer.py --model DIR --data FILE

Its recipes read checkpoints of its own kind and are not run: this is what its parts give.
"""

import argparse
import json
from pathlib import Path

import torch
from loops import IGNORED, add_training_arguments, batches, loop, pad_causal, read_rows
from tokenizers import Tokenizer
from torchtune.models.llama2 import llama2
from torchtune.modules.loss import CEWithChunkedOutputLoss


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_training_arguments(parser)
    arguments = parser.parse_args()
    folder = Path(arguments.model)
    shape = json.loads((folder / "config.json").read_text())
    torch.manual_seed(0)
    heads = shape["num_attention_heads"]
    model = llama2(
        vocab_size=shape["vocab_size"], num_layers=shape["num_hidden_layers"], num_heads=heads, num_kv_heads=heads,
        embed_dim=shape["hidden_size"], max_seq_len=arguments.max_tokens, norm_eps=shape["rms_norm_eps"],
        intermediate_dim=shape["intermediate_size"],
    )  # fmt: skip
    parts = CEWithChunkedOutputLoss()
    model.set_num_output_chunks(parts.num_output_chunks)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = list[tuple[list[int], int]]()
    for row in read_rows(arguments.data):
        prompt, answer = (tokenizer.encode(row[key], add_special_tokens=False).ids for key in ("prompt", "completion"))
        rows.append(([*prompt, *answer, shape["eos_token_id"]][: arguments.max_tokens], len(prompt)))

    def loss_of(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        behind = torch.full((len(batch["labels"]), 1), IGNORED)
        loss: torch.Tensor = parts(model(batch["input_ids"]), torch.hstack((batch["labels"][:, 1:], behind)))
        return loss

    loop(model, loss_of, map(pad_causal, batches(rows, arguments)), arguments)


if __name__ == "__main__":
    main()

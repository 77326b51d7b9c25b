"""The limit of W1: a Llama step written by hand over the tokens of a batch end to end, without padding.

    python hand_written.py --model DIR --data FILE

The same mathematics as `loops.py plain`, and the same losses: causal attention inside each text, the mean loss of the
supervised tokens.  What it leaves out is padding, and the scores over the vocabulary where nothing is supervised.
"""

import argparse
import json
from pathlib import Path

import torch
from loops import add_training_arguments, batches, load_causal, loop
from safetensors.torch import load_file
from torch.nn import functional as F


class Block(torch.nn.Module):
    """One layer.

    Args:
        weights: Of the whole model, by name.
        number: Of the layer.
        heads: Attention heads.
        eps: Of the norms.
    """

    def __init__(self, weights: dict[str, torch.Tensor], number: int, heads: int, eps: float) -> None:
        super().__init__()

        def own(*names: str) -> torch.nn.Parameter:
            parts = [weights[f"model.layers.{number}.{name}.weight"] for name in names]
            return torch.nn.Parameter(torch.cat(parts))

        self.heads, self.eps = heads, eps
        self.norm_in, self.norm_mid = own("input_layernorm"), own("post_attention_layernorm")
        self.qkv = own("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        self.out, self.down = own("self_attn.o_proj"), own("mlp.down_proj")
        self.gate_up = own("mlp.gate_proj", "mlp.up_proj")

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        """States of the tokens, (tokens, width)."""
        width = x.shape[-1]
        y = F.linear(F.rms_norm(x, (width,), self.norm_in, self.eps), self.qkv)
        y = y.view(-1, 3, self.heads, width // self.heads)
        low, high = y[:, :2].chunk(2, -1)
        turned = torch.cat((low * cos - high * sin, high * cos + low * sin), -1)
        parts = zip(*(part.split(lengths) for part in (turned[:, 0], turned[:, 1], y[:, 2])), strict=True)
        mixed = [
            F.scaled_dot_product_attention(*(part.transpose(0, 1)[None] for part in of_text), is_causal=True)
            for of_text in parts
        ]
        x = x + F.linear(torch.cat([one[0].transpose(0, 1) for one in mixed]).reshape(-1, width), self.out)
        gate, up = F.linear(F.rms_norm(x, (width,), self.norm_mid, self.eps), self.gate_up).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down)


class Llama(torch.nn.Module):
    """The whole model, read from a folder of transformers."""

    def __init__(self, folder: Path, longest: int) -> None:
        super().__init__()
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "model.safetensors")
        heads, self.eps = config["num_attention_heads"], config["rms_norm_eps"]
        self.width = config["hidden_size"]
        self.embedding = torch.nn.Embedding.from_pretrained(weights["model.embed_tokens.weight"], freeze=False)
        layers = range(config["num_hidden_layers"])
        self.blocks = torch.nn.ModuleList(Block(weights, number, heads, self.eps) for number in layers)
        self.norm = torch.nn.Parameter(weights["model.norm.weight"])
        self.head = torch.nn.Parameter(weights["lm_head.weight"])
        size = self.width // heads
        rope = config.get("rope_theta") or config.get("rope_parameters", {}).get("rope_theta") or 10000.0
        angles = torch.arange(longest)[:, None] * rope ** (-torch.arange(0, size, 2).float() / size)
        self.cos, self.sin = angles.cos()[:, None, None], angles.sin()[:, None, None]

    def loss(self, batch: list[tuple[list[int], int]]) -> torch.Tensor:
        """The mean loss of the tokens after each prompt."""
        lengths = [len(ids) for ids, _ in batch]
        ids = torch.tensor([token for tokens, _ in batch for token in tokens])
        positions = torch.cat([torch.arange(length) for length in lengths])
        before, start = list[torch.Tensor](), 0  # positions whose next token is supervised
        for tokens, prompt in batch:
            before.append(torch.arange(start + prompt - 1, start + len(tokens) - 1))
            start += len(tokens)
        source = torch.cat(before)
        x, cos, sin = self.embedding(ids), self.cos[positions], self.sin[positions]
        for block in self.blocks:
            x = block(x, cos, sin, lengths)
        states = F.rms_norm(x[source], (self.width,), self.norm, self.eps)
        return F.cross_entropy(F.linear(states, self.head), ids[source + 1])


def main() -> None:
    """Train on the batches of the other loops."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_training_arguments(parser)
    arguments = parser.parse_args()
    _, rows = load_causal(arguments)
    model = Llama(Path(arguments.model), arguments.max_tokens)
    loop(model, model.loss, batches(rows, arguments), arguments)


if __name__ == "__main__":
    main()

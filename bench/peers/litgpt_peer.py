"""LitGPT's own full finetuning on W1, called as its command calls it; its environment is its own.

    python litgpt_peer.py --model DIR --data FILE --prepare   # writes its kind of checkpoint and rows beside them
    python litgpt_peer.py --model DIR --data FILE

It has no clipping and shuffles: other rows than the others get, of the same lengths.
"""

import argparse
import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

from loops import add_training_arguments, read_rows


def checkpoint_of(model: str) -> Path:
    """The folder of LitGPT's checkpoint of a model."""
    return Path(f"{model}-litgpt")


def rows_of(data: str) -> Path:
    """The folder of LitGPT's rows of a file."""
    return Path(data).with_suffix(".litgpt")


def prepare(arguments: argparse.Namespace) -> None:
    """Write a checkpoint of the same shape with weights of its own, and the rows under the names that LitGPT reads."""
    import torch
    import yaml
    from litgpt import GPT, Config

    source, target = Path(arguments.model), checkpoint_of(arguments.model)
    shape = json.loads((source / "config.json").read_text())
    config = Config(
        name="bench", block_size=shape["max_position_embeddings"], vocab_size=shape["vocab_size"],
        padded_vocab_size=shape["vocab_size"], n_layer=shape["num_hidden_layers"], n_head=shape["num_attention_heads"],
        n_embd=shape["hidden_size"], rotary_percentage=1.0, parallel_residual=False, bias=False,
        norm_class_name="RMSNorm", norm_eps=shape["rms_norm_eps"], mlp_class_name="LLaMAMLP",
        intermediate_size=shape["intermediate_size"],
    )  # fmt: skip
    torch.manual_seed(0)
    model = GPT(config)
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.02)
    target.mkdir(exist_ok=True)
    torch.save(model.state_dict(), target / "lit_model.pth")
    (target / "model_config.yaml").write_text(yaml.safe_dump(asdict(config)))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(source / name, target / name)
    pairs = read_rows(arguments.data)
    rows = [{"instruction": row["prompt"], "input": "", "output": row["completion"]} for row in pairs]
    folder = rows_of(arguments.data)
    folder.mkdir(exist_ok=True)
    (folder / "train.json").write_text(json.dumps(rows))
    (folder / "val.json").write_text(json.dumps(rows[:8]))


def train(arguments: argparse.Namespace) -> None:
    """Train as `litgpt finetune_full` does."""
    from litgpt.args import EvalArgs, TrainArgs
    from litgpt.data import JSON
    from litgpt.finetune.full import setup
    from litgpt.prompts import Default

    steps = TrainArgs(
        global_batch_size=arguments.batch, micro_batch_size=arguments.batch, epochs=1, lr_warmup_steps=5,
        max_seq_length=arguments.max_tokens, save_interval=None, log_interval=10,
    )  # fmt: skip
    setup(
        checkpoint_dir=checkpoint_of(arguments.model),
        out_dir=Path(tempfile.mkdtemp()),
        devices=1,
        data=JSON(rows_of(arguments.data), mask_prompt=True, prompt_style=Default(), num_workers=0),
        precision="32-true",
        train=steps,
        eval=EvalArgs(interval=10**6, max_new_tokens=10, max_iters=1),
        optimizer={"class_path": "torch.optim.AdamW", "init_args": {"lr": arguments.lr, "fused": True}},
    )


def main() -> None:
    """Prepare, or train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_training_arguments(parser)
    parser.add_argument("--prepare", action="store_true")
    arguments = parser.parse_args()
    (prepare if arguments.prepare else train)(arguments)


if __name__ == "__main__":
    main()

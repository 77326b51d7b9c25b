"""Commands as pages show them, and a folder in which they can be run."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

from transformers import AutoConfig, AutoModelForCausalLM

from support import warm_processes
from support.paths import ROOT
from support.tiny_runs import labelled, write
from tunelab.config.schema import PretrainedModelConfig
from tunelab.models.load_model import load_tokenizer

# short: what is shown is how the command is put together, not what comes of hours of training
SHORT = ["max_steps=2", "data.limit=40", "eval.max_new_tokens=2", "logger=none", "trainer.accelerator=cpu"]


def commands_of(page: Path) -> list[str]:
    """The commands in the sh blocks of a page, each once, without the remarks behind them."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in dict.fromkeys(lines) if line and not line.startswith("#")]


def furnish(folder: Path) -> Path:
    """Put what the commands name into a folder: the project, a model, files of records."""
    for name in ("conf", "src", "bench", "train.py"):
        (folder / name).symlink_to(ROOT / name)
    tokenizer = load_tokenizer(PretrainedModelConfig(path="package:tunelab.starter/model"))
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "my_model")
    tokenizer.save_pretrained(folder / "my_model")
    records = [{"instruction": f"say {i}", "input": "", "output": f"it is {i}"} for i in range(60)]
    write(folder / "my.jsonl", records)
    chinese = [{"instruction": f"第{i}题：{i}加一等于几？", "input": "", "output": f"答：{i + 1}"} for i in range(60)]
    write(folder / "wenda.jsonl", chinese)
    pairs = [{"prompt": r["instruction"], "chosen": r["output"], "rejected": "no"} for r in records]
    write(folder / "pairs.jsonl", pairs)
    rows = [json.loads(line) for line in labelled(folder).read_text().splitlines()]
    (folder / "reviews.csv").write_text("review,stars\n" + "".join(f"{r['text']},{r['label']}\n" for r in rows))
    (folder / "essays.csv").write_text("essay,grade\n" + "".join(f"{r['text']},{r['number']}\n" for r in rows))
    return folder


def run(command: str, place: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """A command of ours, in a process of its own; `tunelab X` and `python FILE` alike."""
    words = shlex.split(command)
    ours = ["-c", "from tunelab.cli.main import main; main()"] if words[0] == "tunelab" else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "WANDB_MODE": "disabled"}
    return warm_processes.run([*ours, *words[1:], *more], place, environment)

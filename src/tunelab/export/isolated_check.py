"""Loads an export without this project: a script of its own, which imports nothing of ours.

`run_export.check_export` starts it in an isolated process: FOLDER PROBE.  It prints one JSON object: the ids that the
exported tokenizer gives, and the largest difference of an output to the probe's.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

PLAIN = {"trust_remote_code": False, "use_safetensors": True}  # no code and no pickle of the folder


def load_export(folder: Path, head: str, labels: int | None) -> Any:
    """The model of a folder, which may be an adapter on a base model elsewhere."""
    auto: Any
    if (folder / "adapter_config.json").is_file():
        import peft  # only adapters need it

        auto = peft.AutoPeftModelForCausalLM if head == "causal" else peft.AutoPeftModelForSequenceClassification
        return auto.from_pretrained(folder, **PLAIN, **({} if labels is None else {"num_labels": labels}))
    auto = AutoModelForCausalLM if head == "causal" else AutoModelForSequenceClassification
    return auto.from_pretrained(folder, **PLAIN)


def compare(folder: Path, probe: Path) -> None:
    """Load the export, run the probe and print token ids, shape and largest difference."""
    request = json.loads(probe.with_suffix(".json").read_text(encoding="utf-8"))
    expected: Tensor = load_file(probe)["outputs"]
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if request["messages"]:
        text = tokenizer.apply_chat_template(
            request["messages"], chat_template=request["template"], tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    else:
        ids = tokenizer(request["text"])["input_ids"]
    model = load_export(folder, request["head"], request["labels"]).eval()
    inputs = torch.tensor([ids])
    with torch.inference_mode():
        outputs: Tensor = model(input_ids=inputs, attention_mask=torch.ones_like(inputs)).logits.float()
    in_config = (getattr(model.config, "target_mean", None), getattr(model.config, "target_std", None))
    mean, std = request["scale"] or in_config
    if mean is not None and std is not None:
        outputs = outputs * torch.tensor(std) + torch.tensor(mean)
    fits = outputs.shape[:-1] == expected.shape[:-1] and outputs.shape[-1] >= expected.shape[-1]
    difference = float((outputs[..., : expected.shape[-1]] - expected).abs().max()) if fits else None
    print(json.dumps({"ids": ids, "shape": list(outputs.shape), "difference": difference}))


if __name__ == "__main__":
    compare(Path(sys.argv[1]), Path(sys.argv[2]))

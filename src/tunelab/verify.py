"""An export is asked the same as the trained model, in a process that knows nothing of this project."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tunelab import clean_check
from tunelab.data.conversation import Conversation, Message
from tunelab.data.examples import Example
from tunelab.errors import TuneLabError
from tunelab.models.soft_prompt import soft_prompt_ids
from tunelab.models.unpadded_attention import PlainAttention, micro_to_device
from tunelab.restore import Trained

TEXT = "Tell me what is asked here, and answer it."
LARGEST = 1e-3  # difference of an output, as a share of the largest output: another order of summing gives less
KEPT = ("PATH", "HOME", "LD_LIBRARY_PATH", "TMPDIR", "HF_HOME", "SYSTEMROOT")  # of the environment


@dataclass
class Probe:
    """What a trained model gives for one text.

    Attributes:
        ids: The tokens of the text, T of them, as training writes it.
        lead: Tokens of a soft prompt before them; an export has others in their place, or none to show.
        outputs: Logits (1, lead + T, V), or labels' logits (1, C), or numbers in the user's units (1, C).
        asked: What the other process needs to know.
    """

    ids: list[int]
    lead: int
    outputs: Tensor
    asked: dict[str, Any]


@torch.inference_mode()
def take_probe(trained: Trained) -> Probe:
    """Ask the trained model; before it is merged or changed for its export."""
    task, model = trained.task, trained.model
    asked: dict[str, Any] = {"head": task.head, "text": TEXT, "messages": None, "scale": None}
    asked["labels"] = task.head_options().get("num_labels")
    if task.head == "causal":
        template = getattr(task, "template")  # noqa: B009  # every causal task has one
        ids = template.reply_ids(Conversation((Message("user", TEXT),)))
        lead = soft_prompt_ids(model)
        given = torch.tensor([[*lead, *ids]], device=model.device)
        with PlainAttention(model):
            outputs = model(input_ids=given, attention_mask=torch.ones_like(given)).logits
        asked["messages"] = [{"role": "user", "content": TEXT}]
        return Probe(ids, len(lead), outputs.float().cpu(), asked)
    ids = trained.tokenizer(TEXT)["input_ids"]
    filler = task.filler()
    micro = task.collate([Example(list(ids), filler.target, 0, 0)])
    outputs = task.logits(model, micro_to_device(micro, model.device)).float().cpu()
    mean, std = getattr(task, "mean", None), getattr(task, "std", None)
    if mean is not None and std is not None:
        outputs = outputs * torch.tensor(std) + torch.tensor(mean)
    return Probe(list(ids), 0, outputs, asked)


def verify(folder: Path, probe: Probe) -> float:
    """Reload an export in a clean process and compare.

    Returns:
        The largest difference of an output.

    Raises:
        TuneLabError: If it does not load, reads the text otherwise, or gives something else.
    """
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "probe.safetensors"
        save_file({"outputs": probe.outputs.contiguous()}, file)
        file.with_suffix(".json").write_text(json.dumps(probe.asked), encoding="utf-8")
        command = [sys.executable, "-I", clean_check.__file__, str(folder.resolve()), str(file)]
        clean = {name: os.environ[name] for name in KEPT if name in os.environ}
        clean |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise TuneLabError(f"{folder} does not load in a clean process, do not use it: {last[0]}")
    found = json.loads(done.stdout.splitlines()[-1])
    if found["ids"][-len(probe.ids) :] != probe.ids or len(found["ids"]) - len(probe.ids) not in (0, probe.lead):
        raise TuneLabError(
            f"{folder} writes a text otherwise than training did, do not use it: {found['ids']} instead of {probe.ids}"
        )
    difference = found["difference"]
    bound = LARGEST * max(1.0, float(probe.outputs.abs().max()))
    if difference is None or not difference <= bound:
        raise TuneLabError(
            f"{folder} is another model, do not use it: its outputs have shape {found['shape']} and differ from the "
            f"trained model's, of shape {list(probe.outputs.shape)}, by up to {difference}"
        )
    return float(difference)

"""The export of a finished run, made again from its best checkpoint, and the check that it computes the same."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tunelab.data.conversation import Conversation, Message
from tunelab.data.data_sources import SPLITS, DataSplits, Split
from tunelab.data.examples import Example
from tunelab.errors import ConfigError, TuneLabError
from tunelab.export import isolated_check
from tunelab.export.transformers_export import replace_folder
from tunelab.models.adapter_export import merge_adapter_weights, write_peft_adapter
from tunelab.models.soft_prompt import find_soft_prompt, soft_prompt_ids
from tunelab.models.unpadded_attention import PlainAttention, micro_to_device
from tunelab.runs import console
from tunelab.runs.atomic_files import PARTIAL_SUFFIX
from tunelab.training.components import RunComponents
from tunelab.training.evaluate import EvalOutcome
from tunelab.training.lifecycle import base_model_location, write_export
from tunelab.training.load_run import TrainedRun

TargetScale = tuple[list[float], list[float]]  # mean and deviation of targets, which outputs are still to be given


def export_run(trained: TrainedRun, target: Path, format: str) -> TargetScale | None:
    """Write an export; the folder appears whole or not at all.

    Args:
        trained: A run, from its checkpoint; not to be used afterwards, its head may have changed.
        target: The folder; an earlier export there is replaced.
        format: "merged" or "adapter".

    Returns:
        Of an adapter for numbers: what turns its outputs into the user's units, since its config cannot say it.

    Raises:
        ConfigError: If the run has no adapter that PEFT could load.
    """
    if format == "adapter":
        return write_adapter_export(trained, target)
    folder = trained.folder
    report = folder.read_data_report()
    sources = DataSplits({name: Split() for name in SPLITS}, report["files"], report["notes"])
    prepared = RunComponents(
        trained.settings, trained.task, sources, trained.tokenizer, {}, report["splits"], adapter=trained.adapter
    )
    scores = folder.read_scores() if folder.metrics.is_file() else {}
    write_export(prepared, folder, EvalOutcome(scores), folder.read_manifest()["overrides"], target)
    return None


def write_adapter_export(trained: TrainedRun, target: Path) -> TargetScale | None:
    """Write the adapter alone, in PEFT's layout, with the tokenizer and the chat template it was trained with."""
    kind = str(trained.settings.adapter["kind"])
    if trained.adapter.wrapper is None and find_soft_prompt(trained.model) is None:
        raise ConfigError(
            f"this run was trained with adapter={kind}, which changes the base model's own weights: there is no "
            "adapter beside them. Take --format merged"
        )
    part = target.with_name(f".{target.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        plain = merge_adapter_weights(trained.adapter, trained.tokenizer)
        if warning := trained.task.finish(plain.model):
            console.say(warning)
        config = plain.model.config
        scale = (config.target_mean, config.target_std) if hasattr(config, "target_mean") else None
        write_peft_adapter(trained.adapter, plain.model, part, base_model_location(trained.settings))
        trained.tokenizer.save_pretrained(part)
        if template := trained.task.export_options().get("chat_template"):
            (part / "chat_template.jinja").write_text(template, encoding="utf-8")
        (part / "README.md").write_text(adapter_card(trained, scale), encoding="utf-8")
        replace_folder(part, target)
        return scale
    finally:
        shutil.rmtree(part, ignore_errors=True)


def adapter_card(trained: TrainedRun, scale: TargetScale | None) -> str:
    """The README of an adapter: what it belongs to, and how it is loaded."""
    base, task = base_model_location(trained.settings), trained.task
    labels = task.head_options().get("id2label")
    kind = "CausalLM" if task.head == "causal" else "SequenceClassification"
    options = "" if labels is None else f", num_labels={len(labels)}, id2label={labels!r}"
    units = f"\nA value in its own units is `logit * {scale[1]} + {scale[0]}`.\n" if scale else ""
    return (
        f"---\nlibrary_name: peft\ntags: [tunelab, {task.name}]\n---\n# {trained.folder.root.name}\n\n"
        f"A {trained.settings.adapter['kind']} adapter for `{Path(base).name}`, trained for {task.name} with "
        "TuneLab. It needs the base model at the place that `base_model_name_or_path` of adapter_config.json names.\n\n"
        f"```python\nfrom peft import AutoPeftModelFor{kind}\n\n"
        f'model = AutoPeftModelFor{kind}.from_pretrained("this/folder"{options})\n```\n{units}'
    )


PROBE_TEXT = "Tell me what is asked here, and answer it."
MAX_RELATIVE_DIFFERENCE = (
    1e-3  # difference of an output, as a share of the largest output: another order of summing gives less
)
KEPT_VARIABLES = ("PATH", "HOME", "LD_LIBRARY_PATH", "TMPDIR", "HF_HOME", "SYSTEMROOT")  # of the environment


@dataclass
class ExportProbe:
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
def probe_trained_model(trained: TrainedRun) -> ExportProbe:
    """Ask the trained model; before it is merged or changed for its export."""
    task, model = trained.task, trained.model
    asked: dict[str, Any] = {"head": task.head, "text": PROBE_TEXT, "messages": None, "scale": None}
    asked["labels"] = task.head_options().get("num_labels")
    if task.head == "causal":
        template = getattr(task, "template")  # noqa: B009  # every causal task has one
        ids = template.reply_ids(Conversation((Message("user", PROBE_TEXT),)))
        lead = soft_prompt_ids(model)
        given = torch.tensor([[*lead, *ids]], device=model.device)
        with PlainAttention(model):
            outputs = model(input_ids=given, attention_mask=torch.ones_like(given)).logits
        asked["messages"] = [{"role": "user", "content": PROBE_TEXT}]
        return ExportProbe(ids, len(lead), outputs.float().cpu(), asked)
    ids = trained.tokenizer(PROBE_TEXT)["input_ids"]
    filler = task.filler()
    micro = task.collate([Example(list(ids), filler.target, 0, 0)])
    outputs = task.logits(model, micro_to_device(micro, model.device)).float().cpu()
    mean, std = getattr(task, "mean", None), getattr(task, "std", None)
    if mean is not None and std is not None:
        outputs = outputs * torch.tensor(std) + torch.tensor(mean)
    return ExportProbe(list(ids), 0, outputs, asked)


def check_export(folder: Path, probe: ExportProbe) -> float:
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
        command = [sys.executable, "-I", isolated_check.__file__, str(folder.resolve()), str(file)]
        clean = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
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
    bound = MAX_RELATIVE_DIFFERENCE * max(1.0, float(probe.outputs.abs().max()))
    if difference is None or not difference <= bound:
        raise TuneLabError(
            f"{folder} is another model, do not use it: its outputs have shape {found['shape']} and differ from the "
            f"trained model's, of shape {list(probe.outputs.shape)}, by up to {difference}"
        )
    return float(difference)

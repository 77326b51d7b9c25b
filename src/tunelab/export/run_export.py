"""The export of a finished run, written from its best checkpoint, and the check of an export in a clean process."""

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

from tunelab.data.conversation import Conversation, Message
from tunelab.data.data_sources import SPLITS, DataSplits, Split
from tunelab.data.examples import Example
from tunelab.errors import ConfigError, TuneLabError
from tunelab.export import isolated_check
from tunelab.export.transformers_export import mark_export, replace_folder
from tunelab.language.translation import translate
from tunelab.models.adapter_export import merge_adapter_weights, write_peft_adapter
from tunelab.models.soft_prompt import find_soft_prompt, soft_prompt_ids
from tunelab.models.unpadded_attention import PlainAttention, micro_to_device
from tunelab.runs import console
from tunelab.runs.atomic_files import partial_path, remove_tree
from tunelab.training.components import RunComponents
from tunelab.training.evaluate_run import EvalOutcome
from tunelab.training.lifecycle import base_model_location, write_export
from tunelab.training.load_run import TrainedRun

TargetScale = tuple[list[float], list[float]]  # mean and standard deviation of the targets, in the user's units


def export_run(trained: TrainedRun, target: Path, format: str) -> TargetScale | None:
    """Write an export; the folder appears whole or not at all.

    Args:
        trained: A run, from its checkpoint; not to be used afterwards, its head may have changed.
        target: The folder; an earlier export there is replaced.
        format: "merged" or "adapter".

    Returns:
        Of an adapter for regression: the scale of the targets, since its config cannot hold it.

    Raises:
        ConfigError: If the run has no adapter that PEFT could load.
    """
    if format == "adapter":
        return write_adapter_export(trained, target)
    folder = trained.folder
    report = folder.read_data_report()
    sources = DataSplits({name: Split() for name in SPLITS}, report["files"], report["notes"])
    components = RunComponents(
        trained.settings, trained.task, sources, trained.tokenizer, {}, report["splits"], adapter=trained.adapter
    )
    scores = folder.read_scores() if folder.metrics.is_file() else {}
    write_export(components, folder, EvalOutcome(scores), folder.read_manifest()["overrides"], target)
    return None


def write_adapter_export(trained: TrainedRun, target: Path) -> TargetScale | None:
    """Write the adapter alone, in PEFT's layout, with the tokenizer and the chat template it was trained with."""
    kind = str(trained.settings.adapter.kind)
    if trained.adapter.wrapper is None and find_soft_prompt(trained.model) is None:
        raise ConfigError(
            translate(
                "this run was trained with adapter={kind}, which changes the base model's own "
                "weights: there is no adapter beside them. Take --format merged",
                kind=kind,
            )
        )
    part = partial_path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        remove_tree(part)
        plain = merge_adapter_weights(trained.adapter, trained.tokenizer)
        if warning := trained.task.finalize_model(plain.model):
            console.say(warning)
        config = plain.model.config
        scale = (config.target_mean, config.target_std) if hasattr(config, "target_mean") else None
        write_peft_adapter(trained.adapter, plain.model, part, base_model_location(trained.settings))
        trained.tokenizer.save_pretrained(part)
        if template := trained.task.export_options().get("chat_template"):
            (part / "chat_template.jinja").write_text(template, encoding="utf-8")
        (part / "README.md").write_text(adapter_card(trained, scale), encoding="utf-8")
        mark_export(part)
        replace_folder(part, target)
        return scale
    finally:
        remove_tree(part)


def adapter_card(trained: TrainedRun, scale: TargetScale | None) -> str:
    """The README of an adapter: its base model, and how to load it."""
    base, task = base_model_location(trained.settings), trained.task
    labels = task.head_options().get("id2label")
    kind = "CausalLM" if task.head == "causal" else "SequenceClassification"
    options = "" if labels is None else f", num_labels={len(labels)}, id2label={labels!r}"
    units = f"\nA value in its own units is `logit * {scale[1]} + {scale[0]}`.\n" if scale else ""
    return (
        f"---\nlibrary_name: peft\ntags: [tunelab, {task.name}]\n---\n# {trained.folder.root.name}\n\n"
        f"A {trained.settings.adapter.kind} adapter for `{Path(base).name}`, trained for {task.name} with "
        "TuneLab. It needs the base model at the place that `base_model_name_or_path` of adapter_config.json names.\n\n"
        f"```python\nfrom peft import AutoPeftModelFor{kind}\n\n"
        f'model = AutoPeftModelFor{kind}.from_pretrained("this/folder"{options})\n```\n{units}'
    )


PROBE_TEXT = "Tell me what is asked here, and answer it."
# Difference of an output as a share of the largest output; another order of summing gives less.
MAX_RELATIVE_DIFFERENCE = 1e-3
# Environment variables that the clean process keeps.
KEPT_VARIABLES = ("PATH", "HOME", "LD_LIBRARY_PATH", "TMPDIR", "HF_HOME", "SYSTEMROOT")


@dataclass
class ExportProbe:
    """The outputs of a trained model for one text.

    Attributes:
        ids: Token ids of the text, T of them, as training encodes it.
        soft_prompt_tokens: Number of soft-prompt tokens before them; an export has other ids in their place, or none.
        outputs: Logits (1, soft_prompt_tokens + T, V) or (1, C); for regression in the user's units (1, C).
        request: What the clean process needs besides: head, text, messages, labels, scale.
    """

    ids: list[int]
    soft_prompt_tokens: int
    outputs: Tensor
    request: dict[str, Any]


@torch.inference_mode()
def probe_trained_model(trained: TrainedRun) -> ExportProbe:
    """Outputs of the trained model for a fixed text; taken before it is merged or changed for its export."""
    task, model = trained.task, trained.model
    request: dict[str, Any] = {"head": task.head, "text": PROBE_TEXT, "messages": None, "template": None, "scale": None}
    request["labels"] = task.head_options().get("num_labels")
    if task.head == "causal":
        template = getattr(task, "template")  # noqa: B009  # every causal task has one
        ids = template.reply_ids(Conversation((Message("user", PROBE_TEXT),)))
        prompt = soft_prompt_ids(model)
        inputs = torch.tensor([[*prompt, *ids]], device=model.device)
        with PlainAttention(model):
            outputs = model(input_ids=inputs, attention_mask=torch.ones_like(inputs)).logits
        request["messages"] = [{"role": "user", "content": PROBE_TEXT}]
        # an export writes the date of the day, and may be made on another than the run
        request["template"] = template.dated_template if template.date and not prompt else None
        return ExportProbe(ids, len(prompt), outputs.float().cpu(), request)
    ids = trained.tokenizer(PROBE_TEXT)["input_ids"]
    filler = task.padding_example()
    micro = task.collate([Example(list(ids), filler.target, 0, 0)])
    outputs = task.logits(model, micro_to_device(micro, model.device)).float().cpu()
    mean, std = getattr(task, "mean", None), getattr(task, "std", None)
    if mean is not None and std is not None:
        outputs = outputs * torch.tensor(std) + torch.tensor(mean)
    return ExportProbe(list(ids), 0, outputs, request)


def check_export(folder: Path, probe: ExportProbe) -> float:
    """Load an export in a clean process and compare its outputs with the probe.

    Returns:
        The largest absolute difference of an output.

    Raises:
        TuneLabError: If it does not load, tokenizes the text differently, or computes something else.
    """
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "probe.safetensors"
        save_file({"outputs": probe.outputs.contiguous()}, file)
        file.with_suffix(".json").write_text(json.dumps(probe.request), encoding="utf-8")
        command = [sys.executable, "-I", isolated_check.__file__, str(folder.resolve()), str(file)]
        environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [translate("it printed nothing")]
        raise TuneLabError(
            translate("{folder} does not load in a clean process, do not use it: {last}", folder=folder, last=last[0])
        )
    loaded = json.loads(done.stdout.splitlines()[-1])
    if loaded["ids"][-len(probe.ids) :] != probe.ids or len(loaded["ids"]) - len(probe.ids) not in (
        0,
        probe.soft_prompt_tokens,
    ):
        raise TuneLabError(
            translate(
                "{folder} tokenizes a text differently from training, do not use it: {ids}, not {trained_ids}",
                folder=folder,
                ids=loaded["ids"],
                trained_ids=probe.ids,
            )
        )
    difference = loaded["difference"]
    bound = MAX_RELATIVE_DIFFERENCE * max(1.0, float(probe.outputs.abs().max()))
    if difference is None or not difference <= bound:
        raise TuneLabError(
            translate(
                "{folder} is another model, do not use it: its outputs have shape {shape} and differ "
                "from the trained model's, of shape {trained_shape}, by up to {difference}",
                folder=folder,
                shape=loaded["shape"],
                trained_shape=list(probe.outputs.shape),
                difference=difference,
            )
        )
    return float(difference)

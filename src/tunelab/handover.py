"""A trained run as an export, made again from its best checkpoint."""

import os
import shutil
from pathlib import Path

from tunelab import console
from tunelab.assemble import Prepared
from tunelab.atomic import PARTIAL
from tunelab.closing import base_of, write_export
from tunelab.data.data_sources import SPLITS, DataSplits, Split
from tunelab.errors import ConfigError
from tunelab.export import swap
from tunelab.models.adapter_export import merge_adapter_weights, write_peft_adapter
from tunelab.models.soft_prompt import find_soft_prompt
from tunelab.restore import Trained
from tunelab.training.evaluate import EvalOutcome

Scale = tuple[list[float], list[float]]  # mean and deviation of targets, which outputs are still to be given


def hand_over(trained: Trained, target: Path, format: str) -> Scale | None:
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
        return write_adapter(trained, target)
    folder = trained.folder
    report = folder.read_report()
    sources = DataSplits({name: Split() for name in SPLITS}, report["files"], report["notes"])
    prepared = Prepared(
        trained.settings, trained.task, sources, trained.tokenizer, {}, report["splits"], adapter=trained.adapter
    )
    scores = folder.read_scores() if folder.metrics.is_file() else {}
    write_export(prepared, folder, EvalOutcome(scores), folder.read_card()["overrides"], target)
    return None


def write_adapter(trained: Trained, target: Path) -> Scale | None:
    """Write the adapter alone, in PEFT's layout, with the tokenizer and the chat template it was trained with."""
    kind = str(trained.settings.adapter["kind"])
    if trained.adapter.wrapper is None and find_soft_prompt(trained.model) is None:
        raise ConfigError(
            f"this run was trained with adapter={kind}, which changes the base model's own weights: there is no "
            "adapter beside them. Take --format merged"
        )
    part = target.with_name(f".{target.name}.{os.getpid()}{PARTIAL}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        plain = merge_adapter_weights(trained.adapter, trained.tokenizer)
        if warning := trained.task.finish(plain.model):
            console.say(warning)
        config = plain.model.config
        scale = (config.target_mean, config.target_std) if hasattr(config, "target_mean") else None
        write_peft_adapter(trained.adapter, plain.model, part, base_of(trained.settings))
        trained.tokenizer.save_pretrained(part)
        if template := trained.task.export_options().get("chat_template"):
            (part / "chat_template.jinja").write_text(template, encoding="utf-8")
        (part / "README.md").write_text(card(trained, scale), encoding="utf-8")
        swap(part, target)
        return scale
    finally:
        shutil.rmtree(part, ignore_errors=True)


def card(trained: Trained, scale: Scale | None) -> str:
    """The README of an adapter: what it belongs to, and how it is loaded."""
    base, task = base_of(trained.settings), trained.task
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

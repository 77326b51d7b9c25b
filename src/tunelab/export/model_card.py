"""The README of an exported model: origin, scores, limits, how to load it, data and settings."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from tunelab.config.flatten import flatten
from tunelab.runs.redact import redact

# Split by the prefix of its scores, the strongest evidence first.
SCORED_SPLITS = {"test": "test", "val": "validation", "train": "train"}
SPLIT_LABELS = SCORED_SPLITS | {"base": "test, before training"}
AUTO_CLASSES = {"text-generation": "AutoModelForCausalLM", "text-classification": "AutoModelForSequenceClassification"}


def render_model_card(
    *,
    name: str,
    task: str,
    base_model: str,
    data: Mapping[str, Any],
    settings: Mapping[str, Any],
    scores: Mapping[str, float],
    languages: Sequence[str] | None = None,
    command: str | None = None,
) -> str:
    """The text of README.md, with the YAML head that model hubs read.

    Args:
        name: Name of the model.
        task: As `data.task` in the configs; anything but "instruction" has a classification head.
        base_model: Hub id, folder or `package:` path of the model it started from.
        data: What it was trained and tested on, plain values; `name` is the name of the data set.
        settings: The settings that made it, plain values.
        scores: By flat name, `split/score`; those that are not finite are left out.
        languages: ISO 639 codes; none are claimed unless given.
        command: The command line that made it.

    Returns:
        Markdown, secrets blacked out; in its tables, paths of this machine are cut down to their last name.
    """
    kind = "text-generation" if task == "instruction" else "text-classification"
    title = str(data.get("name") or "local data")
    finite = {score: value for score, value in scores.items() if math.isfinite(value)}
    split = next((prefix for prefix in SCORED_SPLITS if any(score.startswith(f"{prefix}/") for score in finite)), None)
    head = ModelCardData(
        language=list(languages) if languages else None,
        library_name="transformers",
        pipeline_tag=kind,
        base_model=base_model if _is_hub_id(base_model) else None,
        tags=["tunelab", task],
        model_name=name,
        eval_results=_eval_results(kind, title, split, finite) or None,
    )
    parts = [
        f"---\n{head.to_yaml().strip()}\n---",
        f"# {name}",
        f"Fine-tuned from `{_portable_text(base_model)}` for {task} with TuneLab.",
        _section("Scores", _table(_score_rows(finite), ("score", "split", "value")), "No split was scored."),
        _section("Limits", _limits(split, title)),
        _section("How to load", _loading(kind)),
        _section(
            "Data", _table(_setting_rows(redact(data)), ("field", "value")), "Nothing was recorded about the data."
        ),
        _section(
            "Settings", _table(_setting_rows(redact(settings)), ("setting", "value")), "No settings were recorded."
        ),
    ]
    if command:
        parts.append(_section("Command", f"```shell\n{command}\n```"))
    return str(redact("\n\n".join(parts) + "\n"))


def _eval_results(kind: str, title: str, split: str | None, scores: Mapping[str, float]) -> list[EvalResult]:
    """The scores of one split, as the YAML head lists them."""
    return [
        EvalResult(
            task_type=kind,
            dataset_type=title,
            dataset_name=title,
            dataset_split=SCORED_SPLITS[split],
            metric_type=score.removeprefix(f"{split}/"),
            metric_value=value,
        )
        for score, value in scores.items()
        if split is not None and score.startswith(f"{split}/")
    ]


def _limits(split: str | None, title: str) -> str:
    if split is None:
        measured = "No split was scored, so nothing is known about how well this model does."
    else:
        relation = {
            "test": "which took part neither in training nor in choosing the checkpoint",
            "val": "which chose the checkpoint, so expect less on new text; no test split was scored",
            "train": "which the model was trained on, so they say nothing about new text",
        }[split]
        measured = f"Measured on the {SCORED_SPLITS[split]} split of {title}, {relation}."
    return (
        f"{measured} One training with one seed: a difference to another model may be chance. "
        "Other domains, languages and longer texts were not measured. "
        "What the base model got wrong, and its licence, carry over."
    )


def _loading(kind: str) -> str:
    auto = AUTO_CLASSES[kind]
    return (
        "Needs transformers 5 or later.\n\n"
        f"```python\nfrom transformers import AutoTokenizer, {auto}\n\n"
        f'folder = "."  # where this file lies\ntokenizer = AutoTokenizer.from_pretrained(folder)\n'
        f"model = {auto}.from_pretrained(folder)\n```"
    )


def _section(title: str, body: str, otherwise: str = "") -> str:
    return f"## {title}\n\n{body or otherwise}"


def _score_rows(scores: Mapping[str, float]) -> list[tuple[str, ...]]:
    parts = [(*score.rpartition("/"), value) for score, value in scores.items()]
    return [(score, SPLIT_LABELS.get(split, split), f"{value:.6g}") for split, _, score, value in parts]


def _setting_rows(values: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Nested values as rows of dotted name and text; what is None is left out."""
    leaves = flatten(values, index_lists=True).items()
    return [(name, _portable_text(value)) for name, value in leaves if value is not None]


def _table(rows: Sequence[tuple[str, ...]], titles: tuple[str, ...]) -> str:
    """A Markdown table; empty without rows."""
    if not rows:
        return ""
    lines = [titles, ("---",) * len(titles), *rows]
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def _portable_text(value: Any) -> str:
    """A value as text; of a folder on this machine only the last name, since the rest means nothing elsewhere."""
    text = str(value)
    return Path(text).name if text.startswith(("/", "~")) else text


def _is_hub_id(base_model: str) -> bool:
    """Whether a hub would accept this as the id of a model; it refuses cards that name a local folder."""
    shaped = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", base_model) is not None
    return shaped and not Path(base_model).exists()

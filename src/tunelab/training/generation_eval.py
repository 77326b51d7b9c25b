"""Evaluation by generated answers: the rows of validation and test that are answered, and when."""

from collections.abc import Iterable
from hashlib import blake2b
from heapq import nsmallest

from tunelab.config.schema import RunConfig
from tunelab.data.examples import Example
from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.models.architecture import context_limit
from tunelab.models.soft_prompt import soft_prompt_ids
from tunelab.tasks.base import Task
from tunelab.tasks.instruction import Instruction
from tunelab.tasks.metrics.answer_metrics import GenerationEvaluator
from tunelab.training.components import RunComponents

SMALL_MODEL_PARAMETERS = 50_000_000  # parameters up to which answers are generated unasked


def sample_rows(contents: Iterable[tuple[int, str]], count: int | None, *, seed: int) -> frozenset[int]:
    """A fixed sample of rows: those whose content has the smallest hash.

    Rows added, removed or re-ordered elsewhere move next to nothing, and every validation has the same sample.

    Args:
        contents: Each row and its content.
        count: Rows to take; None takes all.
        seed: Another seed draws another sample.
    """
    if count is None:
        return frozenset(row for row, _ in contents)
    keyed = ((blake2b(f"{seed}\x1f{content}".encode(), digest_size=8).digest(), row) for row, content in contents)
    return frozenset(row for _, row in nsmallest(count, keyed))


def rows_to_generate(components: RunComponents, split: str, count: int | None) -> frozenset[int]:
    """The rows of a split that are answered: of those that have a prompt, at most `count`."""
    task, rows = components.task, components.sources.splits[split].rows
    predicted = (example.row for example in components.examples[split] if example.predicts)
    asking = (row for row in predicted if task.has_prompt(rows[row]))
    return sample_rows(((row, task.content(rows[row])) for row in asking), count, seed=components.settings.seed)


def generated_test_rows(components: RunComponents) -> frozenset[int] | None:
    """The test rows that are answered by generation; None where predictions of all are kept."""
    count = components.settings.eval.test_rows
    if count is None or not components.task.answer_names:
        return None
    return rows_to_generate(components, "test", int(count))


def monitors_generation(settings: RunConfig, task: Task) -> bool:
    """Whether the best checkpoint is picked by a score of generated answers."""
    own = task.own_metrics.score_names if task.own_metrics is not None and task.metrics_of_answers else ()
    return settings.monitor.removeprefix("val/") in {*task.answer_names, *own} - {*task.score_names}


def generates_in_validation(components: RunComponents) -> bool:
    """Whether answers are generated at each validation."""
    settings = components.settings
    if settings.eval.generate is False or settings.eval.generate_rows == 0 or not components.examples["validation"]:
        return False
    small = (
        isinstance(components.task, Instruction)
        and sum(p.numel() for p in components.model.parameters()) <= SMALL_MODEL_PARAMETERS
    )
    return settings.eval.generate is True or monitors_generation(settings, components.task) or small


def make_generation_evaluator(components: RunComponents) -> GenerationEvaluator | None:
    """The evaluator that generates answers at each validation; None where none are generated.

    Raises:
        ConfigError: If the settings demand answers and there can be none.
    """
    settings, task, rows = components.settings, components.task, frozenset[int]()
    if not generates_in_validation(components):
        return None
    if isinstance(task, Instruction):
        rows = rows_to_generate(components, "validation", settings.eval.generate_rows)
        if rows:
            return GenerationEvaluator(task, task.totals, components.sources.splits["validation"].rows, rows)
    if settings.eval.generate is True or monitors_generation(settings, task):
        why = (
            translate("no validation record asks anything")
            if isinstance(task, Instruction)
            else translate("{name} answers nothing", name=task.name)
        )
        raise ConfigError(
            translate(
                "answers in validation are asked for, and {why}; set eval.generate=auto and monitor=val/loss", why=why
            )
        )
    return None


def generation_samples(components: RunComponents) -> list[str]:
    """How many rows of each split are answered by generation, where not all are."""
    limits = components.settings.eval
    counts = {"validation": ("generate_rows", limits.generate_rows), "test": ("test_rows", limits.test_rows)}
    return [
        translate(
            "{split}: answers to {count} of {total} [row|rows], a fixed sample (eval.{key})",
            split=split,
            count=count,
            total=len(components.examples[split]),
            key=key,
        )
        for split, (key, count) in counts.items()
        if answers_split(components, split) and count is not None and count < len(components.examples[split])
    ]


def generation_notes(components: RunComponents) -> list[str]:
    """Notes on prompts that leave no room for an answer, before training."""
    limit, notes = context_limit(components.model.config), list[str]()
    for split in ("validation", "test"):
        if limit is None or not answers_split(components, split):
            continue
        examples = components.examples[split]
        if long := sum(prompt_fills_context(components, split, example, limit) for example in examples):
            notes.append(
                translate(
                    "{split}: {long} [prompt fills|prompts fill] the context of {limit} [token|tokens] alone; they "
                    "lose their oldest",
                    split=split,
                    long=long,
                    limit=limit,
                )
            )
    return notes


def answers_split(components: RunComponents, split: str) -> bool:
    """Whether rows of a split are answered by generation."""
    if not isinstance(components.task, Instruction):
        return False
    return generates_in_validation(components) if split == "validation" else components.settings.test


def prompt_fills_context(components: RunComponents, split: str, example: Example, limit: int) -> bool:
    """Whether the prompt of an example leaves no room for an answer."""
    task, record = components.task, components.sources.splits[split].rows[example.row]
    shortest = limit if task.limit is None else min(limit, task.limit)
    if len(example.ids) < shortest or not isinstance(task, Instruction) or not task.has_prompt(record):
        return False
    return len(soft_prompt_ids(components.model)) + task.prompt_length(record) >= limit

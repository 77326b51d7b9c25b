"""The trained model as a folder that plain transformers loads without this project."""

import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunelab.errors import TuneLabError
from tunelab.language.translation import translate
from tunelab.runs.atomic_files import partial_path, remove_tree, sync_folder, write_error

GENERATION_TAG = re.compile(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}")


def export_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    card: str,
    chat_template: str | None = None,
    stop_ids: Sequence[int] = (),
    extra_files: Callable[[Path], object] = lambda folder: None,
) -> None:
    """Write weights, config, tokenizer and model card; the folder appears whole or not at all.

    The weights keep the dtype they were trained in.  Settings that only training needs are removed: the
    attention implementation, a disabled cache, the generation tags in the chat template.

    Args:
        model: A plain transformers model; adapters are merged before.
        tokenizer: Its tokenizer, not changed.
        folder: The target; an earlier export there is replaced.
        card: Text of README.md.
        chat_template: The template the model was trained with; None keeps the tokenizer's own.
        stop_ids: Tokens that end an answer, besides the end token of the tokenizer and of the base model.
        extra_files: Writes more files into the folder before it appears.

    Raises:
        TuneLabError: If the folder cannot be written, or its weights are not those of its config; an earlier export
            is then unchanged.
    """
    part = partial_path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        remove_tree(part)
        write_model_files(model, tokenizer, part, chat_template=chat_template, stop_ids=stop_ids)
        check_weight_names(part, type(model))
        (part / "README.md").write_text(card, encoding="utf-8")
        extra_files(part)
        mark_export(part)
        replace_folder(part, folder)
    except (OSError, SafetensorError) as fault:
        need = f"{sum(weight.numel() * weight.element_size() for weight in model.parameters()):,}"
        raise write_error(folder, _as_os_error(fault), need) from fault
    finally:
        remove_tree(part)


def write_model_files(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    chat_template: str | None = None,
    stop_ids: Sequence[int] = (),
    weights: bool = True,
) -> None:
    """Write the files that transformers reads, cleaned of what only training needs.

    Args:
        model: A plain transformers model.
        tokenizer: Its tokenizer.
        folder: Where to.
        chat_template: Instead of the tokenizer's own.
        stop_ids: Tokens that end an answer.
        weights: Whether to write the weights too; without them nothing is left out that could fail but the disk.
    """
    model.save_pretrained(folder, state_dict=None if weights else {})
    tokenizer.save_pretrained(folder)
    _clean_config(folder / "config.json", decoder=model.can_generate())
    if model.can_generate():
        _set_generation_tokens(folder / "generation_config.json", model, tokenizer, stop_ids)
    if chat_template is not None:
        (folder / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
    for template in folder.rglob("*.jinja"):
        template.write_text(strip_generation_tags(template.read_text(encoding="utf-8")), encoding="utf-8")


def check_weight_names(folder: Path, kind: type[PreTrainedModel]) -> None:
    """Compare the names and shapes of saved weights with those of a model built anew from their config.

    What has another name would start at random when the folder is loaded, without an error.

    Raises:
        TuneLabError: Naming weights that are missing or left over.
    """
    reports = logging.getLogger("transformers.modeling_utils")
    level = reports.level
    reports.setLevel(logging.ERROR)  # what it would report is raised below
    try:  # on the meta device: names and shapes, no memory
        loading: Any = kind.from_pretrained(
            folder, device_map="meta", output_loading_info=True, ignore_mismatched_sizes=True
        )
    finally:
        reports.setLevel(level)
    names = loading[1]  # after the model
    left_over = sorted(names["unexpected_keys"])
    missing = sorted({*names["missing_keys"], *(name for name, *_ in names["mismatched_keys"])})
    if missing or left_over:
        raise TuneLabError(
            translate(
                "the export is not written: its weights are not those of a {model} of its config, "
                "and would load as random ones; missing: {missing}; left over: {left_over}. The "
                "checkpoints are whole: tunelab predict and evaluate take them",
                model=kind.__name__,
                missing=", ".join(missing[:3]) or "none",
                left_over=", ".join(left_over[:3]) or "none",
            )
        )


def strip_generation_tags(template: str) -> str:
    """A chat template without the tags that mark the assistant's answers.

    Only transformers knows `{% generation %}`; other renderers raise an error on it.  A comment takes the place of
    each tag, since a comment trims the white space around it by the same rules: the rendered text stays the same.
    """
    return GENERATION_TAG.sub(r"{#\1 \2#}", template)


def _clean_config(path: Path, *, decoder: bool) -> None:
    """Undo in the written config what training switched; the model itself is not changed."""
    config = json.loads(path.read_text(encoding="utf-8"))
    for part in [config, *(value for value in config.values() if isinstance(value, dict))]:
        part.pop("_attn_implementation", None)
        part.pop("attn_implementation", None)
        if decoder and "use_cache" in part:
            part["use_cache"] = True  # training needs no cache; without one, each new token reads the whole text again
    _write_json(path, config)


def _set_generation_tokens(
    path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int]
) -> None:
    """Write which tokens start, end and pad an answer.

    A base model often names no end token, or one its tokenizer lacks; generation then runs to the length limit.
    """
    generation = json.loads(path.read_text(encoding="utf-8"))
    own = generation.get("eos_token_id")
    ends = [tokenizer.eos_token_id, *stop_ids, *(own if isinstance(own, list) else [own])]
    size = model.config.get_text_config().vocab_size
    known = [end for end in dict.fromkeys(ends) if end is not None and 0 <= end < size]
    token_ids = {
        "eos_token_id": known[0] if len(known) == 1 else known or None,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(known), None),
    }
    generation.pop("use_cache", None)
    for name, value in token_ids.items():
        generation.pop(name, None)
        if value is not None:
            generation[name] = value
    _write_json(path, generation)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


EXPORT_MARK = "tunelab_export.json"  # says that a folder is an export of ours, so that a new one may replace it


def mark_export(folder: Path) -> None:
    """Leave the names of all files of an export in it."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    _write_json(folder / EXPORT_MARK, {"files": files})


def replacement_fault(target: Path) -> str | None:
    """Why a folder cannot be replaced by an export; None where nothing of anyone else would be lost."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        return translate("it is a link") if target.is_symlink() else translate("it is a file")
    if not target.is_dir() or not any(target.iterdir()):
        return None
    try:
        files = json.loads((target / EXPORT_MARK).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return translate("it holds files that are no export of this program")
    there = {path.relative_to(target).as_posix() for path in target.rglob("*") if not path.is_dir()}
    more = sorted(there - set(map(str, files)) - {EXPORT_MARK})
    return (
        translate("it is an export, and holds other files too ({names})", names=", ".join(more[:3])) if more else None
    )


def replace_folder(part: Path, folder: Path) -> None:
    """Replace a folder by a finished one: its bytes reach the disk first, then its name."""
    for file in part.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        else:
            sync_folder(file)
    sync_folder(part)
    old = folder.with_name(f".{folder.name}.old")
    remove_tree(old)
    if folder.exists():
        os.replace(folder, old)  # no system call swaps two folders portably: for an instant there is none
    try:
        os.replace(part, folder)
    except OSError:
        if old.exists():
            os.replace(old, folder)
        raise
    sync_folder(folder.parent)
    remove_tree(old)


def _as_os_error(fault: Exception) -> OSError:
    """The OS error behind an error of safetensors, which has its number in the text only."""
    if isinstance(fault, OSError):
        return fault
    number = re.search(r"os error (\d+)", str(fault))
    return OSError(int(number[1]) if number else 0, str(fault))

"""Who answers in a chat: a run, a model folder or an adapter folder, with its tokenizer and chat template."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunelab.data.conversation import Conversation, Message
from tunelab.data.places import locate
from tunelab.data.template import ChatTemplate
from tunelab.errors import ConfigError, DataError
from tunelab.generate.stream import speak
from tunelab.models.architecture import context_limit
from tunelab.models.load_model import load_model, load_tokenizer
from tunelab.restore import restore

SHORTEST = 8  # tokens of the context that an answer must have to itself


@dataclass
class Speaker:
    """A causal language model that can be talked with.

    Attributes:
        limit: Longest sequence, prompt and answer together; None where there is no bound.
        note: What the user should know of how it was loaded, if anything.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate
    limit: int | None
    note: str | None = None

    def answer(
        self,
        messages: list[Message],
        *,
        max_new_tokens: int,
        temperature: float,
        tell: Callable[[str], None],
        forgotten: Callable[[int], None],
    ) -> str:
        """Answer the last of the messages; tells how many old ones no longer fit, and removes them.

        Raises:
            DataError: If the last message alone leaves no room for an answer.
        """
        lost = 0
        while True:
            prompt = self.template.reply_ids(Conversation(tuple(messages)))
            room = max_new_tokens if self.limit is None else min(max_new_tokens, self.limit - len(prompt))
            if room >= min(max_new_tokens, SHORTEST):
                break
            oldest = 1 if messages[0].role == "system" else 0
            if len(messages) - oldest < 3:  # the question, and nothing before it
                raise DataError(f"this takes {len(prompt)} tokens of {self.limit}, which leaves none for an answer")
            del messages[oldest : oldest + 2]  # a question and its answer
            lost += 2
        if lost:
            forgotten(lost)
        stop = self.template.stop_ids
        return speak(
            self.model, self.tokenizer, prompt, stop=stop, max_new_tokens=room, temperature=temperature, tell=tell
        )


def find_speaker(place: str) -> Speaker:
    """The model at a place.

    Args:
        place: A run folder, a folder that plain transformers loads, or one that PEFT wrote.

    Raises:
        ConfigError: If there is none of them, or it answers no questions.
    """
    root = locate(place)
    if root is not None and (root / "run.json").is_file():
        return speaker_of_run(root)
    if root is not None and (root / "adapter_config.json").is_file():
        return speaker_of_adapter(root)
    if root is not None and (root / "config.json").is_file():
        return speaker_of_folder(root)
    found = "there is no such folder" if root is None else "the folder has none of them"
    raise ConfigError(
        f"{place} is nothing to talk with: looked for run.json (a run), config.json (a model) and adapter_config.json "
        f"(an adapter), and {found}"
    )


def speaker_of_run(root: Path) -> Speaker:
    """The best model of a run."""
    trained = restore(root)
    task = trained.task
    template = getattr(task, "template", None)
    if template is None:
        raise ConfigError(
            f"{root} was trained for data.task={task.name}, so it gives labels or numbers and no answers; use "
            f"tunelab predict {root} --input FILE --output FILE"
        )
    return Speaker(trained.model, trained.tokenizer, template, task.limit, trained.note)


def speaker_of_folder(root: Path) -> Speaker:
    """A model folder, with the chat template that its tokenizer brings."""
    config = _json(root / "config.json")
    heads = [str(name) for name in config.get("architectures") or []]
    if heads and not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in heads):
        raise ConfigError(
            f"{root} holds a {heads[0]}, which answers no questions; labels and numbers come from the run that made "
            "it: tunelab predict RUN --input FILE --output FILE"
        )
    return _settled(_loaded(root), load_tokenizer({"path": str(root)}))


def speaker_of_adapter(root: Path) -> Speaker:
    """An adapter folder of PEFT, on the base model that it names."""
    from peft import PeftModel  # slow to import, and few need it

    named = _json(root / "adapter_config.json").get("base_model_name_or_path")
    base = next((found for text in (str(named), str(root / str(named))) if (found := locate(text))), None)
    if not named or base is None:
        raise ConfigError(
            f"{root} is an adapter for the model '{named}', which is not there; put its folder into "
            "base_model_name_or_path of adapter_config.json, or talk with the merged export"
        )
    own = (root / "tokenizer_config.json").is_file()
    tokenizer = load_tokenizer({"path": str(root if own else base)})
    adapted: Any = PeftModel.from_pretrained(_loaded(base, tokenizer), str(root))
    merged = adapted.merge_and_unload() if hasattr(adapted.base_model, "merge_and_unload") else adapted
    return _settled(merged, tokenizer)


def _loaded(root: Path, tokenizer: PreTrainedTokenizerBase | None = None) -> PreTrainedModel:
    reads = tokenizer or load_tokenizer({"path": str(root)})
    return load_model({"path": str(root)}, reads, head="causal", options={})


def _settled(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Speaker:
    placed: Any = Fabric(accelerator="auto", devices=1).to_device(model.eval())
    return Speaker(placed, tokenizer, ChatTemplate(tokenizer), context_limit(model.config))


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as fault:
        raise ConfigError(f"{path} is no JSON object: {fault}") from fault

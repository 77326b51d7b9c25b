"""Chat with a run, a model folder or an adapter folder: the loaded model and its streamed answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer
from typing_extensions import override

from tunelab.config.resource_paths import resolve_path
from tunelab.config.schema import PretrainedModelConfig
from tunelab.data.chat_template import ChatTemplate
from tunelab.data.conversation import Conversation, Message
from tunelab.errors import ConfigError, DataError
from tunelab.language.translation import translate
from tunelab.models.architecture import context_limit, pretrained_place
from tunelab.models.device_placement import place_model, select_training_device
from tunelab.models.load_model import load_model, load_tokenizer
from tunelab.models.soft_prompt import soft_prompt_ids
from tunelab.models.unpadded_attention import PlainAttention
from tunelab.runs.stored_json import read_stored_json

MIN_ANSWER_TOKENS = 8  # tokens of the context that an answer must have to itself


@dataclass
class ChatModel:
    """A causal language model with what a chat needs: tokenizer, template, limit.

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
        on_text: Callable[[str], None],
        on_messages_dropped: Callable[[int], None],
    ) -> str:
        """The answer to the last message; old messages that no longer fit are removed from the list, and counted to
        `on_messages_dropped`.

        Raises:
            DataError: If the last message alone leaves no room for an answer.
        """
        dropped = 0
        while True:
            prompt = self.template.reply_ids(Conversation(tuple(messages)))
            room = max_new_tokens if self.limit is None else min(max_new_tokens, self.limit - len(prompt))
            if room >= min(max_new_tokens, MIN_ANSWER_TOKENS):
                break
            oldest = 1 if messages[0].role == "system" else 0
            if len(messages) - oldest < 3:  # the question, and nothing before it
                raise DataError(
                    translate(
                        "this takes {count} [token|tokens] of {limit}, which leaves none for an answer",
                        count=len(prompt),
                        limit=self.limit,
                    )
                )
            del messages[oldest : oldest + 2]  # a question and its answer
            dropped += 2
        if dropped:
            on_messages_dropped(dropped)
        stop = self.template.stop_ids
        return stream_answer(
            self.model, self.tokenizer, prompt, stop=stop, max_new_tokens=room, temperature=temperature, on_text=on_text
        )


class ChatTask(Protocol):
    """A task by its name, with the longest sequence it takes."""

    name: ClassVar[str]
    limit: int | None


class TrainedModel(Protocol):
    """A loaded run, as far as a chat needs it."""

    tokenizer: PreTrainedTokenizerBase
    note: str | None

    @property
    def model(self) -> PreTrainedModel:
        """The model, in evaluation mode on its device."""

    @property
    def task(self) -> ChatTask:
        """Its task; one that answers has a chat template."""


def load_chat_model(place: str) -> ChatModel:
    """The model in a folder; of a run `chat_model_of_run` makes it.

    Args:
        place: A folder that plain transformers loads, or one that PEFT wrote.

    Raises:
        ConfigError: If there is none of them, or it answers no questions.
    """
    root = resolve_path(place)
    if root is not None and (root / "adapter_config.json").is_file():
        return chat_model_of_adapter(root)
    if root is not None and (root / "config.json").is_file():
        return chat_model_of_folder(root)
    reason = translate("there is no such folder") if root is None else translate("the folder has none of them")
    raise ConfigError(
        translate(
            "{place} cannot be chatted with: looked for run.json (a run), config.json (a model) "
            "and adapter_config.json (an adapter), and {reason}",
            place=place,
            reason=reason,
        )
    )


def chat_model_of_run(trained: TrainedModel, root: Path) -> ChatModel:
    """The model of the run in the folder `root`.

    Raises:
        ConfigError: If it answers no questions.
    """
    task = trained.task
    template = getattr(task, "template", None)
    if template is None:
        raise ConfigError(
            translate(
                "{root} was trained for data.task={name}, so it gives labels or numbers and no "
                "answers; use tunelab predict {root} --input FILE --output FILE",
                root=root,
                name=task.name,
            )
        )
    return ChatModel(trained.model, trained.tokenizer, template, task.limit, trained.note)


def chat_model_of_folder(root: Path) -> ChatModel:
    """A model folder, with the chat template that its tokenizer brings."""
    config = _read_json_object(root / "config.json")
    heads = [str(name) for name in config.get("architectures") or []]
    if heads and not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in heads):
        raise ConfigError(
            translate(
                "{root} holds a {heads}, which answers no questions; labels and numbers come from "
                "the run that made it: tunelab predict RUN --input FILE --output FILE",
                root=root,
                heads=heads[0],
            )
        )
    return _make_chat_model(_load_causal_model(root), load_tokenizer(PretrainedModelConfig(path=str(root))))


def chat_model_of_adapter(root: Path) -> ChatModel:
    """An adapter folder of PEFT, on the base model that it names."""
    from peft import PeftModel  # slow to import, and few need it

    named = _read_json_object(root / "adapter_config.json").get("base_model_name_or_path")
    base = next((path for text in (str(named), str(root / str(named))) if (path := resolve_path(text))), None)
    if not named or base is None:
        raise ConfigError(
            translate(
                "{root} is an adapter for the model '{named}', which is not there; put its folder "
                "into base_model_name_or_path of adapter_config.json, or talk with the merged export",
                root=root,
                named=named,
            )
        )
    if (root / "adapter_model.bin").exists() and not (root / "adapter_model.safetensors").is_file():
        raise ConfigError(
            translate(
                "{root} holds its weights as a pickle (adapter_model.bin), which can hold code; save "
                "them as adapter_model.safetensors: PEFT writes that since 0.7",
                root=root,
            )
        )
    own = (root / "tokenizer_config.json").is_file()
    tokenizer = load_tokenizer(PretrainedModelConfig(path=str(root if own else base)))
    if not (root / "adapter_model.safetensors").is_file():
        raise ConfigError(
            translate(
                "{root} has no adapter_model.safetensors, the weights of the adapter; copy the whole folder", root=root
            )
        )
    model = _load_causal_model(base, tokenizer)
    with pretrained_place("adapter", str(root)) as place:
        adapted: Any = PeftModel.from_pretrained(model, str(place))
        merged = adapted.merge_and_unload() if hasattr(adapted.base_model, "merge_and_unload") else adapted
    return _make_chat_model(merged, tokenizer)


def _load_causal_model(root: Path, tokenizer: PreTrainedTokenizerBase | None = None) -> PreTrainedModel:
    reads = tokenizer or load_tokenizer(PretrainedModelConfig(path=str(root)))
    return load_model(PretrainedModelConfig(path=str(root)), reads, head="causal", options={})


def _make_chat_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> ChatModel:
    place_model(model.eval(), select_training_device("auto"))
    return ChatModel(model, tokenizer, ChatTemplate(tokenizer), context_limit(model.config))


def _read_json_object(path: Path) -> dict[str, Any]:
    return read_stored_json(path, translate("take it from where the model came from"))


REPLACEMENT_CHAR = "\ufffd"  # what bytes decode to while the rest of their character is still to come


class AnswerStreamer(BaseStreamer):
    """Turns tokens, as they come, into text; together it is the whole answer with its blank ends removed.

    Args:
        tokenizer: Decodes.
        stop: Ids that end the answer; they are no part of it.
        on_text: Is given each new piece of text.

    Attributes:
        text: The answer so far.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, stop: Sequence[int], on_text: Callable[[str], None]
    ) -> None:
        self.tokenizer, self.stop, self.on_text = tokenizer, stop, on_text
        self.ids: list[int] = []
        self.prompt = True
        self.text = ""

    @override
    def put(self, value: Tensor) -> None:
        if self.prompt:  # `generate` sends the prompt first
            self.prompt = False
            return
        self.ids += [token for token in value.flatten().tolist() if token not in self.stop]
        whole = self._text()
        if not whole.endswith(REPLACEMENT_CHAR):
            self._emit(whole.rstrip())  # blanks wait: they may turn out to be the end

    @override
    def end(self) -> None:
        self._emit(self._text().rstrip())

    def _text(self) -> str:
        # all of it each time: a tokenizer may write a token differently after another
        return str(self.tokenizer.decode(self.ids, skip_special_tokens=True)).lstrip()

    def _emit(self, text: str) -> None:
        if len(text) > len(self.text) and text.startswith(self.text):
            self.on_text(text[len(self.text) :])
            self.text = text


@torch.no_grad()
def stream_answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[int],
    *,
    stop: Sequence[int],
    max_new_tokens: int,
    temperature: float,
    on_text: Callable[[str], None],
) -> str:
    """Stream the answer to a prompt, piece by piece.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        prompt: Token ids, T of them.
        stop: Ids that end an answer.
        max_new_tokens: Longest answer.
        temperature: 0 takes the most likely token each time; above 0 draws, the more freely the higher.
        on_text: Is given each new piece of text.

    Returns:
        The whole answer, blank ends removed.
    """
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens, eos_token_id=list(stop), pad_token_id=stop[0], use_cache=True, **sampling
    )
    ids = torch.tensor([[*soft_prompt_ids(model), *prompt]], device=model.device)
    streamer = AnswerStreamer(tokenizer, stop=stop, on_text=on_text)
    model.eval()
    with PlainAttention(model):
        model.generate(  # type: ignore[operator]
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings, streamer=streamer
        )
    return streamer.text

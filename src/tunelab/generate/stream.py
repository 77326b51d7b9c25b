"""One answer, told while it is being made."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer
from typing_extensions import override

from tunelab.models.soft_prompt import soft_prompt_ids
from tunelab.models.unpadded_attention import PlainAttention

UNFINISHED = "\ufffd"  # what bytes decode to while the rest of their character is still to come


class Teller(BaseStreamer):
    """Turns tokens, as they come, into text; together it is the whole answer with its blank ends removed.

    Args:
        tokenizer: Decodes.
        stop: Ids that end the answer; they are no part of it.
        tell: Is given each new piece of text.

    Attributes:
        told: The answer so far.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, stop: Sequence[int], tell: Callable[[str], None]) -> None:
        self.tokenizer, self.stop, self.tell = tokenizer, stop, tell
        self.ids: list[int] = []
        self.prompt = True
        self.told = ""

    @override
    def put(self, value: Tensor) -> None:
        if self.prompt:  # `generate` hands over what it was given first
            self.prompt = False
            return
        self.ids += [token for token in value.flatten().tolist() if token not in self.stop]
        whole = self._text()
        if not whole.endswith(UNFINISHED):
            self._say(whole.rstrip())  # blanks wait: they may turn out to be the end

    @override
    def end(self) -> None:
        self._say(self._text().rstrip())

    def _text(self) -> str:
        # all of it each time: a tokenizer may write a token differently after another
        return str(self.tokenizer.decode(self.ids, skip_special_tokens=True)).lstrip()

    def _say(self, text: str) -> None:
        if len(text) > len(self.told) and text.startswith(self.told):
            self.tell(text[len(self.told) :])
            self.told = text


@torch.no_grad()
def speak(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[int],
    *,
    stop: Sequence[int],
    max_new_tokens: int,
    temperature: float,
    tell: Callable[[str], None],
) -> str:
    """Answer a prompt, telling the answer piece by piece.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        prompt: Token ids, T of them.
        stop: Ids that end an answer.
        max_new_tokens: Longest answer.
        temperature: 0 takes the most likely token each time; above 0 draws, the more freely the higher.
        tell: Is given each new piece of text.

    Returns:
        The whole answer, blank ends removed.
    """
    choice = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens, eos_token_id=list(stop), pad_token_id=stop[0], use_cache=True, **choice
    )
    ids = torch.tensor([[*soft_prompt_ids(model), *prompt]], device=model.device)
    teller = Teller(tokenizer, stop=stop, tell=tell)
    model.eval()
    with PlainAttention(model):
        model.generate(  # type: ignore[operator]
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings, streamer=teller
        )
    return teller.told

"""Decoding for prompts of uneven length: greedy, or sampled inside `use_sampling`.

Shape letters: B prompts, T tokens of the longest of them, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, GenerationConfig, PreTrainedModel

from tunelab.data.batching import longest_first, split_micro_batches
from tunelab.models.architecture import context_limit
from tunelab.models.soft_prompt import soft_prompt_ids
from tunelab.models.unpadded_attention import PlainAttention

MAX_BATCH_TOKENS = 16384  # tokens of one batch, pads and answers counted; bounds the cache


@dataclass(frozen=True, slots=True)
class GeneratedAnswer:
    """One generated answer.

    Attributes:
        ids: The new tokens, without the one that ended them.
        finish_reason: Why it went no further: "stop" (the model was done), "length" (`max_new_tokens`) or "context" (no
            place is left in the model).
        prompt_tokens_cut: Tokens of the prompt left out, because they alone fill the context.
    """

    ids: list[int]
    finish_reason: str
    prompt_tokens_cut: int = 0


@torch.no_grad()
def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    stop: Sequence[int],
    max_new_tokens: int,
    budget: int = MAX_BATCH_TOKENS,
) -> list[GeneratedAnswer]:
    """Continue each prompt with its most likely tokens.

    Prompts are padded on the left and masked, so an answer depends on its own prompt only.  The model keeps its
    mode, and no random number is drawn.

    Args:
        model: A causal language model.
        prompts: Token ids.
        stop: Ids that end an answer.
        max_new_tokens: Longest answer, in tokens.  One that meets the end of the model's context is shorter.
        budget: Most tokens of a batch, pads and answers counted; a longer prompt still gets a batch of its own.

    Returns:
        An answer for each prompt, in their order.
    """
    limit, lead, bos = context_limit(model.config), soft_prompt_ids(model), model.config.get_text_config().bos_token_id
    kept = []
    for prompt in prompts:
        head = [*lead, *prompt[: int(prompt[0] == bos)]]
        kept.append(fit_to_context(head, prompt[int(prompt[0] == bos) :], limit, max_new_tokens))
    answers: dict[int, GeneratedAnswer] = {}
    with eval_mode(model), PlainAttention(model):
        for batch in batch_prompts(model, [len(prompt) for prompt in kept], max_new_tokens, budget):
            rows = [kept[place] for place in batch]
            generated = (decode_recurrent if model._is_stateful else decode_with_cache)(
                model, rows, stop, max_new_tokens, limit
            )
            for place, ids in zip(batch, generated, strict=True):
                ended = finish_reason(ids, stop, max_new_tokens)
                answers[place] = GeneratedAnswer(
                    cut_at_stop(ids, stop), ended, len(lead) + len(prompts[place]) - len(kept[place])
                )
    return [answers[place] for place in range(len(prompts))]


def fit_to_context(head: Sequence[int], prompt: Sequence[int], limit: int | None, new: int) -> list[int]:
    """Head and prompt, the prompt shortened only where both fill the context by themselves: its newest tokens stay.

    A prompt that fits stays whole even if it leaves less than `new` tokens: what it asks matters more.
    """
    whole = [*head, *prompt]
    if limit is None or len(whole) < limit:
        return whole
    room = max(1, limit - min(new, limit // 2) - len(head))
    return [*head, *prompt[-room:]]


def batch_prompts(model: PreTrainedModel, lengths: Sequence[int], new: int, budget: int) -> list[list[int]]:
    """Places of prompts that are answered together, longest first.

    Recurrent models read pads as text, so they are given prompts of one length only.
    """
    full = [length + new for length in lengths]
    order = longest_first(range(len(lengths)), full)
    if not model._is_stateful:
        return split_micro_batches(order, full, micro_tokens=budget, packed=False)
    alike = [[place for place in order if full[place] == length] for length in dict.fromkeys(full[i] for i in order)]
    return [part for group in alike for part in split_micro_batches(group, full, micro_tokens=budget, packed=False)]


def decode_with_cache(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], stop: Sequence[int], new: int, limit: int | None
) -> list[list[int]]:
    """New tokens of each prompt, the ending one included, with the keys and values of the past kept.

    Rows that are done leave the batch as soon as they are half of it.
    """
    device, known = model.device, signature(model.forward).parameters
    width = max(map(len, prompts))
    ids = torch.tensor([[stop[0]] * (width - len(p)) + list(p) for p in prompts], device=device)  # (B, T)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    room = [new if limit is None else min(new, limit - len(prompt)) for prompt in prompts]
    extra: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
    cache = new_cache(model)
    generated: list[list[int]] = [[] for _ in prompts]
    alive = list(range(len(prompts)))  # prompt of each row of the batch; -1 once it is done
    while True:
        if "position_ids" in known:
            extra["position_ids"] = positions
        logits: Tensor = model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **extra
        ).logits[:, -1]
        ids = next_tokens(logits)
        for row, token in enumerate(ids[:, 0].tolist()):
            if (prompt := alive[row]) >= 0:
                generated[prompt].append(token)
                if token in stop or len(generated[prompt]) >= room[prompt]:
                    alive[row] = -1
        left = [row for row, prompt in enumerate(alive) if prompt >= 0]
        if not left:
            return generated
        positions = positions[:, -1:] + 1
        if 2 * len(left) <= len(alive):
            chosen = torch.tensor(left, device=device)
            cache.batch_select_indices(chosen)
            ids, mask, positions = ids[chosen], mask[chosen], positions[chosen]
            alive = [alive[row] for row in left]
        if limit is not None:
            positions = positions.clamp(max=limit - 1)  # of rows that are done and wait for the others
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)


def new_cache(model: PreTrainedModel) -> Cache:
    """An empty key-value cache; a mixture of models brings its own."""
    own = getattr(model, "new_cache", None)
    cache: Cache = DynamicCache(config=model.config.get_text_config()) if own is None else own()
    return cache


def decode_recurrent(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], stop: Sequence[int], new: int, limit: int | None
) -> list[list[int]]:
    """The same as `decode_with_cache`, through transformers, which knows the state of each kind of recurrent layer."""
    room = new if limit is None else min(new, limit - len(prompts[0]))
    settings = GenerationConfig(
        max_new_tokens=room, do_sample=False, eos_token_id=list(stop), pad_token_id=stop[0], use_cache=True
    )
    ids = torch.tensor(prompts, device=model.device)
    generated = model.generate(  # type: ignore[operator]
        input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings
    )
    rows: list[list[int]] = generated[:, ids.shape[1] :].tolist()
    return [row[: len(cut_at_stop(row, stop)) + 1] for row in rows]


@contextmanager
def eval_mode(model: PreTrainedModel) -> Iterator[None]:
    """Within this block nothing is dropped out; afterwards every part is in the mode it was in."""
    training = [part for part in model.modules() if part.training]
    model.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def finish_reason(ids: Sequence[int], stop: Sequence[int], new: int) -> str:
    """The reason why an answer ended: "stop", "length" or "context"."""
    if ids and ids[-1] in stop:
        return "stop"
    return "length" if len(ids) >= new else "context"


def cut_at_stop(ids: Sequence[int], stop: Sequence[int]) -> list[int]:
    """The ids before the first one that ends the answer."""
    ends = [place for place, token in enumerate(ids) if token in stop]
    return list(ids[: ends[0]] if ends else ids)


_SAMPLING_RULE: ContextVar[tuple[float, torch.Generator] | None] = ContextVar("rule", default=None)


@contextmanager
def use_sampling(temperature: float, seed: int) -> Iterator[None]:
    """Within this block `decode` draws each next token at a temperature; no other random number is touched.

    Args:
        temperature: Above 0: 1 draws from the model's own distribution, lower stays nearer to the likeliest token.
        seed: The same seed, model and prompts give the same answers.
    """
    token = _SAMPLING_RULE.set((temperature, torch.Generator().manual_seed(seed)))
    try:
        yield
    finally:
        _SAMPLING_RULE.reset(token)


def next_tokens(logits: Tensor) -> Tensor:
    """The next token of each row, (B, 1), from logits (B, V): the likeliest, or a drawn one inside `use_sampling`."""
    rule = _SAMPLING_RULE.get()
    if rule is None:
        return logits.argmax(-1, keepdim=True)
    temperature, dice = rule
    chances = (logits.float() / temperature).softmax(-1).cpu()
    return torch.multinomial(chances, 1, generator=dice).to(logits.device)

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
from tunelab.generation.growing_cache import (
    can_replace_rows,
    growing_cache,
    leave_behind,
    padding_columns,
    replace_rows,
)
from tunelab.models.architecture import context_limit
from tunelab.models.soft_prompt import soft_prompt_ids
from tunelab.models.unpadded_attention import PlainAttention

MAX_BATCH_TOKENS = 16384  # tokens of one batch, pads and answers counted; bounds the cache
ENOUGH_ROWS = 32  # of a batch, with which its passes are full
REFILL_SHARE = 8  # of this many rows one must be done before prompts come in: each time costs a pass


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
        lengths = [len(prompt) for prompt in kept]
        refills = can_refill(model)
        batches = batch_prompts(model, lengths, max_new_tokens, budget)
        for batch in pool_prompts(lengths, max_new_tokens, budget) if refills else batches:
            rows = [kept[place] for place in batch]
            if refills:
                slots = rows_within(budget, len(rows[0]) + max_new_tokens)
                generated = decode_refilled(model, rows, stop, max_new_tokens, limit, slots)
            else:
                way = decode_recurrent if model._is_stateful else decode_with_cache
                generated = way(model, rows, stop, max_new_tokens, limit)
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


def rows_within(budget: int, tokens: int) -> int:
    """The rows of so many tokens that fit in a budget, at least one."""
    return max(1, budget // tokens)


def pool_prompts(lengths: Sequence[int], new: int, budget: int) -> list[list[int]]:
    """Places of prompts that take turns in the rows of one batch, longest first.

    Long prompts bound the rows of all that take turns with them, so where these would be few, shorter ones have a batch
    of their own.
    """
    pools: list[list[int]] = []
    for place in longest_first(range(len(lengths)), lengths):
        rows = rows_within(budget, lengths[pools[-1][0]] + new) if pools else 0
        if rows >= ENOUGH_ROWS or (rows and rows_within(budget, lengths[place] + new) < 2 * rows):
            pools[-1].append(place)
        else:
            pools.append([place])
    return pools


def can_refill(model: PreTrainedModel) -> bool:
    """Whether a row that is done can be given the next prompt.

    Not with recurrent layers, whose state has no place for pads, nor inside `use_sampling`, whose draws follow the
    batch.
    """
    return not model._is_stateful and _SAMPLING_RULE.get() is None and can_replace_rows(new_cache(model))


@dataclass
class RunningRows:
    """The rows of a batch between two passes.

    Attributes:
        ids: The last token of each, (B, 1), which the model has not seen yet.
        mask: 1 where a token stands, (B, T).
        positions: Of the last token, (B, 1).
        cache: What the model has seen.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    cache: Cache


class Pass:
    """One forward pass of a model, and the next token of each row.

    Args:
        model: A causal language model.
        limit: Positions that it has; None without a limit.
    """

    def __init__(self, model: PreTrainedModel, limit: int | None) -> None:
        known = signature(model.forward).parameters
        self.model, self.limit, self.takes_positions = model, limit, "position_ids" in known
        self.extra: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in known else {}

    def read_prompts(self, prompts: Sequence[Sequence[int]], pad: int) -> RunningRows:
        """Rows that have read their prompts, padded on the left, with the first token of each answer."""
        device, width = self.model.device, max(map(len, prompts))
        ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=device)  # (B, T)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        rows = RunningRows(ids, mask, (mask.cumsum(1) - 1).clamp(min=0), new_cache(self.model))
        self.advance(rows)
        return rows

    def advance(self, rows: RunningRows) -> None:
        """Let the model see the last tokens, and take the next ones."""
        positions = rows.positions if self.limit is None else rows.positions.clamp(max=self.limit - 1)
        more = {"position_ids": positions, **self.extra} if self.takes_positions else self.extra
        logits: Tensor = self.model(
            input_ids=rows.ids, attention_mask=rows.mask, past_key_values=rows.cache, use_cache=True, **more
        ).logits[:, -1]
        rows.ids, rows.positions = next_tokens(logits), rows.positions[:, -1:] + 1
        rows.mask = torch.cat([rows.mask, rows.mask.new_ones(len(rows.mask), 1)], 1)


def decode_refilled(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    stop: Sequence[int],
    new: int,
    limit: int | None,
    slots: int,
    leave_share: int = REFILL_SHARE,
) -> list[list[int]]:
    """New tokens of each prompt, the ending one included; a row that is done is given the next prompt.

    Prompts come longest first, so that one that comes in is never wider than what is there.

    Args:
        model: A causal language model.
        prompts: Longest first.
        stop: Ids that end an answer.
        new: Longest answer, in tokens.
        limit: Positions of the model; None without a limit.
        slots: Rows of the batch.
        leave_share: Rows that are done leave once they are one in so many, and no prompt waits.
    """
    step = Pass(model, limit)
    room = [new if limit is None else min(new, limit - len(prompt)) for prompt in prompts]
    generated: list[list[int]] = [[] for _ in prompts]
    alive, waiting = list(range(min(slots, len(prompts)))), slots  # prompt of each row, -1 once done; the next one

    def note_tokens(places: Sequence[int], tokens: Sequence[int]) -> None:
        for row, token in zip(places, tokens, strict=True):
            if (prompt := alive[row]) >= 0:
                generated[prompt].append(token)
                if token in stop or len(generated[prompt]) >= room[prompt]:
                    alive[row] = -1

    rows = step.read_prompts([prompts[prompt] for prompt in alive], stop[0])
    trims = can_replace_rows(rows.cache)
    note_tokens(range(len(alive)), rows.ids[:, 0].tolist())
    while True:
        done = [row for row, prompt in enumerate(alive) if prompt < 0]
        while waiting < len(prompts) and len(done) >= max(1, len(alive) // REFILL_SHARE):
            free = done[: len(prompts) - waiting]
            coming = range(waiting, waiting + len(free))
            waiting += len(free)
            fresh = step.read_prompts([prompts[prompt] for prompt in coming], stop[0])
            take_rows_in(rows, torch.tensor(free, device=model.device), fresh)
            for row, prompt in zip(free, coming, strict=True):
                alive[row] = prompt
            note_tokens(free, fresh.ids[:, 0].tolist())
            done = [row for row, prompt in enumerate(alive) if prompt < 0]
        left = [row for row, prompt in enumerate(alive) if prompt >= 0]
        if not left:
            return generated
        if waiting >= len(prompts) and leave_share * (len(alive) - len(left)) >= len(alive):
            keep_rows(rows, torch.tensor(left, device=model.device))
            alive = [alive[row] for row in left]
        if trims and done:
            columns = padding_columns(rows.mask, [row for row, prompt in enumerate(alive) if prompt >= 0])
            leave_behind(rows.cache, columns)
            rows.mask = rows.mask[:, columns:]
        step.advance(rows)
        note_tokens(range(len(alive)), rows.ids[:, 0].tolist())


def take_rows_in(rows: RunningRows, free: Tensor, fresh: RunningRows) -> None:
    """Put rows that have just read their prompts in place of those that are done."""
    replace_rows(rows.cache, free, fresh.cache)
    rows.ids[free], rows.positions[free] = fresh.ids, fresh.positions
    rows.mask[free] = 0
    rows.mask[free, -fresh.mask.shape[1] :] = fresh.mask


def keep_rows(rows: RunningRows, kept: Tensor) -> None:
    """Keep some rows alone."""
    cache: Any = rows.cache
    cache.batch_select_indices(kept)
    rows.ids, rows.mask, rows.positions = rows.ids[kept], rows.mask[kept], rows.positions[kept]


def decode_with_cache(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], stop: Sequence[int], new: int, limit: int | None
) -> list[list[int]]:
    """The same for one batch of prompts, in any order; rows that are done leave it as soon as they are half of it."""
    return decode_refilled(model, prompts, stop, new, limit, len(prompts), 2)


def new_cache(model: PreTrainedModel) -> Cache:
    """An empty key-value cache; a mixture of models brings its own."""
    own = getattr(model, "new_cache", None)
    cache: Cache = growing_cache(DynamicCache(config=model.config.get_text_config()) if own is None else own())
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

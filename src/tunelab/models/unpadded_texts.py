"""Texts end to end through a model with a sequence head: no pads, and past the last attention the pooled token alone.

The very model is probed, as for `packing_support`: what a head reads of a text differs from family to family.

Shape letters: B texts, T tokens of all of them, H hidden, C classes or targets.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from tunelab.data.batching import pack_texts
from tunelab.data.examples import Example, MicroBatch
from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.models.freezing import layer_stack
from tunelab.models.heads import input_embeddings, pools_last_token, sequence_logits, unwrap_peft
from tunelab.models.packing_support import (
    PROBE_ERRORS,
    WINDOW_ATTRIBUTES,
    logit_tolerance,
    narrowed_windows,
    set_attention,
)
from tunelab.models.unpadded_attention import DOCUMENT_KERNEL, TEXT_KERNEL, causal_inputs, micro_to_device

AFTER_ATTENTION = ("attention.output", "sa_layer_norm")  # in a layer: what gets the mixed values of every token
LONGEST_PROBE = 600  # tokens of a text up to which a window is tried; a model with a wider one pads


class UnpaddedTexts:
    """Computes the logits of texts that lie end to end.

    What follows the last attention of an encoder sees one state for each text, as rows of one token, so that its own
    code pools the right one.  The bounds of the texts come with the arguments of each pass; padded rows have none and
    pass as ever.

    Args:
        model: With a sequence head; where `exact` holds its attention is set and it gets hooks, else it stays the same.

    Attributes:
        exact: Whether a probe finds the logits of padded rows.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        inner = unwrap_peft(model)
        self.pools_last = pools_last_token(inner)
        self.pad_position = None if self.pools_last else pad_position(inner)
        self.starts: Tensor | None = None  # of the texts that passed through the last layer
        before = inner.config._attn_implementation
        if before in (DOCUMENT_KERNEL, TEXT_KERNEL):  # has been set already, and knows no padded rows
            before = "sdpa" if inner._supports_sdpa else "eager"
        kernel = DOCUMENT_KERNEL if self.pools_last else TEXT_KERNEL
        self.exact = False
        for narrow in [lambda: []] if self.pools_last else self._ways_to_narrow(inner):
            try:
                handles = narrow()
            except AttributeError:  # this family has no such part
                continue
            self.exact = self._agrees_with_padded_rows(model, before, kernel)
            if self.exact:
                set_attention(inner, kernel)
                return
            for handle in handles:
                handle.remove()

    def logits(self, model: PreTrainedModel, micro: MicroBatch, *, separator: int | None = None) -> Tensor:
        """Logits (B, C) of packed texts.

        Args:
            model: With or without PEFT adapters.
            micro: Texts laid end to end.
            separator: Id of the separator where the model tells two texts apart by token types; None for one text.
        """
        inner = unwrap_peft(model)
        inputs = causal_inputs(micro)
        assert micro.document_starts is not None
        if self.pools_last:
            hidden: Tensor = getattr(inner, inner.base_model_prefix)(**inputs).last_hidden_state  # (1, T, H)
            logits: Tensor = inner.get_submodule("score")(hidden[0, micro.document_starts[1:] - 1])
            return logits
        del inputs["use_cache"]
        if separator is not None and getattr(inner.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = packed_token_types(micro, separator)
        if self.pad_position is not None:
            inputs["position_ids"] = positions_beside_pads(micro, self.pad_position)
        pooled: Tensor = inner(**inputs).logits
        return pooled

    def _ways_to_narrow(self, model: PreTrainedModel) -> list[Any]:
        """Ways to hand on one state for each text, what saves most first; each adds its hooks and returns them."""
        name, _ = layer_stack(model)
        layers: Any = model.get_submodule(name) if name else []
        # what returns the states after the last layer; ALBERT has one layer, which is passed several times
        holder = name.rpartition(".")[0] if name else f"{model.base_model_prefix}.encoder"
        inside = [lambda part=part: self._narrow_inside(layers[-1], part) for part in AFTER_ATTENTION if name]
        behind = [lambda mean=mean: self._narrow_behind(model, holder, mean=mean) for mean in (False, True)]
        return [*inside, *behind]

    def _narrow_inside(self, layer: nn.Module, part: str) -> list[RemovableHandle]:
        """Hand on the first tokens from behind the attention of the last layer on."""
        after = layer.get_submodule(part)

        def enter(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            bounds = named.get("cu_seq_lens_q")
            self.starts = None if bounds is None else bounds[:-1]

        def select(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            return None if self.starts is None else tuple(first_tokens(states, self.starts) for states in args)

        # not forgotten behind the layer: where activations are checkpointed, its inside is computed once more
        return [layer.register_forward_pre_hook(enter, with_kwargs=True), after.register_forward_pre_hook(select)]

    def _narrow_behind(self, model: PreTrainedModel, holder: str, *, mean: bool) -> list[RemovableHandle]:
        """Hand on the first token of each text, or the mean of its tokens, from behind the last layer on."""

        def select(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
            bounds = named.get("cu_seq_lens_q")
            if bounds is None:
                return None
            pool = mean_tokens if mean else lambda states, bounds: first_tokens(states, bounds[:-1])
            output.last_hidden_state = pool(output.last_hidden_state, bounds)
            return output

        return [model.get_submodule(holder).register_forward_hook(select, with_kwargs=True)]

    @torch.no_grad()
    def _agrees_with_padded_rows(self, model: PreTrainedModel, attention: str, kernel: str) -> bool:
        """Whether texts end to end give what padded rows give, and none notices that another one changed."""
        inner = unwrap_peft(model)
        if self.pools_last:  # what a decoder sees is narrowed, as for causal models
            with narrowed_windows(inner):
                return self._agrees(model, attention, kernel, (12, 11, 1, 5, 6))
        lengths = probe_lengths(inner)
        return lengths is not None and self._agrees(model, attention, kernel, lengths)

    def _agrees(self, model: PreTrainedModel, attention: str, kernel: str, lengths: tuple[int, ...]) -> bool:
        """The same for texts of these lengths."""
        inner = unwrap_peft(model)
        draw = torch.Generator().manual_seed(0)
        texts = [probe_text(inner, length, draw) for length in lengths]
        others = [*(probe_text(inner, length, draw) for length in lengths[:-1]), texts[-1]]

        def end_to_end(texts: list[list[int]]) -> Tensor:
            return self.logits(model, micro_to_device(pack_texts(probe_examples(texts)), inner.device)).float()

        with evaluated(model):
            try:
                set_attention(inner, attention)
                alone = torch.cat([sequence_logits(model, alone_row(text, inner.device)).float() for text in texts])
                set_attention(inner, kernel)
                together, after_others = end_to_end(texts), end_to_end(others)
            except PROBE_ERRORS:
                return False
            finally:
                set_attention(inner, attention)
        slack = logit_tolerance(inner) * alone.std() + 1e-6 * alone.abs().max()
        near = together.shape == alone.shape and (together - alone).abs().max() <= slack
        return bool(near and (together[-1] - after_others[-1]).abs().max() <= slack / 10)


def enable_unpadded_texts(
    model: PreTrainedModel, *, packing: bool | str, attention: str, saves: bool
) -> "UnpaddedTexts | None":
    """Lay texts end to end where that is exact.

    Args:
        model: With a sequence head; its attention is set where rows are laid so.
        packing: True demands it, False forbids it, "auto" takes it where it is exact and saves time.
        attention: The attention the user named, or "auto".
        saves: Whether it saves time on this device.

    Raises:
        ConfigError: If it is demanded and not exact.
    """
    if packing is False or (packing == "auto" and not (saves and attention == "auto")):
        return None
    family = unwrap_peft(model).config.model_type
    if attention != "auto":
        raise ConfigError(
            translate(
                "data.packing=true: model.attention={attention} does not keep texts apart that lie "
                "end to end; take model.attention=auto, or data.packing=false",
                attention=attention,
            )
        )
    texts = UnpaddedTexts(model)
    if not texts.exact and packing is True:
        raise ConfigError(
            translate(
                "data.packing=true: {family} gives other scores for texts that lie end to end than "
                "for each alone, so what is learned would depend on their neighbours; try "
                "data.packing=false",
                family=family,
            )
        )
    return texts if texts.exact else None


def pad_position(model: PreTrainedModel) -> int | None:
    """The position of a pad in families that count positions beyond it (RoBERTa and its kin); None where 0 is first."""
    tables = (getattr(module, "position_embeddings", None) for module in model.modules())
    return next((table.padding_idx for table in tables if isinstance(table, nn.Embedding)), None)


def positions_beside_pads(micro: MicroBatch, pad: int) -> Tensor:
    """Positions (1, T) as RoBERTa counts them: from `pad` + 1 on in each text, and `pad` where a token is that id."""
    assert micro.document_starts is not None
    real = (micro.ids[0] != pad).long()
    before = real.cumsum(0) - real
    here = before - before[micro.document_starts[:-1]].repeat_interleave(micro.lengths) + real
    return (here * real + pad)[None]


def packed_token_types(micro: MicroBatch, separator: int) -> Tensor:
    """Token types (1, T) of packed pairs, as `pair_token_types` counts in each."""
    assert micro.document_starts is not None
    ends = (micro.ids[0] == separator).long()
    before = ends.cumsum(0) - ends
    here = before - before[micro.document_starts[:-1]].repeat_interleave(micro.lengths)
    return (here > 0).long()[None]


def first_tokens(states: Tensor, starts: Tensor) -> Tensor:
    """States (1, T, H) of the first tokens of texts, as rows of one token, (B, 1, H); rows that are so already stay."""
    return states[0, starts][:, None] if len(states) == 1 else states


def mean_tokens(states: Tensor, bounds: Tensor) -> Tensor:
    """The mean state of each text, (B, 1, H), of states (1, T, H)."""
    lengths = bounds.diff()
    text = torch.arange(len(lengths), device=states.device).repeat_interleave(lengths)
    sums = states.new_zeros(len(lengths), states.shape[-1]).index_add(0, text, states[0])
    return (sums / lengths[:, None])[:, None]


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """Within this block nothing is dropped out."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def probe_lengths(model: PreTrainedModel) -> tuple[int, ...] | None:
    """Tokens of the texts of the probe: some longer than any window; None where that would be too long."""
    owners = [vars(owner) for owner in (model.config, *model.modules())]
    windows = [owner[name] for owner in owners for name in WINDOW_ATTRIBUTES if isinstance(owner.get(name), int)]
    longest = max([*windows, 8]) + 4
    limit = getattr(model.config, "max_position_embeddings", longest) - 4
    if limit < longest and not windows:
        longest = max(limit, 1)
    return None if longest > min(limit, LONGEST_PROBE) else (longest, max(1, longest - 1), 1, 5, max(1, longest // 2))


def probe_text(model: PreTrainedModel, length: int, draw: torch.Generator) -> list[int]:
    """A text of random tokens."""
    size = input_embeddings(model).shape[0]
    ids: list[int] = torch.randint(size, (length,), generator=draw).tolist()
    return ids


def probe_examples(texts: list[list[int]]) -> list[Example]:
    """Texts as examples that teach nothing."""
    return [Example(ids, 0, 0.0, -1) for ids in texts]


def alone_row(ids: list[int], device: torch.device) -> MicroBatch:
    """One text as a row of its own."""
    row = torch.tensor([0], device=device)
    return MicroBatch(torch.tensor([ids], device=device), torch.tensor([len(ids)], device=device), row, row)

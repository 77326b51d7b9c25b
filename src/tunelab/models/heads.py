"""Output heads: of causal models at the supervised positions only, of sequence models one row of logits per text.

Shape letters: B sequences, T tokens, N supervised positions, V vocabulary, C classes or targets, H hidden.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunelab.data.examples import MicroBatch
from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.models.chunked_logits import ChunkedLogits, find_scale, unscaled
from tunelab.models.packing_support import PROBE_ERRORS, logits_agree
from tunelab.models.vocabulary import add_special_words


class SupervisedHead:
    """Passes to the output head only the positions that carry loss.

    It works through a hook before the head, so bias, scale, soft-cap and adapters stay the model's own code.
    A probe on the very model decides whether that is exact; if not, all positions are scored and then selected.

    Args:
        model: A causal language model; it keeps working as before outside `logits`.

    Attributes:
        exact: Whether the head gives the same logits for chosen positions alone.
        whole: Why the logits of all positions must stand at once, in words; empty where they come part by part too.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.supervised_mask: Tensor | None = None
        self.states: Tensor | None = None  # taken before the head; empty while they are asked for
        self.head = model.get_output_embeddings()
        self.head.register_forward_pre_hook(self._select, prepend=True)  # of what goes in, before anything else looks
        tokens = torch.arange(12, device=model.device).view(2, 6)
        keep = tokens % 5 < 2
        inputs: dict[str, Any] = {"input_ids": tokens, "use_cache": False}
        self.exact = True
        self.exact = logits_agree(
            model, lambda: model(**inputs).logits[keep], lambda: self.logits(model, keep, **inputs)
        )
        self.scale: Callable[[Tensor], Tensor] = unscaled
        self.whole = self._find_scale(model, keep, inputs)

    def _find_scale(self, model: PreTrainedModel, keep: Tensor, inputs: dict[str, Any]) -> str:
        """Find out what the model does with the output of its head; why logits cannot come part by part, else empty."""
        if not self.exact:
            return f"{model.config.model_type} needs all positions in its head"
        try:
            scale = find_scale(model, self.head)
        except PROBE_ERRORS:
            scale = None
        if scale is not None:
            self.scale = scale
            if logits_agree(
                model,
                lambda: self.logits(model, keep, **inputs),
                lambda: self.in_parts(model, keep, lambda chunked: torch.cat([*chunked.parts()]), **inputs)[1],
            ):
                return ""
        return f"{model.config.model_type} does more to the output of its head than is known"

    def _select(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if self.supervised_mask is None:
            return None
        chosen = args[0][self.supervised_mask]
        if self.states is not None:
            self.states, chosen = chosen, chosen[:0]
        return chosen, *args[1:]

    def whole_reason(self) -> str:
        """Why the logits of all positions must stand at once now, in words; empty where they may come part by part."""
        if any(isinstance(module, nn.Dropout) and module.p > 0 for module in self.head.modules()):
            return "the head drops out units, and would draw others for each part"
        return self.whole

    def chunked_logits(self, model: PreTrainedModel, keep: Tensor, **inputs: Any) -> ChunkedLogits:
        """The same logits, to be computed a part at a time; only where `whole_reason` gives none.

        Where the model is spread over processes, the head is whole after the pass only within `stays_gathered`.
        """
        self.states = keep.new_empty(0)
        try:
            logits = self.logits(model, keep, **inputs)
            states = self.states
        finally:
            self.states = None
        return ChunkedLogits(states, self.head, self.scale, logits.shape[-1])

    def in_parts(
        self, model: PreTrainedModel, keep: Tensor, work: Callable[[ChunkedLogits], Tensor], **inputs: Any
    ) -> tuple[Tensor, Tensor]:
        """No logits, (0, V), and what `work` makes of them a part at a time; only where `whole_reason` gives none.

        The work is done within the pass, and what it makes is part of the output: so the head is whole for it, and
        again in the backward pass, where weights are spread over processes.
        """

        def finish(module: nn.Module, args: Any, output: Any) -> None:
            assert self.states is not None
            chunked = ChunkedLogits(self.states, self.head, self.scale, output.logits.shape[-1])
            self.states = self.supervised_mask = None  # the work calls the head itself
            output["loss"] = work(chunked)

        handle = model.register_forward_hook(finish, prepend=True)  # before weights are let go of
        self.states, self.supervised_mask = keep.new_empty(0), keep
        try:
            output = model(**inputs)
        finally:
            handle.remove()
            self.states = self.supervised_mask = None
        return output.logits, output.loss

    def logits(self, model: PreTrainedModel, keep: Tensor, **inputs: Any) -> Tensor:
        """Logits (N, V) at the positions where `supervised_mask` (B, T) holds."""
        self.supervised_mask = keep if self.exact else None
        try:
            logits: Tensor = model(**inputs).logits
        finally:
            self.supervised_mask = None
        return logits if self.exact else logits[keep]


PAD_TOKEN = "<|pad|>"  # the token a decoder gets when it has none of its own


def unwrap_peft(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside a PEFT wrapper, its adapters in place; any other model as it is.

    The wrapper forwards unknown attributes and names its own inner module `model`, so `wrapper.model` is not
    the backbone of a Llama.
    """
    unwrap = getattr(model, "get_base_model", None)
    inner = unwrap() if callable(unwrap) else model
    if not isinstance(inner, PreTrainedModel):
        raise TypeError(f"expected a transformers model, got {type(inner).__name__}")
    return inner


def pools_last_token(model: PreTrainedModel) -> bool:
    """Whether this is a decoder whose linear `score` reads the last token (GPT-2, Llama, Qwen, OPT, ...)."""
    return isinstance(getattr(model, "score", None), nn.Module) and not model.config.is_encoder_decoder


def pair_token_types(ids: Tensor, lengths: Tensor, separator: int) -> Tensor:
    """Token types of a pair of texts, the way BERT counts: 1 after the first separator, 0 over padding.

    Args:
        ids: Token ids, (B, T).
        lengths: Real tokens, (B,).
        separator: Id of the token that ends each text.

    Returns:
        0 or 1 per token, (B, T) int64.
    """
    ends = (ids == separator).long()
    second = (ends.cumsum(dim=1) - ends) > 0  # a separator still belongs to the text that it ends
    return (second & token_mask(ids, lengths)).long()


def token_mask(ids: Tensor, lengths: Tensor) -> Tensor:
    """True where a token is not padding, (B, T), by length: an id may be padding here and content there."""
    return torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]


def sequence_logits(model: nn.Module, micro: MicroBatch, *, separator: int | None = None) -> Tensor:
    """Logits of the classification or regression head.

    Decoders are pooled at the last real token, found by length; transformers looks for the last id that is not
    the padding id, which goes wrong where the text itself ends in that id (end of text used as padding).

    Args:
        model: A `...ForSequenceClassification`, with or without PEFT adapters.
        micro: Right-padded rows.
        separator: Id of the separator where the model tells two texts apart by token types; None for one text.

    Returns:
        Logits, (B, C).
    """
    inner = unwrap_peft(model)
    ids, lengths = micro.ids, micro.lengths
    mask = token_mask(ids, lengths).long()
    if pools_last_token(inner):
        backbone = getattr(inner, inner.base_model_prefix)
        hidden: Tensor = backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state  # (B, T, H)
        last = hidden[torch.arange(len(ids), device=ids.device), lengths - 1]  # (B, H)
        logits: Tensor = inner.get_submodule("score")(last)
        return logits
    types = {}
    if separator is not None and getattr(inner.config, "type_vocab_size", 0) > 1:
        types["token_type_ids"] = pair_token_types(ids, lengths, separator)
    pooled: Tensor = inner(input_ids=ids, attention_mask=mask, **types).logits
    return pooled


def input_embeddings(model: PreTrainedModel) -> Tensor:
    """The input embeddings, (V, H)."""
    weight: Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]
    return weight


def ensure_pad_token(tokenizer: PreTrainedTokenizerBase, model: nn.Module) -> bool:
    """Give a decoder with a sequence head a padding token that is never content, before training.

    Plain transformers pools such a model at the last id that is not the padding id.  With padding equal to end of
    text it would pool another token in use than in training, or refuse a batch.  Encoders keep what they have.

    Args:
        tokenizer: Changed in place: gets a token of its own for padding where it has none; pads on the right.
        model: Changed in place: the embeddings grow if they have no row for it, the config names it.

    Returns:
        Whether a token was added.

    Raises:
        ConfigError: If an encoder's tokenizer has no padding token.
    """
    inner = unwrap_peft(model)
    if not pools_last_token(inner):
        if tokenizer.pad_token_id is None:
            raise ConfigError(
                translate(
                    "the tokenizer of this {model_type} model has no padding token, so texts of "
                    "different length cannot share a batch; set pad_token in its tokenizer_config.json",
                    model_type=inner.config.model_type,
                )
            )
        return False
    used = {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id}
    added = tokenizer.pad_token_id is None or tokenizer.pad_token_id in used
    if added:
        add_special_words(tokenizer, {"pad_token": PAD_TOKEN})
    pad = int(tokenizer.pad_token_id)
    rows = input_embeddings(inner).shape[0]
    if pad >= rows:
        inner.resize_token_embeddings(pad + 1, mean_resizing=False)
        with torch.no_grad():
            input_embeddings(inner)[rows:].zero_()  # padding teaches nothing; zeros depend on no seed
    tokenizer.padding_side = "right"  # left padding shifts the positions that GPT-2 and OPT count
    inner.config.pad_token_id = pad
    inner.config.get_text_config().pad_token_id = pad
    return added


def output_linear(model: nn.Module, width: int) -> nn.Linear | None:
    """The linear layer that gives the logits: the last one outside the backbone, `width` wide."""
    inner = unwrap_peft(model)
    outside = [
        module
        for name, module in inner.named_modules()
        if isinstance(module, nn.Linear) and name.split(".")[0] != inner.base_model_prefix
    ]
    return outside[-1] if outside and outside[-1].out_features == width else None


def fold_target_scaling(model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> str | None:
    """Put `logits * std + mean` into the weights of a finished model, adapters merged, so that transformers alone
    gives values in the user's units.

    A head without bias (GPT-2, Llama and their kin) has no place for the mean, and transformers would not load one.
    Such a head stays as it is.  Either way the config says what is still to be done, as `target_mean` and
    `target_std`: 0 and 1 when folded.

    Args:
        model: Changed in place; do not train or score it further with the task.
        mean: What standardisation subtracted, C.
        std: What it divided by, C.

    Returns:
        A warning that says how to read the logits, or None when they are in the user's units.
    """
    inner = unwrap_peft(model)
    config = inner.config
    trivial = all(value == 0 for value in mean) and all(value == 1 for value in std)
    head = output_linear(inner, len(mean))
    if not trivial and (head is None or head.bias is None):
        config.target_mean, config.target_std = list(mean), list(std)
        return translate(
            "the head of {model} has no bias to hold the mean of the targets, so the exported "
            "model gives standardised values: value = logit * {std} + {mean} (target_std and "
            "target_mean in config.json)",
            model=type(inner).__name__,
            std=list(std),
            mean=list(mean),
        )
    if not trivial and head is not None:
        scale = torch.tensor(std, dtype=torch.float64, device=head.weight.device)
        shift = torch.tensor(mean, dtype=torch.float64, device=head.weight.device)
        with torch.no_grad():
            head.weight.copy_(head.weight.double() * scale[:, None])
            head.bias.copy_(head.bias.double() * scale + shift)
    config.target_mean, config.target_std = [0.0] * len(mean), [1.0] * len(std)
    return None

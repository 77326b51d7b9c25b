"""One vector of logits per sequence, whatever the architecture.  B sequences, T tokens, C classes or targets."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunelab.data.examples import Micro
from tunelab.errors import ConfigError

PAD = "<|pad|>"  # the token a decoder gets when it has none of its own


def plain(model: nn.Module) -> PreTrainedModel:
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


def token_types(ids: Tensor, lengths: Tensor, separator: int) -> Tensor:
    """Which text of a pair each token belongs to, the way BERT counts: 1 after the first separator, 0 over padding.

    Args:
        ids: Token ids, (B, T).
        lengths: Real tokens, (B,).
        separator: Id of the token that ends each text.

    Returns:
        0 or 1 per token, (B, T) int64.
    """
    ends = (ids == separator).long()
    second = (ends.cumsum(dim=1) - ends) > 0  # a separator still belongs to the text that it ends
    return (second & real_tokens(ids, lengths)).long()


def real_tokens(ids: Tensor, lengths: Tensor) -> Tensor:
    """True where a token is not padding, (B, T), by length: an id may be padding here and content there."""
    return torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]


def sequence_logits(model: nn.Module, micro: Micro, *, separator: int | None = None) -> Tensor:
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
    inner = plain(model)
    ids, lengths = micro.ids, micro.lengths
    mask = real_tokens(ids, lengths).long()
    if pools_last_token(inner):
        backbone = getattr(inner, inner.base_model_prefix)
        hidden: Tensor = backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state  # (B, T, H)
        last = hidden[torch.arange(len(ids), device=ids.device), lengths - 1]  # (B, H)
        logits: Tensor = inner.get_submodule("score")(last)
        return logits
    types = {}
    if separator is not None and getattr(inner.config, "type_vocab_size", 0) > 1:
        types["token_type_ids"] = token_types(ids, lengths, separator)
    pooled: Tensor = inner(input_ids=ids, attention_mask=mask, **types).logits
    return pooled


def embedding(model: PreTrainedModel) -> Tensor:
    """The input embeddings, (V, H)."""
    weight: Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]
    return weight


def ensure_pad(tokenizer: PreTrainedTokenizerBase, model: nn.Module) -> bool:
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
    inner = plain(model)
    if not pools_last_token(inner):
        if tokenizer.pad_token_id is None:
            raise ConfigError(
                f"the tokenizer of this {inner.config.model_type} model has no padding token, so texts of different "
                "length cannot share a batch; set pad_token in its tokenizer_config.json"
            )
        return False
    used = {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id}
    added = tokenizer.pad_token_id is None or tokenizer.pad_token_id in used
    if added:
        tokenizer.add_special_tokens({"pad_token": PAD})
    pad = int(tokenizer.pad_token_id)
    rows = embedding(inner).shape[0]
    if pad >= rows:
        inner.resize_token_embeddings(pad + 1, mean_resizing=False)
        with torch.no_grad():
            embedding(inner)[rows:].zero_()  # padding teaches nothing; zeros depend on no seed
    tokenizer.padding_side = "right"  # left padding shifts the positions that GPT-2 and OPT count
    inner.config.pad_token_id = pad
    inner.config.get_text_config().pad_token_id = pad
    return added

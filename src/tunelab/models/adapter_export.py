"""A trained adapter for export: merged into plain weights, and in the layout of PEFT.

Shape letters: P prompt positions, V vocabulary, H hidden.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunelab.errors import TuneLabError
from tunelab.language.translation import translate
from tunelab.models.adapters import AdaptedModel, embedding_tables
from tunelab.models.soft_prompt import SoftPrompt, find_soft_prompt
from tunelab.models.vocabulary import add_special_words, vocabulary_size

PEFT_ADAPTER_NAME = "default"  # PEFT's name of an adapter without one
PEFT_PREFIX = "base_model.model."  # what PEFT puts before the names of the base model


@dataclass
class MergedModel:
    """A model without adapters, and what it takes to use it.

    Attributes:
        prompt_prefix: Text that must stand before every prompt: the tokens of a soft prompt, else empty.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompt_prefix: str = ""

    def prefixed_template(self, template: str) -> str:
        """A chat template that starts with the lead."""
        return f'{{{{ "{self.prompt_prefix}" }}}}{template}' if self.prompt_prefix else template


def merge_adapter_weights(adapter: AdaptedModel, tokenizer: PreTrainedTokenizerBase) -> MergedModel:
    """The same function as plain weights; where there is anything to fold, in a copy that lies on the CPU.

    Raises:
        TuneLabError: If the trained weights are not finite, or a soft prompt cannot be written as embeddings.
    """
    if adapter.wrapper is not None:
        try:
            model = copy.deepcopy(adapter.wrapper).cpu().merge_and_unload(safe_merge=True)
        except ValueError as fault:
            raise TuneLabError(translate("the adapter cannot be merged: {fault}", fault=fault)) from fault
        unwrap_saved_modules(model)
        model._hf_peft_config_loaded = False  # else transformers saves the (now empty) adapter instead of the model
        return MergedModel(model, tokenizer)
    if find_soft_prompt(adapter.model) is not None:
        return soft_prompt_to_tokens(adapter.model, tokenizer)
    return MergedModel(adapter.model, tokenizer)


def unwrap_saved_modules(model: nn.Module) -> None:
    """Put the trained copy of a module in its own place; PEFT forgets it when it unloads norms."""
    for name, module in list(model.named_modules()):
        if type(module).__name__ == "ModulesToSaveWrapper":
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, module.modules_to_save[PEFT_ADAPTER_NAME])


@torch.no_grad()
def soft_prompt_to_tokens(trained: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> MergedModel:
    """A soft prompt as tokens of the vocabulary, at the head of every prompt.

    The output head grows with the vocabulary: the new tokens are never generated, and all other logits stay as they
    were.  A head that was tied to the embeddings stands alone from here on.
    """
    model, tokenizer = copy.deepcopy(trained).cpu(), copy.deepcopy(tokenizer)
    soft = model.get_input_embeddings()
    assert isinstance(soft, SoftPrompt)
    vectors = soft.prompt.detach()
    words = [f"<|soft_prompt_{place}|>" for place in range(len(vectors))]
    add_special_words(tokenizer, {"additional_special_tokens": words})
    model.set_input_embeddings(soft.base)
    untie_output_head(model)
    model.resize_token_embeddings(max(soft.base.num_embeddings, vocabulary_size(tokenizer)), mean_resizing=False)
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert isinstance(table, nn.Embedding) and isinstance(head, nn.Linear)
    ids = torch.tensor(tokenizer.convert_tokens_to_ids(words))
    table.weight[ids] = vectors
    scale = table(ids) / vectors  # some families multiply what they look up
    table.weight[ids] = vectors / torch.where(scale.isfinite(), scale, torch.ones_like(scale))
    if not torch.allclose(table(ids), vectors, rtol=1e-5, atol=1e-7):
        raise TuneLabError(
            translate("the soft prompt cannot be written as embeddings of this model; export/ is not written")
        )
    head.weight[ids] = 0
    model.generation_config.suppress_tokens = ids.tolist()
    return MergedModel(model, tokenizer, "".join(words))


def untie_output_head(model: PreTrainedModel) -> None:
    """Give the output head a matrix of its own."""
    model.config.tie_word_embeddings = False
    model.config.get_text_config().tie_word_embeddings = False
    head = model.get_output_embeddings()
    assert isinstance(head, nn.Linear)
    head.weight = nn.Parameter(head.weight.detach().clone())


def write_peft_adapter(adapter: AdaptedModel, plain: PreTrainedModel, folder: Path, base: str) -> bool:
    """Leave the adapter as PEFT loads it: `PeftModel.from_pretrained(base, folder)`.

    Args:
        adapter: As trained.
        plain: The merged model; weights that the adapter holds in full, such as a new head, are taken from it.
        folder: Where to.
        base: What the base model was loaded from.

    Returns:
        Whether there was anything to write: `head` and `top_layers` have no layout in PEFT.
    """
    exported = (
        soft_prompt_state(adapter)
        if find_soft_prompt(adapter.model) is not None
        else peft_adapter_state(adapter, plain)
    )
    if exported is None:
        return False
    config, state = exported
    config.base_model_name_or_path = base
    config.inference_mode = True
    if isinstance(getattr(config, "target_modules", None), set):
        config.target_modules = sorted(config.target_modules)  # the same file from the same run
    folder.mkdir(parents=True)
    config.save_pretrained(str(folder))
    alone = {name: weight.detach().cpu().contiguous().clone() for name, weight in state.items()}  # tied ones too
    save_file(alone, folder / "adapter_model.safetensors")
    check_adapter_names(folder, plain, set(alone))
    return True


def check_adapter_names(folder: Path, plain: PreTrainedModel, names: set[str]) -> None:
    """Compare the names of saved weights of an adapter with those of a new adapter of its config.

    Raises:
        TuneLabError: Naming weights that PEFT would not find, or would not know.
    """
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict

    with torch.device("meta"):  # names, no memory
        bare = type(plain)(copy.deepcopy(plain.config))
        ends = [bare.get_input_embeddings(), bare.get_output_embeddings() if bare.can_generate() else None]
        tables = {
            f"{PEFT_PREFIX}{name}.weight" for name, module in bare.named_modules() if any(module is e for e in ends)
        }
        config = PeftConfig.from_pretrained(str(folder))
        new = get_peft_model_state_dict(get_peft_model(bare, config), save_embedding_layers=False)
    missing, unknown = sorted(set(new) - names), sorted(names - set(new) - tables)  # tables: saved for new tokens
    if missing or unknown:
        raise TuneLabError(
            translate(
                "the adapter is not written, as PEFT would not load it whole; missing: {missing}; unknown: {unknown}",
                missing=", ".join(missing[:3]) or "none",
                unknown=", ".join(unknown[:3]) or "none",
            )
        )


def peft_adapter_state(adapter: AdaptedModel, plain: PreTrainedModel) -> tuple[Any, dict[str, Tensor]] | None:
    """PEFT's settings and weights of low-rank layers or norms."""
    if adapter.wrapper is None:
        return None
    from peft import get_peft_model_state_dict

    config = copy.copy(adapter.wrapper.peft_config[PEFT_ADAPTER_NAME])
    grown = any(table.requires_grad for table in embedding_tables(adapter.model).values())  # for tokens the base lacks
    state = get_peft_model_state_dict(adapter.wrapper, adapter_name=PEFT_ADAPTER_NAME, save_embedding_layers=grown)
    whole = plain.state_dict()
    for name in state:
        bare = name.removeprefix(PEFT_PREFIX)
        if bare in whole and whole[bare].shape == state[name].shape:
            state[name] = whole[bare]
    return config, state


def soft_prompt_state(adapter: AdaptedModel) -> tuple[Any, dict[str, Tensor]]:
    """PEFT's settings and weights of a soft prompt."""
    from peft import PromptTuningConfig

    soft = find_soft_prompt(adapter.model)
    assert soft is not None
    width = soft.prompt.shape[1]
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=len(soft.prompt), token_dim=width)
    return config, {"prompt_embeddings": soft.prompt.detach()}

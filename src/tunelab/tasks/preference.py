"""Preference learning: pairs of answers, the better one made likelier than the worse one (DPO, IPO).

Shape letters: B pairs.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel
from typing_extensions import override

from tunelab.config.schema import DataConfig, PreferenceDataConfig
from tunelab.data.batching import longest_first, split_micro_batches, split_pairs
from tunelab.data.examples import IGNORE, Example, MicroBatch
from tunelab.data.formats import RecordFormat
from tunelab.data.preference_pairs import PAIR_FORMAT, to_preference_pair
from tunelab.data.protocols import Record
from tunelab.data.token_store import map_examples, padded_lengths
from tunelab.data.truncation import truncate_pair
from tunelab.errors import ConfigError, DataError
from tunelab.language.translation import translate
from tunelab.models.unpadded_attention import micro_to_device
from tunelab.tasks.base import MetricInputs, Scores
from tunelab.tasks.causal import CausalTask, conversation_texts
from tunelab.tasks.metrics.directions import PREFERENCE_METRICS
from tunelab.tasks.metrics.preference_metrics import PreferenceScores, log_ratios
from tunelab.tasks.preference_loss import PreferenceLoss, answer_lengths, answer_log_probabilities, sum_answers
from tunelab.tasks.registry import DESCRIPTIONS, TaskDescription


class Preference(CausalTask):
    """Direct preference optimisation (Rafailov et al., 2023).

    The reference is the model before training.  Its log-probabilities of every pair are taken once, so that training
    holds one model only; a run that goes on takes them again from the same weights.

    Attributes:
        format: What the records are called in a report; each may have any of the layouts of pairs.
        loss: What a pair costs.
    """

    name: ClassVar[str] = "preference"
    format: str = "pairs"
    description: ClassVar[TaskDescription] = DESCRIPTIONS["preference"]
    data_config: ClassVar[type[DataConfig]] = PreferenceDataConfig
    needs_reference: ClassVar[bool] = True
    score_names: Sequence[str] = tuple(PREFERENCE_METRICS)
    metric_inputs_text: ClassVar[str] = "(chosen, rejected): the rewards of both answers of each pair, (N,) each"

    def __init__(
        self,
        *,
        columns: Mapping[str, str | None] | None = None,
        template: str = "auto",
        template_date: str | None = None,
        beta: float = 0.1,
        loss: str = "sigmoid",
        label_smoothing: float = 0.0,
        too_long: str = "drop",
    ) -> None:
        """Say what is learned.

        Args:
            columns: Our column name to the user's, where they differ.
            template: Chat template: "auto", a name, or a .jinja file.
            template_date: The day that a template writes which reads the clock, as 2026-11-28; None for today.
            beta: Strength of the pull to the reference, above 0.
            loss: "sigmoid" or "ipo".
            label_smoothing: Chance that a pair is labelled the wrong way round; "sigmoid" only.
            too_long: What happens to a pair that is too long.

        Raises:
            ConfigError: If the loss has no label smoothing.
        """
        super().__init__(template, template_date)
        if loss == "ipo" and label_smoothing:
            raise ConfigError(
                translate(
                    "data.label_smoothing={label_smoothing} has no meaning for data.loss=ipo; set it to "
                    "0, or take sigmoid",
                    label_smoothing=label_smoothing,
                )
            )
        self.columns = {ours: theirs for ours, theirs in (columns or {}).items() if theirs}
        self.loss = PreferenceLoss(loss, float(beta), float(label_smoothing))
        self.too_long = too_long

    @override
    def record_format(self, columns: Collection[str], format: str = "") -> RecordFormat:
        return PAIR_FORMAT

    @override
    def content(self, record: Record) -> str:
        return "\x1f".join(message.content for message in to_preference_pair(record, self.columns).prompt)

    @override
    def record_texts(self, record: Record) -> Mapping[str, str]:
        pair = to_preference_pair(record, self.columns)
        rejected = conversation_texts(pair.rejected).get("answer", "")
        return {**conversation_texts(pair.chosen), "rejected": rejected}

    @override
    def encode(self, record: Record, row: int) -> Example | None:
        pair = to_preference_pair(record, self.columns)
        chosen, rejected = (self.template.encode(conversation) for conversation in (pair.chosen, pair.rejected))
        if chosen == rejected:
            raise DataError(
                translate("chosen and rejected are the same; a pair without a difference teaches nothing, drop it")
            )
        bos = self.tokenizer.bos_token_id
        short = truncate_pair(chosen, rejected, limit=self.limit, too_long=self.too_long, bos=bos)
        if short is None:
            longest = max(len(chosen[0]), len(rejected[0]))
            self.too_long_count += self.limit is not None and longest > self.limit
            return None
        self.truncated_count += short != (chosen, rejected)
        (ids, labels), (more_ids, more_labels) = short
        return Example([*ids, *more_ids], [*labels, *more_labels], 1, row, second_start=len(ids))

    @override
    @torch.no_grad()
    def add_reference(
        self, model: PreTrainedModel, examples: Sequence[Example], micro_tokens: int
    ) -> Sequence[Example]:
        log_probabilities = torch.zeros(len(examples), 2)
        lengths = padded_lengths(examples, packed=self.packed)
        order = longest_first(range(len(examples)), lengths)
        for part in split_micro_batches(order, lengths, micro_tokens=micro_tokens, packed=self.packed):
            micro = micro_to_device(self.collate([examples[place] for place in part]), model.device)
            log_probabilities[torch.tensor(part)] = self.logits(model, micro).float().cpu()

        def known(example: Example, place: int) -> Example:
            chosen, rejected = log_probabilities[place].tolist()
            return replace(example, reference_logprobs=(chosen, rejected))

        return map_examples(known, examples)

    @override
    def padding_example(self) -> Example:
        return Example([0, 0], [IGNORE, IGNORE], 0, -1, second_start=1, reference_logprobs=(0.0, 0.0))

    @override
    def collate(self, examples: Sequence[Example]) -> MicroBatch:
        known = [example.reference_logprobs for example in examples if example.reference_logprobs is not None]
        reference = torch.tensor(known) if len(known) == len(examples) else None
        rows = torch.tensor([example.row for example in examples])
        return super().collate(split_pairs(examples))._replace(row_indices=rows, reference_logprobs=reference)

    @override
    def logits(self, model: PreTrainedModel, micro: MicroBatch) -> Tensor:
        """Log-probabilities of the answers, (B, 2): all that the loss and every score need."""
        if self.takes_parts(model, micro):
            targets = micro.targets[micro.targets != IGNORE]
            return sum_answers(
                self.in_parts(model, micro, lambda chunked: chunked.log_probabilities(targets))[1], micro
            )
        return answer_log_probabilities(super().logits(model, micro), micro)

    @override
    def loss_sum(self, logits: Tensor, micro: MicroBatch) -> Tensor:
        losses = self.loss.losses(log_ratios(logits, micro), answer_lengths(micro))
        return losses[micro.row_indices >= 0].sum()

    @override
    def scores(self) -> Scores:
        return PreferenceScores(self.loss)

    @override
    def step_scores(self) -> Scores:
        return PreferenceScores(self.loss)

    @override
    def metric_inputs(self, logits: Tensor, micro: MicroBatch) -> MetricInputs:
        rewards = self.loss.rewards(log_ratios(logits, micro))[micro.row_indices >= 0].double()
        return MetricInputs(rewards[:, 0], rewards[:, 1])

    @override
    def metric_example(self) -> MetricInputs:
        chosen = torch.linspace(-1.0, 1.0, 8, dtype=torch.float64)
        return MetricInputs(chosen, chosen.square() - 0.5)

    @override
    def predictions(
        self, model: PreTrainedModel, micro: MicroBatch, logits: Tensor, records: Sequence[Record]
    ) -> list[dict[str, Any]]:
        is_pair = micro.row_indices >= 0  # padding examples are none
        rewards = self.loss.rewards(log_ratios(logits, micro))[is_pair]
        return [
            {"row": row, "chosen_reward": chosen, "rejected_reward": rejected, "margin": chosen - rejected}
            for row, (chosen, rejected) in zip(micro.row_indices[is_pair].tolist(), rewards.tolist(), strict=True)
        ]

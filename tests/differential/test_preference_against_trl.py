"""Loss and gradient of a batch of pairs against TRL."""

import copy
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from support.preference_examples import STARTER, encoded, moved, pairs, ready, starter_model
from tunelab.config.resource_paths import resolve_path

trl = pytest.importorskip("trl", reason="TRL is not installed; pip install -e '.[trl]' brings it")

ROWS = 6
KINDS = {"dpo": {}, "dpo with a large beta": {"beta": 0.9}, "ipo": {"loss": "ipo", "beta": 0.3}}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradient_are_trls_on_the_same_batch(kind: str, tmp_path: Path) -> None:
    from datasets import Dataset

    # Given a model that has moved away from its reference, and pairs of uneven length
    reference = starter_model()
    model = moved(copy.deepcopy(reference))
    task = ready(**KINDS[kind])
    examples = task.add_reference(reference, encoded(task, ROWS), 10**6)

    # When TRL encodes the same records with the same template, and computes its loss
    tokenizer = AutoTokenizer.from_pretrained(resolve_path(STARTER))
    tokenizer.chat_template = task.template.export_template
    records = [
        {
            "prompt": [{"role": "user", "content": pair["prompt"]}],
            "chosen": [{"role": "assistant", "content": pair["chosen"]}],
            "rejected": [{"role": "assistant", "content": pair["rejected"]}],
        }
        for pair in pairs("train", ROWS)
    ]
    trainer = trl.DPOTrainer(
        copy.deepcopy(model),
        reference,
        args=trl.DPOConfig(
            str(tmp_path), report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False,
            loss_type=[task.loss.kind], beta=task.loss.beta, max_length=None, disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(records),
        processing_class=tokenizer,
    )  # fmt: skip
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(ROWS)])
    theirs = trainer.compute_loss(trainer.model, batch)
    theirs.backward()

    # Then the sequences are the same, and so are loss, rewards and gradient
    micro = task.collate(examples)
    for row, sequence in enumerate(batch["input_ids"]):  # theirs: all chosen, then all rejected
        place = 2 * (row % ROWS) + row // ROWS
        length = int(micro.lengths[place])
        assert sequence[:length].tolist() == micro.ids[place, :length].tolist()
    log_probabilities = task.logits(model, micro)
    ours = task.loss_sum(log_probabilities, micro) / ROWS
    ours.backward()
    assert float(ours) == pytest.approx(float(theirs), abs=1e-5)
    scores = task.scores()
    scores.update(log_probabilities, micro)
    found, wanted = scores.compute(), trainer._metrics["eval"]
    for name, its in {
        "reward_accuracy": "accuracies", "reward_margin": "margins", "chosen_reward": "chosen",
        "rejected_reward": "rejected",
    }.items():  # fmt: skip
        assert found[name] == pytest.approx(wanted[f"rewards/{its}"][-1], abs=1e-4)
    theirs_by_name = dict(trainer.model.named_parameters())
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, theirs_by_name[name].grad, rtol=1e-3, atol=1e-5)

"""Classification: labels, weights, encoding, loss, predictions."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tunelab.errors import ConfigError, DataError
from tunelab.tasks.classification import Classification

RECORDS = [
    {"text": "good film", "label": "pos"},
    {"text": "bad plot", "label": "neg"},
    {"text": "the film was not very long", "label": "neg"},
    {"text": "a short scene", "label": "neutral"},
]
MANY = [
    {"text": "good film", "label": ["joy", "awe"]},
    {"text": "bad plot", "label": "[]"},
    {"text": "long scene", "label": '["awe"]'},
    {"text": "a short scene", "label": ["awe"]},
]


def ready(tokenizer, records=RECORDS, limit=None, **options):
    task = Classification("text", "label", **options)
    task.fit(records)
    task.set_tokenizer(tokenizer, limit)
    return task


def laid_out(task, records=RECORDS):
    return task.collate([task.encode(record, row) for row, record in enumerate(records)])


def test_labels_are_sorted_and_given_to_the_head():
    task = Classification("text", "label")
    task.fit(RECORDS)
    assert task.head_options() == {
        "num_labels": 3,
        "id2label": {0: "neg", 1: "neutral", 2: "pos"},
        "label2id": {"neg": 0, "neutral": 1, "pos": 2},
        "problem_type": "single_label_classification",
    }


def test_the_head_options_survive_saving(make_model, tmp_path):
    task = Classification("text", "label", multilabel=True)
    task.fit(MANY)
    make_model("bert", **task.head_options()).save_pretrained(tmp_path)
    config = make_model("bert").config.from_pretrained(tmp_path)
    assert config.id2label == {0: "awe", 1: "joy"}
    assert config.label2id == {"awe": 0, "joy": 1}
    assert config.problem_type == "multi_label_classification"


def test_a_label_that_training_never_saw_is_named_with_the_closest(make_tokenizer):
    task = ready(make_tokenizer())
    with pytest.raises(DataError, match=r"label 'natural' never occurs.*did you mean 'neutral'.*'neg', 'pos'"):
        task.encode({"text": "good", "label": "natural"}, 0)


def test_a_record_without_a_label_is_refused():
    for record, message in (({"text": "a", "label": ""}, "label is empty"), ({"text": "b"}, "no column 'label'")):
        with pytest.raises(DataError, match=message):
            Classification("text", "label").check_target(record)


def test_one_label_alone_cannot_be_learned():
    with pytest.raises(DataError, match=r"holds \['pos'\].*at least 2"):
        Classification("text", "label").fit(RECORDS[:1])


def test_settings_out_of_range_are_all_told_at_once():
    with pytest.raises(ConfigError) as caught:
        Classification("text", "label", class_weights="equal", threshold=1.0, label_smoothing=1.0)
    assert all(name in str(caught.value) for name in ("class_weights", "threshold", "label_smoothing"))


def test_ids_are_those_of_the_tokenizer_and_rows_are_padded_on_the_right(make_tokenizer):
    tokenizer = make_tokenizer()
    micro = laid_out(ready(tokenizer))
    theirs = tokenizer([record["text"] for record in RECORDS], padding=True, return_tensors="pt")
    assert torch.equal(micro.ids, theirs["input_ids"])
    assert torch.equal(micro.lengths, theirs["attention_mask"].sum(1))
    assert micro.targets.tolist() == [2, 0, 0, 1]
    assert micro.row_indices.tolist() == [0, 1, 2, 3]
    assert (micro.ids.dtype, micro.targets.dtype) == (torch.int64, torch.int64)


def test_long_texts_are_cut_to_the_limit_and_counted(make_tokenizer):
    tokenizer = make_tokenizer()
    task = ready(tokenizer, limit=64, max_tokens=5)
    micro = laid_out(task)
    assert task.limit == 5
    assert task.truncated_count == 1  # "a short scene" fits exactly with its two marks
    assert micro.ids[2].tolist() == [2, *tokenizer("the film was", add_special_tokens=False)["input_ids"], 3]


def test_of_a_pair_the_longest_text_gives_way(make_tokenizer):
    tokenizer = make_tokenizer()
    record = {"text": "bad", "other": "the film was not very long", "label": "x"}
    task = ready(tokenizer, [record, {**record, "label": "y"}], limit=7, text_pair="other")
    assert tokenizer.decode(task.encode(record, 0).ids) == "[CLS] bad [SEP] the film was [SEP]"


def test_a_limit_without_room_for_text_is_refused(make_tokenizer):
    with pytest.raises(ConfigError, match="take 3; raise"):
        ready(make_tokenizer(), limit=2)


def test_a_text_that_holds_the_separator_of_pairs_is_refused(make_tokenizer):
    record = {"text": "bad [SEP] film", "other": "plot", "label": "x"}
    task = ready(make_tokenizer(), [record, {**record, "label": "y"}], text_pair="other")
    with pytest.raises(DataError, match="holds? the separator"):
        task.encode(record, 0)


@pytest.mark.parametrize("text", [None, "  ", 3])
def test_a_record_without_text_is_refused(text):
    with pytest.raises(DataError, match="column 'text' holds no text"):
        Classification("text", "label").content({"text": text, "label": "a"})


def test_content_is_the_input_alone_and_keeps_pairs_apart():
    task = Classification("a", "label", text_pair="b")
    assert task.content({"a": "x y", "b": "z", "label": 1}) == task.content({"a": "x y", "b": "z", "label": 2})
    assert task.content({"a": "x y", "b": "z"}) != task.content({"a": "x", "b": "y z"})


@pytest.mark.parametrize("weights", ["none", "balanced", {"pos": 3.0, "neg": 0.5}])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_a_step_is_the_weighted_mean_of_torch_however_it_is_cut(weights, smoothing, make_tokenizer):
    task = ready(make_tokenizer(), class_weights=weights, label_smoothing=smoothing)
    examples = [task.encode(record, row) for row, record in enumerate(RECORDS)]
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    cut = [slice(0, 3), slice(3, 4)]
    total = sum(task.loss_sum(logits[part], task.collate(examples[part])) for part in cut)
    ours = total / sum(example.loss_weight for example in examples)
    reference = nn.CrossEntropyLoss(weight=torch.tensor(task.weights), label_smoothing=smoothing)
    torch.testing.assert_close(ours, reference(logits, torch.tensor([2, 0, 0, 1])))


def test_a_filler_adds_nothing_but_keeps_the_graph(make_tokenizer):
    for task in (ready(make_tokenizer()), ready(make_tokenizer(), MANY, multilabel=True)):
        logits = torch.ones(1, len(task.label_names), requires_grad=True)
        loss = task.loss_sum(logits, task.collate([task.padding_example()]))
        loss.backward()
        assert task.padding_example().loss_weight == 0
        assert loss.item() == 0
        assert logits.grad.abs().sum() == 0


def test_the_multilabel_loss_is_the_mean_over_classes_of_torch(make_tokenizer):
    task = ready(make_tokenizer(), MANY, multilabel=True)
    micro = laid_out(task, MANY)
    logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    assert micro.targets.tolist() == [[1, 1], [0, 0], [1, 0], [1, 0]]
    assert sum(task.encode(record, 0).loss_weight for record in MANY) == 4
    expected = functional.binary_cross_entropy_with_logits(logits, micro.targets)
    torch.testing.assert_close(task.loss_sum(logits, micro) / 4, expected)


def test_balanced_multilabel_weights_give_the_rare_yes_the_say_of_the_common_no(make_tokenizer):
    task = ready(make_tokenizer(), MANY, multilabel=True, class_weights="balanced")
    assert task.weights == pytest.approx([1 / 3, 3.0])
    micro, logits = laid_out(task, MANY), torch.zeros(4, 2)
    expected = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1 / 3, 3.0]))(logits, micro.targets)
    torch.testing.assert_close(task.loss_sum(logits, micro) / 4, expected)


def test_predictions_name_label_prediction_and_probabilities(make_tokenizer):
    task = ready(make_tokenizer())
    micro = task.collate([task.encode(RECORDS[0], 5), task.padding_example()])
    logits = torch.tensor([[0.0, 1.0, 3.0], [0.0, 0.0, 0.0]])
    (found,) = task.predictions(None, micro, logits, RECORDS[:1])
    assert (found["row"], found["label"], found["prediction"]) == (5, "pos", "pos")
    expected = logits[0].softmax(0).tolist()
    assert found["probabilities"] == pytest.approx(dict(zip(task.label_names, expected, strict=True)))


def test_multilabel_predictions_are_lists_cut_at_the_threshold(make_tokenizer):
    task = ready(make_tokenizer(), MANY, multilabel=True, threshold=0.3)
    micro = laid_out(task, MANY[:2])
    found = task.predictions(None, micro, torch.tensor([[-0.5, -1.0], [-2.0, -3.0]]), MANY[:2])
    assert [row["prediction"] for row in found] == [["awe"], []]
    assert [row["label"] for row in found] == [["awe", "joy"], []]


@pytest.mark.parametrize("multilabel", [False, True])
def test_scores_have_the_promised_names(multilabel, make_tokenizer):
    records = MANY if multilabel else RECORDS
    task = ready(make_tokenizer(), records, multilabel=multilabel)
    scores = task.scores()
    scores.update(torch.randn(4, len(task.label_names)), laid_out(task, records))
    assert set(scores.compute()) == set(task.score_names)
    assert task.description.monitor.removeprefix("val/") in task.score_names


@pytest.mark.parametrize("limit", [3, 5, 40])
@pytest.mark.parametrize("side", ["right", "left"])
def test_many_texts_over_the_limit_are_cut_as_the_tokenizer_cuts_them(make_tokenizer, limit, side):
    tokenizer = make_tokenizer()
    tokenizer.truncation_side = side
    words = ["good", "film", "bad", "plot", "the"]
    texts = [" ".join(words[at % 5] for at in range(size)) for size in range(1, 50)]
    records = [{"text": text, "label": label} for text in texts for label in ("a", "b")]
    task = ready(tokenizer, records, limit)

    examples = [example for some in task.encode_many(records, 0) for example in some]

    cut = [tokenizer(record["text"], truncation=True, max_length=limit)["input_ids"] for record in records]
    assert [[*example.ids] for example in examples] == cut
    assert task.truncated_count == sum(len(tokenizer(record["text"])["input_ids"]) > limit for record in records)

"""Records with choices or labels: what is right, what an answer means, and accuracy and F1 as scikit-learn has them."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score

from tunelab.config.schema import PretrainedModelConfig
from tunelab.data.formats import detect_format, to_conversation
from tunelab.errors import DataError
from tunelab.generation.decode import GeneratedAnswer
from tunelab.tasks.instruction import Instruction
from tunelab.tasks.metrics.answer_metrics import AnswerTotals, collect_answer_classes, score_answer
from tunelab.tasks.multiple_choice import AnswerClasses, Choices

MOODS = ["happy", "sad", "angry"]


def record(answer: str, **more: Any) -> dict[str, Any]:
    return {"prompt": "how are you", "completion": answer, **more}


def talk(answer: str, **more: Any) -> Any:
    return to_conversation(record(answer, **more), "prompt_completion")


def row(number: int, wanted: str, said: str, labels: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    return score_answer(number, talk(wanted, **more), wanted, (said, GeneratedAnswer([], "stop")), labels)


@pytest.mark.parametrize(
    ("label", "answer"),
    [(1, "sad"), ("sad", "sad"), ("B", "sad"), (None, "sad"), (None, "B"), ("Sad.", "sad"), (1, "so sad, really")],
)
def test_the_right_choice_is_named_by_text_letter_place_or_answer(label: Any, answer: str) -> None:
    assert Choices.from_columns(MOODS, label, answer).correct_index == 1


def test_choices_in_the_layout_of_text_and_label_lists_are_read() -> None:
    found = Choices.from_columns({"text": MOODS, "label": ["1", "2", "3"]}, "3", "angry")

    assert (found.texts, found.correct_index) == (tuple(MOODS), 2)


def test_an_answer_means_a_choice_only_where_it_says_nothing_else() -> None:
    found = Choices.from_columns(MOODS, None, "sad")

    assert [found.chosen_index(said) for said in ("Sad", " sad.\n", '"sad"', "not sad", "sad angry", "", "B")] == [
        1, 1, 1, None, None, None, None,
    ]  # fmt: skip


def test_where_the_written_answer_is_a_letter_letters_are_meant() -> None:
    found = Choices.from_columns(["a cat", "a dog"], 1, "B")

    assert [found.chosen_index(said) for said in ("B", "(b)", "A.", "a dog", "C")] == [1, 1, 0, None, None]


@pytest.mark.parametrize(
    ("choices", "label", "match"),
    [
        (["one"], None, "at least two texts"),
        ("red, blue", None, "at least two texts"),
        (["red", "Red."], None, "cannot be told apart"),
        (["red", ""], None, "cannot be told apart"),
        (MOODS, 3, "none of the choices"),
        (MOODS, "furious", "none of the choices"),
        (MOODS, True, "none of the choices"),
    ],
)
def test_choices_that_say_nothing_are_refused(choices: Any, label: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        Choices.from_columns(choices, label, "red")


def test_a_bad_choice_is_refused_when_the_record_is_encoded_so_that_its_line_is_told() -> None:
    from tunelab.models.load_model import load_tokenizer

    task = Instruction()
    good, bad = record("sad", choices=MOODS), record("sad", choices=MOODS, label="glad")
    task.fit([good, bad])
    task.set_tokenizer(load_tokenizer(PretrainedModelConfig(path="package:tunelab.starter/model")), 128)

    assert task.encode(good, 0) is not None
    with pytest.raises(DataError, match="the label 'glad' is none of the choices"):
        task.encode(bad, 1)


def test_the_classes_are_the_choices_where_all_records_share_them_else_their_places() -> None:
    same = collect_answer_classes([talk("sad", choices=MOODS), talk("happy", choices=MOODS[::-1])])
    differing = collect_answer_classes([talk("sad", choices=MOODS), talk("x", choices=["x", "y"])])

    assert same == AnswerClasses(("angry", "happy", "sad"))
    assert differing == AnswerClasses(("1", "2", "3"), named_by_choice=False)
    assert collect_answer_classes([talk("sad")]) == AnswerClasses()


def test_a_column_named_label_counts_only_where_it_is_the_answer() -> None:
    assert collect_answer_classes([talk("sad", label="sad"), talk("happy.", label="happy")]) == AnswerClasses(
        ("happy", "sad")
    )
    assert collect_answer_classes([talk("sad", label="sad"), talk("happy", label="spam")]) == AnswerClasses()
    assert collect_answer_classes([talk("sad", label="sad"), talk("happy")]) == AnswerClasses()
    assert collect_answer_classes([talk("sad", label=1), talk("happy", label=0)]) == AnswerClasses()


def test_choices_and_label_are_no_part_of_what_the_model_sees() -> None:
    plain, rich = talk("sad"), talk("sad", choices=MOODS, label="sad")

    assert detect_format(record("sad", choices=MOODS, label="sad").keys()) == "prompt_completion"
    assert plain.messages == rich.messages


SAID = st.sampled_from([*MOODS, "Happy.", "I do not know", ""])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(MOODS), SAID), min_size=1, max_size=30))
def test_accuracy_and_f1_are_scikit_learns_on_the_written_predictions(pairs: list[tuple[str, str]]) -> None:
    for more, labels in (({"choices": MOODS}, ()), ({}, tuple(sorted(MOODS)))):
        extra = [{**more, **({} if more else {"label": wanted})} for wanted, _ in pairs]
        rows = [row(i, wanted, said, labels, **extra[i]) for i, (wanted, said) in enumerate(pairs)]
        tally = AnswerTotals(AnswerClasses(tuple(sorted(MOODS))))

        found = tally.to_metrics(tally.sum_vectors(rows))

        real = [line["label"] for line in rows]
        guessed = ["(unmatched)" if line["choice"] is None else line["choice"] for line in rows]
        names, occurring = sorted(MOODS), sorted({*real, *guessed} & {*MOODS})
        assert found["accuracy"] == pytest.approx(accuracy_score(real, guessed))
        for name, labels_of in (("f1", occurring), ("f1_all", names)):
            wanted_f1 = f1_score(real, guessed, labels=labels_of, average="macro", zero_division=0)
            assert found[name] == pytest.approx(wanted_f1)
        assert found["unmatched"] == guessed.count("(unmatched)")
        wanted_precision = precision_score(real, guessed, labels=names, average=None, zero_division=0)
        assert [line["precision"] for line in tally.by_class(tally.sum_vectors(rows))] == pytest.approx(
            list(wanted_precision)
        )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=20))
def test_where_choices_differ_f1_is_scikit_learns_over_their_places(pairs: list[tuple[int, int]]) -> None:
    # Given rows whose choices are all different words, and answers of which some are none of them
    rows = []
    for number, (right, said) in enumerate(pairs):
        texts = [f"{word} {number}" for word in MOODS]
        rows.append(row(number, texts[right], [*texts, "none"][said], choices=texts, label=right))
    tally = AnswerTotals(AnswerClasses.by_position(3))

    found = tally.to_metrics(tally.sum_vectors(rows))

    real, guessed = [right for right, _ in pairs], [said for _, said in pairs]
    assert found["accuracy"] == pytest.approx(accuracy_score(real, guessed))
    f1 = f1_score(real, guessed, labels=sorted({*real, *guessed} - {3}), average="macro", zero_division=0)
    assert found["f1"] == pytest.approx(f1)


def test_the_classes_of_a_run_are_kept_for_later_use() -> None:
    task, other = Instruction(), Instruction()
    task.fit([record("sad", choices=MOODS), record("x", choices=["x", "y"])])
    other._set_answer_classes(
        AnswerClasses(tuple(task.totals.classes.names), named_by_choice=task.totals.classes.named_by_choice)
    )

    assert task.answer_names == other.answer_names
    assert {"accuracy", "f1", "unmatched"} <= {*task.answer_names}
    assert not {"accuracy", "f1"} & {*Instruction().answer_names}

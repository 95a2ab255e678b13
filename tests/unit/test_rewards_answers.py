"""Rewards of classes and of short answers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geovlm_ray.tasks.labels import BIGEARTHNET_43
from tests.unit.judging import accuracy, example, score

NAMES = ("water", "farmland", "forest", "urban", "bare ground", "ship")
labels = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True)
words = st.sampled_from(["ship", "plane", "water", "two", "left"])


@given(labels, labels)
def test_recall_and_f1_are_those_of_the_sets(answer: list[str], truth: list[str]) -> None:
    record = example("multilabel_classification", tuple(truth))
    hits = len(set(answer) & set(truth))
    assert accuracy(", ".join(answer), record, "recall") == pytest.approx(hits / len(truth))
    assert accuracy(", ".join(answer), record) == pytest.approx(2 * hits / (len(answer) + len(truth)))
    assert accuracy(", ".join(answer), record, "accuracy") == float(set(answer) == set(truth))


@given(labels, labels, st.randoms(use_true_random=False))
def test_order_and_repeats_of_labels_do_not_count(answer: list[str], truth: list[str], random: object) -> None:
    record = example("multilabel_classification", tuple(truth))
    shuffled = [*answer, *answer[:1]]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for form in ("recall", "fbeta", "accuracy"):
        assert accuracy(", ".join(shuffled), record, form) == accuracy(", ".join(answer), record, form)


@given(labels, labels, st.sampled_from([*NAMES, "airport", "no such thing"]), st.floats(0.1, 5))
def test_a_wrong_label_never_helps(answer: list[str], truth: list[str], wrong: str, beta: float) -> None:
    record = example("multilabel_classification", tuple(truth), labels=NAMES)
    if wrong not in truth:
        more, less = (accuracy(", ".join(a), record, beta=beta) for a in ([*answer, wrong], answer))
        assert more <= less


def test_naming_every_class_earns_recall_but_not_f1() -> None:
    record = example("multilabel_classification", ("Pastures", "Vineyards"))
    everything = ", ".join(BIGEARTHNET_43)
    assert accuracy(everything, record, "recall") == 1.0
    assert accuracy(everything, record) == pytest.approx(4 / 45)


def test_naming_a_whole_vocabulary_is_no_answer() -> None:
    record = example("multilabel_classification", NAMES[:4], labels=NAMES)
    assert accuracy(", ".join(NAMES), record) == 0.0
    assert accuracy(", ".join(NAMES[:5]), record) == pytest.approx(8 / 9)
    assert accuracy(", ".join(NAMES), example("multilabel_classification", NAMES, labels=NAMES)) == 1.0
    assert accuracy("yes, no", example("scene_classification", ("yes",), labels=("yes", "no"))) == pytest.approx(2 / 3)


def test_beta_favours_recall_or_precision() -> None:
    record = example("multilabel_classification", ("water", "forest"))
    assert accuracy("water", record, beta=2) < accuracy("water", record) < accuracy("water", record, beta=0.5)
    parts = score("water, urban, ship", record).components
    assert parts == {"precision": pytest.approx(1 / 3), "recall": 0.5}


@pytest.mark.parametrize(
    ("answer", "value"), [("Destroyed.", 1.0), ("destroyed, destroyed", 1.0), ("no damage, destroyed", 0.0), ("", 0.0)]
)
def test_damage_is_judged_exactly(answer: str, value: float) -> None:
    assert accuracy(answer, example("damage_assessment", ("destroyed",))) == value


@settings(max_examples=50)
@given(st.lists(words, min_size=1, max_size=6), st.lists(words, min_size=1, max_size=6), words)
def test_jaccard(answer: list[str], truth: list[str], extra: str) -> None:
    record = example("vqa", " ".join(truth))
    a, b = set(answer), set(truth)
    assert accuracy(" ".join(answer), record, "jaccard") == pytest.approx(len(a & b) / len(a | b))
    assert accuracy(" ".join(reversed(answer)), record) == accuracy(" ".join(answer), record)
    if extra not in b:
        assert accuracy(" ".join([*answer, extra]), record) <= accuracy(" ".join(answer), record)


@pytest.mark.parametrize(
    ("answer", "truth", "value"),
    [("Yes.", "yes", 1.0), ("yes yes", "yes", 0.5), ("no", "yes", 0.0), ("3.5", "3.5", 1.0), ("3", "3.5", 0.0)],
)
def test_short_answers(answer: str, truth: str, value: float) -> None:
    assert accuracy(answer, example("vqa", truth)) == value

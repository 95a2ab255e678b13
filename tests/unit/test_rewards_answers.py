"""Rewards of class labels and short answers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geovlm_ray.tasks.labels import BIGEARTHNET_43
from tests.unit.reward_examples import accuracy, example, score

NAMES = ("water", "farmland", "forest", "urban", "bare ground", "ship")
labels = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True)
words = st.sampled_from(["ship", "plane", "water", "two", "left"])


@given(labels, labels)
def test_recall_and_f1_match_their_set_definitions(answer: list[str], truth: list[str]) -> None:
    record = example("multilabel_classification", tuple(truth))
    hits = len(set(answer) & set(truth))
    assert accuracy(", ".join(answer), record, "recall") == pytest.approx(hits / len(truth))
    assert accuracy(", ".join(answer), record) == pytest.approx(2 * hits / (len(answer) + len(truth)))
    assert accuracy(", ".join(answer), record, "accuracy") == float(set(answer) == set(truth))


@given(labels, labels, st.randoms(use_true_random=False))
def test_label_order_and_duplicates_do_not_matter(answer: list[str], truth: list[str], random: object) -> None:
    record = example("multilabel_classification", tuple(truth))
    shuffled = [*answer, *answer[:1]]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for form in ("recall", "fbeta", "accuracy"):
        assert accuracy(", ".join(shuffled), record, form) == accuracy(", ".join(answer), record, form)


@given(labels, labels, st.sampled_from([*NAMES, "airport", "no such thing"]), st.floats(0.1, 5))
def test_wrong_label_never_increases_the_reward(answer: list[str], truth: list[str], wrong: str, beta: float) -> None:
    record = example("multilabel_classification", tuple(truth), labels=NAMES)
    if wrong not in truth:
        with_wrong, without = (accuracy(", ".join(a), record, beta=beta) for a in ([*answer, wrong], answer))
        assert with_wrong <= without


def test_listing_every_class_maximizes_recall_but_not_f1() -> None:
    record = example("multilabel_classification", ("Pastures", "Vineyards"))
    everything = ", ".join(BIGEARTHNET_43)
    assert accuracy(everything, record, "recall") == 1.0
    assert accuracy(everything, record) == pytest.approx(4 / 45)


def test_listing_the_full_vocabulary_scores_zero() -> None:
    record = example("multilabel_classification", NAMES[:4], labels=NAMES)
    assert accuracy(", ".join(NAMES), record) == 0.0
    assert accuracy(", ".join(NAMES[:5]), record) == pytest.approx(8 / 9)
    assert accuracy(", ".join(NAMES), example("multilabel_classification", NAMES, labels=NAMES)) == 1.0
    assert accuracy("yes, no", example("scene_classification", ("yes",), labels=("yes", "no"))) == pytest.approx(2 / 3)


def test_beta_weights_recall_against_precision() -> None:
    record = example("multilabel_classification", ("water", "forest"))
    assert accuracy("water", record, beta=2) < accuracy("water", record) < accuracy("water", record, beta=0.5)
    parts = score("water, urban, ship", record).components
    assert parts == {"precision": pytest.approx(1 / 3), "recall": 0.5}


@pytest.mark.parametrize(
    ("answer", "value"), [("Destroyed.", 1.0), ("destroyed, destroyed", 1.0), ("no damage, destroyed", 0.0), ("", 0.0)]
)
def test_damage_assessment_requires_an_exact_match(answer: str, value: float) -> None:
    assert accuracy(answer, example("damage_assessment", ("destroyed",))) == value


@settings(max_examples=50)
@given(st.lists(words, min_size=1, max_size=6), st.lists(words, min_size=1, max_size=6), words)
def test_jaccard_matches_its_set_definition(answer: list[str], truth: list[str], extra: str) -> None:
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
def test_short_answer_accuracy(answer: str, truth: str, value: float) -> None:
    assert accuracy(answer, example("vqa", truth)) == value

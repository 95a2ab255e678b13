"""Rewards of class labels and short answers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geovlm_ray.tasks.answers.labels import BIGEARTHNET_43
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
    if extra not in b:
        paper = [accuracy(" ".join(words), record, "jaccard") for words in ([*answer, extra], answer)]
        assert paper[0] <= paper[1]


@settings(max_examples=50)
@given(st.lists(words, min_size=1, max_size=6, unique=True), st.lists(words, min_size=1, max_size=6, unique=True))
def test_equivalence_of_phrases_is_at_most_one_and_one_for_the_truth(answer: list[str], truth: list[str]) -> None:
    record = example("vqa", " ".join(truth))
    assert accuracy(" ".join(truth), record) == 1.0
    assert 0 <= accuracy(" ".join(answer), record) <= 1


@pytest.mark.parametrize(
    ("answer", "truth", "value"),
    [("Yes.", "yes", 1.0), ("yes yes", "yes", 1.0), ("no", "yes", 0.0), ("3.5", "3.5", 1.0), ("3", "3.5", 0.0)],
)
def test_short_answer_accuracy(answer: str, truth: str, value: float) -> None:
    assert accuracy(answer, example("vqa", truth)) == value


def test_components_name_what_decided_a_short_answer() -> None:
    assert score("three ships", example("vqa", "two ships")).components == {"equivalent": 0.0}
    assert score("red roof", example("vqa", "red tiled roof")).components == {"jaccard": pytest.approx(2 / 3)}


def test_paper_forms_read_class_names_strictly() -> None:
    record = example("damage_assessment", ("no-damage",), labels=("no-damage", "destroyed"))
    assert accuracy("The building is undamaged.", record) == 1.0
    assert accuracy("The building is undamaged.", record, "accuracy") == 0.0
    assert accuracy("The building is undamaged.", record, "recall") == 0.0


def test_synonyms_of_the_configuration_extend_the_shipped_ones() -> None:
    record = example("scene_classification", ("quay",), labels=("quay", "beach"))
    assert accuracy("wharf", record) == 0.0
    assert accuracy("wharf", record, synonyms={"quay": ["wharf"]}) == 1.0
    ship = example("multilabel_classification", ("ship",), labels=("ship", "plane"))
    assert accuracy("boats", ship, related_names=False) == 0.0
    assert accuracy("boats", ship) == 1.0
    both = example("multilabel_classification", ("ship",), labels=("ship", "boat"))
    assert accuracy("boats", both) == 0.0


def test_no_beta_lets_a_reward_exceed_one() -> None:
    record = example("multilabel_classification", ("water", "forest", "ship"))
    for beta in (0.1, 0.3, 0.7, 1.1, 3.3, 7.7):
        assert accuracy("water, forest, ship", record, beta=beta) <= 1.0

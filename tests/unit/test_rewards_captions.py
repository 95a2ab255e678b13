"""Rewards of captions, with the real SBERT model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geovlm_ray.rewards import RewardConfig, needs_embedder, score_batch
from tests.unit.reward_examples import accuracy, embedder, example, score

LEFT = "two white ships are moored on the left side of the harbor"
PAPER_FORMS = {"sbert_robust": "sbert", "content_words": "levenshtein", "hslr_robust": "hslr"}
REWARDS = tuple(PAPER_FORMS)


def levenshtein_distance(a: str, b: str) -> int:
    """Levenshtein distance by dynamic programming."""
    rows = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, rows[0] = rows[0], i
        for j, y in enumerate(b, 1):
            previous, rows[j] = rows[j], min(rows[j] + 1, rows[j - 1] + 1, previous + (x != y))
    return rows[-1]


@given(st.text("ab c", max_size=12), st.text("ab c", min_size=1, max_size=12))
def test_levenshtein_similarity_matches_its_definition(answer: str, reference: str) -> None:
    a, b = answer.strip(), reference.strip()
    expected = 1 - levenshtein_distance(a, b) / max(len(a), len(b)) if a and b else 0.0
    assert accuracy(answer, example("image_captioning", (reference,)), "levenshtein") == pytest.approx(expected)


def test_best_matching_reference_counts() -> None:
    record = example("image_captioning", ("a forest", LEFT, "many planes"))
    assert accuracy(LEFT, record) == accuracy("a forest", record) == 1.0
    assert accuracy("an empty field", record) < 0.6


@pytest.mark.parametrize("form", REWARDS)
def test_paraphrase_scores_high_and_swapped_facts_score_low(form: str) -> None:
    record = example("change_captioning", (LEFT,))
    paraphrase = accuracy("two white ships are moored at the left side of the port", record, form)
    swapped = accuracy(LEFT.replace("two", "three").replace("left", "right"), record, form)
    assert paraphrase > 0.75
    assert swapped < 0.1
    ungated = accuracy(LEFT.replace("two", "three").replace("left", "right"), record, PAPER_FORMS[form])
    assert ungated > 0.85


@pytest.mark.parametrize("form", REWARDS)
@pytest.mark.parametrize(
    "degenerate",
    [
        " ".join([LEFT] * 10),
        "white ships harbor left side two planes cars trees road building water sea port field many near some of the",
        "left left left left left left left left left left left left",
        "an image",
    ],
)
def test_degenerate_captions_score_low(form: str, degenerate: str) -> None:
    assert accuracy(degenerate, example("change_captioning", (LEFT,)), form) < 0.3


def test_fact_weight_scales_the_fact_gate() -> None:
    record = example("image_captioning", (LEFT,))
    swapped = LEFT.replace("two", "three")
    values = [accuracy(swapped, record, fact_weight=w) for w in (0.0, 0.5, 1.0)]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(0.8)  # 4 of 5 content words


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("A harbor where two boats are moored.", "Two ships are in the harbour."),
        (
            "This is an aerial image of an airport with several planes parked near the terminal.",
            "many planes are parked next to a long building in an airport .",
        ),
    ],
)
def test_faithful_paraphrase_keeps_its_score_without_embeddings(answer: str, reference: str) -> None:
    assert not needs_embedder("image_captioning", RewardConfig())
    assert accuracy(answer, example("image_captioning", (reference,))) >= 0.6


def test_words_that_differ_by_a_letter_are_not_alike() -> None:
    record = example("image_captioning", ("Two ships are in the harbour.",))
    assert accuracy("Two chips are in the arbour.", record) <= 0.3
    assert accuracy("Two chips are in the arbour.", record, "levenshtein") > 0.9


@pytest.mark.parametrize("form", REWARDS)
def test_no_change_scores_like_its_other_wordings_and_not_like_a_change(form: str) -> None:
    record = example("change_captioning", ("the scene is the same as before",))
    assert accuracy("There is no difference between the two images.", record, form) >= 0.8
    assert accuracy("A house was built next to the road.", record, form) <= 0.2
    built = example("change_captioning", ("a house has been built next to the road",))
    assert accuracy("Nothing has changed.", built, form) <= 0.2


@pytest.mark.parametrize("form", REWARDS)
def test_wrong_size_loses_half(form: str) -> None:
    assert accuracy("a large ship", example("region_captioning", ("small ship",)), form) <= 0.5


@pytest.mark.parametrize("form", [*REWARDS, "sbert", "hslr"])
def test_equal_captions_score_exactly_1(form: str) -> None:
    assert accuracy(LEFT, example("change_captioning", (LEFT,)), form) == 1.0
    assert accuracy(LEFT, example("change_captioning", (LEFT.upper(),)), form) <= 1.0


def test_components_report_every_caption_metric() -> None:
    parts = score(LEFT, example("change_captioning", (LEFT,))).components
    assert parts == dict.fromkeys(("sbert", "rouge1", "rougeL", "meteor", "length", "facts"), 1.0)


def test_hybrid_reward_without_sbert_needs_no_model() -> None:
    weights = {"sbert": 0, "rouge1": 1, "rougeL": 1, "meteor": 0}
    config = RewardConfig(hslr=weights)
    assert not needs_embedder("change_captioning", config)
    assert needs_embedder("change_captioning", RewardConfig())
    assert 0 < accuracy("two ships in a harbor", example("change_captioning", (LEFT,)), hslr=weights) < 1


def test_missing_embedder_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected an embedder, found none"):
        score_batch(["<think></think><answer>a</answer>"], [example("region_captioning", ("a",))], RewardConfig(), None)


def test_embeddings_have_unit_norm_and_are_deterministic() -> None:
    texts = ["a ship", "two planes", "a ship", "\ud800"]
    rows = embedder().encode(texts)
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert np.array_equal(rows[0], rows[2])
    assert np.array_equal(embedder().encode(texts[::-1]), rows[::-1])
    assert len(embedder().encode([])) == 0

"""Fact extraction from captions, and agreement between two captions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geovlm_ray.rewards.facts import agreement, facts


def test_facts_of_every_kind_are_extracted_and_bound_to_their_object() -> None:
    found = facts("Two white ships aren't on the left of 3 storage tanks , one red villa in the north-east")
    assert found.values == {
        "number": {"2", "3"},
        "colour": {"white", "red"},
        "negation": {"not"},
        "direction": {"left", "top", "right"},
        "object": {"ship", "storage tank", "building"},
    }
    assert found.bindings == {
        "number": {("2", "ship"), ("3", "storage tank"), ("1", "building")},
        "colour": {("white", "ship"), ("red", "building")},
        "direction": {("left", "ship"), ("top", "building"), ("right", "building")},
    }


@pytest.mark.parametrize(
    ("text", "paraphrase"),
    [
        ("two ships on the left", "a pair of vessels on the western side"),
        ("one ship", "a ship"),
        ("2 ships", "two ships"),
        ("a red building was built at the left", "at the left a red building was built"),
        ("a ship painted red on water", "a red ship on water"),
        ("on the left are ships and on the right are planes", "ships are on the left and planes are on the right"),
        ("nothing has changed", "the two images are the same"),
        ("nothing has changed", "both scenes are unchanged ."),
        ("there isn't a ship", "there is no ship"),
        ("a house is built on the bareland", "a villa appears in the desert"),
        ("a grey beach", "a gray beach"),
        ("four storage tanks", "four same storage tanks"),
    ],
)
def test_paraphrases_agree_fully(text: str, paraphrase: str) -> None:
    assert agreement(text, paraphrase) == agreement(paraphrase, text) == 1.0


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("two ships on the left", "three ships on the left"),
        ("two ships on the left", "two ships on the right"),
        ("two ships on the left", "two planes on the left"),
        ("two red ships", "two grey ships"),
        ("there are ships", "there are no ships"),
        ("a ship", "two ships"),
        ("two ships and three planes", "three ships and two planes"),
        ("a red building and a grey ship", "a grey building and a red ship"),
        ("a ship is left of the plane", "a plane is left of the ship"),
        ("something has changed", "nothing has changed"),
        ("a building was built", "the scene is the same as before"),
    ],
)
def test_swapped_fact_removes_most_of_the_agreement(text: str, swapped: str) -> None:
    assert agreement(text, swapped) <= 0.2
    assert agreement(swapped, text) <= 0.2


def test_fact_in_only_one_text_costs_little() -> None:
    assert 0.5 < agreement("two ships on water", "two ships on the water at the left") < 1
    assert agreement("a red ship", "an image") < agreement("a ship", "an image") < 1


def test_more_swapped_facts_cost_more() -> None:
    assert agreement("three ships on the right", "two ships on the left") < agreement("3 ships left", "two ships left")


@given(st.text(max_size=200), st.text(max_size=200))
def test_agreement_is_symmetric_and_between_0_and_1(a: str, b: str) -> None:
    assert agreement(a, a) == 1.0
    assert 0.0 <= agreement(a, b) == agreement(b, a) <= 1.0


@given(st.permutations(["two ships", "a red plane at the left", "no buildings", "3 blue cars"]))
def test_clause_order_does_not_matter(clauses: list[str]) -> None:
    assert agreement(", ".join(clauses), "two ships, a red plane at the left, no buildings, 3 blue cars") == 1.0

"""Fact extraction from captions, and agreement between two captions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geovlm_ray.rewards.facts import fact_agreement, facts

PAIRS = [json.loads(line) for line in (Path(__file__).parents[1] / "data/fact_pairs.jsonl").open()]
MAX_WRONG = 0.02
"""Permitted share of the pairs of a kind on which the gate is wrong."""


def test_facts_of_every_kind_are_extracted_and_bound_to_their_object() -> None:
    found = facts(
        "Two big white ships aren't on the left of 3 storage tanks , many red villas in the north-east appear"
    )
    assert found.objects == {"ship", "storage tank", "building"}
    assert found.values("number") == {"2", "3"}
    assert found.bindings == {
        "quantity": {"ship": {"2"}, "storage tank": {"3"}, "building": {"many"}},
        "size": {"ship": {"large"}},
        "colour": {"ship": {"white"}, "building": {"red"}},
        "direction": {"ship": {"left"}, "storage tank": {"right"}, "building": {"top", "right"}},
        "negation": {"storage tank": {"not"}},
        "change": {"building": {"gain"}},
    }
    assert found.denies
    assert not found.no_change


@pytest.mark.parametrize("kind", sorted({pair["kind"] for pair in PAIRS}))
def test_gate_is_right_on_pairs_written_like_the_datasets(kind: str) -> None:
    """It keeps at least half of the score of captions that agree, and at most half of those that do not."""
    pairs = [pair for pair in PAIRS if pair["kind"] == kind]
    values = [(fact_agreement(pair["answer"], pair["reference"]), pair["agrees"]) for pair in pairs]
    wrong = sum(value < 0.5 if agrees else value > 0.5 for value, agrees in values)
    assert len(pairs) >= 100
    assert wrong <= MAX_WRONG * len(pairs)


NO_CHANGE = (
    "No change.",
    "the scene is the same as before",
    "there is no difference",
    "almost nothing has changed",
    "the two images are identical",
    "Nothing happened.",
    "The area remains unchanged",
    "I don't see any changes between the two images.",
    "Very little has changed.",
    "No new buildings have been constructed.",
    "No.",
    "Everything stays as it was.",
    "Things are the way they were.",
    "The second image does not differ from the first.",
    "The site looks just like it did before.",
    "The two pictures match.",
    "The scene stays still.",
    "The area was left untouched.",
    "Both images are equal.",
    "No changes except for the lighting",
)
CHANGE = (
    "A house was built.",
    "The two images are not identical.",
    "the scene has changed",
    "no trees remain, they were removed",
    "The image is no longer the same as before.",
    "Almost nothing has changed, but a road appears.",
    "Nothing changed apart from the demolition of a house",
    "No difference except for a new road",
    "Besides a few new trees the images are identical.",
    "The two pictures do not match.",
    "The new roofs match the old ones.",
)


@pytest.mark.parametrize("text", NO_CHANGE)
def test_no_change_is_one_fact_in_all_its_wordings(text: str) -> None:
    assert facts(text).no_change
    assert {fact_agreement(text, other) for other in NO_CHANGE} == {1.0}
    assert all(fact_agreement(text, other) == fact_agreement(other, text) == 0.2 for other in CHANGE)


@pytest.mark.parametrize(
    "text", ["four same storage tanks", "no plants were planted on the land", "identical houses", ""]
)
def test_captions_of_one_image_do_not_state_that_nothing_has_changed(text: str) -> None:
    assert not facts(text).no_change


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("Two chips are in the arbour.", "Two ships are in the harbour."),
        ("Three plans are parked at the airport.", "Three planes are parked at the airport."),
        ("Lots of horses", "Lots of houses"),
    ],
)
def test_words_that_look_alike_are_different_objects(text: str, reference: str) -> None:
    assert fact_agreement(text, reference) <= 0.5


def test_facts_swapped_between_two_things_of_one_kind_disagree() -> None:
    assert fact_agreement("a grey plane and two white planes", "a white plane and two grey planes") <= 0.4
    assert (
        fact_agreement("a ship on the left and a boat on the right", "a ship on the right and a boat on the left")
        <= 0.4
    )


def test_many_objects_and_changes_take_linear_time() -> None:
    assert facts("built ship and " * 20_000).objects == {"ship"}
    assert facts("no land and water, " * 20_000).denies


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
        ("a big lake", "a large lake"),
        ("many cars are in the lot", "the lot has numerous cars"),
        ("20 ships", "many ships"),
        ("above the river is a bridge", "a bridge is above the river"),
        ("trees are replaced by houses", "houses have replaced the trees"),
        ("a house was built", "a new house appears"),
        ("a large tank and small ones", "small tanks and a large one"),
        ("a residential area", "a dense residential area"),
        ("nothing has changed except for a new road", "a road was built"),
        ("in the second image a house was built", "a house was built"),
        ("a car in front of a building", "a building behind a car"),
        ("a lake is surrounded by trees", "trees surround the lake"),
        ("a road with the surrounding trees", "trees surround a road"),
        ("a ship and another ship are moored at a pier", "two ships are moored at a pier"),
        ("the 2nd plane", "the second plane"),
        ("twenty-five cars", "25 cars"),
        ("two thousand three hundred and five cars", "2,305 cars"),
        ("two dozen boats", "24 boats"),
        ("cars and trucks", "cars"),
        ("houses", "buildings"),
    ],
)
def test_paraphrases_agree_fully(text: str, paraphrase: str) -> None:
    assert fact_agreement(text, paraphrase) == fact_agreement(paraphrase, text) == 1.0


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
        ("a large ship", "a small ship"),
        ("a ship and a large plane", "a large ship and a plane"),
        ("many trees", "few trees"),
        ("several trees", "hundreds of trees"),
        ("a dense forest", "a sparse forest"),
        ("a house was built", "a house was demolished"),
        ("trees are replaced by houses", "houses are replaced by trees"),
        ("the lake dried up", "the lake flooded"),
        ("an orchard", "a vineyard"),
        ("two buses", "two lorries"),
        ("circular farmland", "rectangular farmland"),
        ("the first plane from the right", "the second plane from the right"),
        ("twenty-five cars", "twenty-six cars"),
        ("1,200 cars", "200 cars"),
        ("the last car", "the 3rd car"),
        ("the ship second from the left", "the ship third from the left"),
        ("the vegetation has become less dense", "the vegetation has become denser"),
        ("the plane closest to the terminal", "the plane farthest from the terminal"),
        ("the vegetation became denser", "the vegetation became sparser"),
        ("the trees become taller", "the trees become shorter"),
        ("the road became longer", "the road became shorter"),
        ("a curved road", "a straight road"),
        ("a car in front of a building", "a car behind a building"),
        ("trees surround the playground", "trees are surrounded by the playground"),
    ],
)
def test_swapped_fact_removes_most_of_the_agreement(text: str, swapped: str) -> None:
    assert fact_agreement(text, swapped) <= 0.2
    assert fact_agreement(swapped, text) <= 0.2


def test_fact_in_only_one_text_costs_little() -> None:
    assert 0.5 < fact_agreement("two ships on water", "two ships on the water at the left") < 1
    assert fact_agreement("a red ship", "an image") < fact_agreement("a ship", "an image") < 1


def test_shape_of_something_else_is_no_contradiction() -> None:
    assert fact_agreement("several straight lines are in the meadow", "it is a meadow") > 0.5
    assert fact_agreement("curved roads and straight roads", "curved roads") > 0.5


def test_more_swapped_facts_cost_more() -> None:
    assert fact_agreement("three ships on the right", "two ships on the left") < fact_agreement(
        "3 ships left", "two ships left"
    )


@given(st.text(max_size=200), st.text(max_size=200))
def test_agreement_is_symmetric_and_between_0_and_1(a: str, b: str) -> None:
    assert fact_agreement(a, a) == 1.0
    assert 0.0 <= fact_agreement(a, b) == fact_agreement(b, a) <= 1.0


@given(st.permutations(["two ships", "a red plane at the left", "no buildings", "3 blue cars"]))
def test_clause_order_does_not_matter(clauses: list[str]) -> None:
    assert fact_agreement(", ".join(clauses), "two ships, a red plane at the left, no buildings, 3 blue cars") == 1.0

"""Normal form of words, and quantities."""

from __future__ import annotations

import math

import pytest

from geovlm_ray.tasks.answers.conclusions import conclusion
from geovlm_ray.tasks.answers.measures import quantities
from geovlm_ray.tasks.answers.quantities import stated_quantity
from geovlm_ray.tasks.answers.words import singular, tokens, words


@pytest.mark.parametrize(
    ("variant", "other"),
    [
        ("Harbours", "harbor"),
        ("GREY", "gray"),
        ("storage-tanks", "storage tank"),
        ("storage_tank", "storage tank"),
        ("two", "2"),
        ("1,000", "1000"),
        ("3.0", "3"),
        ("10 m²", "10 m2"),
        ("ｆｏｒｅｓｔ", "forest"),
        ("cafe\u0301", "café"),
        ("isn’t", "is not"),
        ("**forest**", "forest"),
        (r"\boxed{\text{forest}}", "forest"),
        ("<b>forest</b>", "forest"),
        ("churches", "church"),
    ],
)
def test_variants_of_words_have_one_normal_form(variant: str, other: str) -> None:
    assert words(variant) == words(other)


@pytest.mark.parametrize("word", ["grass", "bus", "glass", "campus", "gas", "yes", "this", "oasis", "lens", "axis"])
def test_singulars_that_end_in_s_are_kept(word: str) -> None:
    assert singular(word) == word


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a, b、c；d。", ["a", ",", "b", ",", "c", ".", "d", "."]),
        ("1) a\n2) b", ["1", ")", "a", "\n", "2", ")", "b"]),
        ("5-10", ["5", "to", "10"]),
        ("-30", ["-30"]),
        ("a - b", ["a", ",", "b"]),
        ("no-damage", ["no", "damage"]),
    ],
)
def test_tokens_keep_delimiters(text: str, found: list[str]) -> None:
    assert tokens(text) == found


@pytest.mark.parametrize(
    ("text", "low", "high", "unit"),
    [
        ("between 100m2 and 1000m2", 100, 1000, "m2"),
        ("100 m² - 1,000 m²", 100, 1000, "m2"),
        ("more than 1000 square metres", 1000, math.inf, "m2"),
        ("> 20", 20, math.inf, None),
        ("at least 3", 3, math.inf, None),
        ("10 or more", 10, math.inf, None),
        ("less than 5 km", -math.inf, 5, "km"),
        ("minus 30 degrees", -30, -30, "°"),
        ("twenty-one", 21, 21, None),
        ("one thousand two hundred and five", 1205, 1205, None),
        ("two hundred thousand", 200_000, 200_000, None),
        ("a dozen", 12, 12, None),
        ("50 percent", 50, 50, "%"),
    ],
)
def test_quantities_have_bounds_and_units(text: str, low: float, high: float, unit: str | None) -> None:
    (found,) = quantities(tokens(text))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.unit == unit


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("There are 2 ships.", 2),
        ("There are 5 ships: 3 large and 2 small.", 5),
        ("3 + 2 = 5", 5),
        ("4 planes and 2 ships", 2),
        ("no ships", 0),
        ("There is a ship.", 1),
        ("There is a group of ships.", None),
        ("There is a car.", None),
        ("There are no cars.", None),
        ("I do not see any ships.", 0),
        ("The ships are not clearly visible.", None),
        ("There are 3 large ones.", 3),
        ("There are 4 ships, one of which is taxiing.", 4),
        ("There are 2 ships on the left and 3 on the right.", 5),
        ("2 or 3", None),
        ("several", None),
        ("1. ships\n2. planes", None),
        ("the 2nd row", None),
    ],
)
def test_an_answer_states_one_quantity(answer: str, value: int | None) -> None:
    found = stated_quantity(tokens(answer), {"ship"})
    assert (found and found.low) == value


@pytest.mark.parametrize(
    ("text", "result"),
    [
        (r"So \boxed{a} and \boxed{\text{b}}", r"\text{b}"),
        ("I see water. The answer is: harbor", "harbor"),
        ("**Answer:** harbor", "harbor"),
        ("Final answer: yes", "yes"),
        ("No answer", "No answer"),
    ],
)
def test_the_marked_conclusion_of_an_answer(text: str, result: str) -> None:
    assert conclusion(text) == result

"""Equivalence of short answers, by type of the truth."""

from __future__ import annotations

import pytest

from geovlm_ray.tasks.answers.short_answers import agreement, answer_keys

CHOICES = "What is the main object?\nA. harbor\nB. airport\nC. beach"


@pytest.mark.parametrize(
    ("answer", "truth", "question", "value"),
    [
        ("Yes, there are two.", "yes", "", 1),
        ("No ships are visible.", "no", "Are there any ships?", 1),
        ("There is a ship near the pier.", "yes", "Is there a ship?", 1),
        ("yes and no", "yes", "", 0),
        ("I cannot tell.", "no", "Is there a ship?", 0),
        ("There is no way to know.", "no", "Is there a ship?", 0),
        ("I cannot see a ship.", "no", "Is there a ship?", 1),
        ("I doubt there is a ship.", "no", "Is there a ship?", 1),
        ("I am sure there is no ship.", "no", "Is there a ship?", 1),
        ("There is a ship.", "yes", "Isn't there a ship?", 1),
        ("There is a ship.", "yes", "Answer yes or no: is there a ship?", 1),
        ("It is not free of ships.", "no", "Is it free of ships?", 1),
        ("The house is intact.", "no", "Is the house damaged?", 1),
        ("There are fewer roads than houses.", "no", "Are there more roads than houses?", 1),
        ("500 m2", "between 100m2 and 1000m2", "", 1),
        ("5000 m2", "between 100m2 and 1000m2", "", 0),
        ("10 km", "10 m", "", 0),
        ("three planes", "two planes", "", 0),
        ("not exactly 3", "3", "", 0),
        ("4 rather than 3", "4", "", 1),
        ("not one ship", "0", "How many ships are there?", 1),
        ("not more than 10", "10 or less", "", 1),
        ("not less than 10 m2", "less than 10 m2", "", 0),
        ("3 red cars and 2 blue cars", "2", "How many blue cars are there?", 1),
        ("1, 2, 3, 4. Total 4", "4", "", 1),
        ("north-west", "top left", "", 1),
        ("left", "top left", "", 0.5),
        ("top right", "top left", "", 0),
        ("not on the left", "left", "", 0),
        ("everywhere but the left", "left", "", 0),
        ("on the left, opposite the river on the right", "left", "", 1),
        ("B is smaller than A", "A is larger than B", "", 1),
        ("B is larger than A", "A is larger than B", "", 0),
        ("Option B", "B", CHOICES, 1),
        ("airport", "B", CHOICES, 1),
        ("B. harbor", "B", CHOICES, 0),
        ("A or B", "B", CHOICES, 0),
        ("B isn't right", "B", CHOICES, 0),
        ("It cannot be B", "B", CHOICES, 0),
        ("B rather than A", "B", CHOICES, 1),
        ("A and C are wrong; B is correct", "B", CHOICES, 1),
        ("trees, roads", "roads, trees", "", 1),
        ("roads", "roads, trees", "", 0.5),
        ("trees along with roads", "roads, trees", "", 1),
        ("underneath the bridge", "below the bridge", "", 1),
        ("The road is wider than the river.", "road", "Which is wider, the road or the river?", 1),
        ("The road is wider than the river.", "river", "Which is wider, the road or the river?", 0),
        ("It is rural, not urban.", "rural", "Is it rural or urban?", 1),
        ("rural or urban", "rural", "Is it rural or urban?", 0),
        ("unflooded", "flooded", "", 0),
        ("It is hard to say if it is flooded.", "flooded", "", 0),
        ("If I see it well, it is flooded.", "flooded", "", 1),
        ("not flooded", "non-flooded", "", 1),
        ("basketball court", "tennis court", "", 0),
        ("The roof is grey.", "gray", "What color is the roof?", 1),
        ("white roof", "white", "What color is the roof?", 1),
        ("from right to left", "from left to right", "", 0),
    ],
)
def test_agreement(answer: str, truth: str, question: str, value: float) -> None:
    assert agreement(answer, truth, question).value == value


def test_an_answer_that_is_said_twice_counts_once_and_more_often_not() -> None:
    assert agreement("nuclear reactor\nnuclear reactor", "nuclear reactor").value == 1
    assert agreement(" ".join(["nuclear reactor"] * 10), "nuclear reactor").value == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("answer", "truth", "keys"),
    [
        ("There are no ships.", "no", ("no", "no")),
        ("No, none.", "yes", ("no", "yes")),
        ("two", "2", ("2", "2")),
        ("grey", "gray", ("gray", "gray")),
        ("red", "gray", ("red", "gray")),
    ],
)
def test_answers_as_classes(answer: str, truth: str, keys: tuple[str, str]) -> None:
    assert answer_keys(answer, truth) == keys

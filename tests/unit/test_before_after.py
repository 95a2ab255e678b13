"""The state after an event in answers that describe both images."""

from __future__ import annotations

import pytest

from geovlm_ray.tasks.answers.before_after import state_after
from geovlm_ray.tasks.answers.words import tokens


@pytest.mark.parametrize(
    ("answer", "after"),
    [
        ("Intact before, destroyed after.", "destroyed after"),
        ("It was intact before the flood and is destroyed.", "is destroyed"),
        ("Before the storm, it was intact. It is destroyed now.", "it is destroyed now"),
        ("Pre-disaster: no damage. Post-disaster: destroyed.", "post disaster : destroyed"),
        ("More damaged after the storm than before.", "more damaged after the storm than before"),
    ],
)
def test_state_after_is_what_the_answer_says_of_the_second_image(answer: str, after: str) -> None:
    words = state_after(tokens(answer))
    assert words is not None
    assert " ".join(words).strip(" .") == after


def test_an_answer_about_one_image_has_no_state_after() -> None:
    assert state_after(tokens("The building is destroyed.")) is None

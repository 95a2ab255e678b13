"""Which questions say of what form their answer is."""

import pytest

from geovlm_ray.tasks.stated_form import states_form


@pytest.mark.parametrize(
    "question",
    [
        "Is the runway short?",
        "Are there short trees near the brief shadow?",
        "Is there more detail in the left image?",
        "How many words are painted on the runway?",
        "What do the words on the roof say?",
    ],
)
def test_words_about_the_image_state_no_form(question: str) -> None:
    assert not states_form(question)


@pytest.mark.parametrize(
    "question",
    [
        "Describe the image in detail.",
        "Please provide a detailed description of the image.",
        "Give a short, factual caption.",
        "Answer in one word.",
        "Use at most 5 words.",
        "Describe the image. Be brief.",
        "Short answer:",
    ],
)
def test_lengths_and_lists_are_forms(question: str) -> None:
    assert states_form(question)

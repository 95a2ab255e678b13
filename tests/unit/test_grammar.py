"""The answer grammar: strict, and linear in the length of its input."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geovlm_ray.tasks.grammar import Parsed, parse_response


@pytest.mark.parametrize(
    ("text", "think", "answer"),
    [
        ("<think>a</think><answer>b</answer>", "a", "b"),
        (" \n<think>a\nb</think>\n\n<answer> b </answer>\t", "a\nb", " b "),
        ("<think></think><answer></answer>", "", ""),
        ("<think>x < y > z</think><answer>{<1><2><3><4>}</answer>", "x < y > z", "{<1><2><3><4>}"),
        ("<think>a</think><answer><box>[[1, 2, 3, 4]]</box></answer>", "a", "<box>[[1, 2, 3, 4]]</box>"),
    ],
)
def test_well_formed(text: str, think: str, answer: str) -> None:
    assert parse_response(text) == Parsed(think, answer)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b",
        "<answer>b</answer>",
        "<think>a</think>",
        "<think>a</think><answer>b",
        "<think>a<answer>b</answer>",
        "so: <think>a</think><answer>b</answer>",
        "<think>a</think> so <answer>b</answer>",
        "<think>a</think><answer>b</answer>.",
        "<answer>b</answer><think>a</think>",
        "<think>a<answer>b</answer></think>",
        "<think><answer>a</think>b</answer>",
        "<think>a</think><think>a</think><answer>b</answer>",
        "<think>a</think><answer>b</answer><answer>c</answer>",
        "<think>a</think><answer>b<answer></answer>",
        "<Think>a</Think><Answer>b</Answer>",
        "< think>a</think><answer>b</answer>",
        "<think>a</think><answer>b</answer>\x00",
    ],
)
def test_malformed(text: str) -> None:
    assert parse_response(text) is None


def test_no_think_mode() -> None:
    assert parse_response(" <answer>b</answer>\n", "none") == Parsed(None, "b")
    assert parse_response("<think>a</think><answer>b</answer>", "none") is None
    assert parse_response("<answer><think>b</answer>", "none") is None


@given(st.text(), st.text())
def test_any_parts_without_tags_come_back(think: str, answer: str) -> None:
    tags = ("<think>", "</think>", "<answer>", "</answer>")
    if not any(tag in part for tag in tags for part in (think, answer)):
        assert parse_response(f"<think>{think}</think><answer>{answer}</answer>") == Parsed(think, answer)


class Metered(str):
    """A string that counts the characters which each search, slice and strip of it may look at."""

    looked_at = 0

    def count(self, *args: Any) -> int:
        Metered.looked_at += len(self)
        return super().count(*args)

    def index(self, *args: Any) -> int:
        Metered.looked_at += len(self)
        return super().index(*args)

    def strip(self, *args: Any) -> str:
        Metered.looked_at += len(self)
        return super().strip(*args)

    def __getitem__(self, key: Any) -> Metered:
        part = Metered(super().__getitem__(key))
        Metered.looked_at += len(part)
        return part


@pytest.mark.parametrize("unit", ["<think></think><answer>", "<", "<think>", "</answer>", " ", "<think></think>a"])
@pytest.mark.parametrize("frame", ["{}", "<think>{}</think><answer>a</answer>", "<think>a</think>{}<answer>a</answer>"])
def test_looks_at_each_character_a_bounded_number_of_times(unit: str, frame: str) -> None:
    for repeats in (100, 10_000):
        text = Metered(frame.format(unit * repeats))
        Metered.looked_at = 0
        parse_response(text)
        assert Metered.looked_at <= 16 * len(text)

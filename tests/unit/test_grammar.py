"""Response grammar: strict, and parsed in linear time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geovlm_ray.tasks.answers.grammar import Parsed, parse_response


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
def test_well_formed_response_is_parsed(text: str, think: str, answer: str) -> None:
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
def test_malformed_response_is_rejected(text: str) -> None:
    assert parse_response(text) is None


def test_response_without_thinking() -> None:
    assert parse_response(" <answer>b</answer>\n", "none") == Parsed(None, "b")
    assert parse_response("<think>a</think><answer>b</answer>", "none") is None
    assert parse_response("<answer><think>b</answer>", "none") is None


@given(st.text(), st.text())
def test_any_text_without_tags_round_trips(think: str, answer: str) -> None:
    tags = ("<think>", "</think>", "<answer>", "</answer>")
    if not any(tag in part for tag in tags for part in (think, answer)):
        assert parse_response(f"<think>{think}</think><answer>{answer}</answer>") == Parsed(think, answer)


class CountingStr(str):
    """A string that counts the characters read by its searches, slices and strips."""

    chars_read = 0

    def count(self, *args: Any) -> int:
        CountingStr.chars_read += len(self)
        return super().count(*args)

    def index(self, *args: Any) -> int:
        CountingStr.chars_read += len(self)
        return super().index(*args)

    def strip(self, *args: Any) -> str:
        CountingStr.chars_read += len(self)
        return super().strip(*args)

    def __getitem__(self, key: Any) -> CountingStr:
        part = CountingStr(super().__getitem__(key))
        CountingStr.chars_read += len(part)
        return part


@pytest.mark.parametrize("unit", ["<think></think><answer>", "<", "<think>", "</answer>", " ", "<think></think>a"])
@pytest.mark.parametrize("frame", ["{}", "<think>{}</think><answer>a</answer>", "<think>a</think>{}<answer>a</answer>"])
def test_parsing_is_linear_in_the_length(unit: str, frame: str) -> None:
    for repeats in (100, 10_000):
        text = CountingStr(frame.format(unit * repeats))
        CountingStr.chars_read = 0
        parse_response(text)
        assert CountingStr.chars_read <= 16 * len(text)

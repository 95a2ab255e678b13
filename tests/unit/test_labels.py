"""Parsing of class lists, including class names with commas."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geovlm_ray.tasks.answers.labels import (
    BIGEARTHNET,
    BIGEARTHNET_19,
    BIGEARTHNET_43,
    label_key,
    label_keys,
    parse_labels,
)

AGRICULTURE = "Land principally occupied by agriculture, with significant areas of natural vegetation"


def test_vocabulary_sizes() -> None:
    assert len(set(BIGEARTHNET_43)) == 43
    assert len(set(BIGEARTHNET_19)) == 19


@pytest.mark.parametrize("name", BIGEARTHNET)
def test_every_bigearthnet_name_is_one_label(name: str) -> None:
    for variant in (name, name.upper(), f" {name}. ", name.replace(" ", "_"), name.replace(", ", ",")):
        assert parse_labels(variant) == label_keys((name,))


@given(st.lists(st.sampled_from(BIGEARTHNET_19), unique=True), st.sampled_from([", ", "; ", "\n", ","]))
def test_any_list_of_names_round_trips(names: list[str], delimiter: str) -> None:
    assert set(parse_labels(delimiter.join(names))) == set(label_keys(tuple(names)))


@pytest.mark.parametrize(
    ("answer", "keys"),
    [
        ("Pastures, Beaches, dunes, sands, Vineyards", ["pastures", "beachesdunessands", "vineyards"]),
        ("beaches, sands", ["beaches", "sands"]),
        (f"{AGRICULTURE}, Pastures", [*label_keys((AGRICULTURE,)), "pastures"]),
        ("broad-leaved forest and pastures", ["broadleavedforest", "pastures"]),
        ("Pastures, and Vineyards", ["pastures", "vineyards"]),
        ("rock and roll", ["rockandroll"]),
        ("dense_residential", ["denseresidential"]),
        ("['Pastures', 'Vineyards']", ["pastures", "vineyards"]),
        ("Pastures, pastures", ["pastures"]),
        (" , ;; \n", []),
        ("", []),
    ],
)
def test_parse_labels(answer: str, keys: list[str]) -> None:
    assert parse_labels(answer) == keys


def test_repeats_are_counted_on_request() -> None:
    assert parse_labels("Pastures, pastures", repeats=True) == ["pastures", "pastures"]


def test_custom_vocabulary() -> None:
    assert parse_labels("red, white, and blue, green", labels=("red, white, and blue", "green")) == [
        "redwhiteblue",
        "green",
    ]
    assert parse_labels("a, b, c", target=("a, b",), labels=("c", "d")) == ["ab", "c"]


@given(st.text(max_size=300))
def test_any_text_yields_normalised_labels(text: str) -> None:
    for key in parse_labels(text, ("a, b", "c"), ("d",)):
        assert key
        assert label_key(key) == key

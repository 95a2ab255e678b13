"""Class names in what models write."""

from __future__ import annotations

import pytest

from geovlm_ray.tasks.answers.class_answers import class_reader
from geovlm_ray.tasks.answers.class_names import Synonyms, class_names
from geovlm_ray.tasks.answers.labels import BIGEARTHNET_19, BIGEARTHNET_43, label_key
from geovlm_ray.tasks.answers.synonyms import RELATED, SYNONYMS, groups
from geovlm_ray.tasks.answers.words import words
from tests.unit.reward_examples import example

NAMES = ("plane", "harbor", "storage-tank", "dense residential", "no-damage", "Port areas", "lake or pond")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("airplanes", "plane"),
        ("a large white aircraft on the left", "plane"),
        ("harbour", "harbor"),
        ("storagetanks", "storage-tank"),
        ("Dense Residential area", "dense residential"),
        ("no visible damage", "no-damage"),
        ("lake/pond", "lake or pond"),
        ("plane and harbor", None),
        ("car park", None),
        ("not a plane", None),
        ("", None),
    ],
)
def test_key_of_the_one_class_that_a_text_names(text: str, name: str | None) -> None:
    assert class_names(NAMES).key_of(text) == (label_key(name) if name else None)


def test_a_class_name_that_modifies_another_noun_is_not_the_class() -> None:
    assert class_names(("car",)).key_of("car park") is None
    assert class_names(("ship",)).key_of("ship area") == "ship"


@pytest.mark.parametrize("names", [BIGEARTHNET_43, BIGEARTHNET_19], ids=len)
def test_names_of_a_vocabulary_keep_apart(names: tuple[str, ...]) -> None:
    vocabulary = class_names(names)
    assert [vocabulary.key_of(name) for name in names] == [label_key(name) for name in names]
    answer = class_reader(example("multilabel_classification", names, labels=names)).keys(", ".join(names))
    assert list(answer) == [label_key(name) for name in names]


def test_a_synonym_that_is_itself_a_name_is_kept_apart() -> None:
    assert class_names(("airplane", "aircraft")).key_of("aircraft") == "aircraft"
    assert class_names(("airplane", "aircraft")).key_of("jet") is None
    assert class_names(("ship",), Synonyms(related=True)).key_of("boat") == "ship"
    assert class_names(("ship", "boat"), Synonyms(related=True)).key_of("boat") == "boat"
    assert class_names(("ship",), Synonyms((("ship", "dhow"),))).key_of("dhows") == "ship"


def test_no_name_stands_in_two_groups_of_synonyms() -> None:
    for table in (SYNONYMS, RELATED):
        keys = [key for group in groups(table) for key in {"".join(words(name)) for name in group}]
        assert sorted({key for key in keys if keys.count(key) > 1}) == []


@pytest.mark.parametrize(
    ("answer", "keys"),
    [
        ("1) Pastures\n2) Water bodies", ["pastures", "waterbodies"]),
        ("Pastures / Water bodies", ["pastures", "waterbodies"]),
        ("Pastures、Water bodies。", ["pastures", "waterbodies"]),
        ("Beaches, dunes and sands", ["beaches,dunes,sands"]),
        ("There are pastures, but no water bodies.", ["pastures"]),
        ("Pastures and skyscrapers", ["pastures", "?skyscraper"]),
        ("No pastures, forests or water bodies.", []),
        ("Water bodies are not visible; pastures", ["pastures"]),
    ],
)
def test_lists_of_classes(answer: str, keys: list[str]) -> None:
    labels = ("Pastures", "Water bodies", "Mixed forest", "Beaches, dunes, sands")
    assert list(class_reader(example("multilabel_classification", ("Pastures",), labels=labels)).keys(answer)) == keys


@pytest.mark.parametrize(
    ("answer", "keys"),
    [
        ("Class: harbor", ["harbor"]),
        ("Harbor. The image shows several airplanes.", ["harbor"]),
        ("A harbor next to a beach", ["harbor"]),
        ("The class is harbor, because ships lie at a beach.", ["harbor"]),
        ("It looks like a beach. Therefore, the class is harbor.", ["harbor"]),
        ("harbor or beach", ["harbor", "beach"]),
        ("Harbor. It could also be a beach.", ["harbor", "beach"]),
        ("Harbor\nBeach", ["harbor", "beach"]),
        ("not an airport", []),
        ("not a beach but a harbor", ["harbor"]),
    ],
)
def test_answers_of_one_class(answer: str, keys: list[str]) -> None:
    labels = ("airplane", "airport", "beach", "harbor")
    assert list(class_reader(example("scene_classification", ("harbor",), labels=labels)).keys(answer)) == keys

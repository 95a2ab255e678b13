"""Conversion of the project's own JSON lines: keys, units of boxes, classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import target_boxes
from tests.unit.conversion import Conversion, run_convert, write_json, write_scene


def convert_samples(folder: Path, *records: dict[str, Any], name: str = "records", **options: str) -> Conversion:
    write_scene(folder / "in" / "a.png")
    defaults = {"id": "x", "task": "visual_grounding", "images": ["a.png"], "prompt": "Where is it?"}
    source = write_json(folder / "in" / f"{name}.jsonl", [defaults | record for record in records])
    return run_convert("samples", source, folder / "out", **options)


def test_samples_keep_every_documented_key(tmp_path: Path) -> None:
    record = {
        "reference": [[60, 40, 120, 80]],
        "frame": "pixel",
        "dialect": "json",
        "labels": ["shed", "tree"],
        "sensor": "optical",
        "gsd": 0.5,
        "split": "val",
        "reasoning": "It is pale.",
        "source": "mine",
        "licence": "CC0",
    }
    (row,) = convert_samples(tmp_path, record).rows
    e = row.example
    assert (e.frame, e.dialect, e.labels, e.sensor, e.gsd) == (
        *(Frame("pixel", 200, 160), "json", ("shed", "tree")),
        *("optical", 0.5),
    )
    assert (e.split, e.reasoning, e.dataset, row.licence) == ("validation", "It is pale.", "mine", "CC0")


def test_null_is_absent_in_samples_and_unknown_keys_are_counted(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("split", "frame", "dialect", "labels", "sensor", "gsd", "reasoning", "source", "licence"))
    boxes = {"reference": "[[30, 25, 60, 50]]", "note": "n", "other": None}
    outcome = convert_samples(tmp_path, boxes | nothing, boxes, name="test")
    assert [row.example for row in outcome.rows] == [outcome.rows[1].example] * 2
    example = outcome.rows[0].example
    assert (example.split, example.sensor, example.dataset, example.frame) == ("test", None, "", Frame())
    assert outcome.counts.unread == {"note": 2}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"splt": "test"}, "unknown key 'splt'; did you mean 'split'?"),
        ({"Labels": ["a"]}, "unknown key 'Labels'; did you mean 'labels'?"),
        ({"frame": "inches"}, "frame: expected percent, permille, pixel, fraction or"),
        ({"dialect": "xml"}, "dialect: expected one of brackets"),
        ({"labels": "shed"}, "labels: expected a list of names, found 'shed'"),
        ({"gsd": "1 m"}, "gsd: expected a positive number"),
        ({"split": 1}, "split: expected str"),
        ({"frame": "percent", "reference": [[60, 40, 700, 80]]}, "100 x 100 in percent, found up to 700"),
        ({"reference": [{"box": [30, 25, 60, 50], "lable": "ship"}]}, "found 'lable'; did you mean 'label'?"),
        ({"task": "scene_classification", "reference": "farmland, forest"}, "expected one class, found 2"),
    ],
)
def test_wrong_keys_of_samples_are_errors(record: dict[str, Any], reason: str, tmp_path: Path) -> None:
    good = {"reference": [[30, 25, 60, 50]]}
    outcome = convert_samples(tmp_path, good, good | record, good)
    assert (len(outcome.rows), list(outcome.reasons)) == (2, [2])
    assert reason in outcome.reasons[2]


def test_a_text_of_several_classes_is_several(tmp_path: Path) -> None:
    classes = {"task": "multilabel_classification", "reference": "forest; water, Beaches, dunes, sands"}
    named = {"task": "scene_classification", "reference": "park, urban", "labels": ["park, urban", "port"]}
    outcome = convert_samples(tmp_path, classes, named)
    assert [row.example.target for row in outcome.rows] == [
        ("forest", "water", "Beaches, dunes, sands"),
        ("park, urban",),
    ]


def test_boxes_of_samples_in_other_units_than_percent(tmp_path: Path) -> None:
    pixels = {"reference": [[60, 40, 120, 80]]}
    with pytest.raises(DataError, match=r"expected boxes in percent, fraction, found .* frame=permille or frame=pixel"):
        convert_samples(tmp_path, pixels)
    assert convert_samples(tmp_path / "a", pixels, frame="pixel").rows[0].example.frame == Frame("pixel", 200, 160)
    fractions = convert_samples(tmp_path / "b", {"reference": [[0.6, 0.5, 0.3, 0.25]]})
    assert target_boxes(fractions.rows[0].example.target)[0].coords == pytest.approx((30, 25, 60, 50))
    assert fractions.card["notes"][0].startswith("frame=fraction: ")


@pytest.mark.parametrize("options", [{}, {"frame": "percent"}])
def test_one_wrong_box_of_samples_is_quarantined_alone(options: dict[str, str], tmp_path: Path) -> None:
    good, wrong = {"reference": [[30, 25, 60, 50]]}, {"id": "bad", "reference": [[30, 25, 130, 50]]}
    outcome = convert_samples(tmp_path, good, good, wrong, good, good, good, **options)
    assert (len(outcome.rows), list(outcome.reasons)) == (5, [3])
    with pytest.raises(DataError, match="record 'bad', up to 130, 50"):
        convert_samples(tmp_path / "most", good, wrong, wrong, **options)

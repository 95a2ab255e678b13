"""Parsing of box answers in every dialect."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geovlm_ray.tasks.answers.box_dialects import DIALECTS, MAX_COORDINATE, BoxAnswer, parse_boxes, strip_boxes

A, B = (1.0, 2.0, 30.0, 40.0), (50.0, 50.0, 60.0, 60.0)
ROTATED = (87.0, 34.0, 91.0, 35.0, 90.0)


@pytest.mark.parametrize(
    ("dialect", "text", "expected"),
    [
        ("brackets", "[1, 2, 30, 40]", (A,)),
        ("brackets", "[[1,2,30,40]]", (A,)),
        ("brackets", "[[1, 2, 30, 40], [50, 50, 60, 60]]", (A, B)),
        ("brackets", "[[1, 2, 30, 40]][[50, 50, 60, 60]]", (A, B)),
        ("brackets", "[[[1, 2, 30, 40]][[50, 50, 60, 60]]]", (A, B)),
        ("brackets", "<box>[[87, 34, 91, 35, 90]]</box>", (ROTATED,)),
        ("brackets", "The ship is at [01, 02, 30, 4e1] .", (A,)),
        ("brackets", "[-1, +2.5, .5, 3.]", ((-1.0, 2.5, 0.5, 3.0),)),
        ("brackets", "[]", ()),
        ("brackets", "[[]]", ()),
        ("brackets", "", ()),
        ("tagged", "<box>[]</box>", ()),
        ("json", "```json\n[]\n```", ()),
        ("geochat", "{<1><2><30><40>}", (A,)),
        ("geochat", "{<87><34><91><35>|<90>}", (ROTATED,)),
        ("geochat", "{<1><2><30><40>}{<50><50><60><60>}", (A, B)),
        ("geochat", "{<1><2><30><40>}<delim>{<50><50><60><60>}", (A, B)),
        ("geochat", "{ <1> <2> <30> <40> }", (A,)),
        ("tagged", "<ref>a ship</ref><box>[[1, 2, 30, 40]]</box>", (A,)),
        ("tagged", "<box>[[1, 2, 30, 40], [50, 50, 60, 60]]</box>", (A, B)),
        ("json", '{"bbox_2d": [1, 2, 30, 40], "label": "ship"}', (A,)),
        ("json", '```json\n[{"bbox_2d": [1, 2, 30, 40]}, {"bbox": [50, 50, 60, 60]}]\n```', (A, B)),
        ("json", "[1, 2, 30, 40]", (A,)),
        ("json", "[[1, 2, 30, 40], [50, 50, 60, 60]]", (A, B)),
        ("json", "[]", ()),
        ("polygons", "[[0, 0], [10, 0], [10, 10]]", ((0.0, 0.0, 10.0, 0.0, 10.0, 10.0),)),
        ("polygons", "[0, 0, 10, 0, 10, 10, 0, 10]", ((0.0, 0.0, 10.0, 0.0, 10.0, 10.0, 0.0, 10.0),)),
        ("polygons", "[[0, 0], [10, 0], [10, 10]] [[1, 2, 30, 40]]", ((0.0, 0.0, 10.0, 0.0, 10.0, 10.0), A)),
        ("polygons", "[[0,0],[9,0],[9,9]];[[0,0],[5,0],[5,5]]", ((0, 0, 9, 0, 9, 9), (0, 0, 5, 0, 5, 5))),
    ],
)
def test_parses_valid_boxes(dialect: str, text: str, expected: tuple[tuple[float, ...], ...]) -> None:
    found = parse_boxes(text, dialect)
    assert found is not None
    assert (found.boxes, found.malformed) == (expected, 0)


@pytest.mark.parametrize(
    ("dialect", "text", "malformed"),
    [
        ("brackets", "[1, 2, 3]", 1),
        ("brackets", "[1, 2, 3, 4, 5, 6]", 1),
        ("brackets", "[nan, 0, 1, 1] [Infinity, 0, 1, 1] [1e999, 0, 1, 1]", 3),
        ("brackets", "[1, 2, 3, 1_0]", 1),
        ("brackets", "[1, 2, 3, ４]", 1),
        ("brackets", f"[0, 0, 1, {'9' * 5000}]", 1),
        ("brackets", f"[0, 0, 1, {2 * MAX_COORDINATE}]", 1),
        ("brackets", "[1, 2, x, 4]", 1),
        ("geochat", "{<1><2><3>}", 1),
        ("geochat", "{<1><2><3><4>|<5>|<6>}", 1),
        ("geochat", "{<1>,<2>,<3>,<4>}", 1),
        ("tagged", "<box>[[1, 2, 3]]</box>", 1),
        ("json", '{"bbox_2d": [NaN, 0, 1, 1]}', 1),
        ("json", '[{"bbox_2d": [1, 2, 3, "4"]}, {"bbox_2d": [1, 2, 3, true]}, {"label": "ship"}, 5]', 4),
        ("polygons", "[[0, 0], [10, 0]]", 1),
        ("polygons", "[[0, 0], [10, nan], [10, 10]]", 1),
        ("polygons", "[0, 0, 10, 0, 10, 10, 5]", 1),
    ],
)
def test_counts_malformed_boxes(dialect: str, text: str, malformed: int) -> None:
    found = parse_boxes(text, dialect)
    assert found is not None
    assert (found.boxes, found.malformed, found.count) == ((), malformed, malformed)


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        ("brackets", "a ship"),
        ("brackets", "[a, b]"),
        ("brackets", "１, ２, ３, ４"),
        ("geochat", "[1, 2, 3, 4]"),
        ("tagged", "[1, 2, 3, 4]"),
        ("tagged", "<box>[[1, 2, 3, 4]]"),
        ("json", "bbox_2d: [1, 2, 3, 4]"),
        ("json", '{"bbox_2d": [1, 2'),
        ("json", "[" * 100_000),
        ("brackets", "[" * 100_000),
    ],
)
def test_answer_without_boxes_is_unparsable(dialect: str, text: str) -> None:
    assert parse_boxes(text, dialect) is None


@pytest.mark.parametrize(
    ("dialect", "text", "labels"),
    [
        ("brackets", "ship [1, 2, 30, 40] large ship [50, 50, 60, 60]", ("ship", "large ship")),
        ("brackets", "[1, 2, 30, 40] ship, [50, 50, 60, 60] LARGE SHIP", ("ship", "large ship")),
        ("brackets", "ship: [[1, 2, 30, 40], [50, 50, 60, 60]]", ("ship", "ship")),
        ("brackets", "[[1, 2, 30, 40], [50, 50, 60, 60]] ship", ("ship", "ship")),
        ("brackets", "ship [1, 2, 30, 40] something [50, 50, 60, 60]", ("ship", None)),
        ("brackets", "ships [1, 2, 30, 40], shipyard [50, 50, 60, 60]", (None, None)),
        ("tagged", "<ref>ship</ref><box>[[1, 2, 30, 40]][[50, 50, 60, 60]]</box>", ("ship", "ship")),
        (
            "tagged",
            "<ref>ship</ref><box>[[1, 2, 30, 40]]</box><ref>car</ref><box>[[5, 5, 6, 6]]</box>",
            ("ship", "car"),
        ),
        ("json", '[{"bbox_2d": [1, 2, 30, 40], "label": "ship"}, {"box": [5, 5, 6, 6]}]', ("ship", None)),
    ],
)
def test_labels_are_taken_from_the_text_next_to_boxes(dialect: str, text: str, labels: tuple[str | None, ...]) -> None:
    found = parse_boxes(text, dialect, ("ship", "large ship"))
    assert found is not None
    assert found.labels == labels


coordinate = st.integers(-200, 1200).map(float) | st.floats(-1e5, 1e5).map(lambda v: round(v, 3))
rows = st.lists(st.lists(coordinate, min_size=4, max_size=4) | st.lists(coordinate, min_size=5, max_size=5), max_size=6)


@given(rows, st.sampled_from(["brackets", "tagged", "json", "polygons", "geochat"]))
def test_every_dialect_round_trips(boxes: list[list[float]], dialect: str) -> None:
    def geochat(row: list[float]) -> str:
        return "{" + "".join(f"<{v}>" for v in row[:4]) + (f"|<{row[4]}>" if len(row) == 5 else "") + "}"

    written = {
        "tagged": f"<box>{json.dumps(boxes)}</box>" if boxes else "",
        "geochat": "".join(map(geochat, boxes)),
    }.get(dialect, json.dumps(boxes))
    assert parse_boxes(written, dialect) == BoxAnswer(tuple(map(tuple, boxes)), (None,) * len(boxes))


@given(
    st.text(alphabet="[]{}<>|,. -+eE01９nainf\"':box/ref\n\x00\ud800", max_size=200), st.sampled_from(list(DIALECTS))
)
def test_any_text_is_parsed_or_rejected(text: str, dialect: str) -> None:
    found = parse_boxes(text, dialect, ("a", "box"))
    if found is not None:
        assert len(found.boxes) == len(found.labels)
        assert all(abs(v) <= MAX_COORDINATE for box in found.boxes for v in box)


def test_strip_boxes_removes_boxes_of_every_dialect() -> None:
    text = "There is <ref>2 courts </ref> <box>[[[39, 43, 48, 59, 0]][[47, 39, 56, 55, 0]]]</box> at the center."
    assert strip_boxes(text) == "There is 2 courts at the center."
    assert strip_boxes("two ships [[1, 2, 3, 4], [5, 6, 7, 8]] on water") == "two ships on water"
    assert strip_boxes("two ships {<1><2><3><4>}{<5><6><7><8>|<9>} on water") == "two ships on water"
    assert strip_boxes("two [grey] ships") == "two [grey] ships"
    assert strip_boxes("a ship <box>[[1, 2, 3") == "a ship"

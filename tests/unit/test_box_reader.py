"""Reading boxes in the notations that models write."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geovlm_ray.core.geometry import Frame
from geovlm_ray.tasks.answers.box_dialects import DIALECTS, MAX_COORDINATE
from geovlm_ray.tasks.answers.box_reader import read_boxes, without_boxes
from geovlm_ray.tasks.answers.class_names import class_names

A, B = (16.0, 29.0, 85.0, 84.0), (10.0, 10.0, 20.0, 30.0)
NAMES = class_names(("ship", "airplane", "Boeing737", "no-damage"))

ONE = [
    "(16,29),(85,84)",
    "[[16, 29], [85, 84]]",
    "16, 29, 85, 84",
    "16 29 85 84",
    "[16%, 29%, 85%, 84%]",
    "[16px; 29px; 85px; 84px]",
    "x1=16, y1=29, x2=85, y2=84",
    "ymin: 29, xmin: 16, ymax: 84, xmax: 85",
    '{"x1": 16, "y1": 29, "x2": 85, "y2": 84}',
    '{"bbox": {"xmin": 16, "ymin": 29, "xmax": 85, "ymax": 84}}',
    '{"x": 16, "y": 29, "width": 69, "height": 55}',
    "left: 16, top: 29, right: 85, bottom: 84",
    "top-left (16, 29), bottom-right (85, 84)",
    "Its top left corner is at (16, 29) and its bottom right corner at (85, 84).",
    "Top-left corner: x=16, y=29\nBottom-right corner: x=85, y=84",
    "(x1, y1) = (16, 29), (x2, y2) = (85, 84)",
    "The ship spans x from 16 to 85 and y from 29 to 84.",
    "top-left (16, 29), width 69, height 55",
    "<|object_ref_start|>ship<|object_ref_end|><|box_start|>(16,29),(85,84)<|box_end|>",
    "<ref>ship</ref><box>[[16, 29, 85, 84]]</box>",
    "<box>16, 29, 85, 84</box>",
    "<16><29><85><84>",
    "<loc_16><loc_29><loc_85><loc_84>",
    "<xmin>16</xmin><ymin>29</ymin><xmax>85</xmax><ymax>84</ymax>",
    'Here it is:\n```json\n[\n\t{"bbox_2d": [16, 29, 85, 84], "label": "ship"},\n]\n```\nGood luck.',
    "{'bbox_2d': [16, 29, 85, 84], 'label': 'ship'}",
    '[{"bbox_2d": [16, 29, 85, 84], "label": "ship"}, {"bbox_2d": [10, 10',
    "[[16, 29, 85, 84], [10, 1",
    "| ship | 16 | 29 | 85 | 84 |",
    "('ship', 16, 29, 85, 84)",
    "The bounding box of the white ship beside the pier is 16, 29, 85, 84.",
    "[85, 84, 16, 29]",
    "x1: 16\ny1: 29\nx2: 85\ny2: 84",
    "Min X: 16, Min Y: 29, Max X: 85, Max Y: 84",
    "x: [16, 85], y: [29, 84]",
    "Start: (16, 29), End: (85, 84)",
    "$(x_1, y_1) = (16, 29)$ and $(x_2, y_2) = (85, 84)$",
    "[<16>, <29>, <85>, <84>]",
    "（16，29，85，84）",
    "［１６，２９，８５，８４］",
    '{"bbox_2d": ["16", "29", "85", "84"]}',
    "[['16', '29', '85', '84']]",
]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("text", ONE)
def test_every_notation_is_read_in_every_dialect(text: str, dialect: str) -> None:
    found = read_boxes(text, dialect)
    assert found is not None
    assert (found.boxes, found.malformed) == ((A,), 0)


@pytest.mark.parametrize(
    "text",
    [
        "16, 29, 85, 84\n10, 10, 20, 30",
        "16 29 85 84; 10 10 20 30",
        "[16 29 85 84], [10 10 20 30]",
        "(16,29),(85,84),(10,10),(20,30)",
        "[[[16, 29], [85, 84]], [[10, 10], [20, 30]]]",
        "1. [16, 29, 85, 84]\n2. [10, 10, 20, 30]",
        "<16><29><85><84> <10><10><20><30>",
        '{"bbox_2d": [16, 29, 85, 84]}\n{"bbox_2d": [10, 10, 20, 30]}',
        "x1=16, y1=29, x2=85, y2=84; x1=10, y1=10, x2=20, y2=30",
        "[16, 29, 85, 84, 10, 10, 20, 30]",
        "ship,16,29,85,84\nship,10,10,20,30",
    ],
)
def test_several_boxes_are_told_apart(text: str) -> None:
    found = read_boxes(text)
    assert found is not None
    assert (found.boxes, found.malformed) == ((A, B), 0)


@pytest.mark.parametrize(
    "text",
    [
        "[16, 29, 85, 84, 30°]",
        "[16, 29, 85, 84], angle: 30",
        "[16, 29, 85, 84], 30 degrees",
        "[16, 29, 85, 84] 30°",
        "(16, 29), (85, 84) at an angle of 30 degrees",
        '{"bbox": [16, 29, 85, 84], "angle": 30}',
        "16 29 85 84 30",
    ],
)
def test_a_fifth_number_is_the_angle(text: str) -> None:
    found = read_boxes(text)
    assert found is not None
    assert found.boxes == ((*A, 30.0),)


@pytest.mark.parametrize(
    ("frame", "box"),
    [
        (Frame("percent"), (10, 20, 30, 40)),
        (Frame("permille"), (100, 200, 300, 400)),
        (Frame("pixel", 200, 50), (20, 10, 60, 20)),
    ],
)
def test_percent_signs_are_converted_to_the_frame(frame: Frame, box: tuple[float, ...]) -> None:
    for text in ("[10%, 20%, 30%, 40%]", "x1=10%, y1=20%, x2=30%, y2=40%", "(10%, 20%), (30%, 40%)"):
        found = read_boxes(text, frame=frame)
        assert found is not None
        assert found.boxes == (pytest.approx(box),)


def test_four_corners_are_a_polygon() -> None:
    corners = (16, 29, 85, 29, 85, 84, 16, 84)
    for text in ("[[16, 29], [85, 29], [85, 84], [16, 84]]", "POLYGON((16 29, 85 29, 85 84, 16 84))", f"{[*corners]}"):
        found = read_boxes(text)
        assert found is not None
        assert found.boxes == (corners,)


@pytest.mark.parametrize(
    "text",
    [
        "There are 4 ships, 2 of them at 10 30.",
        "In 2010, 2012, 2015, 2018 the port grew.",
        "The scene has 4 ships, 3 planes, 2 cars and 1 truck.",
        "Image 16 shows 29 ships (85 m) and 84 cars on 2016-05-12 at 10:30.",
        "[x1, y1, x2, y2]",
        "16, 29",
        "a ship",
        "https://example.org/16/29/85/84.png",
        "[" * 30_000,
    ],
)
def test_other_numbers_are_no_boxes(text: str) -> None:
    assert read_boxes(text) is None


@pytest.mark.parametrize("text", ["[1, 2, 3]", "[1, 2, x, 4]", "{<1><2><3>}", "[0, 0, 1, 2000000]", "[1e999, 0, 1, 1]"])
def test_broken_boxes_count_as_malformed(text: str) -> None:
    found = read_boxes(text)
    assert found is not None
    assert (found.boxes, found.count) == ((), 1)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("ship [16, 29, 85, 84], airplane [10, 10, 20, 30]", ("ship", "airplane")),
        ("[16, 29, 85, 84] (ship), [10, 10, 20, 30] (airplane)", ("ship", "airplane")),
        ("ship: [[16, 29, 85, 84], [10, 10, 20, 30]]", ("ship", "ship")),
        ("1. **Ship**: (16, 29, 85, 84)\n2. **Boeing 737**: (10, 10, 20, 30)", ("ship", "Boeing737")),
        ("There is a ship at [16, 29, 85, 84] and an airplane at [10, 10, 20, 30].", ("ship", "airplane")),
        ('{"ship": [16, 29, 85, 84], "airplane": [10, 10, 20, 30]}', ("ship", "airplane")),
        ("ship and airplane: [16, 29, 85, 84], [10, 10, 20, 30]", (None, None)),
        (
            '[{"bbox": [16, 29, 85, 84], "label": "a", "damage": "no-damage"}, {"bbox": [10,10,20,30], "name": "b"}]',
            ("no-damage", "b"),
        ),
        ('{"label": "ship", "boxes": [[16, 29, 85, 84], [10, 10, 20, 30]]}', ("ship", "ship")),
        ("<p>ship</p>{<16><29><85><84>}<p>pier</p>{<10><10><20><30>}", ("ship", "pier")),
        ("helicopter [16, 29, 85, 84], no damage [10, 10, 20, 30]", ("helicopter", "no-damage")),
        ("Here are the boxes that I found in the image: [16, 29, 85, 84] and [10, 10, 20, 30].", (None, None)),
        ("Sure! [16, 29, 85, 84]\nConfidence: 0.9\n[10, 10, 20, 30]", (None, None)),
        ("Not the ship but the airplane is at [16, 29, 85, 84], and it is near [10, 10, 20, 30]", (None, None)),
    ],
)
def test_labels_are_fields_tags_or_words_beside_boxes(text: str, labels: tuple[str | None, ...]) -> None:
    found = read_boxes(text, names=NAMES)
    assert found is not None
    assert found.boxes == (A, B)
    assert found.labels == labels


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "```json\n[]\n```",
        "<box></box>",
        '{"objects": []}',
        "None.",
        "0",
        "There are no ships in the image.",
        "no objects found",
        "Ships: none",
        "I cannot find any ships.",
        "The image does not contain a ship.",
        "Not visible.",
        "Sorry, no ships here.",
        "No ships are visible because the image is not clear.",
        "The answer is an empty list: []",
    ],
)
def test_none_in_words_is_an_empty_answer(text: str) -> None:
    found = read_boxes(text)
    assert found is not None
    assert found.count == 0


@pytest.mark.parametrize(
    "text",
    [
        "There is a ship.",
        "There is a ship with no cargo.",
        "No planes, but two ships.",
        "I cannot see the image.",
        "I'm sorry, but I can't assist with that.",
        "ship",
        "no idea",
        "No answer",
        "There is no way to tell.",
        "No, I cannot say.",
        "no ships " * 100,
    ],
)
def test_other_texts_without_boxes_are_no_answer(text: str) -> None:
    assert read_boxes(text) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<ref>2 courts </ref> <box>[[[39, 43, 48, 59, 0]][[47, 39, 56, 55, 0]]]</box> at sea.", "2 courts at sea."),
        ("two ships [[1, 2, 3, 4], [5, 6, 7, 8]] on water", "two ships on water"),
        ("two ships {<1><2><3><4>}{<5><6><7><8>|<9>} on water", "two ships on water"),
        ("two ships (1,2),(3,4) on water", "two ships on water"),
        ("two ships on water\n1. [1, 2, 3, 4]\n2. [5, 6, 7, 8]", "two ships on water"),
        ('a ship at sea [{"bbox_2d": [1, 2, 3, 4], "label": "ship"}, {"bbox_2d": [5, 6, 7, 8]}]', "a ship at sea"),
        ("<|object_ref_start|>a ship<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|> at sea", "a ship at sea"),
        ("a ship <box>[[1, 2, 3", "a ship"),
        ("two [grey] ships of 4 m (2 of them new)", "two [grey] ships of 4 m (2 of them new)"),
    ],
)
def test_description_is_read_without_its_boxes(text: str, words: str) -> None:
    assert without_boxes(text) == words


HOSTILE = (
    "[1,",
    "(1,2),",
    "[1,2,3,4] ship ",
    "<1>",
    '{"a":',
    '"label": "a',
    "x1=1, ",
    "x from 1 to 2 y ",
    "1 to ",
    " ",
)


@pytest.mark.parametrize("unit", HOSTILE)
def test_time_is_linear_in_the_length(unit: str) -> None:
    def seconds(length: int) -> float:
        text = (unit * length)[:length]
        times = []
        for repeat in range(3):
            start = time.process_time()
            read_boxes(text + "." * repeat, "brackets", NAMES)
            without_boxes(text + "," * repeat)
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(32_000) < 10 * seconds(6_400) + 0.02


@given(st.text("[]{}()<>|,;:=. -+eE°%x1y2 \n\"'nosh", max_size=200), st.sampled_from(list(DIALECTS)))
def test_any_text_is_read_or_rejected(text: str, dialect: str) -> None:
    found = read_boxes(text, dialect, NAMES)
    if found is not None:
        assert len(found.boxes) == len(found.labels)
        assert all(abs(v) <= MAX_COORDINATE for box in found.boxes for v in box)
    without_boxes(text)

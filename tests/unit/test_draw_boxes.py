"""Drawn boxes: solid and dashed outlines, letters and labels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageColor

from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box
from geovlm_ray.report.boxes import PREDICTED_COLOUR, TRUE_COLOUR, draw_boxes

BLANK = Image.new("RGB", (320, 320), "black")
BOXES = [Box((10, 20, 40, 50), "ship"), Box((60, 60, 90, 90), "plane")]


def mask(image: Image.Image, colour: str) -> np.ndarray:
    return (np.asarray(image) == ImageColor.getrgb(colour)).all(axis=2)


def drawn(boxes: list[Box], colour: str = TRUE_COLOUR, **options: bool | str) -> np.ndarray:
    return mask(draw_boxes(BLANK, boxes, Frame(), colour, **options), colour)  # type: ignore[arg-type]


def test_solid_outline_is_closed_and_dashed_one_has_gaps() -> None:
    box = [Box((10, 20, 90, 80))]
    left, top, right = 32, 64, 288
    assert drawn(box)[top, left : right + 1].all()
    dashes = drawn(box, PREDICTED_COLOUR, dashed=True)[top, left : right + 1]
    assert 0.3 < dashes.mean() < 0.7
    assert np.count_nonzero(np.diff(dashes.astype(int)) == -1) >= 5, "gaps"


def test_dashed_box_leaves_a_coinciding_solid_one_visible() -> None:
    both = draw_boxes(
        draw_boxes(BLANK, BOXES[:1], Frame(), TRUE_COLOUR), BOXES[:1], Frame(), PREDICTED_COLOUR, dashed=True
    )
    assert mask(both, TRUE_COLOUR).sum() > 50
    assert mask(both, PREDICTED_COLOUR).sum() > 50


def test_outlines_are_cased_so_that_they_show_on_their_own_colour() -> None:
    image = draw_boxes(Image.new("RGB", (320, 320), TRUE_COLOUR), [Box((10, 20, 90, 80))], Frame(), TRUE_COLOUR)
    assert mask(image, "white").sum() > 500


@pytest.mark.parametrize("dashed", [False, True])
def test_only_several_boxes_are_lettered(dashed: bool) -> None:
    unlabelled = [Box(box.coords) for box in BOXES]
    one, several = ([box] for box in unlabelled), unlabelled
    for boxes in one:
        assert (drawn(boxes, letters="AB", dashed=dashed) == drawn(boxes, dashed=dashed)).all()
    assert drawn(several, letters="AB", dashed=dashed).sum() > drawn(several, dashed=dashed).sum() + 100


def test_letters_replace_labels_and_end_with_the_alphabet() -> None:
    labelled = drawn(BOXES)
    lettered = drawn(BOXES, letters="AB")
    assert lettered.sum() < labelled.sum(), "a letter takes less room than a label"
    assert (drawn(BOXES, letters="A") != lettered).any()


def test_true_letters_are_above_and_predicted_ones_below() -> None:
    rows = np.arange(320)
    above = drawn(BOXES, letters="AB")[:60].any(axis=1)
    below = drawn(BOXES, PREDICTED_COLOUR, dashed=True, letters="ab")[295:].any(axis=1)
    assert rows[:60][above].size > 8
    assert rows[295:][below].size > 8


def test_labels_that_begin_at_one_corner_are_both_written() -> None:
    one, other = Box((10, 40, 90, 60), "one"), Box((10, 40, 60, 90), "other")
    outlines = drawn([Box(box.coords) for box in (one, other)])
    patches = drawn([one, other]) & ~outlines
    alone = [(drawn([box]) & ~drawn([Box(box.coords)])).sum() for box in (one, other)]
    assert patches.sum() > 0.8 * sum(alone)


def test_rotated_boxes_are_outlined_along_their_sides() -> None:
    horizontal, rotated = (drawn([Box((20, 40, 80, 60, angle))]) for angle in (0, 90))
    assert horizontal[160, 64]
    assert not horizontal[64, 160]
    assert rotated[64, 160]
    assert not rotated[160, 64]

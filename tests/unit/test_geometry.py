"""Coordinate frames, intersection over union, matching."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import shapely
import shapely.affinity
from hypothesis import given
from hypothesis import strategies as st

from geovlm_ray.core.geometry import (
    Frame,
    convert_coords,
    hbb,
    intersections,
    iou_hbb,
    iou_matrix,
    iou_polygons,
    match,
    polygons,
    rotated_corners,
)

side = st.integers(0, 40)
hboxes = st.lists(st.tuples(side, side, side, side), max_size=5)
rboxes = st.tuples(side, side, st.integers(1, 30), st.integers(1, 30), st.integers(-180, 180)).map(
    lambda t: (t[0], t[1], t[0] + t[2], t[1] + t[3], t[4])
)


def test_frame_conversion_in_both_directions() -> None:
    percent, permille, pixel = Frame("percent"), Frame("permille"), Frame("pixel", 200, 400)
    assert percent.convert((10, 20, 30, 40), permille) == (100, 200, 300, 400)
    assert percent.convert((10, 20, 30, 40, 45), pixel) == (20, 80, 60, 160, 45)
    assert pixel.convert((20, 80, 60, 160, 45), percent) == pytest.approx((10, 20, 30, 40, 45))
    assert percent.convert((0, 0, 50, 0, 50, 50), pixel) == (0, 0, 100, 0, 100, 200)
    with pytest.raises(ValueError, match="positive width and height, found 0"):
        Frame("pixel", 0, 5)


def pixel_iou(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """IoU of two boxes with integer coordinates, by counting unit squares."""
    masks = np.zeros((2, 41, 41), dtype=bool)
    for mask, box in zip(masks, (a, b), strict=True):
        mask[box[1] : box[3], box[0] : box[2]] = True
    union = (masks[0] | masks[1]).sum()
    return float((masks[0] & masks[1]).sum() / union) if union else float(a == b)


@given(hboxes, hboxes)
def test_horizontal_iou_equals_pixel_count(a: list[tuple[int, ...]], b: list[tuple[int, ...]]) -> None:
    iou = iou_hbb(hbb(a), hbb(b))
    assert iou.shape == (len(a), len(b))
    for i, j in itertools.product(range(len(a)), range(len(b))):
        assert iou[i, j] == pytest.approx(pixel_iou(a[i], b[j]), abs=1e-12)


def test_boxes_that_differ_by_rounding_intersect() -> None:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 40, (20_000, 2))
    boxes = np.column_stack([corners, corners + rng.integers(1, 40, (20_000, 2)), rng.integers(-90, 91, 20_000)])
    ours = polygons(boxes.astype(float).tolist())
    theirs = np.array([shapely.affinity.rotate(shapely.box(*box[:4]), box[4]) for box in boxes.tolist()])
    assert (shapely.area(shapely.intersection(ours, theirs)) == 0).any(), "GEOS has mended this: drop `intersections`"
    assert shapely.area(intersections(ours, theirs)) == pytest.approx(shapely.area(ours), rel=1e-6)
    lost = np.flatnonzero(shapely.area(shapely.intersection(ours, theirs)) == 0)[0]
    assert iou_polygons(ours[[lost]], theirs[[lost]]) == pytest.approx(1, abs=1e-6)


@given(rboxes, rboxes)
def test_rotated_iou_equals_shapely(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    first, second = (shapely.affinity.rotate(shapely.box(*box[:4]), box[4]) for box in (a, b))
    (common,) = shapely.area(intersections(np.array([first]), np.array([second])))
    expected = common / (first.area + second.area - common)
    assert iou_matrix([a], [b], rotated=True)[0, 0] == pytest.approx(expected, abs=1e-9)
    assert polygons([a])[0].hausdorff_distance(first) == pytest.approx(0, abs=1e-6)


def test_rotated_iou_equals_pixel_count() -> None:
    boxes = [
        (10, 10, 30, 20, 30),
        (12, 8, 28, 26, -60),
        (15, 15, 25, 25, 45),
        (20, 20, 40, 24, 90),
        (10, 10, 30, 20, 0),
    ]
    grid = (np.stack(np.meshgrid(np.arange(1000), np.arange(1000)), axis=-1) + 0.5) / 20

    def covers(box: tuple[int, ...]) -> np.ndarray:
        centre = np.array([box[0] + box[2], box[1] + box[3]]) / 2
        cos, sin = np.cos(np.deg2rad(box[4])), np.sin(np.deg2rad(box[4]))
        local = (grid - centre) @ np.array([[cos, -sin], [sin, cos]])
        return (np.abs(local) <= np.array([box[2] - box[0], box[3] - box[1]]) / 2).all(axis=-1)

    masks = [covers(box) for box in boxes]
    expected = [[(m & n).sum() / (m | n).sum() for n in masks] for m in masks]
    assert iou_matrix(boxes, boxes, rotated=True) == pytest.approx(np.array(expected), abs=5e-3)


def test_rotation_direction() -> None:
    box = np.array([[0.0, 0.0, 4.0, 2.0, 90.0]])
    assert rotated_corners(box)[0, 0] == pytest.approx([3, -1])
    assert rotated_corners(box, sense=-1)[0, 0] == pytest.approx([1, 3])


def test_polygon_iou_uses_the_shape_or_its_envelope() -> None:
    square, triangle, bowtie = (0, 0, 4, 0, 4, 4, 0, 4), (0, 0, 4, 0, 4, 4), (0, 0, 4, 4, 4, 0, 0, 4)
    assert iou_matrix([square], [triangle], rotated=True) == pytest.approx(0.5)
    assert iou_matrix([square], [triangle]) == pytest.approx(1.0)
    assert iou_matrix([bowtie], [square], rotated=True) == pytest.approx(1.0)


def test_iou_of_boxes_without_area() -> None:
    line, point, box = (0, 0, 5, 0), (1, 1, 1, 1), (0, 0, 5, 5)
    assert iou_matrix([line, point, box], [line, point, box]) == pytest.approx(np.eye(3))


@given(st.integers(0, 4), st.integers(0, 4), st.randoms(use_true_random=False))
def test_matching_maximises_the_sum_of_ious(n: int, m: int, random: object) -> None:
    rng = np.random.default_rng(random.randrange(2**32))  # type: ignore[attr-defined]
    iou = np.round(rng.random((n, m)), 2)
    rows, columns = match(iou)
    assert len(rows) == len(columns) == min(n, m) == len(set(rows)) == len(set(columns))
    wide = iou if n <= m else iou.T
    best = max(
        (
            sum(wide[i, j] for i, j in enumerate(chosen))
            for chosen in itertools.permutations(range(max(n, m)), min(n, m))
        ),
        default=0.0,
    )
    assert iou[rows, columns].sum() == pytest.approx(best)


@pytest.mark.parametrize("angle", [0.0, 30.0, 45.0, 60.0, -20.0, 90.0, 135.0])
def test_rotated_box_covers_its_object_after_anisotropic_frame_conversion(angle: float) -> None:
    box, pixel, percent = (300.0, 190.0, 500.0, 210.0, angle), Frame("pixel", 800, 400), Frame()
    corners = rotated_corners(np.array([box]))[0] / (8, 4)
    converted = convert_coords(box, pixel, percent)
    iou = iou_matrix([converted], [tuple(corners.ravel())], rotated=True)[0, 0]
    # The mapped rectangle is a parallelogram; its minimum rotated rectangle is the best possible box.
    parallelogram = shapely.Polygon(corners)
    assert iou == pytest.approx(parallelogram.area / parallelogram.minimum_rotated_rectangle.area, abs=1e-6)
    assert iou_matrix([convert_coords(converted, percent, pixel)], [box], rotated=True)[0, 0] > 0.2

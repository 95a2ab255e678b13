"""Merging of what overlapping windows found: every object once and whole."""

from __future__ import annotations

import time

import numpy as np
import pytest
import shapely

from geovlm_ray.core.geometry import polygons, rotated_box
from geovlm_ray.data.geo.scene import Window
from geovlm_ray.data.geo.windows import covering_windows
from geovlm_ray.serving.predict.seams import Detection, merged

WIDTH, HEIGHT, SIDE, OVERLAP = 2000, 1500, 448, 112
WINDOWS = list(covering_windows(WIDTH, HEIGHT, SIDE, OVERLAP))
Box = tuple[float, ...]


def seen(objects: list[tuple[Box, str]], noise: float = 0.0, windows: list[Window] = WINDOWS) -> list[Detection]:
    """What every window shows of objects: their visible part, horizontal or rotated as they are."""
    rng = np.random.default_rng(0)
    found = []
    for window in windows:
        frame = shapely.box(window.left, window.top, window.right, window.bottom)
        for box, label in objects:
            part = polygons([box])[0].intersection(frame)
            if part.area < 4:
                continue
            shown = part.bounds if len(box) == 4 else rotated_box(shapely.get_coordinates(part).ravel().tolist())
            assert shown is not None
            moved = tuple(v + rng.uniform(-noise, noise) if i < 4 else v for i, v in enumerate(shown))
            found.append(Detection(moved, label, float(rng.uniform(0.5, 1)), window))
    return found


def check(objects: list[tuple[Box, str]], found: list[Detection], least: float = 0.95) -> None:
    """Each object must be found once, with its label and an IoU of at least ``least``."""
    assert len(found) == len(objects)
    for box, label in objects:
        shape = polygons([box])[0]
        others = polygons([d.box for d in found if d.label == label])
        ious = [shape.intersection(o).area / shape.union(o).area for o in others]
        assert max(ious) >= least, (box, max(ious))


def lines(low: str, high: str) -> list[int]:
    """Where windows begin and end inside the scene, along one axis."""
    ends = {getattr(w, name) for w in WINDOWS for name in (low, high)}
    return sorted(end for end in ends if 0 < end < (WIDTH if low == "left" else HEIGHT))


@pytest.mark.parametrize("size", [20, 60, 108, 250, 420])
def test_objects_on_every_seam_are_found_once(size: int) -> None:
    on_seams = [(x - size / 3, 700.0) for x in lines("left", "right")]
    on_seams += [(900.0, y - size / 3) for y in lines("top", "bottom")]
    corners = [(x - size / 2, y - size / 2) for x in lines("left", "right") for y in lines("top", "bottom")]
    for corner in on_seams + corners:
        x, y = (min(max(0.0, v), limit - size) for v, limit in zip(corner, (WIDTH, HEIGHT), strict=True))
        objects: list[tuple[Box, str]] = [((x, y, x + size, y + size), "ship")]
        check(objects, merged(seen(objects), WIDTH, HEIGHT))


def test_object_longer_than_several_windows_is_one() -> None:
    objects: list[tuple[Box, str]] = [((100.0, 500.0, 1900.0, 540.0), "runway"), ((900.0, 20.0, 960.0, 1480.0), "road")]
    check(objects, merged(seen(objects), WIDTH, HEIGHT))


def test_parts_of_a_long_object_are_united_however_small_the_overlap() -> None:
    windows = list(covering_windows(WIDTH, HEIGHT, 410, 12))
    objects: list[tuple[Box, str]] = [((100.0, 500.0, 1900.0, 540.0), "runway"), ((50.0, 50.0, 1000.0, 430.0), "lake")]
    check(objects, merged(seen(objects, windows=windows), WIDTH, HEIGHT))


@pytest.mark.parametrize("gap", [0.0, 4.0])
def test_long_neighbours_that_one_seam_cuts_stay_apart(gap: float) -> None:
    objects: list[tuple[Box, str]] = [
        ((40.0 + 5 * k, 20.0 + k * (30 + gap), 900.0, 50.0 + k * (30 + gap)), "greenhouse") for k in range(30)
    ]
    check(objects, merged(seen(objects, noise=4.0), WIDTH, HEIGHT), least=0.7)


def test_inexact_boxes_classes_and_neighbours_stay_apart() -> None:
    row: list[tuple[Box, str]] = [((x, 330.0, x + 30, 360.0), "ship") for x in range(10, 1900, 36)]
    same_place: list[tuple[Box, str]] = [
        ((600.0, 700.0, 680.0, 780.0), "ship"),
        ((600.0, 700.0, 680.0, 780.0), "plane"),
    ]
    objects = row + same_place
    check(objects, merged(seen(objects, noise=1.5), WIDTH, HEIGHT), least=0.75)


UPRIGHT_OF_DIAGONAL: list[tuple[Box, str]] = [
    ((107.5, 107.5, 192.5, 192.5), "ship"),
    ((122.5, 92.5, 207.5, 177.5), "ship"),
]
"""Two ships of 100 x 20 pixels, side by side at 45 degrees: the IoU of their upright boxes is 0.51."""


@pytest.mark.parametrize("windows", [1, 2, 3])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_diagonal_neighbours_stay_apart(order: tuple[int, int], windows: int) -> None:
    shown = [Window(60 * k, 0, SIDE, SIDE) for k in range(windows)]
    scores = np.linspace(0.9, 0.1, 2 * windows)
    found = [
        Detection(tuple(v + k for v in UPRIGHT_OF_DIAGONAL[order[n]][0]), "ship", float(scores[n * windows + k]), w)
        for n in range(2)
        for k, w in enumerate(shown)
    ]
    check(UPRIGHT_OF_DIAGONAL, merged(found, WIDTH, HEIGHT), least=0.9)


def test_diagonal_neighbours_that_a_seam_cuts_stay_apart() -> None:
    shifted: list[tuple[Box, str]] = [
        ((x1 + 260, y1, x2 + 260, y2), label) for (x1, y1, x2, y2), label in UPRIGHT_OF_DIAGONAL
    ]
    windows = [Window(0, 0, SIDE, SIDE), Window(336, 0, SIDE, SIDE)]
    check(shifted, merged(seen(shifted, windows=windows), WIDTH, HEIGHT))


def test_repeated_box_of_one_window_is_one() -> None:
    window = Window(0, 0, SIDE, SIDE)
    found = [Detection((10.0, 10.0, 60.0, 60.0 + k), "ship", 0.5, window) for k in range(3)]
    assert len(merged(found, WIDTH, HEIGHT)) == 1


def test_box_without_a_label_is_the_labelled_one_of_its_place() -> None:
    one, other = Window(0, 0, SIDE, SIDE), Window(336, 0, SIDE, SIDE)
    found = [
        Detection((350.0, 20.0, 390.0, 60.0), None, 0.9, one),
        Detection((352.0, 20.0, 391.0, 60.0), "ship", 0.5, other),
        Detection((350.0, 200.0, 390.0, 240.0), None, 0.5, one),
        # Only the first window cuts this one.
        Detection((400.0, 300.0, 448.0, 340.0), None, 0.5, one),
        Detection((400.0, 300.0, 500.0, 340.0), "plane", 0.5, other),
    ]
    assert [(d.label, d.box[1]) for d in merged(found, WIDTH, HEIGHT)] == [
        ("ship", 20.0),
        (None, 200.0),
        ("plane", 300.0),
    ]


def test_many_cut_parts_take_seconds() -> None:
    rng = np.random.default_rng(0)
    windows = list(covering_windows(20_000, 20_000, SIDE, OVERLAP))
    found = []
    for k in rng.integers(len(windows), size=20_000):
        (x, y), window = rng.uniform(0, 400, 2), windows[k]
        box = (window.right - min(x, 90) - 5, window.top + y, window.right - 0.5, window.top + y + 20)
        found.append(Detection(box, "ship", float(rng.uniform()), window))
    start = time.process_time()
    merged(found, 20_000, 20_000)
    assert time.process_time() - start < 20


def test_rotated_boxes_on_seams_are_found_once() -> None:
    objects: list[tuple[Box, str]] = []
    for k, x in enumerate(lines("left", "right")):
        objects.append(((x - 40.0, 200.0 + 100 * k, x + 50.0, 230.0 + 100 * k, 15.0 * k - 30), "ship"))
    check(objects, merged(seen(objects), WIDTH, HEIGHT), least=0.9)


def test_boxes_at_the_edge_of_the_scene_are_whole() -> None:
    box = (0.0, 0.0, 40.0, 30.0)
    (found,) = merged([Detection(box, None, 0.9, Window(0, 0, SIDE, SIDE))], WIDTH, HEIGHT)
    assert found.box == box


def test_order_is_by_score_and_independent_of_the_input() -> None:
    detections = seen(
        [((x, y, x + 50.0, y + 50.0), "a") for x in range(0, 1900, 170) for y in range(0, 1400, 130)], 2.0
    )
    found = merged(detections, WIDTH, HEIGHT)
    assert merged(detections[::-1], WIDTH, HEIGHT) == found
    assert [d.score for d in found] == sorted((d.score for d in found), reverse=True)

"""Detection metrics: AP equals the reference implementations; F1 uses the maximum one-to-one matching."""

from __future__ import annotations

import contextlib
import io
import itertools
from typing import Any

import faster_coco_eval
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box
from geovlm_ray.evaluation.metrics.detection import BoxRecord, average_precision, box_groups, f1, size_group
from geovlm_ray.tasks.answers.box_dialects import BoxAnswer


def record(answer: Any, truth: Any, labels: Any = None, names: Any = None, malformed: int = 0) -> BoxRecord:
    answer, truth = [tuple(map(float, b)) for b in answer], [tuple(map(float, b)) for b in truth]
    found = BoxAnswer(tuple(answer), tuple(labels or [None] * len(answer)), malformed)
    boxes = tuple(Box(b, n) for b, n in zip(truth, names or [None] * len(truth), strict=True))
    return BoxRecord(found, boxes, size_group(boxes, Frame()))


def random_records(n: int, named: bool = False, seed: int = 0) -> list[BoxRecord]:
    """Records with up to four true boxes, and predictions with noise, misses and false positives."""
    rng = np.random.default_rng(seed)
    records = []
    for _ in range(n):
        corners = rng.uniform(0, 80, (rng.integers(0, 5), 2))
        truth = np.concatenate([corners, corners + rng.uniform(12, 40, corners.shape)], axis=1)
        hits = truth[rng.random(len(truth)) < 0.8] + rng.normal(0, 2, 4).clip(-5, 5)
        false_positives = rng.uniform(0, 50, (rng.integers(0, 2), 4)) + np.array([0, 0, 50, 50])
        answer = rng.permutation(np.concatenate([hits, false_positives]))
        names, labels = ([f"class {i}" for i in rng.integers(0, 3, len(b))] if named else None for b in (truth, answer))
        records.append(record(answer, truth, labels, names))
    return records


def unit_counts(records: list[BoxRecord]) -> np.ndarray:
    return np.ones(len(records), dtype=np.int64)


def reference_ap(records: list[BoxRecord], coco: Any, evaluator: Any, **options: Any) -> dict[str, float]:
    """AP of a COCO implementation, over records converted to the COCO format."""
    names = sorted({b.label or "" for r in records for b in r.truth})
    truth, answers = [], []
    for image, r in enumerate(records, 1):
        for box in r.truth:
            x1, y1, x2, y2 = box.coords
            annotation = {"id": len(truth) + 1, "image_id": image, "category_id": names.index(box.label or "") + 1}
            truth.append(annotation | {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0})
        for (x1, y1, x2, y2), label in zip(r.answer.boxes, r.answer.labels, strict=True):
            annotation = {"image_id": image, "category_id": names.index(label or "") + 1, "score": 1.0}
            answers.append(annotation | {"bbox": [x1, y1, x2 - x1, y2 - y1]})
    images = [{"id": i, "width": 100, "height": 100} for i in range(1, len(records) + 1)]
    categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = coco()
        ground_truth.dataset = {"info": {}, "images": images, "annotations": truth, "categories": categories}
        ground_truth.createIndex()
        evaluation = evaluator(ground_truth, ground_truth.loadRes(answers), "bbox", **options)
        evaluation.params.iouThrs = np.array([0.25, *np.linspace(0.5, 0.95, 10)])
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    per_threshold = [values[values > -1].mean() for values in precision]
    return {"AP@0.5": per_threshold[1], "AP@0.25": per_threshold[0], "AP@[.5:.95]": float(np.mean(per_threshold[1:]))}


@pytest.mark.parametrize("named", [False, True])
def test_ap_equals_the_reference_implementations(named: bool) -> None:
    records = random_records(60, named)
    found = average_precision(records)(unit_counts(records))
    assert 0.05 < found["AP@0.5"] < 0.95
    assert found == pytest.approx(reference_ap(records, COCO, COCOeval), abs=1e-9)
    assert found == pytest.approx(
        reference_ap(records, faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster), abs=1e-9
    )


def test_ap_of_resampled_records_equals_a_new_evaluation() -> None:
    records = random_records(20, named=True)
    counts = np.random.default_rng(1).integers(0, 3, len(records))
    repeated = [r for r, count in zip(records, counts, strict=True) for _ in range(count)]
    assert average_precision(records)(counts) == pytest.approx(
        average_precision(repeated)(unit_counts(repeated)), abs=1e-12
    )


def test_f1_uses_the_maximum_one_to_one_matching() -> None:
    def brute_force_matches(r: BoxRecord) -> int:
        answer, truth = list(r.answer.boxes), [b.coords for b in r.truth]
        shorter, longer = sorted((answer, truth), key=len)
        matches = [[_iou(a, b) >= 0.5 for b in longer] for a in shorter]
        return max(
            sum(matches[i][j] for i, j in enumerate(p))
            for p in itertools.permutations(range(len(longer)), len(shorter))
        )

    records = random_records(30, seed=3)
    boxes = sum(r.answer.count + len(r.truth) for r in records)
    assert f1(records)(unit_counts(records)) == {
        "F1@0.5": pytest.approx(2 * sum(map(brute_force_matches, records)) / boxes)
    }


def _iou(a: Any, b: Any) -> float:
    width, height = (max(min(a[i + 2], b[i + 2]) - max(a[i], b[i]), 0.0) for i in (0, 1))
    area = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return width * height / (area - width * height)


BOX = (10, 10, 30, 30)


def test_duplicate_and_malformed_boxes_are_false_positives() -> None:
    for worse in (record([BOX] * 5, [BOX]), record([BOX], [BOX], malformed=4)):
        assert f1([worse])(np.ones(1, int)) == {"F1@0.5": pytest.approx(2 / 6)}
    good, bad = record([BOX], [BOX]), record([], [BOX], malformed=3)
    assert average_precision([bad, good])(np.ones(2, int))["AP@0.5"] < 0.2
    inverted = record([(30, 30, 10, 10), BOX], [BOX])
    assert average_precision([inverted])(np.ones(1, int))["AP@0.5"] == pytest.approx(0.5)


def test_labels_must_match_if_both_sides_have_them() -> None:
    wrong = record([BOX], [BOX], ["minor-damage"], ["destroyed"])
    assert f1([wrong])(np.ones(1, int)) == {"F1@0.5": 0.0}
    assert average_precision([wrong])(np.ones(1, int))["AP@0.5"] == 0.0
    unnamed = record([BOX], [BOX], None, ["destroyed"])
    assert f1([unnamed])(np.ones(1, int)) == {"F1@0.5": 1.0}
    assert average_precision([unnamed])(np.ones(1, int))["AP@0.5"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("records", "scores"),
    [
        ([record([], [])], {}),
        ([record([BOX], [])], {"F1@0.5": 0.0}),
        ([record([], [BOX])], {"F1@0.5": 0.0, "AP@0.5": 0.0, "AP@0.25": 0.0, "AP@[.5:.95]": 0.0}),
    ],
)
def test_records_without_true_or_predicted_boxes(records: list[BoxRecord], scores: dict[str, float]) -> None:
    assert f1(records)(unit_counts(records)) | average_precision(records)(unit_counts(records)) == scores


def test_very_many_predicted_boxes() -> None:
    flood = record([BOX] * 20_000, [BOX])
    assert f1([flood])(np.ones(1, int))["F1@0.5"] == pytest.approx(2 / 20_001)
    assert average_precision([flood])(np.ones(1, int))["AP@0.5"] == pytest.approx(1.0)


def test_box_groups_by_size_and_number() -> None:
    records = [record([], [(0, 0, 5, 5)]), record([], [(0, 0, 10, 10), (0, 0, 12, 12)]), record([], [(0, 0, 90, 90)])]
    groups = {name: members.tolist() for name, members in box_groups([*records, record([BOX], [])]).items()}
    assert groups == {
        "small": [True, False, False, False],
        "medium": [False, True, False, False],
        "large": [False, False, True, False],
        "single": [True, False, True, False],
        "multiple": [False, True, False, False],
    }


def test_labels_of_one_record_do_not_change_the_score_of_another() -> None:
    truth, names = [BOX, (60, 60, 80, 80)], ["ship", "plane"]
    for first in (record(truth, truth, names, names), record(truth, truth, None, names)):
        plain = record([BOX], [BOX], None, None)
        with_labels = record([BOX], [BOX], ["ship"], None)
        assert f1([first, plain])(np.ones(2, int)) == f1([first, with_labels])(np.ones(2, int))
    assert f1([record(truth, truth, names, names)])(np.ones(1, int)) == {"F1@0.5": 1.0}
    assert f1([record(truth, truth, None, names)])(np.ones(1, int)) == {"F1@0.5": 0.0}


def test_rotated_boxes_are_compared_by_their_envelopes() -> None:
    upright = (40, 0, 60, 100)
    assert f1([record([upright], [(0, 40, 100, 60, 90)])])(np.ones(1, int)) == {"F1@0.5": 1.0}
    assert f1([record([(0, 40, 100, 60)], [(0, 40, 100, 60, 90)])])(np.ones(1, int)) == {"F1@0.5": 0.0}

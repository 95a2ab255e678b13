"""The registry of benchmarks against what the paper publishes."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from geovlm_ray.data.formats import FORMATS
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.evaluation.groups import record_group
from geovlm_ray.evaluation.listing import print_benchmarks
from geovlm_ray.evaluation.registry import BENCHMARKS, DRAWN, find
from geovlm_ray.metrics.paper import paper_metrics
from geovlm_ray.metrics.sound import Answered
from geovlm_ray.schema import Box, Example, GroundedText, Target
from geovlm_ray.tasks import TASKS

ACCURACY = ("Classification accuracy",)
SIZES = ("small Objects", "medium Objects", "large Objects", "single Objects", "multiple Objects")
CAPTIONS = ("ROUGE-1 Fmeasure", "ROUGE-L Fmeasure", "METEOR Score")
REGIONS = ("ROUGE-1 F1 Score", "ROUGE-L F1 Score", "METEOR Score")
BOXES = ("Precision @0.5", "Precision @0.25")
PAPER: dict[str, tuple[tuple[str, ...], str, str]] = {
    "aid": (ACCURACY, "88.46", "88.76"),
    "ucmerced": (ACCURACY, "97.81", "92.42"),
    "whu-rs19": (ACCURACY, "97.91", "96.21"),
    "bigearthnet": (ACCURACY, "80.91", "73.03"),
    "fmow": (ACCURACY, "76.93", "70.03"),
    "geochat-referred-detection": (SIZES, "36.02 54.72 55.03 57.1 35.04", "11.43 31.76 39.07 34.29 13.41"),
    "nwpu-referred-detection": (SIZES, "34.44 48.76 64.91 55.97 41.45", "11.66 14.21 23.12 25.37 8.9"),
    "geochat-region-captioning": (REGIONS, "75.92 75.9 66.43", "73.38 73.34 62.72"),
    "nwpu-region-captioning": (REGIONS, "72.10 72.10 55.49", "72.14 72.14 60.01"),
    "nwpu-grounding-description": (BOXES + REGIONS, "38.74 61.45 31.31 30.08 26.10", "17.07 41.00 27.05 26.35 23.12"),
    "dubai-cc": (CAPTIONS, "36.60 34.15 61.22", "31.94 30.66 55.83"),
    "levir-mci": (CAPTIONS, "37.85 34.02 73.56", "33.78 30.47 74.80"),
    "muds": (CAPTIONS, "34.07 27.65 45.94", "28.16 24.03 33.56"),
    "sysu": (CAPTIONS, "19.64 18.46 15.45", "18.03 17.42 14.98"),
    "nwpu-captions": (CAPTIONS, "46.94 40.96 82.00", "45.84 39.96 80.61"),
    "rsicd": (CAPTIONS, "34.64 28.63 56.54", "33.77 27.61 56.18"),
    "rsitmd": (CAPTIONS, "30.62 25.39 39.07", "26.74 21.72 34.06"),
    "ucm-captions": ((), "", ""),
    "xbd-captioning": (CAPTIONS, "92.26 92.26 93.37", "87.26 87.26 88.53"),
    "xbd-region-classification-1": (ACCURACY, "81.36", "53.70"),
    "xbd-region-classification-2": (ACCURACY, "83.55", "83.09"),
    "xbd-image-classification-1": (ACCURACY, "98.93", "96.37"),
    "xbd-image-classification-2": (ACCURACY, "86.39", "82.85"),
    "xbd-image-classification-3": (ACCURACY, "68.60", "54.01"),
    "xbd-object-detection": (BOXES, "38.15 48.13", "7.6 21.11"),
    "xbd-referred-detection": (BOXES, "24.52 34.52", "5.1 13.09"),
    "rsvqa-lrben": (
        ("presence Objects", "comp Objects", "rural_urban Objects", "average"),
        *("91.81 93.20 96 92.66", "92.58 92.75 94.00 92.70"),
    ),
    "rsvqa-hrben": (("presence Objects", "comp Objects", "average"), "66.38 82.26 75.27", "58.89 83.11 72.45"),
}
ZERO_SHOT = {
    *("aid", "ucmerced", "whu-rs19", "nwpu-referred-detection", "nwpu-region-captioning"),
    *("nwpu-grounding-description", "sysu", "rsitmd", "rsvqa-hrben"),
}
SMALL, MEDIUM, LARGE = Box((0, 0, 5, 5)), Box((0, 0, 15, 15)), Box((0, 0, 50, 50))
WRITTEN = "[[0, 0, 50, 50]]"


def records(task: str) -> list[Answered]:
    """A few answered records of a task, of every group that its dataset knows."""

    def made(target: Target, answer: str, group: str | None = None) -> Answered:
        example = Example("1", task, ("i.png",), "?", target)
        return Answered(answer, example, group or record_group(example, {}))

    kind = TASKS[task].target_kind
    if kind == "classes":
        return [made(("forest",), "forest")]
    if kind == "vqa":
        return [made("yes", "yes", group) for group in ("presence", "comp", "rural_urban", "count")]
    if kind == "boxes":
        return [made((box,), WRITTEN) for box in (SMALL, MEDIUM, LARGE)] + [made((LARGE, SMALL), WRITTEN)]
    if kind == "grounded":
        return [made(GroundedText("a ship", (LARGE,)), f"a ship {WRITTEN}")] * 3
    return [made(("a ship on water",), "a ship on water")]


def test_the_published_figures_are_the_papers() -> None:
    assert len(BENCHMARKS) == 28
    assert set(BENCHMARKS) == set(PAPER)
    for name, (metrics, *figures) in PAPER.items():
        published = BENCHMARKS[name].published
        assert tuple(published) == metrics
        for model, values in zip(("GeoVLM-R1", "EarthDial"), figures, strict=True):
            assert [published[metric][model] for metric in metrics] == list(map(float, values.split())), name
    assert {name for name, benchmark in BENCHMARKS.items() if benchmark.zero_shot} == ZERO_SHOT


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_a_reader_and_metrics_that_exist(name: str) -> None:
    benchmark = BENCHMARKS[name]
    assert benchmark.reader in FORMATS
    assert set(benchmark.options) <= set(FORMATS[benchmark.reader].options)
    assert benchmark.task in TASKS
    assert set(benchmark.published) <= set(paper_metrics(records(benchmark.task)))
    assert benchmark.source.startswith("http")
    assert benchmark.licence


def test_all_are_listed_with_their_figures_and_where_to_get_them() -> None:
    console = Console(record=True, width=80, quiet=False, file=(Path("/dev/null")).open("w"))
    print_benchmarks(console)
    said = console.export_text()
    for benchmark in BENCHMARKS.values():
        assert benchmark.name in said
        assert benchmark.source in said
        for models in benchmark.published.values():
            assert f"{models['GeoVLM-R1']:.2f} ({models['EarthDial']:.2f})" in said


def test_names_of_groups_stand_for_all_of_them_and_each_comes_once() -> None:
    assert [b.name for b in find(["all"])] == list(BENCHMARKS)
    assert [b.name for b in find(["drawn-vqa", "drawn", "drawn-vqa"])][0] == "drawn-vqa"
    assert {b.name for b in find(["drawn-vqa", "drawn"])} == set(DRAWN)


def test_groups_come_from_the_dataset_or_from_the_boxes() -> None:
    question = Example("1", "vqa", ("i.png",), "?", "yes")
    assert record_group(question, {"type": "comp"}) == "comp"
    assert record_group(question, {}) is None
    boxes = Example("1", "referred_object_detection", ("i.png",), "?", (SMALL,))
    assert record_group(boxes, {"size_group": "large"}) == "large"
    assert record_group(boxes, {}) == "small"
    assert record_group(scene_example("scene_classification", 1, 1), {}) is None

"""Benchmark registry against the figures published in the paper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from geovlm_ray.core.schema import Box, Example, GroundedText, Target
from geovlm_ray.data.answer_format import DATASET_FORMAT
from geovlm_ray.data.formats import FORMATS
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.evaluation.datasets import convert_once
from geovlm_ray.evaluation.examples import BenchmarkExamples, dataset_examples, record_group
from geovlm_ray.evaluation.listing import print_benchmarks
from geovlm_ray.evaluation.metrics.paper import paper_metrics
from geovlm_ray.evaluation.metrics.sound import AnsweredExample
from geovlm_ray.evaluation.registry import BENCHMARKS, DRAWN, find
from geovlm_ray.report.terminal import InertConsole
from geovlm_ray.tasks import TASKS

ACCURACY = ("Classification accuracy",)
VQA_ACCURACY = ("VQA accuracy",)
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
    "xbd-region-classification-2": (VQA_ACCURACY, "83.55", "83.09"),
    "xbd-image-classification-1": (ACCURACY, "98.93", "96.37"),
    "xbd-image-classification-2": (VQA_ACCURACY, "86.39", "82.85"),
    "xbd-image-classification-3": (VQA_ACCURACY, "68.60", "54.01"),
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
# Record format of EarthDial's shards: number of images, question, answer.
TEMPORAL = "[hr_rgb_temp_0.5] <image> <image> \\n "
CHANGE = f"[changedet] {TEMPORAL}are there any semantic change detected in the provided images?"
REFER = "[refer] [hr_rgb_0.5] <image> \\n Give me the location of <ref>1 ship</ref>"
IDENTIFY = "[identify] [hr_rgb_0.5] <image> \\n describe this object in <box>[[0, 0, 5, 5, 0]]</box>"
BOX = "[[0, 0, 5, 5, 0]]"
AFFECTED = "affected due to disaster"
EARTHDIAL_RECORDS = {
    "bigearthnet": (
        1,
        "[s2_rgb_10] <image> \\n From the following scene categories, which ones are depicted?",
        "Pastures",
    ),
    "fmow": (4, f"{TEMPORAL}Classify the given images in one of the following classes. Classes: zoo, dam.", "dam"),
    "geochat-referred-detection": (1, REFER, BOX),
    "nwpu-referred-detection": (1, "[refer] [hr_rgb_0.5] <image> \\n <ref>1 ship at the top</ref>", BOX),
    "geochat-region-captioning": (1, IDENTIFY, "small ship"),
    "nwpu-region-captioning": (1, IDENTIFY, "1 white ship at the top"),
    "nwpu-grounding-description": (
        *(1, "[grounding] [hr_rgb_0.5] <image> \\n Describe the image in detail."),
        f"there is <ref>1 ship</ref> <box>[{BOX}]</box> ref at left.",
    ),
    "muds": (4, CHANGE, "a road is built ."),
    "sysu": (2, CHANGE, '["a road is built ."]'),
    "xbd-image-classification-1": (2, f"[changedet] {TEMPORAL}Identify the disaster. Options: fire, flood.", "flood"),
    "xbd-image-classification-2": (2, f"{TEMPORAL}Are there any buildings {AFFECTED}? Please answer yes or no.", "no"),
    "xbd-image-classification-3": (
        *(2, f"{TEMPORAL}How many building are affected? Please answer none, one, two or many.", "many"),
    ),
    "xbd-captioning": (2, f"[grounding] {TEMPORAL}Please describe the damage in the image.", "a flood, no damage."),
    "xbd-region-classification-1": (
        *(2, f"[identify] {TEMPORAL}Compare the building at <box>{BOX}</box>, classify the level of damage."),
        "no-damage",
    ),
    "xbd-region-classification-2": (
        *(2, f"[identify] {TEMPORAL}Is this building at <box>{BOX}</box> {AFFECTED}? Please answer yes or no.", "yes"),
    ),
    "xbd-object-detection": (2, f"[refer] {TEMPORAL}Locate all large <ref>buildings</ref> in the image.", BOX + BOX),
    "xbd-referred-detection": (2, f"[refer] {TEMPORAL}Identify the <ref>destroyed building</ref> at left.", BOX),
}
SMALL, MEDIUM, LARGE = Box((0, 0, 5, 5)), Box((0, 0, 15, 15)), Box((0, 0, 50, 50))
PREDICTED_BOX = "[[0, 0, 50, 50]]"


def records(task: str) -> list[AnsweredExample]:
    """Answered records of a task, at least one for each of its groups."""

    def answered(target: Target, answer: str, group: str | None = None) -> AnsweredExample:
        example = Example("1", task, ("i.png",), "?", target)
        return AnsweredExample(answer, example, group or record_group(example, {}))

    kind = TASKS[task].target_kind
    if kind == "classes":
        return [answered(("forest",), "forest")]
    if kind == "vqa":
        return [answered("yes", "yes", group) for group in ("presence", "comp", "rural_urban", "count")]
    if kind == "boxes":
        return [answered((box,), PREDICTED_BOX) for box in (SMALL, MEDIUM, LARGE)] + [
            answered((LARGE, SMALL), PREDICTED_BOX)
        ]
    if kind == "grounded":
        return [answered(GroundedText("a ship", (LARGE,)), f"a ship {PREDICTED_BOX}")] * 3
    return [answered(("a ship on water",), "a ship on water")]


def test_published_figures_equal_the_paper() -> None:
    assert len(BENCHMARKS) == 28
    assert set(BENCHMARKS) == set(PAPER)
    for name, (metrics, *figures) in PAPER.items():
        published = BENCHMARKS[name].published
        assert tuple(published) == metrics
        for model, values in zip(("GeoVLM-R1", "EarthDial"), figures, strict=True):
            assert [published[metric][model] for metric in metrics] == list(map(float, values.split())), name
    assert {name for name, benchmark in BENCHMARKS.items() if benchmark.zero_shot} == ZERO_SHOT


@pytest.mark.parametrize("name", BENCHMARKS)
def test_reader_and_metrics_of_every_benchmark_exist(name: str) -> None:
    benchmark = BENCHMARKS[name]
    assert benchmark.reader in FORMATS
    assert set(benchmark.options) <= set(FORMATS[benchmark.reader].options)
    assert benchmark.task in TASKS
    assert set(benchmark.published) <= set(paper_metrics(records(benchmark.task)))
    assert benchmark.source.startswith("http")
    assert benchmark.licence


def write_json(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value))


def write_rsvqa(folder: Path, *splits: str) -> None:
    """Write RSVQA files with one question per split, whose type is the name of the split."""
    for split in splits:
        question = {"id": 1, "img_id": 1, "type": split, "question": "Is there water?", "answers_ids": [1]}
        write_json(folder / f"{split}_questions.json", {"questions": [question]})
        write_json(folder / f"{split}_answers.json", {"answers": [{"id": 1, "question_id": 1, "answer": "yes"}]})


def write_source_data(name: str, folder: Path) -> None:
    """Write a benchmark's data in its source format: one record to evaluate, the others in other splits."""
    reader = BENCHMARKS[name].reader
    if reader == "folders":
        (folder / "forest").mkdir(parents=True)
        (folder / "forest" / "1.png").touch()
    elif reader == "rsvqa":
        write_rsvqa(folder, *(f"USGS_split_{split}" for split in ("train", "val", "test", "test_phili")))
    elif reader == "captions":
        pair = {"filepath": "test", "changeflag": 1} if BENCHMARKS[name].task == "change_captioning" else {}
        sentences = [{"raw": "a road is built ."}]
        images = [
            {"filename": f"{s}.png", "sentences": sentences, "split": s, **pair} for s in ("train", "val", "test")
        ]
        write_json(folder / "captions.json", {"images": images})
    else:
        count, question, answer = EARTHDIAL_RECORDS[name]
        record = {"image": [f"{i}.png" for i in range(count)], "question": f'"{question}"'}
        write_json(folder / "test.json", [record | {"groundtruth": f'"{answer}"', "size_group": '"large"'}])


def published_examples(name: str, data: Path, out: Path) -> BenchmarkExamples:
    """Convert a benchmark's source data and return the examples to evaluate."""
    benchmark = BENCHMARKS[name]
    assert benchmark.reader is not None
    shards = convert_once(name, benchmark.reader, benchmark.reader_options, data, out, lambda n, text: None)
    return dataset_examples(benchmark, data, shards, DATASET_FORMAT, None)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_reads_the_format_of_its_source(name: str, tmp_path: Path) -> None:
    write_source_data(name, tmp_path / "data")
    (found,) = published_examples(name, tmp_path / "data", tmp_path / "out")
    assert found.example.task == BENCHMARKS[name].task
    if set(SIZES) <= set(BENCHMARKS[name].published):
        assert found.group == "large", "the size given by the dataset overrides the size of the box"


def test_hrben_uses_the_second_test_split(tmp_path: Path) -> None:
    for name, split in (("rsvqa-lrben", "test"), ("rsvqa-hrben", "test_phili")):
        write_source_data(name, tmp_path / name)
        (found,) = published_examples(name, tmp_path / name, tmp_path / "out")
        assert found.group == f"USGS_split_{split}"


def test_vqa_average_weights_questions_equally_and_excludes_counting() -> None:
    answers_by_type = {"presence": ["yes", "yes", "no"], "comp": ["no"], "count": ["no", "no"]}
    example = Example("1", "vqa", ("i.png",), "?", "yes")
    found = paper_metrics(
        [AnsweredExample(answer, example, kind) for kind, answers in answers_by_type.items() for answer in answers]
    )
    assert found["average"] == pytest.approx(2 / 4)
    assert found["presence Objects"] == pytest.approx(2 / 3)
    assert found["VQA accuracy"] == pytest.approx(2 / 6)


def test_listing_shows_published_figures_and_sources() -> None:
    console = InertConsole(record=True, width=80)
    print_benchmarks(console)
    output = console.export_text()
    for benchmark in BENCHMARKS.values():
        assert benchmark.name in output
        assert benchmark.source in output
        for models in benchmark.published.values():
            assert f"{models['GeoVLM-R1']:.2f} ({models['EarthDial']:.2f})" in output


def test_group_names_expand_without_duplicates() -> None:
    assert [b.name for b in find(["all"])] == list(BENCHMARKS)
    assert next(b.name for b in find(["drawn-vqa", "drawn", "drawn-vqa"])) == "drawn-vqa"
    assert {b.name for b in find(["drawn-vqa", "drawn"])} == set(DRAWN)


def test_group_comes_from_the_metadata_or_from_the_boxes() -> None:
    question = Example("1", "vqa", ("i.png",), "?", "yes")
    assert record_group(question, {"type": "comp"}) == "comp"
    assert record_group(question, {}) is None
    boxes = Example("1", "referred_object_detection", ("i.png",), "?", (SMALL,))
    assert record_group(boxes, {"size_group": "large"}) == "large"
    assert record_group(boxes, {"size_group": '"large"'}) == "large", "EarthDial's shards keep the quotes"
    assert record_group(boxes, {"size_group": '""'}) == "small"
    assert record_group(boxes, {}) == "small"
    assert record_group(scene_example("scene_classification", 1, 1), {}) is None

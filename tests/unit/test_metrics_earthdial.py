"""Published metrics: equal to the output of EarthDial's scripts, including their quirks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from nltk.translate.meteor_score import meteor_score

from geovlm_ray.core.errors import DataError
from geovlm_ray.evaluation.metrics import earthdial
from geovlm_ray.evaluation.metrics.earthdial_boxes import hits, read_boxes
from geovlm_ray.evaluation.metrics.earthdial_files import layout
from geovlm_ray.rewards.text_metrics.wordnet import open_wordnet
from tests.rs import RS, needs_rs


def expected() -> dict[str, Any]:
    listed = RS / "expected_metrics.json"
    return json.loads(listed.read_text())["results"] if listed.is_file() else {}


@needs_rs
@pytest.mark.parametrize("name", expected())
def test_metrics_equal_those_of_the_earthdial_scripts(name: str) -> None:
    folder, stem = name.split("/")
    lines = (RS / "A_text_eval" / f"{name}.jsonl").read_text().splitlines()
    found = layout(folder, stem).paper([json.loads(line) for line in lines])
    reference = expected()[name]["metrics"]
    assert found.keys() == reference.keys()
    for metric, value in reference.items():
        assert found[metric] == pytest.approx(value, abs=0.002 if "METEOR" in metric else 0.0005), metric


def test_token_recall_joins_words_and_ignores_wrong_classes() -> None:
    assert earthdial.token_recall("Dense Residential", "denseresidential") == 1.0
    assert earthdial.token_recall("forest, river, beach", "forest") == 1.0
    assert earthdial.token_recall("a, b, c", "a, b, c") == pytest.approx(4 / 5)
    assert earthdial.token_recall("", "forest") == earthdial.token_recall("forest", "") == 0.0


def test_vqa_skips_counting_and_reports_every_type() -> None:
    found = earthdial.vqa(["yes", "no", "3"], ["yes", "yes", "3"], ["presence", "presence", "count"])
    assert found == {"comp Objects": 0.0, "presence Objects": 0.5, "rural_urban Objects": 0.0}


def test_boxes_are_parsed_as_in_the_scripts() -> None:
    text = "[[1, 2, 3, 4, 5]][[6,7, 8, 9]], [[-1, 2, 3, 4, 0]] [1.5, 2, 3, 4, 5] [ 7, 7, 9, 9, 0 ]"
    assert read_boxes(text) == [(1, 2, 3, 4, 5), (6, 7, 8, 9), (7, 7, 9, 9, 0)]
    assert read_boxes(text, 5) == [(1, 2, 3, 4, 5), (7, 7, 9, 9, 0)]


BOX = (10.0, 10.0, 20.0, 20.0, 0.0)


@pytest.mark.parametrize(
    ("predicted", "truth", "found"),
    [
        ([BOX, BOX, BOX], [BOX], 3),
        ([BOX[:4]], [BOX], 0),
        ([BOX], [BOX[:4], BOX], 0),
        ([BOX], [BOX, BOX[:4]], 1),
        ([(10.0, 10.0, 10.0, 20.0, 0.0)], [(10.0, 10.0, 10.0, 20.0, 0.0)], 0),
        ([(10.0, 10.0, 20.0, 15.0, 0.0)], [BOX], 1),
        ([(10.0, 10.0, 20.0, 14.0, 0.0)], [BOX], 0),
        ([(10.0, 10.0, 30.0, 20.0, 90.0)], [(15.0, 5.0, 25.0, 25.0, 0.0)], 1),
        ([], [BOX], 0),
        ([BOX], [], 0),
        ([(0.0, 0.0, float("inf"), 1.0, 0.0)], [BOX], 0),
    ],
)
def test_hits_of_the_scripts(predicted: list[tuple[float, ...]], truth: list[tuple[float, ...]], found: int) -> None:
    assert hits(predicted, truth, 0.5) == found


def test_rotation_direction_equals_that_of_the_scripts() -> None:
    """90 degrees map the offset (10, 0) from the centre to (0, -10); the opposite direction swaps the two cases."""
    rotated = (0.0, 0.0, 20.0, 2.0, 30.0)
    moved = (5.0 * 3**0.5 / 2, -2.5, 20.0 + 5.0 * 3**0.5 / 2, -0.5, 30.0)
    assert hits([rotated], [moved], 0.5) == 1
    assert hits([(*rotated[:4], -30.0)], [(*moved[:4], -30.0)], 0.5) == 0


def test_detection_is_pooled_by_group() -> None:
    far = (50.0, 50.0, 60.0, 60.0, 0.0)
    boxes = [([BOX, far], [BOX]), ([BOX], [BOX, far]), ([far], [])]
    assert earthdial.detection(boxes, ["small", "large", "large"]) == {
        "small Objects": 0.5,
        "medium Objects": 0.0,
        "large Objects": 0.5,
        "single Objects": 0.5,
        "multiple Objects": 0.5,
    }


def test_change_detection_ignores_the_predicted_angle() -> None:
    assert earthdial.change_detection([([(0.0, 0.0, 20.0, 4.0, 90.0)], [(0.0, 0.0, 20.0, 4.0, 0.0)])]) == {
        "Precision score": 1.0
    }


def test_grounding_excludes_crowded_records_and_single_hits() -> None:
    assert earthdial.grounding([([BOX], [BOX])]) == {}
    assert earthdial.grounding([([BOX, BOX], [BOX]), ([BOX], [BOX] * 50)]) == {
        "Precision @0.5": 1.0,
        "Precision @0.25": 1.0,
    }


def test_description_words_remove_only_tags_and_boxes() -> None:
    text = "a <ref>2 ships </ref> <box>[[[1, 2, 3, 4, 0]][[5, 6, 7, 8, 0]]]</box> left [[1, 2]], end]"
    assert earthdial.description_words(text) == "a 2 ships   left , end]"
    assert earthdial.description_words("no box [[1, 2]\n]]") == "no box [[1, 2]\n]]"


def test_captions_average_rouge_and_take_the_best_meteor() -> None:
    answer, references = "a big ship .", ["a big ship .", "green forest"]
    found = earthdial.captions([answer, "ship"], [references, ["", ""]])
    assert found["ROUGE-1 Fmeasure"] == found["ROUGE-L Fmeasure"] == pytest.approx(0.5)
    best = meteor_score([references[0].split()], answer.split(), wordnet=open_wordnet())
    assert found["METEOR Score"] == pytest.approx(best)
    assert earthdial.captions(["ship"], [["", ""]]) == {}


@pytest.mark.parametrize(
    ("stem", "task"),
    [
        ("LEVIR_MCI", "change_captioning"),
        ("Dubai_CC", "change_captioning"),
        ("MUDS.part2", "change_captioning"),
        ("SYSU", "change_captioning"),
        ("xBD_image_captioning", "change_captioning"),
        ("xBD_referred_object_detection", "referred_object_detection"),
        ("FMoW", "temporal_classification"),
        ("xBD_testset_3", "temporal_classification"),
        ("xBD_reg_cls_testset_2", "temporal_classification"),
    ],
)
def test_task_of_a_change_file_is_inferred_from_its_stem(stem: str, task: str) -> None:
    assert layout("rs_change_detection", stem).task == task


def test_unknown_file_is_named_in_the_error() -> None:
    with pytest.raises(DataError, match="'other' of rs_change_detection"):
        layout("rs_change_detection", "other")
    with pytest.raises(DataError, match="'rs_segmentation': expected an evaluation folder"):
        layout("rs_segmentation", "other")


def test_only_the_first_change_caption_is_used_if_the_second_is_empty() -> None:
    record = {"answer": "a ship", "caption0": "a ship", **{f"caption{i}": "" for i in range(1, 5)}}
    assert layout("rs_change_detection", "MUDS").paper([record])["ROUGE-1 Fmeasure"] == 1.0

"""Parsing of the prompts and answers of instruction data: task, sensor, classes, boxes."""

from __future__ import annotations

import numpy as np
import pytest

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import rotated_corners
from geovlm_ray.core.schema import Box
from geovlm_ray.data.formats.prompts import example_of, listed_classes, question_of, sensor_of, target_of, task_of
from geovlm_ray.data.formats.quads import smallest_rotated_box
from geovlm_ray.tasks.answers.labels import BIGEARTHNET_43, split_labels

AGRICULTURE = "Land principally occupied by agriculture, with significant areas of natural vegetation"
CHRONOLOGICAL = "This is a sequence of satellite images capturing the same location in chronological order: "


@pytest.mark.parametrize(
    ("prompt", "answer", "images", "task"),
    [
        ("<image>\n[refer] where is <p>a ship</p> ?", "{<1><2><3><4>|<5>}", 1, "referred_object_detection"),
        ("[grounding] describe this image", "There is <p>a ship</p> {<1><2><3><4>|<5>}", 1, "grounded_description"),
        ("[grounding] ship", "{<1><2><3><4>|<5>}", 1, "visual_grounding"),
        ("[grounding] [hr_rgb_temp_0.5] Describe the damage.", "A flood.", 2, "change_captioning"),
        ("[identify]{<1><2><3><4>|<5>}", "a ship", 1, "region_captioning"),
        ("[identify] what is at <box>[[1, 2, 3, 4, 0]]</box>", "a ship", 1, "region_captioning"),
        ("[identify] classify the damage. Classes: no-damage, destroyed.", "destroyed", 2, "damage_assessment"),
        ("[caption] [hr_rgb_0.5] the caption please", "a road", 1, "image_captioning"),
        ("[changedet] any semantic change ?", "a house is built .", 2, "change_captioning"),
        ("[changedet] the type of disaster. Options: fire, flood.", "flood", 2, "temporal_classification"),
        ("[changedet] Has it changed? Answer in single word.", "much", 2, "vqa"),
        ("[changedet] the boxes of changes", "[[1, 2, 3, 4]]", 2, "object_detection"),
        ("[classify] what is this ?", "airport", 1, "scene_classification"),
        ("[classify] what is this ?", "Pastures, Beaches, dunes, sands", 1, "multilabel_classification"),
        ("[classify] what is this ?", "beaches, dunes, sands", 1, "scene_classification"),
        ("[classify] what is this ?", "Pastures, harbour", 1, "scene_classification"),
        ("Classify the image in the following classes: Church, Beach.", "Church", 1, "scene_classification"),
        ("Which of the following classes does it belong to: zoo, dam?", "zoo", 3, "temporal_classification"),
        ("Which ones are depicted? Answer with a list of classes.", "forest, water", 1, "multilabel_classification"),
        ("Classify the level of damage at location [0, 8, 49, 53].", "Destroyed", 2, "damage_assessment"),
        ("How many? Answer the question using a single word or phrase.", "3", 1, "vqa"),
        ("[vqa] Describe the shape of the lake in one of: round, long.", "round", 1, "vqa"),
        ("Can you classify the vehicles?", "Most of them are small and parked along the road", 1, "vqa"),
        ("Are there damaged buildings?", "Yes.", 2, "vqa"),
        ("Locate the house using a bounding box of the form [x_min, y_min].", "[1, 2, 3, 4]", 1, "visual_grounding"),
        ("Identify all buildings with a bounding box each.", "[1, 2, 3, 4], [5, 6, 7, 8]", 1, "object_detection"),
        ("Detect all ships", "{<1><2><3><4>|<5>}{<5><6><7><8>|<9>}", 1, "object_detection"),
        ("Detect the ship", "{<1><2><3><4>|<5>}", 1, "visual_grounding"),
        ("Describe the image in detail.", "a road", 1, "image_captioning"),
        ("What has changed? Describe it.", "a road", 2, "change_captioning"),
        ("What is here?", "a <ref>shed</ref> [1, 2, 3, 4] lies beside a pond", 1, "grounded_description"),
        ("Describe the image", "A shed [1, 2, 3, 4] stands near a road", 1, "grounded_description"),
        ("What is here?", "There is a <p>shed</p> {<1><2><3><4>} and a <p>tree</p>", 1, "visual_grounding"),
        ("Detect the shed", "The <p>shed</p> {<1><2><3><4>} stands there", 1, "visual_grounding"),
        ("What changed?", "A new road was built in the north.", 2, "change_captioning"),
        ("What changed?", "A new road was built in the north.", 1, "vqa"),
        ("What has been changed?", "Several houses appear along the road.", 2, "change_captioning"),
        (
            "What are the differences between these two satellite images?",
            "A pond has dried out.",
            2,
            "change_captioning",
        ),
        ("What are the main changes?", "Some trees were cut down.", 2, "change_captioning"),
        ("How has the area changed?", "It was built up with houses.", 2, "change_captioning"),
        ("Compare the two images.", "The second shows more houses.", 2, "change_captioning"),
        ("What changed?", "No change.", 2, "change_captioning"),
        ("Is there any change?", "no, there is not", 2, "vqa"),
        ("Describe it, and give bounding boxes", "<p>a ship</p> [1, 2, 3, 4] is moored", 1, "grounded_description"),
        ("Describe it, and give bounding boxes", "[1, 2, 3, 4], [5, 6, 7, 8]", 1, "visual_grounding"),
        ("What happened to the building?", "It burned down last year", 2, "vqa"),
        ("What type of change happened?", "A house was built there", 2, "vqa"),
        ("Which building changed the most?", "The one in the north", 2, "vqa"),
        ("Has the area changed?", "yes, a road was built", 2, "vqa"),
        ("How many buildings changed?", "There are three of them", 2, "vqa"),
        ("Which land cover classes are present in the image?", "forest, river", 1, "multilabel_classification"),
        ("What land use categories can be seen?", "forest", 1, "multilabel_classification"),
        ("Which class is the image?", "forest", 1, "vqa"),
        ("In which image was the building at [1, 2, 3, 4] built?", "Image 2", 3, "vqa"),
    ],
)
def test_task_is_inferred_from_token_or_wording(prompt: str, answer: str, images: int, task: str) -> None:
    assert task_of(prompt, answer, images) == task


@pytest.mark.parametrize(
    ("token", "sensor", "gsd"),
    [
        ("[hr_rgb_0.5]", "high-resolution optical", 0.5),
        ("[hr_rgb_temp_0.5]", "high-resolution optical", 0.5),
        ("[s2_rgb_10]", "Sentinel-2", 10.0),
        ("[s2_ms_10]", "Sentinel-2", 10.0),
        ("[s1_vh_10]", "Sentinel-1", 10.0),
        ("[s1_vh_temp_10]", "Sentinel-1", 10.0),
        ("[l8_ms_30]", "Landsat-8", 30.0),
        ("[Inf_thermal_1]", "thermal infrared", 1.0),
        ("[uhi]", None, None),
        ("[10, 20]", None, None),
    ],
)
def test_sensor_and_gsd_are_parsed_from_the_token(token: str, sensor: str | None, gsd: float | None) -> None:
    assert sensor_of(f"[refer] {token} <image> \\n where ?") == (sensor, gsd)


def test_class_names_with_commas_are_not_split() -> None:
    names = [AGRICULTURE.lower(), "beaches, dunes, sands", "rice fields", "coastal_mansion"]
    prompt = f"[s2_rgb_10] <image> \\n Which ones are depicted? {', '.join(names)}. Answer with a list of classes."
    example = example_of("x", prompt, (f"{AGRICULTURE},Beaches, dunes,sands, and pastures.",), (), dataset="")
    assert example.target == (AGRICULTURE, "Beaches, dunes, sands", "pastures")
    assert example.labels == tuple(sorted(names))
    listed = example_of("x", "[classify] what is this ?", (f"{AGRICULTURE}, Pastures",), (), dataset="")
    assert (listed.task, listed.target) == ("multilabel_classification", (AGRICULTURE, "Pastures"))
    assert split_labels(", ".join(BIGEARTHNET_43)) == list(BIGEARTHNET_43)


def test_listed_classes_are_parsed_to_the_end_of_the_list() -> None:
    assert listed_classes("Classes:  zoo, dam. \\nAnswer in one word.") == ("dam", "zoo")
    assert listed_classes('Classes: no-damage, destroyed."Answer in single word.') == ("destroyed", "no-damage")
    assert listed_classes("one of: flooded road, lake or pond.") == ("flooded road", "lake or pond")
    assert listed_classes("How many classes are there?") == ()


def test_boxes_of_every_dialect_and_length_are_parsed() -> None:
    task = "referred_object_detection"
    assert target_of(task, ("{<1><2><30><40>|<-5>}<delim>{<-1><0><104><9>}",)) == (
        Box((1, 2, 30, 40, -5)),
        Box((-1, 0, 104, 9)),
    )
    assert target_of(task, ("[[1, 2, 30, 40, 5]][[-1, 0, 104, 9]]",)) == (Box((1, 2, 30, 40, 5)), Box((-1, 0, 104, 9)))
    assert target_of(task, ("[[1, 2, 30, 40, 5], [2, 3, 4.5, 5]]",)) == (Box((1, 2, 30, 40, 5)), Box((2, 3, 4.5, 5)))
    assert target_of("visual_grounding", ("<ref>x</ref><box>[[1, 2, 3, 4]]</box>",)) == (Box((1, 2, 3, 4)),)


@pytest.mark.parametrize(
    "answer", ["", " ", "no box", "{<a><2><3><4>}", "{<1><2><3>}", "[[1, 2, 3]]", "[nan, 1, 2, 3]"]
)
def test_answer_without_a_complete_box_is_rejected(answer: str) -> None:
    with pytest.raises(DataError, match="answer of referred_object_detection"):
        target_of("referred_object_detection", (answer,))


@pytest.mark.parametrize("angle", [-44.0, -10.0, 0.0, 30.0, 44.0])
@pytest.mark.parametrize("start", range(4))
@pytest.mark.parametrize("step", [1, -1])
def test_rotated_box_is_recovered_from_corners_in_any_order(angle: float, start: int, step: int) -> None:
    box = (10.0, 20.0, 50.0, 35.0, angle)
    points = rotated_corners(np.array([box]))[0]
    corners = [float(v) for i in range(4) for v in points[(start + step * i) % 4]]
    assert smallest_rotated_box(corners) == pytest.approx(box)


def test_collinear_corners_are_rejected() -> None:
    with pytest.raises(DataError, match="polygon with positive area"):
        smallest_rotated_box([0, 0, 1, 1, 2, 2, 3, 3])


@pytest.mark.parametrize(
    ("prompt", "question"),
    [
        ("<image>\nWhich is it?\nA. ship\r\n \n  B.   plane \n", "Which is it?\nA. ship\nB. plane"),
        ("Which is it?\\nA. ship\\nB. plane", "Which is it?\nA. ship\nB. plane"),
        ("[s2_rgb_10] <image> <image>\n Is it?", "[s2_rgb_10] Is it?"),
        ("Image 1: <image>\nImage 2: <image>\nWhat changed?", "Image 1: Image 2: What changed?"),
        ("Is it?\n<video>", "Is it?"),
    ],
)
def test_questions_keep_their_lines_but_not_those_of_placeholders(prompt: str, question: str) -> None:
    assert question_of(prompt) == question

"""Conversion of annotated objects: VOC and its derivatives, YOLO."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame, iou_matrix, rotated_corners
from geovlm_ray.core.schema import Box, target_boxes
from tests.unit.conversion import Conversion, run_convert, write, write_scene

SHED = Box((60.0, 40.0, 120.0, 80.0), "shed")
PIXELS = Frame("pixel", 200.0, 160.0)
BNDBOX = "<bndbox><xmin>61</xmin><ymin>41</ymin><xmax>120</xmax><ymax>80</ymax></bndbox>"
SIZE = "<size><width>200</width><height>160</height><depth>3</depth></size>"


def voc(*objects: str, size: str = SIZE) -> str:
    return f"<annotation><filename>a.png</filename>{size}{''.join(objects)}</annotation>"


def obj(content: str, name: str = "shed") -> str:
    return f"<object><name>{name}</name>{content}</object>"


def convert_voc(folder: Path, text: str, **options: str) -> Conversion:
    write_scene(folder / "in" / "JPEGImages" / "a.png")
    write(folder / "in" / "Annotations" / "a.xml", text)
    return run_convert("voc", folder / "in", folder / "out", **options)


def test_voc_objects_are_one_referred_detection_per_class(tmp_path: Path) -> None:
    other = obj(BNDBOX.replace("120", "90"), "tree")
    outcome = convert_voc(tmp_path, voc(obj(BNDBOX), other, obj(f"<difficult>1</difficult>{BNDBOX}")))
    sheds, trees = outcome.rows
    assert (sheds.example.id, sheds.example.task) == ("Annotations/a/shed", "referred_object_detection")
    assert sheds.example.question == "Give me the location of every shed in the image."
    assert (sheds.example.target, sheds.example.frame) == ((SHED, SHED), PIXELS)
    assert (sheds.example.images, sheds.example.dataset, sheds.extra) == (
        ("JPEGImages/a.png",),
        "in",
        {"difficult": [1]},
    )
    assert trees.example.target == (Box((60, 40, 90, 80), "tree"),)
    assert outcome.card["notes"] == ["first_pixel=1, as in VOC: no bndbox begins before it"]


def test_the_first_pixel_of_voc_boxes_is_0_if_a_box_begins_there(tmp_path: Path) -> None:
    outcome = convert_voc(tmp_path, voc(obj(BNDBOX), obj(BNDBOX.replace("61", "0"))))
    assert outcome.rows[0].example.target == (Box((61, 41, 120, 80), "shed"), Box((0, 41, 120, 80), "shed"))
    assert convert_voc(tmp_path / "b", voc(obj(BNDBOX)), first_pixel="0").rows[0].example.target == (
        Box((61, 41, 120, 80), "shed"),
    )


def test_descriptions_of_dior_rsvg_are_groundings(tmp_path: Path) -> None:
    text = voc(obj(f"{BNDBOX}<description> The pale shed </description>"), obj(f"{BNDBOX}<description>b</description>"))
    outcome = convert_voc(tmp_path, text)
    assert [(r.example.id, r.example.task, r.example.question, r.example.target) for r in outcome.rows] == [
        ("Annotations/a/1", "visual_grounding", "The pale shed", (SHED,)),
        ("Annotations/a/2", "visual_grounding", "b", (SHED,)),
    ]


CORNERS = ((60, 40), (120, 40), (120, 80), (60, 80))
ROTATED = {
    "roLabelImg": obj(
        "<type>robndbox</type><robndbox><cx>90</cx><cy>60</cy><w>60</w><h>40</h><angle>0.0</angle></robndbox>"
    ),
    "DIOR-R": obj(
        "<robndbox>"
        + "".join(
            f"<x_{name}>{x}</x_{name}><y_{name}>{y}</y_{name}>"
            for name, (x, y) in zip(("left_top", "right_top", "right_bottom", "left_bottom"), CORNERS, strict=True)
        )
        + "</robndbox>"
    ),
    "FAIR1M": "<objects><object><possibleresult><name>shed</name></possibleresult><points>"
    + "".join(f"<point>{x}.0,{y}.0</point>" for x, y in (*CORNERS, CORNERS[0]))
    + "</points></object></objects>",
}


@pytest.mark.parametrize("form", ROTATED)
def test_rotated_boxes_of_voc_derivatives(form: str, tmp_path: Path) -> None:
    outcome = convert_voc(tmp_path, voc(ROTATED[form]))
    assert outcome.rows[0].example.target == (Box((60, 40, 120, 80, 0), "shed"),)
    horizontal = convert_voc(tmp_path / "b", voc(ROTATED[form]), boxes="horizontal")
    assert horizontal.rows[0].example.target == (SHED,)


def test_fair1m_names_its_image_in_the_source(tmp_path: Path) -> None:
    write_scene(tmp_path / "in" / "images" / "7.png")
    text = f"<annotation><source><filename>7.png</filename></source>{SIZE}{ROTATED['FAIR1M']}</annotation>"
    write(tmp_path / "in" / "labelXml" / "7.xml", text)
    assert run_convert("voc", tmp_path / "in", tmp_path / "out").rows[0].example.images == ("images/7.png",)


@pytest.mark.parametrize("degrees", [-80.0, -30.0, 10.0, 50.0, 100.0, 170.0])
def test_hrsc_angles_turn_clockwise(degrees: float, tmp_path: Path) -> None:
    write_scene(tmp_path / "in" / "AllImages" / "a.png")
    text = (
        "<HRSC_Image><Img_FileName>a</Img_FileName><Img_SizeWidth>200</Img_SizeWidth>"
        "<Img_SizeHeight>160</Img_SizeHeight><Img_Resolution>1.07</Img_Resolution><HRSC_Objects><HRSC_Object>"
        "<Class_ID>100000006</Class_ID><mbox_cx>90</mbox_cx><mbox_cy>70</mbox_cy><mbox_w>60</mbox_w>"
        f"<mbox_h>20</mbox_h><mbox_ang>{math.radians(degrees)}</mbox_ang></HRSC_Object></HRSC_Objects></HRSC_Image>"
    )
    write(tmp_path / "in" / "Annotations" / "a.xml", text)
    (row,) = run_convert("voc", tmp_path / "in", tmp_path / "out").rows
    (box,) = target_boxes(row.example.target)
    angle = math.radians(degrees)
    corners = [
        (90 + x * math.cos(angle) - y * math.sin(angle), 70 + x * math.sin(angle) + y * math.cos(angle))
        for x, y in ((-30, -10), (30, -10), (30, 10), (-30, 10))
    ]
    assert (box.label, row.example.gsd) == ("ship", 1.07)
    assert iou_matrix([box.coords], [[v for corner in corners for v in corner]], rotated=True)[0, 0] > 0.999


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (obj("<bndbox><xmin>1</xmin></bndbox>"), "bndbox: expected ymin, found xmin"),
        (obj(BNDBOX.replace("61", "x")), "xmin: expected a number, found 'x'"),
        (obj(BNDBOX.replace("120", "700")), "inside the image, 200 x 160 pixels, found 60, 40, 700, 80"),
        (obj(BNDBOX.replace("120", "nan")), "expected a number of pixels"),
        (obj(""), "expected bndbox, robndbox or points, found name"),
        (obj(BNDBOX, ""), "name: expected a class, found none"),
        (obj("<points><point>1</point></points>"), "points: expected corners x,y"),
        (obj("<robndbox><cx>9</cx><cy>6</cy><w>0</w><h>4</h><angle>0</angle></robndbox>"), "positive width and height"),
    ],
)
def test_only_the_invalid_voc_object_is_quarantined(bad: str, reason: str, tmp_path: Path) -> None:
    outcome = convert_voc(tmp_path, voc(obj(BNDBOX), bad))
    assert [row.example.target for row in outcome.rows] == [(SHED,)]
    (item,) = outcome.quarantine
    assert reason in item.reason
    assert item.reason.startswith("object 2: ")
    assert any("1 of 1 records lack objects" in note for note in outcome.counts.notes)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<annotation>", "expected an XML file: no element found"),
        ("", "expected an XML file"),
        ("<kml></kml>", "expected an XML file of annotation or HRSC_Image, found 'kml'"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><annotation>&a;</annotation>', "without DOCTYPE and entities"),
        (voc(obj(BNDBOX), size=SIZE.replace("200", "300")), "size: expected that of JPEGImages/a.png, 200 x 160"),
        (voc(obj(BNDBOX)).replace("a.png", "b.png"), ""),
    ],
)
def test_invalid_voc_files_are_quarantined(text: str, reason: str, tmp_path: Path) -> None:
    write_scene(tmp_path / "in" / "JPEGImages" / "good.png")
    write(tmp_path / "in" / "Annotations" / "good.xml", voc(obj(BNDBOX)).replace("a.png", "good.png"))
    outcome = convert_voc(tmp_path, text)
    assert "Annotations/good/shed" in [row.example.id for row in outcome.rows]
    assert [item.reason for item in outcome.quarantine if reason not in item.reason] == []
    assert len(outcome.quarantine) == bool(reason)


def test_voc_files_without_objects_and_splits_in_lists(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_scene(tmp_path / "in" / "JPEGImages" / f"{name}.png")
        write(tmp_path / "in" / "Annotations" / f"{name}.xml", voc(obj(BNDBOX)).replace("a.png", f"{name}.png"))
    write(tmp_path / "in" / "Annotations" / "empty.xml", voc())
    write(tmp_path / "in" / "ImageSets" / "Main" / "train.txt", "a\n")
    write(tmp_path / "in" / "ImageSets" / "Main" / "test.txt", "b\n")
    outcome = run_convert("voc", tmp_path / "in", tmp_path / "out")
    assert {r.example.images[0][-5]: r.example.split for r in outcome.rows} == {
        "a": "train",
        "b": "test",
        "c": "unlisted",
    }
    assert outcome.counts.passed_over == 1


@pytest.mark.parametrize("extra", [{}, {"val": "c\n"}, {"train": "a\n", "val": "c\n"}])
def test_a_list_of_training_and_validation_files_is_for_training(extra: dict[str, str], tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_scene(tmp_path / "in" / "JPEGImages" / f"{name}.png")
        write(tmp_path / "in" / "Annotations" / f"{name}.xml", voc(obj(BNDBOX)).replace("a.png", f"{name}.png"))
    for split, names in ({"trainval": "a\nc\n", "test": "b\n"} | extra).items():
        write(tmp_path / "in" / "ImageSets" / "Main" / f"{split}.txt", names)
    outcome = run_convert("voc", tmp_path / "in", tmp_path / "out")
    assert {r.example.images[0][-5]: r.example.split for r in outcome.rows} == {
        "a": "train",
        "b": "test",
        "c": "validation" if "val" in extra else "train",
    }


def test_labels_beside_a_folder_of_images_are_found(tmp_path: Path) -> None:
    convert_voc(tmp_path, voc(obj(BNDBOX)))
    outcome = run_convert("voc", tmp_path / "in" / "Annotations", tmp_path / "alone")
    assert outcome.rows[0].example.images == ("JPEGImages/a.png",)
    assert outcome.card["image_root"] == str(tmp_path / "in")


@pytest.mark.parametrize("orientation", [3, 6])
def test_rotated_pictures_need_boxes_that_state_the_displayed_size(orientation: int, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_scene(folder / "JPEGImages" / "a.jpg", orientation=orientation)
    displayed = SIZE.replace("200", "x").replace("160", "200").replace("x", "160")
    text = voc(obj(BNDBOX), size=displayed if orientation == 6 else SIZE).replace("a.png", "a.jpg")
    write(folder / "Annotations" / "a.xml", text)
    write(folder / "Annotations" / "stored" / "a.xml", voc(obj(BNDBOX)).replace("a.png", "a.jpg"))
    outcome = run_convert("voc", folder, tmp_path / "out")
    assert len(outcome.rows) == (orientation == 6)
    assert all(f"EXIF orientation {orientation}" in item.reason for item in outcome.quarantine)


def write_yolo(folder: Path, labels: str = "0 0.45 0.375 0.3 0.25\n", names: str = "names: [shed, tree]") -> Path:
    write_scene(folder / "images" / "train" / "a.png")
    write(folder / "labels" / "train" / "a.txt", labels)
    write(folder / "data.yaml", f"path: .\ntrain: images/train\nval: images/val\n{names}\n")
    return folder


def test_yolo_boxes_are_in_pixels_with_the_names_of_their_classes(tmp_path: Path) -> None:
    labels = "0 0.45 0.375 0.3 0.25\n1 0.3 0.25 0.6 0.25 0.6 0.5 0.3 0.5\n\n0 0.5 0.5 1 1\n"
    source = write_yolo(tmp_path / "in", labels)
    write_scene(source / "images" / "val" / "b.png")
    write(source / "labels" / "val" / "b.txt", "1 0.3 0.25 0.6 0.25 0.5 0.5\n")
    write(source / "labels" / "val" / "empty.txt", "")
    outcome = run_convert("yolo", source, tmp_path / "out")
    sheds, trees, segment = (row.example for row in outcome.rows)
    assert (sheds.id, sheds.task, sheds.images) == (
        *("labels/train/a/shed", "referred_object_detection"),
        ("images/train/a.png",),
    )
    assert sheds.question == "Give me the location of every shed in the image."
    assert (sheds.target, sheds.frame) == ((SHED, Box((0, 0, 200, 160), "shed")), PIXELS)
    assert (sheds.labels, sheds.split, segment.split) == (("shed", "tree"), "train", "validation")
    assert trees.target == (Box((60, 40, 120, 80, 0), "tree"),)
    assert segment.target == (Box((60, 40, 120, 80), "tree"),)
    assert outcome.counts.passed_over == 1


def test_yolo_oriented_boxes_keep_their_angle_in_pixels(tmp_path: Path) -> None:
    corners = rotated_corners(np.array([[60.0, 40.0, 120.0, 80.0, 30.0]]))[0]
    text = "0 " + " ".join(f"{x / 200} {y / 160}" for x, y in corners)
    (box,) = target_boxes(
        run_convert("yolo", write_yolo(tmp_path / "in", text), tmp_path / "out").rows[0].example.target
    )
    assert box.coords == pytest.approx((60, 40, 120, 80, 30), abs=1e-3)


@pytest.mark.parametrize(
    "names", ["names:\n  0: shed\n  1: tree", "names: {0: shed, 1: tree}", "nc: 2\nnames: ['shed', 'tree']"]
)
def test_names_of_yolo_classes_in_every_form(names: str, tmp_path: Path) -> None:
    outcome = run_convert("yolo", write_yolo(tmp_path / "in", names=names), tmp_path / "out")
    assert outcome.rows[0].example.labels == ("shed", "tree")


def test_names_of_yolo_classes_in_a_file_or_an_option(tmp_path: Path) -> None:
    source = write_yolo(tmp_path / "in")
    (source / "data.yaml").unlink()
    with pytest.raises(DataError, match=r"names of the classes in data.yaml, classes.txt or the option names="):
        run_convert("yolo", source, tmp_path / "none")
    outcome = run_convert("yolo", source, tmp_path / "option", names="hut, tree")
    assert target_boxes(outcome.rows[0].example.target)[0].label == "hut"
    write(source / "classes.txt", "barn\ntree\n")
    outcome = run_convert("yolo", source, tmp_path / "file")
    assert (target_boxes(outcome.rows[0].example.target)[0].label, outcome.quarantine) == ("barn", [])


def test_yolo_classes_may_be_words_that_yaml_1_1_reads_as_booleans(tmp_path: Path) -> None:
    outcome = run_convert("yolo", write_yolo(tmp_path / "in", names="names: [no, yes, 007]"), tmp_path / "out")
    assert outcome.rows[0].example.labels == ("no", "yes", "007")


def test_yolo_splits_from_lists_of_images(tmp_path: Path) -> None:
    source = write_yolo(tmp_path / "in")
    for name in ("a", "b", "c"):
        write_scene(source / "images" / f"{name}.png")
        write(source / "labels" / f"{name}.txt", "0 0.45 0.375 0.3 0.25\n")
    (source / "labels" / "train" / "a.txt").unlink()
    write(source / "train.txt", "./images/a.png\n")
    write(source / "val.txt", "./images/b.png\n")
    write(source / "data.yaml", "train: train.txt\nval: val.txt\nnames: [shed]")
    outcome = run_convert("yolo", source, tmp_path / "out")
    assert [row.example.split for row in outcome.rows] == ["train", "validation", "unlisted"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0.2", "expected a class number and fractions"),
        ("shed 0.5 0.5 0.2 0.2", "expected a class number and fractions"),
        ("0 0.5 0.5 0.2 0.2 0.9", "expected class x y width height or class x1 y1"),
        ("9 0.5 0.5 0.2 0.2", "expected a class number of 0 to 1, found 9"),
        ("0 90 60 60 40", "expected fractions of the image"),
        ("0 1.4 0.5 0.2 0.2", "expected a box inside the image"),
        ("0 0.5 0.5 0 0.2", "positive area"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4 0.4", "polygon with positive area"),
        ("0 nan 0.5 0.2 0.2", "expected a class number and fractions"),
    ],
)
def test_only_the_invalid_yolo_line_is_quarantined(line: str, reason: str, tmp_path: Path) -> None:
    outcome = run_convert("yolo", write_yolo(tmp_path / "in", f"{line}\n0 0.45 0.375 0.3 0.25\n"), tmp_path / "out")
    assert [row.example.target for row in outcome.rows] == [(SHED,)]
    assert reason in outcome.reasons[1]
    assert outcome.reasons[1].startswith("line 1: ")
    assert any("1 of 1 records lack objects" in note for note in outcome.counts.notes)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("names: [", "data.yaml: not valid YAML"),
        ("3", "expected keys such as names"),
        ("names: 5", "names: expected the classes"),
        ("names: [true]", "names: expected the classes"),
        ("names: [shed]\nnames: [tree]", "the key 'names' is given twice"),
    ],
)
def test_invalid_yolo_configuration_is_an_error(config: str, reason: str, tmp_path: Path) -> None:
    source = write_yolo(tmp_path / "in")
    write(source / "data.yaml", config)
    with pytest.raises(DataError, match=reason):
        run_convert("yolo", source, tmp_path / "out")

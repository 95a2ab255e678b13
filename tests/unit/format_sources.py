"""A small valid source of every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile

from tests.unit.conversion import dialogue, write, write_container, write_json, write_scene


def _jsonl(*records: dict[str, Any]) -> Callable[[Path], Path]:
    def write_source(folder: Path) -> Path:
        write_scene(folder / "a.png")
        return write_json(folder / "records.jsonl", records)

    return write_source


def _shards(*records: dict[str, Any]) -> Callable[[Path], Path]:
    def write_source(folder: Path) -> Path:
        write_scene(folder / "a.png")
        return write_container(folder, records, "shards")

    return write_source


def _rsvqa(folder: Path) -> Path:
    question = {"id": 7, "img_id": 3, "question": "Is there a road?", "answers_ids": [9], "active": True}
    answer = {"id": 9, "question_id": 7, "answer": "yes", "active": True}
    write(folder / "LR_split_val_questions.json", {"questions": [question]})
    write(folder / "LR_split_val_answers.json", {"answers": [answer]})
    return folder


def _coco(folder: Path) -> Path:
    image = {"id": 1, "file_name": "a.png", "width": 200, "height": 160}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [60, 40, 60, 40]}
    table = {"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "shed"}]}
    write_scene(folder / "a.png")
    return write(folder / "instances.json", table)


def _dota(folder: Path) -> Path:
    write_scene(folder / "images" / "a.png")
    write(folder / "labelTxt" / "a.txt", "imagesource:x\ngsd:0.5\n60 40 120 40 120 80 60 80 shed 0\n")
    return folder


def _voc(folder: Path) -> Path:
    write_scene(folder / "JPEGImages" / "a.png")
    box = "<bndbox><xmin>61</xmin><ymin>41</ymin><xmax>120</xmax><ymax>80</ymax></bndbox>"
    text = f"<annotation><filename>a.png</filename><object><name>shed</name>{box}</object></annotation>"
    write(folder / "Annotations" / "a.xml", text)
    return folder


def _yolo(folder: Path) -> Path:
    write_scene(folder / "images" / "a.png")
    write(folder / "labels" / "a.txt", "0 0.45 0.375 0.3 0.25\n0 0.3 0.25 0.6 0.25 0.6 0.5 0.3 0.5\n")
    write(folder / "data.yaml", "train: images\nnames: [shed]\n")
    return folder


def _geojson(folder: Path) -> Path:
    write_scene(folder / "a.png")
    shed = {"type": "Polygon", "coordinates": [[[60, 40], [120, 40], [120, 80], [60, 80], [60, 40]]]}
    feature = {"type": "Feature", "properties": {"class": "shed"}, "geometry": shed}
    write(folder / "a.geojson", {"type": "FeatureCollection", "features": [feature]})
    return folder


def _captions(folder: Path) -> Path:
    image = {"filename": "a.png", "sentences": [{"raw": "A shed ."}, {"raw": "One shed ."}], "split": "train"}
    return write(folder / "dataset.json", {"images": [image], "dataset": "ucm"})


def _caption_files(folder: Path) -> Path:
    write_scene(folder / "images" / "a.png")
    write(folder / "train_caps.txt", "A shed .\nOne shed .\n")
    write(folder / "train_filename.txt", "a.png\na.png\n")
    return folder


def _rsicap(folder: Path) -> Path:
    pair = {"question": "Is there a shed?", "answer": "yes"}
    record = {"filename": "a.png", "caption": "A shed.", "qa_pairs": [pair]}
    return write(folder / "annotations.json", {"annotations": [record]})


def _patch(folder: Path) -> None:
    for band in ("B02", "B03", "B04"):
        folder.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / f"{folder.name}_{band}.tif", np.full((6, 5), 500, np.uint16))


def _bigearthnet(folder: Path) -> Path:
    _patch(folder / "S2A_1")
    write(folder / "S2A_1" / "S2A_1_labels_metadata.json", {"labels": ["Pastures"]})
    return folder


def _bigearthnet_2(folder: Path) -> Path:
    _patch(folder / "BigEarthNet-S2" / "S2A_1" / "S2A_1_26_57")
    row = {"patch_id": "S2A_1_26_57", "labels": ["Pastures"], "split": "train", "s1_name": None}
    pq.write_table(pa.Table.from_pylist([row]), folder / "metadata.parquet")
    return folder


def _xbd(folder: Path) -> Path:
    feature = {"properties": {"subtype": "destroyed"}, "wkt": "POLYGON ((1 1, 9 1, 9 9, 1 9, 1 1))"}
    labels = {"features": {"xy": [feature]}, "metadata": {"width": 100, "height": 100, "disaster_type": "wind"}}
    write(folder / "labels" / "x_1_post_disaster.json", labels)
    return folder


def _fmow(folder: Path) -> Path:
    box = {"category": "zoo", "box": [1, 2, 3, 4]}
    record = {
        "gsd": 0.5,
        "img_filename": "zoo_1_0_rgb.jpg",
        "timestamp": "2015-01-01T00:00:00Z",
        "bounding_boxes": [box],
    }
    write(folder / "val" / "zoo" / "zoo_1" / "zoo_1_0_rgb.json", record)
    return folder


def _folders(folder: Path) -> Path:
    for name in ("port/1.png", "lake/2.png"):
        write_scene(folder / name)
    write(folder / "train.txt", "1.png\n")
    write(folder / "test.txt", "2.png\n")
    return folder


def _results(folder: Path) -> Path:
    record = {"question": "[hr_rgb_0.5] <image>\\n Is there grass?", "answer": "yes", "annotation": "no"}
    return write_json(folder / "rs_vqa" / "RSVQA_LR.jsonl", [record])


_MESSAGES = [{"role": "user", "content": "<image>Find the shed"}, {"role": "assistant", "content": "[60, 40, 120, 80]"}]
_VRSBENCH = {
    "image": "P1.png",
    "caption": "A shed.",
    "objects": [{"referring_sentence": "the shed", "obj_corner": [0.1, 0.2, 0.3, 0.2, 0.3, 0.5, 0.1, 0.5]}],
    "qa_pairs": [{"question": "How many?", "answer": "2"}],
}

SOURCES: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "geochat": (
        "geochat",
        _jsonl({"id": 1, "image": "a.png", "conversations": dialogue("<image>\n[refer] it", "{<1><2><3><4>|<9>}")}),
    ),
    "geochat bench": ("geochat", _jsonl({"question_id": "port/1", "image": "a.png", "text": "Classes: port, lake."})),
    "earthdial": (
        "earthdial",
        _jsonl({"id": 1, "image": "a.png", "conversations": dialogue("[s2_rgb_10] <image> Is it?", "yes")}),
    ),
    "earthdial shards": (
        "earthdial",
        _shards({"images": ["a.png"], "conversations": dialogue("[s2_rgb_10] <image> Is it?", "yes")}),
    ),
    "earthdial-results": ("earthdial-results", _results),
    "vrsbench": ("vrsbench", lambda folder: write(folder / "P1.json", json.dumps(_VRSBENCH, indent=1)).parent),
    "vrsbench questions": (
        "vrsbench",
        _jsonl({"image_id": "P1.png", "question": "How many?", "ground_truth": "2", "type": "object quantity"}),
    ),
    "teochat": ("teochat", _jsonl({"video": ["a.png"], "conversations": dialogue("<video> Is it?", "yes")})),
    "rsvqa": ("rsvqa", _rsvqa),
    "coco": ("coco", _coco),
    "dota": ("dota", _dota),
    "voc": ("voc", _voc),
    "yolo": ("yolo", _yolo),
    "geojson": ("geojson", _geojson),
    "captions": ("captions", _captions),
    "captions by line": ("captions", _jsonl({"filename": "a.png", "captions": ["A shed."]})),
    "caption-files": ("caption-files", _caption_files),
    "rsicap": ("rsicap", _rsicap),
    "bigearthnet": ("bigearthnet", _bigearthnet),
    "bigearthnet 2": ("bigearthnet", _bigearthnet_2),
    "xbd": ("xbd", _xbd),
    "fmow": ("fmow", _fmow),
    "folders": ("folders", _folders),
    "chat": ("chat", _jsonl({"messages": _MESSAGES, "images": ["a.png"]})),
    "chat shards": ("chat", _shards({"messages": _MESSAGES, "images": ["a.png"]})),
    "qa": ("qa", _jsonl({"image": "a.png", "problem": "Where is it?", "solution": [60, 40, 120, 80]})),
    "qa messages": ("qa", _jsonl({"messages": _MESSAGES[:1], "images": ["a.png"], "solution": [60, 40, 120, 80]})),
    "qa shards": ("qa", _shards({"images": ["a.png"], "problem": "Is there a shed?", "answer": "yes"})),
    "samples": (
        "samples",
        _jsonl({"id": 1, "task": "vqa", "images": ["a.png"], "prompt": "Is there a shed?", "reference": "yes"}),
    ),
}
"""Format and writer of each source, by a name."""

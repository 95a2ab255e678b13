"""EarthDial conversion and its inverse: conversations, shards with embedded images, result files."""

from __future__ import annotations

import errno
import hashlib
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Box, GroundedText
from geovlm_ray.data.formats.base import Source, Unit
from geovlm_ray.data.formats.earthdial import convert, restore
from geovlm_ray.data.images import load_image
from tests.rs import RS, needs_rs
from tests.unit.conversion import Conversion, dialogue, run_convert, write_json

RESULTS = RS / "A_text_eval"
REAL = {
    ("rs_change_detection/FMoW.part1.jsonl", "temporal_classification"): 13,
    ("rs_change_detection/LEVIR_MCI.jsonl", "change_captioning"): 25,
    ("rs_change_detection/xBD_image_captioning.jsonl", "change_captioning"): 25,
    ("rs_change_detection/xBD_object_detection.jsonl", "referred_object_detection"): 25,
    ("rs_change_detection/xBD_reg_cls_testset_1.jsonl", "damage_assessment"): 25,
    ("rs_change_detection/xBD_testset_1.jsonl", "temporal_classification"): 25,
    ("rs_classification/BigEarthNet_RGB.part1.jsonl", "multilabel_classification"): 40,
    ("rs_classification/UCM.jsonl", "scene_classification"): 2100,
    ("rs_detection/GeoChat.jsonl", "referred_object_detection"): 7593,
    ("rs_detection/ship_dataset_v0.jsonl", "referred_object_detection"): 411,
    ("rs_grounding_description/NWPU_VHR_10.jsonl", "grounded_description"): 25,
    ("rs_image_caption/RSICD_Captions.jsonl", "image_captioning"): 1093,
    ("rs_image_caption/UCM_captions.jsonl", "image_captioning"): 210,
    ("rs_region_captioning/GeoChat.jsonl", "region_captioning"): 2797,
    ("rs_region_captioning/ship_dataset_v0_test.jsonl", "region_captioning"): 682,
    ("rs_vqa/RSVQA_LR.part1.jsonl", "vqa"): 5000,
}
"""Number of records by (real result file, task)."""


def image_bytes(colour: str, format: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (24, 24), colour).save(file, format)
    return file.getvalue()


def stored_path(content: bytes, extension: str = "jpg") -> str:
    digest = hashlib.sha256(content).hexdigest()
    return f"images/{digest[:2]}/{digest}.{extension}"


def real_lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Conversion:
    return run_convert("earthdial-results", RESULTS, tmp_path_factory.mktemp("results") / "out")


@needs_rs
def test_all_real_result_files_round_trip(results: Conversion, tmp_path: Path) -> None:
    assert Counter((r.source_file, r.example.task) for r in results.rows) == REAL
    assert (results.counts.records, results.counts.passed_over, results.counts.set_aside) == (20_089, 0, 0)
    back = results.export("earthdial-results", tmp_path / "back")
    for path in RESULTS.rglob("*.jsonl"):
        name = path.relative_to(RESULTS).as_posix()
        assert sum(count for (file, _), count in REAL.items() if file == name) == len(real_lines(path))
        assert real_lines(back / name) == real_lines(path)


@needs_rs
def test_real_boxes_beyond_the_image_edge_are_kept(tmp_path: Path) -> None:
    """520 of the 7593 references have a box with a negative number; EarthDial's evaluation script drops those boxes."""
    path = RESULTS / "rs_detection" / "GeoChat.jsonl"
    outcome = run_convert("earthdial-results", path, tmp_path / "out")
    parsed = [json.loads(f"[{r['gt_bbox'].replace('][', '],[')}]") for r in real_lines(path)]
    expected = [[tuple(box) for group in groups for box in group] for groups in parsed]
    found = [[b.coords for b in r.example.target if isinstance(b, Box)] for r in outcome.rows]
    assert found == expected
    assert sum(any(min(box[:4]) < 0 for box in boxes) for boxes in found) == 520
    assert sum(any(max(box[:4]) > 100 for box in boxes) for boxes in found) == 653
    # All boxes of 383 records have a negative number.
    assert sum(all(min(box) < 0 for box in boxes) for boxes in found) == 383
    assert outcome.rows[0].extra["answer"] == "[[83, 58, 87, 62, 37]]"
    single = outcome.export("earthdial-results", tmp_path / "back.jsonl")
    assert real_lines(single) == real_lines(path)


@needs_rs
def test_real_prompts_lose_only_literal_newlines_and_image_tags(results: Conversion) -> None:
    assert not any("\\n" in r.example.question or "<image>" in r.example.question for r in results.rows)
    by_file = {r.source_file: r.example for r in results.rows}
    assert by_file["rs_region_captioning/ship_dataset_v0_test.jsonl"].sensor == "Sentinel-1"
    assert by_file["rs_classification/BigEarthNet_RGB.part1.jsonl"].gsd == 10
    answers = {name for r in results.rows if "BigEarthNet" in r.source_file for name in map(str, r.example.target)}
    assert "land principally occupied by agriculture, with significant areas of natural vegetation" in answers
    assert not any(name.startswith("with significant") for name in answers)
    assert len(by_file["rs_classification/UCM.jsonl"].labels) == 21
    assert len(by_file["rs_change_detection/FMoW.part1.jsonl"].labels) == 62
    grounded = by_file["rs_grounding_description/NWPU_VHR_10.jsonl"].target
    assert isinstance(grounded, GroundedText)
    assert grounded.boxes


def test_results_without_reference_are_skipped_and_the_evaluation_folder_is_required(tmp_path: Path) -> None:
    captions = {f"caption{i}": text for i, text in enumerate([" a house . ", "a road .", "", "a house .", ""])}
    records = [
        {"question": "[changedet] <image> <image> \\n any change ?", "answer": "no", **captions},
        {"question": "[changedet] <image> <image> \\n any change ?", "answer": "no", **dict.fromkeys(captions, "")},
        {"question": "[changedet] <image> <image> \\n any change ?", "answer": "no"},
    ]
    path = write_json(tmp_path / "LEVIR.jsonl", records)
    outcome = run_convert("earthdial-results", path, tmp_path / "out", folder="rs_change_detection")
    assert outcome.rows[0].example.target == ("a house .", "a road .", "a house .")
    assert (outcome.counts.passed_over, list(outcome.reasons)) == (1, [3])
    assert real_lines(outcome.export("earthdial-results", tmp_path / "back.jsonl")) == records[:1]
    without_folder = run_convert("earthdial-results", path, tmp_path / "without_folder")
    assert "expected one of rs_classification" in without_folder.reasons[1]


REFER = dialogue("[refer] [hr_rgb_0.5] <image> \\n where is <ref>it</ref>", "[[1, 2, 30, 40, 5]][[-1, 0, 109, 9]]")
CHANGE = dialogue(" [changedet] [hr_rgb_temp_0.5] <image>  <image> \n what\\n changed?", " A  house .", "And?", "no")
CONVERSATIONS: list[dict[str, Any]] = [
    {"id": 7, "image": "a/1.jpg", "conversations": REFER},
    {"id": "x", "image": ["1.png", "2.png"], "width": [3, 4], "conversations": CHANGE},
    {"image": "./b/../c.jpg", "conversations": dialogue("[s2_rgb_10]\n<image> Is it?", "yes", "[refer] it", "nowhere")},
    {
        "id": None,
        "image": "c.jpg",
        "conversations": dialogue("<image> Which ones? Answer with a list of classes.", "b, a"),
    },
    {"id": "q", "image": "c.jpg", "question": '"[caption] <image> \\n ?"', "groundtruth0": '"a"', "groundtruth1": " b"},
]


@pytest.mark.parametrize("name", ["instruct.json", "instruct.jsonl"])
def test_conversations_round_trip(tmp_path: Path, name: str) -> None:
    path = write_json(tmp_path / name, CONVERSATIONS)
    outcome = run_convert("earthdial", path, tmp_path / "out")
    assert [r.example.id for r in outcome.rows] == ["7", "x", "x-2", f"{name}:3", f"{name}:4", "q"]
    assert [(n, reason.split(", found")[0]) for n, reason in outcome.reasons.items()] == [
        (3, "turn 2: answer of referred_object_detection: expected boxes of 4 or 5 numbers")
    ]
    # Fields that have a column are not stored again in ``extra``.
    assert outcome.rows[0].extra == {"id": 7}
    back = outcome.export("earthdial", tmp_path / f"back{path.suffix}")
    assert (json.loads(back.read_text()) if path.suffix == ".json" else real_lines(back)) == CONVERSATIONS


TEXT = st.text(max_size=30) | st.sampled_from(
    ["[refer] [hr_rgb_0.5] <image> \\n it", "[[1, 2, 3, 4, 5]]", "yes", "a, b"]
)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, width=32) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
RECORD = st.fixed_dictionaries(
    {
        "image": st.sampled_from(["a.jpg", "./b//c.jpg", ["a.jpg"], ["a.jpg", "a.jpg"]]),
        "conversations": st.lists(TEXT, min_size=2, max_size=6).map(lambda texts: dialogue(*texts)),
    },
    optional={"id": st.integers() | TEXT, "more": VALUE, "conversation": VALUE},
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(RECORD)
def test_every_convertible_conversation_round_trips(tmp_path: Path, record: dict[str, Any]) -> None:
    try:
        items = list(convert(Unit("a.jsonl", 1, json.loads(json.dumps(record))), Source(tmp_path, tmp_path)))
    except DataError:
        return
    rows = [item for item in items if not isinstance(item, Unit)]
    restore(iter(rows), {}, tmp_path / "back.jsonl")
    assert [json.loads(line) for line in (tmp_path / "back.jsonl").read_text().split("\n") if line] == [record][
        : len(rows)
    ]


IMAGE_STRUCTS = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def parquet_shard(path: Path) -> Path:
    """Four conversations: two with the same image, one without image bytes, one with invalid image bytes."""
    turns = json.dumps(dialogue("[refer] [hr_rgb_0.5] <image> \\n where is <ref>it</ref>", "[[1, 2, 30, 40, 5]]"))
    red = {"bytes": image_bytes("red"), "path": "a.jpg"}
    images = [red, red, {"bytes": None, "path": "/etc/passwd"}, {"bytes": b"junk", "path": None}]
    table = pa.table(
        {"jpg": pa.array(images, IMAGE_STRUCTS), "conversations": [turns] * 4, "tif_ms": [[[1.0, 2.0]]] * 4}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=3)
    return path


def arrow_table() -> pa.Table:
    """A yes-no question, one with multiple captions, one without reference; two images each, in reverse order."""
    questions = ["damaged? Answer in single word.", "what changed?", "and?"]
    return pa.table(
        {
            "jpg_B": [image_bytes("green")] * 3,
            "jpg_A": [image_bytes("blue")] * 3,
            "question": [f'"[changedet] [hr_rgb_temp_0.5] <image> <image> \\n {q}"' for q in questions],
            "groundtruth0": ['"yes"', '" a house ."', '""'],
            "groundtruth1": ["", "a road .", None],
            "ttype": ["cls", "caption", "caption"],
        }
    )


def test_images_in_parquet_shards_are_written_to_the_output(tmp_path: Path) -> None:
    shard = parquet_shard(tmp_path / "in" / "train" / "0.parquet")
    outcome = run_convert("earthdial", tmp_path / "in", tmp_path / "out")
    assert [(r.example.id, r.example.images, r.example.target) for r in outcome.rows] == [
        (f"train/0.parquet:{n}", (stored_path(image_bytes("red")),), (Box((1, 2, 30, 40, 5)),)) for n in (1, 2)
    ]
    assert outcome.reasons[3] == "jpg: expected the bytes of an image, found only its path '/etc/passwd'"
    assert outcome.reasons[4] == "expected the bytes of a JPEG, PNG, TIFF, WebP, GIF or BMP, found b'junk'"
    assert [p.read_bytes() for p in (outcome.folder / "images").rglob("*.*")] == [image_bytes("red")]
    assert outcome.card["image_root"] == "."
    assert load_image(f"{outcome.folder}//{outcome.rows[0].example.images[0]}").size == (24, 24)
    assert "tif_ms" not in outcome.rows[0].extra
    (record, _) = real_lines(outcome.export("earthdial", tmp_path / "back.jsonl"))
    assert record == {
        "image": stored_path(image_bytes("red")),
        "conversations": pq.read_table(shard)["conversations"][0].as_py(),
    }


@pytest.mark.parametrize("write", [pa.ipc.new_stream, pa.ipc.new_file])
def test_arrow_shards_with_image_sequences_and_multiple_references(tmp_path: Path, write: Any) -> None:
    folder = tmp_path / "in" / "test"
    folder.mkdir(parents=True)
    with write(folder / "data-00000-of-00001.arrow", arrow_table().schema) as writer:
        writer.write_table(arrow_table())
    for name in ("state.json", "dataset_info.json"):
        (folder / name).write_text("{}")
    (folder / "cache-0123.arrow").write_bytes(b"left by a map")
    outcome = run_convert("earthdial", tmp_path / "in", tmp_path / "out")
    sequence = (stored_path(image_bytes("blue")), stored_path(image_bytes("green")))
    assert [(r.example.task, r.example.images, r.example.target) for r in outcome.rows] == [
        ("vqa", sequence, "yes"),
        ("change_captioning", sequence, ("a house .", "a road .")),
    ]
    assert (outcome.counts.passed_over, outcome.counts.set_aside) == (1, 0)
    assert outcome.rows[0].example.question == "[changedet] [hr_rgb_temp_0.5] damaged? Answer in single word."
    columns = arrow_table().drop_columns(["jpg_A", "jpg_B"]).to_pylist()[:2]
    back = outcome.export("earthdial", tmp_path / "back")
    assert real_lines(back / "test" / "data-00000-of-00001.arrow.jsonl") == [
        c | {"image": list(sequence)} for c in columns
    ]


def test_image_file_extension_follows_the_image_format(tmp_path: Path) -> None:
    turns = dialogue("<image> Is it?", "yes")
    extensions = {"PNG": "png", "TIFF": "tif", "WEBP": "webp", "BMP": "bmp", "GIF": "gif"}
    images = [image_bytes("red", format) for format in extensions]
    table = pa.table({"image": [[p] for p in images], "conversations": [turns] * len(extensions)})
    pq.write_table(table, tmp_path / "a.parquet")
    outcome = run_convert("earthdial", tmp_path / "a.parquet", tmp_path / "out")
    assert [r.example.images[0].rsplit(".")[-1] for r in outcome.rows] == list(extensions.values())


def test_corrupt_shards_quarantine_only_themselves(tmp_path: Path) -> None:
    good = parquet_shard(tmp_path / "in" / "b.parquet")
    (tmp_path / "in" / "a.parquet").write_bytes(good.read_bytes()[:-30])
    (tmp_path / "in" / "c.arrow").write_bytes(b"\xff\xff\xff\xff\x10\x00\x00\x00nonsense")
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "in" / "d.parquet")
    (tmp_path / "in" / "e.parquet").symlink_to(parquet_shard(tmp_path / "outside.parquet"))
    outcome = run_convert("earthdial", tmp_path / "in", tmp_path / "out")
    assert {r.source_file for r in outcome.rows} == {"b.parquet"}
    reasons = {item.source_file: item.reason for item in outcome.quarantine if item.source_file != "b.parquet"}
    assert list(reasons) == ["a.parquet", "c.arrow", "d.parquet", "e.parquet"]
    assert "expected a column of image bytes, found the columns text" in reasons["d.parquet"]


def test_image_write_error_aborts_the_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = parquet_shard(tmp_path / "in" / "a.parquet")

    def raise_disk_full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", raise_disk_full)
    with pytest.raises(DataError, match=r"images/.* cannot be written: No space left on device"):
        run_convert("earthdial", shard, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_mixing_shards_and_conversations_is_rejected(tmp_path: Path) -> None:
    parquet_shard(tmp_path / "in" / "a.parquet")
    write_json(tmp_path / "in" / "b.json", CONVERSATIONS)
    with pytest.raises(DataError, match=r"found both, a\.parquet and b\.json"):
        run_convert("earthdial", tmp_path / "in", tmp_path / "out")


def test_result_does_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    table = pa.table(
        {
            "jpg": [image_bytes(f"#{i % 50:02x}0000") for i in range(500)],
            "conversations": [dialogue(f"<image> {i}?", "yes") for i in range(500)],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    one = run_convert("earthdial", tmp_path / "a.parquet", tmp_path / "one")
    two = run_convert("earthdial", tmp_path / "a.parquet", tmp_path / "two", workers=2)
    assert one.rows == two.rows
    assert len(list((two.folder / "images").rglob("*.jpg"))) == len({r.example.images for r in two.rows})

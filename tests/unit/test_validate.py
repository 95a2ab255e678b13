"""Dataset validation: quarantined records, warnings, duplicates and split leakage."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box, Example, GroundedText
from geovlm_ray.data import parallel
from geovlm_ray.data.parquet import Dataset, RecordTable, open_datasets
from geovlm_ray.data.quarantine import QuarantineEntry, read_quarantine, write_quarantine
from geovlm_ray.data.validation.balance import Balance
from geovlm_ray.data.validation.checks import fraction_inside
from geovlm_ray.data.validation.faults import first_occurrences
from geovlm_ray.data.validation.fingerprints import MAX_HAMMING, file_key, near_duplicates, perceptual_hash, text_key
from geovlm_ray.data.validation.tally import Findings
from geovlm_ray.data.validation.validate import ValidationReport, validate
from tests.unit.datasets import example, write_dataset, write_image, write_scenes_dataset


def check(folder: Path, need_images: bool = True, workers: int = 1, root: Path | None = None) -> ValidationReport:
    datasets = open_datasets(folder, root)
    return validate(datasets, need_images=need_images, workers=workers, on_progress=lambda what, done: None)


def quarantined(folder: Path) -> dict[int, str]:
    """Quarantine reasons by source record number."""
    return {item.source_record: item.reason for item in read_quarantine(folder, "validate")}


def validated(
    tmp_path: Path, examples: Sequence[Example], need_images: bool = True
) -> tuple[ValidationReport, dict[int, str]]:
    folder = write_dataset(tmp_path / "data", examples, root=str(tmp_path))
    return check(folder, need_images), quarantined(folder)


def test_synthetic_scenes_of_every_task_are_valid(tmp_path: Path) -> None:
    report = check(write_scenes_dataset(tmp_path / "scenes"))
    assert (report.records, report.bad) == (24, 0)
    assert not (tmp_path / "scenes" / "quarantine.parquet").exists()


BOXES = Example("b", "object_detection", ("a.png",), "Where are ships?", (Box((10, 20, 30, 40)),), dataset="harbours")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (example(1, ("a.png",), id=" "), "id: expected text"),
        (example(1, ("a.png",), question="\n"), "question: expected text"),
        (example(1, ("a.png",), target=" "), "target of vqa: expected text"),
        (example(1, ("a.png",), dialect="runes"), "dialect: expected one of brackets"),
        (example(1, ("a.png",), frame=Frame("furlongs")), "frame: expected percent"),  # type: ignore[arg-type]
        (example(1), "images: expected at least one"),
        (example(1, ("a.png", " ")), "images: expected paths"),
        (example(1, ("a.png",), question="<|image_pad|>?"), "control token '<|image_pad|>'"),
        (example(1, ("a.png",), target="</answer><answer>"), "tags"),
        (example(1, ("a.png",), reasoning="so </think> then"), "tags"),
        (example(1, ("a.png",), target="ship " * 10_000), "characters"),
        (example(1, ("a.png",), task="scene_classification", target=()), "expected text, found none"),
        (example(1, ("a.png",), task="scene_classification", target=("port", "--")), "expected text, found '--'"),
        (example(1, ("a.png",), task="image_captioning", target=("A port.", "")), "expected text, found ''"),
        (example(1, ("a.png",), task="grounded_description", target=GroundedText("A pier", ())), "an accuracy of"),
        (replace(BOXES, target=(Box((10, 20, float("nan"), 40)),)), "expected finite coordinates"),
        (replace(BOXES, target=(Box((10, 20, float("inf"), 40)),)), "expected finite coordinates"),
        (replace(BOXES, target=(Box((10, 20, 10, 40)),)), "finite coordinates and a positive area"),
        (replace(BOXES, target=(Box((1, 2, 3, 4)), Box((-30, 20, 10, 40)))), "box 2, '-30, 20, 10, 40': expected"),
        (replace(BOXES, target=(Box((90, 20, 130, 40)),), frame=Frame("pixel", 96, 96)), "'96 x 96', found 15%"),
        (replace(BOXES, target=(Box((10, 20, 30, 40)),), frame=Frame("pixel", 9, 9)), "found 0%"),
        (example(1, ("absent.png",)), "image 'absent.png': expected a file, found none"),
        (example(1, ("text.png",)), "image 'text.png': expected a decodable image"),
        (
            example(1, ("bomb.png",)),
            "image 'bomb.png': expected a decodable image, found: Image size (3600000000 pixels)",
        ),
        (example(1, ("cut.png",)), "image 'cut.png': expected a decodable image"),
        (example(1, ("../outside.png",)), "image '../outside.png': expected a path below"),
        (example(1, ("/etc/passwd",)), "image '/etc/passwd': expected a path below"),
        (example(1, ("link.png",)), "image 'link.png': expected a path below"),
        (example(1, ("nul\0.png",)), "null byte"),
        (example(1, ("x" * 5000,)), "too long"),
    ],
)
def test_bad_record_is_quarantined_with_its_reason(bad: Example, reason: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_image(root / "a.png", 0)
    write_image(tmp_path / "outside.png", 1)
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    (root / "text.png").write_text("no picture")
    (root / "cut.png").write_bytes((root / "a.png").read_bytes()[:200])
    (root / "bomb.png").write_bytes(decompression_bomb(60_000))
    folder = write_dataset(tmp_path / "data", [bad, example(0, ("a.png",))], root=str(root))
    report = check(folder)
    ((record, found),) = quarantined(folder).items()
    assert (record, report.bad, report.records) == (1, 1, 2)
    assert reason in found
    assert len(RecordTable(open_datasets(folder))) == 1


def decompression_bomb(side: int) -> bytes:
    """A PNG whose header declares side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("root", ["..", "images/../../elsewhere", "/", "//", "out"])
def test_image_root_outside_the_dataset_folder_is_rejected(tmp_path: Path, root: str) -> None:
    folder = write_dataset(tmp_path / "data", [example(1)], root=root)
    (folder / "out").symlink_to(tmp_path)
    with pytest.raises(DataError, match=r"dataset\.json, image_root: expected a folder below .* data\.root or --root"):
        open_datasets(folder)
    assert len(RecordTable(open_datasets(folder, tmp_path))) == 1


def test_boxes_beyond_the_image_edge_are_a_warning(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 0)
    # GeoChat's boxes of objects at an edge are unrotated rectangles with coordinates below 0 and above 100.
    edge = replace(BOXES, target=(Box((-5, 40, 15, 60, 30)), Box((90, 90, 104, 102))), dialect="geochat")
    report, bad = validated(tmp_path, [edge])
    assert not bad
    assert report.warnings.counts == {"box extends beyond its image": 2}


@pytest.mark.parametrize(
    ("box", "share"),
    [
        ((0, 0, 100, 100, 0), 1.0),
        ((-10, 0, 10, 10, 0), 0.5),
        ((-10, 0, 10, 10, 90), 0.375),
        ((0, -10, 2, 10, 0), 0.5),
        ((-40, 49, 60, 51, 0), 0.6),
        ((-40, 49, 60, 51, 90), 1.0),
        ((200, 200, 210, 210, 0), 0.0),
        ((0, 0, 0, 10, 0), float("nan")),
        ((0, 0, 1e7, 10, 0), float("nan")),
    ],
)
def test_fraction_of_a_box_inside_its_image_follows_its_angle(box: tuple[float, ...], share: float) -> None:
    (found,) = fraction_inside(np.array([box], dtype=float), np.array([[100.0, 100.0]]))
    assert found == pytest.approx(share, nan_ok=True)


def test_later_duplicate_record_is_quarantined(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name, ord(name[0]))
    first = example(1, ("a.png", "b.png"))
    records = [
        first,
        replace(first, id="again"),
        replace(first, id="turned", images=("b.png", "a.png")),
        replace(first, id="other task", task="image_captioning", target=("1",)),
        replace(first, id="other answer", target="2"),
        replace(first, id="third time"),
    ]
    report, bad = validated(tmp_path, records)
    assert bad == dict.fromkeys((2, 6), "same question, images and target as row 0 of part-00000.parquet")
    assert report.warnings.counts["same question and images, different target or reasoning"] == 2


def test_records_without_images_are_not_deduplicated(tmp_path: Path) -> None:
    records = [example(1, id=f"{k}") for k in range(3)]
    report, _ = validated(tmp_path, records, need_images=False)
    assert (report.bad, report.warnings.counts) == (0, {})


def test_duplicate_ids_within_a_split_are_a_warning(tmp_path: Path) -> None:
    names = [write_image(tmp_path / f"{k}.png", k) for k in range(4)]
    records = [example(k, (name,), id="same") for k, name in enumerate(names)]
    records[2] = replace(records[2], split="test")
    records[3] = replace(records[3], dataset="airports")
    report, bad = validated(tmp_path, records)
    assert bad == {}
    assert report.warnings.counts["duplicate id"] == 1


def test_training_record_sharing_an_image_with_a_test_split_is_quarantined(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 1, (200, 150))
    (tmp_path / "copy.png").write_bytes((tmp_path / "a.png").read_bytes())
    Image.open(tmp_path / "a.png").resize((160, 120)).save(tmp_path / "small.jpg", quality=70)
    for name in ("c.png", "d.png"):
        write_image(tmp_path / name, ord(name[0]))
    records = [
        example(1, ("a.png",), split="test"),
        example(2, ("c.png", "copy.png")),
        example(3, ("small.jpg",), split="training"),
        example(4, ("d.png",)),
        example(5, ("d.png",)),
        example(6, ("a.png",)),
        example(7, ("a.png",), split="validation"),
    ]
    report, bad = validated(tmp_path, records)
    assert bad == {
        2: "image 'copy.png' is also in split 'test', row 0 of part-00000.parquet",
        3: "image 'small.jpg' is a near-duplicate of an image in split 'test', row 0 of part-00000.parquet",
        6: "image 'a.png' is also in split 'test', row 0 of part-00000.parquet",
    }
    assert report.warnings.examples["duplicate image under another name"] == "'a.png' and 'copy.png'"


def test_bad_record_does_not_affect_other_records(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 1)
    broken = example(1, ("a.png", "absent.png"), split="test")
    _, bad = validated(tmp_path, [broken, example(1, ("a.png",)), example(1, ("a.png",), id="again")])
    assert set(bad) == {1, 3}


def test_low_contrast_images_are_not_near_duplicates(tmp_path: Path) -> None:
    records = []
    for k in range(12):
        name = write_image(tmp_path / f"sea{k}.png", k, strength=1.5)
        records.append(example(k, (name,), split="train" if k % 2 else "test"))
    Image.new("RGB", (64, 64), (0, 20, 60)).save(tmp_path / "blank.png")
    Image.new("RGB", (64, 64), (0, 20, 61)).save(tmp_path / "blank2.png")
    records += [example(20, ("blank.png",)), example(21, ("blank2.png",), split="test")]
    report, bad = validated(tmp_path, records)
    assert not bad
    assert not report.warnings.counts


def test_noisy_images_of_one_gradient_are_not_near_duplicates() -> None:
    rng = np.random.default_rng(0)
    gradient = np.linspace(60, 160, 128)[None, :, None]
    noisy = [(gradient + rng.normal(0, 12, (128, 128, 3))).clip(0, 255).astype(np.uint8) for _ in range(200)]
    keys = np.array([perceptual_hash(Image.fromarray(values)) for values in noisy], dtype=np.uint64)
    assert (near_duplicates(keys[:100], keys[100:]) < 0).all()


def test_absent_images_are_allowed_when_optional(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no picture")
    records = [
        example(1),
        example(2, ("absent.png",)),
        example(3, ("broken.png",)),
        example(4, ("../absent.png",)),
        example(5, ("absent.png",), split="test"),
    ]
    report, bad = validated(tmp_path, records, need_images=False)
    assert set(bad) == {2, 3, 4}
    assert "split 'test'" in bad[2]
    assert report.absent == 1


def test_warnings_are_counted_with_an_example(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 0, (96, 64))
    labels = ("port", "beach")
    records = [
        example(1, ("a.png", "a.png")),
        example(2, ("a.png",), question="<image> what?"),
        example(3, ("a.png",), task="scene_classification", target=("glacier",), labels=labels),
        replace(BOXES, id="none", target=()),
        replace(BOXES, id="size", frame=Frame("pixel", 64, 96), question="Where?"),
    ]
    report, bad = validated(tmp_path, records)
    assert not bad
    assert report.warnings.examples == {
        "duplicate image in a record": "source.jsonl, record 1: a.png, a.png",
        "image placeholder in the question": "source.jsonl, record 2: <image>",
        "class not in the dataset's labels": "source.jsonl, record 3: glacier",
        "target without boxes": "source.jsonl, record 4: object_detection",
        "pixel frame differs from the image size": "row 4 of part-00000.parquet: 64 x 96, found 96 x 64",
        "vocabulary class without records": "harbours, scene_classification: 'port'",
    }


def test_class_balance_warns_of_rare_and_dominant_classes() -> None:
    balance, findings = Balance("scene_classification"), Findings()
    for k in range(400):
        balance.add(example(k, task="scene_classification", target=("port" if k > 1 else "beach",)))
    balance.warn("harbours", findings)
    assert findings.examples == {
        "rare class (below 1% of its task)": "harbours, scene_classification: 'beach' has 2 of 400",
        "dominant answer (above 90% of its task)": "harbours, scene_classification: 'port' has 398 of 400",
    }


def test_validation_is_idempotent_and_keeps_entries_of_conversion(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 0)
    folder = write_dataset(tmp_path / "data", [example(1, ("a.png",)), example(2, ("gone.png",))], root=str(tmp_path))
    with write_quarantine(folder) as add:
        add(
            [
                QuarantineEntry("convert", "no object", "source.jsonl", 7),
                QuarantineEntry("validate", "old", "source.jsonl", 1),
            ]
        )
    shard = (folder / "part-00000.parquet").read_bytes()
    check(folder)
    first = pq.read_table(folder / "quarantine.parquet").to_pylist()
    assert [(r["stage"], r["source_record"], r["shard"], r["row"]) for r in first] == [
        ("convert", 7, None, None),
        ("validate", 2, "part-00000.parquet", 1),
    ]
    check(folder)
    assert pq.read_table(folder / "quarantine.parquet").to_pylist() == first
    assert (folder / "part-00000.parquet").read_bytes() == shard
    write_image(tmp_path / "gone.png", 1)
    assert check(folder).bad == 0
    assert not quarantined(folder)


def test_parallel_validation_equals_serial_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(200):
        write_image(tmp_path / f"{k}.png", k)
    records = [example(k, (f"{k % 200}.png",), split="test" if k % 200 > 190 else "train") for k in range(300)]
    records[5] = replace(records[5], question=" ")
    write_dataset(tmp_path / "data" / "one", records, shards=3, root=str(tmp_path))
    write_dataset(tmp_path / "data" / "two", records, root=str(tmp_path))
    serial = check(tmp_path / "data", workers=1)
    serial_quarantine = [quarantined(tmp_path / "data" / name) for name in ("one", "two")]
    assert serial.images == 200
    assert set(serial_quarantine[1]) == set(range(1, 301)), "the second dataset duplicates the first"
    monkeypatch.setattr(parallel, "SERIAL_S", 0.0)
    assert check(tmp_path / "data", workers=2) == serial
    assert [quarantined(tmp_path / "data" / name) for name in ("one", "two")] == serial_quarantine


def test_unreadable_shard_is_reported_and_other_shards_are_checked(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 0)
    records = [example(k, ("a.png",)) for k in range(4)]
    folder = write_dataset(tmp_path / "data", records, shards=2, root=str(tmp_path))
    shard = folder / "part-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    report = check(folder)
    assert (report.records, report.bad) == (2, 0)
    assert "part-00000.parquet: expected a readable Parquet file" in report.unreadable[shard]
    (item,) = read_quarantine(folder, "validate")
    assert (item.shard, item.row) == ("part-00000.parquet", None)


def test_rows_that_do_not_form_a_record_are_quarantined(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 0)
    folder = write_dataset(tmp_path / "data", [example(k, ("a.png",)) for k in range(6)], root=str(tmp_path))
    shard = folder / "part-00000.parquet"
    table = pq.read_table(shard)
    records = table.to_pylist()
    records[0]["task"] = "dreaming"
    records[1]["target"]["texts"] = []
    records[2]["frame"] = None
    records[3]["images"] = None
    records[4]["target"]["texts"] = [None]
    pq.write_table(table.from_pylist(records, schema=table.schema), shard)
    assert check(folder).bad == 5
    assert set(quarantined(folder)) == {1, 2, 3, 4, 5}


@given(st.lists(st.integers(0, 6)), st.data())
def test_first_occurrences_match_brute_force(keys: list[int], data: st.DataObject) -> None:
    eligible = data.draw(st.lists(st.booleans(), min_size=len(keys), max_size=len(keys)))
    expected = [
        next((j for j in range(i) if eligible[j] and keys[j] == key), -1) if key and eligible[i] else -1
        for i, key in enumerate(keys)
    ]
    assert first_occurrences(np.array(keys, dtype=np.uint64), np.array(eligible, dtype=bool)).tolist() == expected


def test_near_duplicates_match_brute_force() -> None:
    rng = np.random.default_rng(0)
    hashes, other_hashes = (rng.integers(1, 2**64, n, dtype=np.uint64) for n in (600, 500))
    for i in range(300):
        flipped = rng.choice(64, rng.integers(0, 2 * MAX_HAMMING), replace=False).astype(np.uint64)
        hashes[i] = other_hashes[i] ^ np.bitwise_or.reduce(np.uint64(1) << flipped, initial=np.uint64(0))
    hashes[0] = other_hashes[0] = 0
    distance = np.bitwise_count(hashes[:, None] ^ other_hashes[None]).astype(int)
    near = (distance <= MAX_HAMMING) & (hashes != 0)[:, None] & (other_hashes != 0)[None]
    found = near_duplicates(hashes, other_hashes)
    assert np.array_equal(found >= 0, near.any(axis=1))
    assert near[found >= 0, found[found >= 0]].all()
    assert 100 < near.any(axis=1).sum() < 300
    assert near_duplicates(hashes, other_hashes[:0]).tolist() == [-1] * 600


def test_fingerprints_depend_on_content_only(tmp_path: Path) -> None:
    assert text_key("ab", "c") != text_key("a", "bc")
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"1")
    assert file_key(tmp_path / "a") == file_key(tmp_path / "b")


def test_datasets_compare_by_value() -> None:
    assert Dataset(Path("a"), Path("b")) == Dataset(Path("a"), Path("b"))

"""Recognition of formats, and sources that are damaged or of another format."""

from __future__ import annotations

import json
import os
import random
from contextlib import suppress
from pathlib import Path

import pytest

from geovlm_ray.cli import main
from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import target_boxes
from geovlm_ray.data.formats import FORMATS
from geovlm_ray.data.formats.base import Source
from geovlm_ray.data.formats.detect import recognize, recognized_format
from geovlm_ray.data.parquet import open_datasets
from tests.rs import RS, needs_rs
from tests.unit.conversion import run_convert, write_json, write_scene
from tests.unit.format_sources import SOURCES

CASES = RS.parent / "cases" / "formats"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason=f"sources in popular forms are missing: {CASES.name}")
SHED_PERCENT = (30.0, 25.0, 60.0, 50.0)


def source_of(path: Path) -> Source:
    return Source(path, path if path.is_dir() else path.parent)


def auto(source: Path, out: Path, *arguments: str) -> int:
    return main(["data", "convert", "auto", str(source), str(out), *arguments, "--workers", "1"])


def test_every_format_has_a_source_to_test() -> None:
    assert {name for name, _ in SOURCES.values()} == set(FORMATS)


@pytest.mark.parametrize("key", SOURCES)
def test_auto_recognizes_every_format_and_says_why(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, write_source = SOURCES[key]
    source = write_source(tmp_path / "in")
    assert auto(source, tmp_path / "out") == 0
    output = capsys.readouterr().out
    assert output.startswith(f"{source} looks like {name}: ")
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["format"] == name


@pytest.mark.parametrize("ending", ["txt", "json", "xml", "parquet"])
@pytest.mark.parametrize("key", ["yolo", "dota"])
def test_pipes_and_broken_links_are_no_evidence(key: str, ending: str, tmp_path: Path) -> None:
    name, write_source = SOURCES[key]
    source = write_source(tmp_path / "in")
    os.mkfifo(source / f"a.{ending}")
    (source / f"b.{ending}").symlink_to("absent")
    assert recognized_format(source_of(source))[0] == name


@pytest.mark.parametrize("key", SOURCES)
@pytest.mark.parametrize("name", FORMATS)
def test_readers_refuse_sources_of_other_formats_by_name(name: str, key: str, tmp_path: Path) -> None:
    other, write_source = SOURCES[key]
    source = write_source(tmp_path / "in")
    if name == other:
        assert run_convert(name, source, tmp_path / "out").counts.records
        return
    if (name, key) in OVERLAPS:
        assert run_convert(name, source, tmp_path / "out").rows
    else:
        with pytest.raises(DataError, match=f"this looks like {other}: "):
            run_convert(name, source, tmp_path / "out")


OVERLAPS = {
    *((name, "geochat") for name in ("earthdial", "vrsbench", "teochat", "chat")),
    *((name, "earthdial") for name in ("geochat", "vrsbench", "teochat", "chat")),
    ("chat", "earthdial shards"),
}
"""Readers of conversations that also read a source of another format, and that source."""


def test_a_source_of_several_formats_is_refused_with_their_names(tmp_path: Path) -> None:
    for key in ("voc", "yolo", "chat", "qa"):
        SOURCES[key][1](tmp_path / "in" / key)
    with pytest.raises(DataError) as error:
        recognized_format(source_of(tmp_path / "in"))
    for part in ("voc (XML files", "yolo (text files", "chat (records have messages)", "qa (records have problem"):
        assert part in str(error.value)


def test_a_source_of_no_format_is_refused_with_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.docx").touch()
    assert auto(tmp_path / "in", tmp_path / "out") == 1
    assert "expected a source of a known format, found files .docx that look like none" in capsys.readouterr().err
    assert auto(tmp_path / "nowhere", tmp_path / "out") == 1
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "a.jsonl",
            '{"problem": "Où?", "answer": "là"}\n'.encode("latin-1"),
            "a.jsonl: expected UTF-8 text, found byte 0xf9",
        ),
        ("a.json", b"", "a.json is empty"),
        ("a.parquet", b"", "a.parquet is empty"),
        ("a.parquet", b"PAR1 broken", "a.parquet, record 1: expected a shard, found an error"),
        ("a.json", b'[{"problem": ', "a.json, record 1: "),
    ],
)
@pytest.mark.parametrize("given", ["file", "folder"])
def test_auto_says_why_a_file_cannot_be_read(
    given: str, name: str, content: bytes, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "in" / name
    path.parent.mkdir()
    path.write_bytes(content)
    assert auto(path if given == "file" else path.parent, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert reason in error
    assert len(error.strip().splitlines()) == 1


def test_errors_about_missing_and_empty_sources_name_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    assert auto(tmp_path / "in", tmp_path / "out") == 1
    assert "in: expected a source of a known format, found no files" in capsys.readouterr().err
    assert auto(tmp_path / "nowhere" / "a.json", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "a.json: expected a source file or folder, found none" in error
    assert "--images" not in error


@pytest.mark.parametrize(
    ("name", "folder", "good", "odd"),
    [
        ("dota", "labelTxt", "60 40 120 40 120 80 60 80 shed 0", "this line is no box at all"),
        ("yolo", "labels", "0 0.45 0.375 0.3 0.25", "0 0.45 0.375 0.3 0.25 0.9"),
        ("yolo", "labels", f"1 {' '.join(['0.1 0.1 0.5 0.2 0.4 0.6'] * 50)}", "0 0.45 0.375"),
    ],
)
@pytest.mark.parametrize("odd_files", [1, 2])
def test_most_label_files_decide_the_format(
    name: str, folder: str, good: str, odd: str, odd_files: int, tmp_path: Path
) -> None:
    for k in range(4):
        write_scene(tmp_path / "in" / "images" / f"{k}.png")
        path = tmp_path / "in" / folder / f"{k}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{odd if k < odd_files else good}\n")
    assert list(recognize(source_of(tmp_path / "in"))) == [name]


def test_options_of_the_recognized_format_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = SOURCES["chat"][1](tmp_path / "in")
    assert auto(source, tmp_path / "out", "frame=permille") == 0
    assert auto(source, tmp_path / "other", "qestion=1") == 1
    assert "unknown option 'qestion' of chat" in capsys.readouterr().err


@needs_cases
@pytest.mark.parametrize(
    ("file", "name", "boxes"),
    [
        ("messages.jsonl", "chat", 0),
        ("messages_parts.jsonl", "chat", 0),
        ("swift_objects.jsonl", "chat", 1),
        ("pixel_boxes_conversation.jsonl", "chat", 1),
        ("qwen_grounding.jsonl", "chat", 1),
        ("problem_answer.jsonl", "qa", 0),
        ("problem_answer.parquet", "qa", 0),
        ("problem_solution_box.jsonl", "qa", 1),
        ("verl.parquet", "qa", 0),
        ("samples_with_keys.jsonl", "samples", 1),
        ("voc", "voc", 2),
        ("yolo", "yolo", 2),
    ],
)
@pytest.mark.parametrize("given", ["auto", "name"])
def test_popular_forms_convert(file: str, name: str, boxes: int, given: str, tmp_path: Path) -> None:
    if given == "auto":
        assert auto(CASES / file, tmp_path / "out", "--max-bad", "0.5") == 0
    else:
        run_convert(name, CASES / file, tmp_path / "out")
    (dataset,) = open_datasets(tmp_path / "out")
    examples = [row.example for _, _, row in dataset.rows()]
    found = [(e.frame, box.coords) for e in examples for box in target_boxes(e.target)]
    assert len(found) == boxes
    for frame, coords in found:
        assert frame.convert(coords[:4], Frame()) == pytest.approx(SHED_PERCENT)


@needs_rs
@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("samples.jsonl", "samples"),
        ("A_annotations/nwpu_vhr10_coco_even_ids.json", "coco"),
        ("A_images/bigearthnet_s1", "bigearthnet"),
        ("A_images/bigearthnet_s2", "bigearthnet"),
        ("A_text_eval", "earthdial-results"),
        ("A_text_eval/rs_detection/GeoChat.jsonl", "earthdial-results"),
        ("A_text_eval/rs_change_detection", "earthdial-results"),
        ("B_annotations/rsicd_test_textaug.jsonl", "captions"),
        ("B_images/dota", "dota"),
        ("B_images", "folders"),
        ("A_images/rsvqa_lr", None),
        ("B_images/samples_LEVIR", None),
        ("A_annotations/RSVQA_LR_split_test_answers.json", None),
    ],
)
def test_real_sources_are_recognized(path: str, name: str | None) -> None:
    assert list(recognize(source_of(RS / path))) == ([name] if name else [])


ODD = (None, True, -1, 1e999, "", "x", [], {}, [[]], [None], {"a": None}, "[" * 50, "\ud800", 10**30)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Content that is truncated, has a flipped byte, or a repeated or removed part."""
    place = rng.randrange(len(content) + 1)
    kind = rng.randrange(4)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + bytes([rng.randrange(256)]) + content[place + 1 :]
    end = rng.randrange(place, len(content) + 1)
    return content[:place] + content[end:] if kind == 2 else content[:end] + content[place:]


@pytest.mark.parametrize("key", SOURCES)
def test_damaged_sources_are_quarantined_or_refused(key: str, tmp_path: Path) -> None:
    name, write_source = SOURCES[key]
    source = write_source(tmp_path / "in")
    files = sorted(path for path in (source.rglob("*") if source.is_dir() else [source]) if path.is_file())
    rng = random.Random(0)
    for attempt in range(16):
        path = rng.choice(files)
        content = path.read_bytes()
        path.write_bytes(damaged(content, rng))
        with suppress(DataError):
            run_convert(name, source, tmp_path / f"out-{attempt}")
        path.write_bytes(content)


@pytest.mark.parametrize("key", [key for key, (name, _) in SOURCES.items() if name in ("chat", "qa", "samples")])
def test_odd_values_quarantine_only_their_record(key: str, tmp_path: Path) -> None:
    name, write_source = SOURCES[key]
    source = write_source(tmp_path / "in")
    if source.is_dir():
        pytest.skip("the columns of shards have types")
    record = json.loads(source.read_text())
    for i, value in enumerate(ODD):
        records = [record, *(record | {field: value} for field in record if field != "id"), record]
        outcome = run_convert(name, write_json(source, records), tmp_path / f"out-{i}")
        places = {row.source_record for row in outcome.rows}
        assert {1, len(records)} <= places
        assert len(outcome.rows) + outcome.counts.passed_over + outcome.counts.set_aside == len(records)

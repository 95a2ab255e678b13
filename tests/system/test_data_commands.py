"""``geovlm-ray data`` on converted datasets and on hostile sources."""

from __future__ import annotations

import html
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from markupsafe import escape
from PIL import Image

from geovlm_ray.cli import main
from geovlm_ray.config import load_config
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box
from geovlm_ray.data import parallel
from geovlm_ray.data.answer_format import DATASET_FORMAT
from geovlm_ray.data.formats import FORMATS
from geovlm_ray.data.parquet import open_datasets
from geovlm_ray.data.quarantine import read_quarantine
from geovlm_ray.data.stats import collect_stats, size_group
from geovlm_ray.report.preview import choose, preview
from geovlm_ray.tasks import TASKS
from tests.rs import RS, needs_rs
from tests.unit.datasets import example, write_dataset, write_image, write_scenes_dataset

Captured = pytest.CaptureFixture[str]


def line(k: int, **values: object) -> str:
    record = {"id": k, "task": "vqa", "images": ["a.png"], "prompt": f"<image> how many, {k}?", "reference": str(k)}
    return json.dumps(record | values)


def write_source(folder: Path, lines: list[str | bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_image(folder / "a.png", 0)
    path = folder / "source.jsonl"
    path.write_bytes(b"\n".join(text if isinstance(text, bytes) else text.encode() for text in lines))
    return path


def data(*arguments: object) -> int:
    return main(["data", *map(str, arguments)])


def test_help_lists_every_format_with_its_options(capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        data("convert", "--help")
    output = capsys.readouterr().out
    for name, data_format in FORMATS.items():
        assert f"{name} " in output
        assert data_format.summary in output
        assert all(f"{key}=" in output for key in data_format.options)


def test_parser_and_help_import_no_heavy_package() -> None:
    code = (
        "import sys\nfrom geovlm_ray.cli import main\n"
        "try: main(['data', 'validate', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pyarrow', 'pydantic', 'PIL'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


def test_commands_import_no_heavy_package(tmp_path: Path) -> None:
    write_source(tmp_path / "src", [line(k) for k in range(3)])
    code = (
        "import sys\nfrom geovlm_ray.cli import main\n"
        "for action in (['convert', 'samples', 'src', 'out'], ['validate', 'out'], ['stats', 'out'],\n"
        "               ['preview', 'out', '--out', 'page.html']):\n"
        "    assert main(['data', *action, '--recipe', 'demo']) == 0, action\n"
        "heavy = {'torch', 'transformers', 'ray', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "sample", "src", "out"], "did you mean 'samples'"),
        (["convert", "samples", "src", "out", "qestion=1"], "unknown option 'qestion' of samples"),
        (["convert", "coco", "src", "out", "qestion=1"], "did you mean 'question'"),
        (["convert", "coco", "src", "out", "question"], "expected option=value"),
        (["convert", "samples", "nowhere", "out"], "nowhere"),
        (["convert", "samples", "src", "src"], "src: expected an absent or empty folder"),
        (["convert", "samples", "src", "out", "--images", "nowhere"], "--images nowhere"),
        (["convert", "samples", "src", "out", "--workers", "0"], "--workers"),
        (["convert", "samples", "src", "out", "--max-bad", "nan"], "--max-bad"),
        (["export", "samples", "data", "back"], "one of earthdial"),
        (["export", "coco", "data", "back"], "found 'samples'"),
        (["export", "coco", "nowhere", "back"], "nowhere"),
        (["validate", "nowhere"], "nowhere"),
        (["validate", "src"], "expected Parquet shards"),
        (["validate", "data", "--max-bad", "2"], "--max-bad"),
        (["stats", "nowhere"], "nowhere"),
        (["stats", "data", "--json", "nowhere/out.json"], "--json nowhere/out.json"),
        (["preview", "data", "--out", "nowhere/page.html"], "--out nowhere/page.html"),
        (["preview", "data", "--out", "page.html", "--each", "0"], "--each"),
        (["preview", "data", "--out", "page.html"], "absent.png: expected a file, found none"),
    ],
)
def test_wrong_input_is_a_one_line_error_that_names_it(
    arguments: list[str], message: str, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_source(tmp_path / "src", [line(1)])
    write_dataset(tmp_path / "data", [example(1, ("absent.png",))])
    assert data(*arguments) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1


def test_conversion_sets_metadata_and_reports_quarantined_records(tmp_path: Path, capsys: Captured) -> None:
    source = write_source(tmp_path / "src", [*(line(k) for k in range(8)), line(8, reference=None), "{", line(9)])
    out = tmp_path / "out"
    labels = ("--dataset", "harbours", "--split", "test", "--licence", "none [/b]")
    assert data("convert", "samples", source, out, *labels, "--max-bad", 0.1) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "9 records, 1 skipped, 1 quarantined" in output
    assert "source.jsonl, record 10" in output.replace("│", " ").replace("  ", " ")
    (dataset,) = open_datasets(out)
    rows = [row for _, _, row in dataset.rows()]
    assert {(r.example.dataset, r.example.split, r.licence) for r in rows} == {("harbours", "test", "none [/b]")}
    assert data("convert", "samples", source, tmp_path / "strict") == 1
    assert "expected at most 1.00% quarantined entries (--max-bad), found 10.00%" in capsys.readouterr().err
    assert data("convert", "samples", write_source(tmp_path / "none", ["{"]), tmp_path / "empty", "--max-bad", 1) == 1
    assert "found none" in capsys.readouterr().err


HOSTILE = [
    "{",
    '{"id": 1, "task": "vqa", "images": ["a.png"], "prompt": "<image> cut off',
    "3",
    "null",
    '"[/bold] text"',
    "[" * 100_000,
    b"\xff\xfe\x00\x01binary\x00" * 50,
    '{"id": 1, "id": 2}',
    line(1, images="a.png"),
    line(1, images=[3]),
    line(1, images=[]),
    line(1, images=["/etc/passwd"]),
    line(1, images=["../../etc/passwd"]),
    line(1, images=["a/../../b.png"]),
    line(1, task=["vqa"]),
    line(1, task="[/red]"),
    line(1, prompt={"text": 1}),
    line(1, reference=["a"]),
    line(1, task="object_detection", reference="nothing"),
    line(1, reasoning=7),
    line(1, prompt="\ud800"),
    "x" * (17 * 2**20),
]


def test_hostile_lines_are_quarantined_and_max_bad_sets_the_exit_code(tmp_path: Path, capsys: Captured) -> None:
    good = [line(k) for k in range(100)]
    source = write_source(tmp_path / "src", [*good[:50], *HOSTILE, *good[50:]])
    assert data("convert", "samples", source, tmp_path / "out", "--max-bad", 0.2) == 0
    assert data("convert", "samples", source, tmp_path / "strict", "--max-bad", 0.1) == 1
    quarantine = list(read_quarantine(tmp_path / "out", "convert"))
    assert sorted(item.source_record for item in quarantine) == list(range(51, 51 + len(HOSTILE)))
    assert all(len(item.reason) <= 1000 for item in quarantine)
    assert "Traceback" not in capsys.readouterr().err
    assert data("validate", tmp_path / "out") == 0
    (dataset,) = open_datasets(tmp_path / "out")
    assert sum(1 for _ in dataset.rows()) == 100


opened: list[str] | None = None


def _record_access(event: str, arguments: tuple) -> None:
    if opened is not None and event in ("open", "os.listdir", "os.scandir"):
        opened.append(str(arguments[0]))


sys.addaudithook(_record_access)


@contextmanager
def record_access() -> Iterator[list[str]]:
    """Record the paths that are opened or listed inside the block."""
    global opened  # noqa: PLW0603 - an audit hook cannot be removed
    opened = []
    try:
        yield opened
    finally:
        opened = None


@pytest.mark.parametrize("name", FORMATS)
def test_no_format_reads_outside_its_source(name: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    write_source(secret, [line(1)])
    Image.new("RGB", (8, 8)).save(secret / "a.tif")
    for other in ("source.json", "source.parquet", "source.arrow", "source.txt"):
        (secret / other).write_text("[]")
    source = tmp_path / "src"
    for folder in (source, source / "labelTxt", source / "images", source / "port"):
        folder.mkdir()
        for path in secret.iterdir():
            (folder / path.name).symlink_to(path)
            (folder / f"up{path.suffix}").symlink_to(os.path.relpath(path, folder))
        (folder / "all").symlink_to(secret)
    with record_access() as accessed:
        assert data("convert", name, source, tmp_path / "out", "--workers", 1) == 1
    read = {str(Path(path).resolve()) for path in accessed}
    assert str(source) in read
    assert not [path for path in read if path.startswith(str(secret))]


def test_validation_and_preview_read_no_image_outside_the_root(tmp_path: Path) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret"
    write_image(secret / "a.png", 1)
    write_image(root / "a.png", 2)
    (root / "link.png").symlink_to(secret / "a.png")
    (root / "folder").symlink_to(secret)
    names = ["../secret/a.png", str(secret / "a.png"), "link.png", "folder/a.png", "x/../../secret/a.png"]
    records = [example(k, (name,)) for k, name in enumerate([*names, "a.png"])]
    folder = write_dataset(tmp_path / "data", records, root=str(root))
    for images in ("required", "optional"):
        with record_access() as accessed:
            assert data("preview", folder, "--out", tmp_path / "page.html", "--images", images) == 1
            assert data("validate", folder, "--images", images, "--max-bad", 0.9, "--workers", 1) == 0
            assert data("preview", folder, "--out", tmp_path / "page.html", "--images", images) == 0
        read = {str(Path(path).resolve()) for path in accessed}
        assert str(root / "a.png") in read
        assert not [path for path in read if path.startswith(str(secret))]
        (folder / "quarantine.parquet").unlink()


def test_max_bad_sets_the_exit_code_of_validation(tmp_path: Path, capsys: Captured) -> None:
    write_image(tmp_path / "a.png", 0)
    records = [example(k, ("a.png",)) for k in range(20)]
    records[3] = replace(records[3], question=" ", id="[/bold]\x1b[31m")
    folder = write_dataset(tmp_path / "data", records, root=str(tmp_path))
    assert data("validate", folder) == 1
    captured = capsys.readouterr()
    assert "expected at most 1.00% bad records (--max-bad), found 5.00%" in captured.err
    assert "question: expected text" in " ".join(captured.out.split())
    assert "20 records, 1 images, 1 bad (5.00%)" in captured.out
    assert data("validate", folder, "--max-bad", 0.05) == 0


def test_root_option_overrides_the_image_root(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", [example(1, ("a.png",))], root="nowhere")
    write_image(tmp_path / "moved" / "a.png", 0)
    assert data("validate", folder) == 1
    assert data("validate", folder, "--root", tmp_path / "moved") == 0
    assert data("preview", folder, "--root", tmp_path / "moved", "--out", tmp_path / "page.html") == 0


@needs_rs
def test_real_samples_convert_validate_and_preview(tmp_path: Path, capsys: Captured) -> None:
    assert data("convert", "samples", RS / "samples.jsonl", tmp_path / "out") == 0
    assert data("validate", tmp_path / "out") == 0
    assert "46 records, 40 images, 0 bad" in capsys.readouterr().out
    assert data("preview", tmp_path / "out", "--out", tmp_path / "page.html", "--each", 20) == 0
    page = (tmp_path / "page.html").read_text()
    assert page.count('class="card"') == 46
    assert "Land principally occupied by agriculture, with significant areas" in page


@needs_rs
def test_coco_annotations_round_trip(tmp_path: Path) -> None:
    source = RS / "A_annotations" / "nwpu_vhr10_coco_even_ids.json"
    assert data("convert", "coco", source, tmp_path / "out") == 0
    assert data("validate", tmp_path / "out", "--images", "optional") == 0
    assert data("export", "coco", tmp_path / "out", tmp_path / "back.json") == 0
    assert json.loads((tmp_path / "back.json").read_text()) == json.loads(source.read_text())
    assert data("export", "coco", tmp_path / "out", tmp_path / "back.json") == 1


def test_stats_exclude_quarantined_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k, name in enumerate(("a.png", "b.png")):
        write_image(tmp_path / name, k)
    boxes = (Box((0, 0, 5, 5), "ship"), Box((0, 0, 20, 20), "ship"), Box((0, 0, 50, 50), "quay"))
    records = [
        example(1, ("a.png",), sensor="Sentinel-2", gsd=10.0, reasoning="I count."),
        example(2, ("a.png", "a.png"), question="Two words?", target="a b c"),
        example(3, ("b.png",), task="object_detection", target=boxes, split="test"),
        example(4, ("a.png",), question=" "),
    ]
    folder = write_dataset(tmp_path / "data", records, shards=2, root=str(tmp_path))
    assert data("validate", folder, "--max-bad", 1) == 0
    assert data("stats", folder, "--json", tmp_path / "stats.json") == 0
    found = json.loads((tmp_path / "stats.json").read_text())
    assert (found["records"], found["set_aside"]) == (3, 1)
    assert {"dataset": "harbours", "split": "test", "task": "object_detection", "records": 1} in found["groups"]
    vqa = found["tasks"]["vqa"]
    assert vqa["images_per_record"] == {"mean": 1.5, "median": 1, "largest": 2}
    assert vqa["question_words"] == {"mean": 4.5, "median": 2, "largest": 7}
    assert vqa["answer_words"]["largest"] == 3
    assert vqa["with_reasoning"] == 1
    detection = found["tasks"]["object_detection"]
    assert detection["box_sizes"] == {"small": 1, "medium": 1, "large": 1}
    assert detection["classes"] == {"ship": 2, "quay": 1}
    assert found["sensors"] == {"unknown": 2, "Sentinel-2": 1}
    assert found["gsd"] == {"unknown": 2, "10 m": 1}
    monkeypatch.setattr(parallel, "SERIAL_S", 0.0)
    assert collect_stats(open_datasets(folder), workers=2, on_progress=lambda n: None).plain() == found


def test_box_size_groups_are_relative_to_the_image() -> None:
    assert size_group(Box((0, 0, 9.9, 10)), Frame()) == "small"
    assert size_group(Box((0, 0, 50, 50)), Frame("pixel", 100, 200)) == "large"
    assert size_group(Box((0, 0, 50, 30)), Frame("pixel", 100, 200)) == "medium"


def test_preview_shows_records_of_every_task_and_split(tmp_path: Path) -> None:
    datasets = open_datasets(write_scenes_dataset(tmp_path / "scenes"))
    page = preview(datasets, load_config("geovlm-r1"), DATASET_FORMAT, each=2, seed=0, need_images=True)
    assert page.count('class="card"') == 2 * len(TASKS)
    assert all(f'id="{task}"' in page for task in TASKS)
    assert "http" not in page, "the page must be self-contained"
    assert page == preview(datasets, load_config("geovlm-r1"), DATASET_FORMAT, each=2, seed=0, need_images=True)
    records = [example(k, split=("train", "validation", "test")[k > 96 and k - 96]) for k in range(99)]
    choice = choose(open_datasets(write_dataset(tmp_path / "data", records)), 6, seed=0)
    splits = [records[number].split for number in choice.tasks["vqa"]]
    assert sorted(splits) == ["test", "train", "train", "train", "train", "validation"]
    other = choose(open_datasets(tmp_path / "data"), 6, seed=1)
    assert choice.tasks != other.tasks


def test_preview_draws_boxes_on_a_blank_canvas_if_images_are_optional(tmp_path: Path) -> None:
    box = Box((20, 20, 60, 40), "quay")
    records = [example(1), example(2, ("absent.png",), task="object_detection", target=(box,))]
    folder = write_dataset(tmp_path / "data", records)
    assert data("preview", folder, "--out", tmp_path / "page.html", "--images", "optional") == 0
    page = (tmp_path / "page.html").read_text()
    assert page.count("<figure>") == 1
    assert "20, 20, 60, 40  quay" in page


def test_preview_escapes_text_from_the_source(tmp_path: Path) -> None:
    script = '<script>alert("1")</script><img src=x onerror=alert(1)>'
    write_image(tmp_path / "a.png", 0)
    values = {
        "id": script,
        "question": script,
        "dataset": script,
        "split": script,
        "sensor": script,
        "reasoning": script,
    }
    records = [
        example(1, ("a.png",), target=script, **values),
        example(2, ("a.png",), target=(Box((1, 2, 30, 40), script),), task="object_detection", **values),
        example(3, ("a.png",), target=(script,), task="scene_classification", **values),
        example(4, ("a.png",), target=(script,), task="image_captioning", **values),
    ]
    folder = write_dataset(tmp_path / "data", records, root=str(tmp_path))
    assert data("preview", folder, "--out", tmp_path / "page.html") == 0
    page = (tmp_path / "page.html").read_text()
    assert page.count("<script>") == 1, "only the script of the page itself"
    assert "<img src=x" not in page
    assert str(escape(script)) in page


def test_preview_shows_whole_prompts_and_ideal_answers_as_configured(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 0)
    box = example(1, ("a.png",), target=(Box((10, 20, 30, 40)),), task="object_detection")
    folder = write_dataset(tmp_path / "data", [box], root=str(tmp_path))
    settings = ["data.frame=permille", "data.dialect=json", "prompt.system=Be brief."]
    assert data("preview", folder, *settings, "--out", tmp_path / "page.html") == 0
    page = html.unescape((tmp_path / "page.html").read_text())
    assert "Be brief." in page
    assert (
        'Answer with boxes as [{"bbox_2d": [x1, y1, x2, y2]}]: top left and bottom right corner, in thousandths' in page
    )
    assert '<think></think><answer>[{"bbox_2d": [100, 200, 300, 400]}]</answer>' in page

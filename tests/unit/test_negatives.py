"""Records about classes that a picture does not show, made at conversion."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from geovlm_ray.cli import main
from geovlm_ray.core.schema import Box, Example
from geovlm_ray.data.answer_format import AnswerFormat
from geovlm_ray.data.negatives import FILE, negative_rows
from geovlm_ray.data.parquet import open_datasets
from geovlm_ray.data.table import Row, to_table
from geovlm_ray.evaluation.metrics.sound import AnsweredExample, sound_metrics
from geovlm_ray.model.config import PromptConfig
from geovlm_ray.tasks.answers.box_dialects import DIALECTS
from tests.unit.datasets import write_image
from tests.unit.oracle import write_scene
from tests.unit.test_formats_geojson import shape_of, write_layer

CLASSES = ("ship", "plane", "storage tank")


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Twelve pictures: every third shows all classes, the others one."""
    for k in range(12):
        write_image(tmp_path / "voc" / f"{k}.png", k)
        shown = CLASSES if k % 3 == 0 else (CLASSES[k % 2],)
        boxes = "".join(
            f"<object><name>{name}</name><bndbox><xmin>{10 * i + 1}</xmin><ymin>5</ymin><xmax>{10 * i + 9}</xmax>"
            "<ymax>20</ymax></bndbox></object>"
            for i, name in enumerate(shown)
        )
        size = "<size><width>96</width><height>96</height><depth>3</depth></size>"
        text = f"<annotation><filename>{k}.png</filename>{size}{boxes}</annotation>"
        (tmp_path / "voc" / f"{k}.xml").write_text(text)
    return tmp_path / "voc"


def test_negatives_are_a_share_of_the_records_and_ask_about_classes_that_are_absent(voc: Path, tmp_path: Path) -> None:
    assert main(["data", "convert", "voc", str(voc), str(tmp_path / "out"), "negatives=0.25"]) == 0
    (dataset,) = open_datasets(tmp_path / "out")
    rows = [(shard.name == FILE, row.example) for shard, _, row in dataset.rows()]
    assert Counter(is_negative for is_negative, _ in rows) == {False: 20, True: 7}
    shown: dict[tuple[str, ...], str] = {}
    for _, example in rows:
        shown[example.images] = shown.get(example.images, "") + " ".join(str(box.label) for box in example.target)
    asked = [example for is_negative, example in rows if is_negative]
    for example in asked:
        (name,) = [name for name in CLASSES if name in example.question]
        assert name not in shown[example.images]
        assert example.target == ()
        assert example.task == "referred_object_detection"
    assert len({(e.images, e.question) for e in asked}) == len(asked)
    assert len({example.id for _, example in rows}) == len(rows)
    assert main(["data", "validate", str(tmp_path / "out")]) == 0


def test_no_negative_is_about_a_class_with_an_invalid_object(voc: Path, tmp_path: Path) -> None:
    broken = voc / "2.xml"
    assert "plane" not in broken.read_text()
    broken.write_text(
        broken.read_text().replace(
            "</annotation>",
            "<object><name>plane</name><bndbox><xmin>50</xmin><ymin>5</ymin><xmax>500</xmax><ymax>9</ymax></bndbox>"
            "</object></annotation>",
        )
    )
    words = ["data", "convert", "voc", str(voc), str(tmp_path / "out"), "negatives=0.6", "--max-bad", "0.2"]
    assert main(words) == 0
    (dataset,) = open_datasets(tmp_path / "out")
    asked = [row.example for shard, _, row in dataset.rows() if shard.name == FILE]
    questions = {(example.images, example.question) for example in asked}
    of_it = [question for (image,), question in questions if image.endswith("2.png") and "12" not in image]
    assert any("storage tank" in question for question in of_it)
    assert not any("plane" in question for question in of_it)


def test_classes_of_records_before_the_first_template_are_shown(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 0)
    write_image(tmp_path / "b.png", 1)
    lines = [
        ("both", "a.png", "Find all ships and planes.", [[1, 1, 20, 20], [30, 30, 60, 60]], ["ship", "plane"]),
        ("one", "a.png", "Where is every ship?", [[1, 1, 20, 20]], ["ship"]),
        ("other", "b.png", "Where is every plane?", [[1, 1, 20, 20]], ["plane"]),
    ]
    rows = [
        Row(
            Example(
                name,
                "object_detection",
                (image,),
                question,
                tuple(Box(tuple(map(float, box)), label) for box, label in zip(boxes, labels, strict=True)),
            )
        )
        for name, image, question, boxes, labels in lines
    ]
    pq.write_table(to_table(rows), tmp_path / "part-00000.parquet")
    asked = {(row.example.images[0], row.example.question) for row in negative_rows(tmp_path, 0.9)}
    assert asked == {("b.png", "Where is every ship?")}


def test_negatives_are_worded_like_positives(voc: Path, tmp_path: Path) -> None:
    for file in voc.glob("*.xml"):
        file.write_text(file.read_text().replace("storage tank", "storage_tank"))
    assert main(["data", "convert", "voc", str(voc), str(tmp_path / "out"), "negatives=0.4"]) == 0
    (dataset,) = open_datasets(tmp_path / "out")
    questions = {row.example.question for _, _, row in dataset.rows()}
    assert any("storage tank" in question for question in questions)
    assert not any("_" in question for question in questions)


def convert(form: str, source: Path, *options: str) -> list[tuple[bool, Example]]:
    """The records of a source, each with whether it is a negative."""
    out = source.parent / "out"
    assert main(["data", "convert", form, str(source), str(out), *options]) == 0
    (dataset,) = open_datasets(out)
    assert sorted(path.name for path in out.iterdir() if path.is_dir() and path.name != "images") == []
    return [(shard.name == FILE, row.example) for shard, _, row in dataset.rows()]


def write_dota(folder: Path) -> None:
    """A turned ship, an upright one, a plane, and a picture without objects."""
    lines = {
        "turned": "10 20 30 10 40 30 20 40 ship 0",
        "upright": "10 10 40 10 40 30 10 30 ship 0",
        "plane": "10 20 30 10 40 30 20 40 plane 0",
        "sea": "imagesource:GoogleEarth\ngsd:0.5",
    }
    for k, (name, line) in enumerate(lines.items()):
        write_image(folder / f"{name}.png", k)
        (folder / f"{name}.txt").write_text(f"{line}\n")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("boxes", ["rotated", "horizontal"])
def test_prompt_does_not_tell_whether_there_are_objects_or_turned_ones(
    boxes: str, dialect: str, tmp_path: Path
) -> None:
    write_dota(tmp_path / "dota")
    records = convert("dota", tmp_path / "dota", f"boxes={boxes}", "negatives=0.6")
    prompts: dict[str, set[str]] = {}
    for _, example in records:
        text = PromptConfig().question(AnswerFormat(None, dialect).of(example))
        prompts.setdefault(example.question, set()).add(text)
    asked = Counter((is_negative, example.question.split()[-4]) for is_negative, example in records)
    assert asked == {(False, "ship"): 2, (False, "plane"): 1, (True, "ship"): 2, (True, "plane"): 2}
    assert [len(texts) for texts in prompts.values()] == [1, 1]


def test_negative_has_no_reasoning_about_the_objects_of_its_template(tmp_path: Path) -> None:
    pictures = {"a.png": "ship", "b.png": "plane"}
    rows = [
        Row(
            Example(
                image,
                "referred_object_detection",
                (image,),
                f"Where is every {name}?",
                (Box((1, 1, 9, 9), name),),
                reasoning=f"I see a {name}.",
            )
        )
        for image, name in pictures.items()
    ]
    pq.write_table(to_table(rows), tmp_path / "part-00000.parquet")
    assert [row.example.reasoning for row in negative_rows(tmp_path, 0.5)] == [None, None]


def one_of_two_voc(folder: Path) -> None:
    ship = (
        "<HRSC_Object><mbox_cx>30</mbox_cx><mbox_cy>30</mbox_cy><mbox_w>20</mbox_w><mbox_h>9</mbox_h>"
        "<mbox_ang>0.5</mbox_ang></HRSC_Object>"
    )
    for k, objects in enumerate((ship, "")):
        write_image(folder / f"{k}.png", k)
        text = f"<HRSC_Image><Img_FileName>{k}</Img_FileName><HRSC_Objects>{objects}</HRSC_Objects></HRSC_Image>"
        (folder / f"{k}.xml").write_text(text)


def one_of_two_yolo(folder: Path) -> None:
    for k, line in enumerate(("0 0.5 0.5 0.2 0.2\n", "")):
        write_image(folder / f"{k}.png", k)
        (folder / f"{k}.txt").write_text(line)
    (folder / "classes.txt").write_text("ship\n")


def one_of_two_dota(folder: Path) -> None:
    for k, line in enumerate(("10 20 30 10 40 30 20 40 ship 0\n", "")):
        write_image(folder / f"{k}.png", k)
        (folder / f"{k}.txt").write_text(line)


def one_of_two_coco(folder: Path) -> None:
    for k in range(2):
        write_image(folder / f"{k}.png", k)
    images = [{"id": k, "file_name": f"{k}.png", "width": 96, "height": 96} for k in range(2)]
    annotations = [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [5, 5, 20, 20]}]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "ship"}]}
    (folder / "train.json").write_text(json.dumps(content))
    unlabelled = {**content, "images": [{**images[1], "id": 7, "file_name": "2.png"}], "annotations": []}
    (folder / "test.json").write_text(json.dumps(unlabelled))


def one_of_two_windows(folder: Path) -> None:
    write_scene(folder / "sea.tif", 400, 200, [(20, 30, 60, 50)])
    write_layer(folder / "sea.geojson", [shape_of((20, 30, 60, 50))], label=["ship"])


ONE_OF_TWO: dict[str, Callable[[Path], None]] = {
    "voc": one_of_two_voc,
    "yolo": one_of_two_yolo,
    "dota": one_of_two_dota,
    "coco": one_of_two_coco,
    "geojson": one_of_two_windows,
}


@pytest.mark.parametrize("form", ONE_OF_TWO)
def test_pictures_without_objects_are_negatives_of_one_class(form: str, tmp_path: Path) -> None:
    source = tmp_path / form
    source.mkdir()
    ONE_OF_TWO[form](source)
    options = ["size=200", "splits=100,0,0"] if form == "geojson" else []
    records = convert(form, source, *options, "negatives=0.5")
    (positive,), (negative,) = ([e for is_negative, e in records if is_negative == wanted] for wanted in (False, True))
    assert (negative.target, negative.question, negative.task) == ((), positive.question, positive.task)
    assert negative.images == ("images/sea/200,0.png" if form == "geojson" else "1.png",)
    assert (negative.frame, negative.split) == (positive.frame, positive.split)
    assert PromptConfig().question(negative) == PromptConfig().question(positive)
    assert main(["data", "validate", str(tmp_path / "out")]) == 0


def test_windows_that_no_negative_is_about_are_not_stored(tmp_path: Path) -> None:
    folder = tmp_path / "maps"
    folder.mkdir()
    write_scene(folder / "sea.tif", 1000, 200)
    write_layer(folder / "sea.geojson", [shape_of((20, 30, 60, 50))], label=["ship"])
    records = convert("geojson", folder, "size=200", "splits=100,0,0", "negatives=0.5")
    stored = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert stored == {image for _, example in records for image in example.images}
    assert len(stored) == len(records) == 2


def test_picture_with_unreadable_objects_alone_is_no_negative(tmp_path: Path) -> None:
    folder = tmp_path / "dota"
    folder.mkdir()
    one_of_two_dota(folder)
    (folder / "1.txt").write_text("10 20 30 10 40 30 ship 0\n")
    records = convert("dota", tmp_path / "dota", "negatives=0.5", "--max-bad", "1")
    assert [is_negative for is_negative, _ in records] == [False]


def test_without_the_option_there_are_none(voc: Path, tmp_path: Path) -> None:
    assert main(["data", "convert", "voc", str(voc), str(tmp_path / "out")]) == 0
    assert not list((tmp_path / "out").glob(FILE))


@pytest.mark.parametrize("share", ["1", "0.95", "-0.1", "x", "nan", ""])
def test_shares_out_of_bounds_are_refused(
    share: str, voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "convert", "voc", str(voc), str(tmp_path / "out"), f"negatives={share}"]) == 1
    assert f"option negatives: expected a share from 0 to 0.9, found '{share}'" in capsys.readouterr().err


def test_false_alarms_are_counted_on_negatives_alone() -> None:
    def answered(answer: str, target: tuple[Box, ...]) -> AnsweredExample:
        return AnsweredExample(answer, Example("a", "referred_object_detection", (), "find every ship", target))

    box = Box((10, 10, 40, 40), "ship")
    records = [answered("none", ()), answered("[[1, 2, 30, 40]]", ()), answered("none", ()), answered("none", ())]
    records += [answered("[[10, 10, 40, 40]]", (box,))] * 3
    assert sound_metrics(records)["false alarms"].value == 0.25
    assert "false alarms" not in sound_metrics(records[4:])

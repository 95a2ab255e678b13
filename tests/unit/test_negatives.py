"""Records about classes that a picture does not show, made at conversion."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from geovlm_ray.cli import main
from geovlm_ray.core.schema import Box, Example
from geovlm_ray.data.negatives import FILE, negative_rows
from geovlm_ray.data.parquet import open_datasets
from geovlm_ray.data.table import Row, to_table
from geovlm_ray.evaluation.metrics.sound import AnsweredExample, sound_metrics
from tests.unit.datasets import write_image

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

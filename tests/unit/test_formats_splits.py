"""Lists of splits that number objects, as those of DIOR-RSVG."""

from __future__ import annotations

from pathlib import Path

import pytest

from geovlm_ray.core.errors import DataError
from tests.unit.conversion import run_convert, write, write_scene

BOX = "<bndbox><xmin>61</xmin><ymin>41</ymin><xmax>120</xmax><ymax>80</ymax></bndbox>"
OBJECTS = {"00002": 2, "00005": 3, "00011": 1, "10000": 2}
"""Number of objects by file; those of the third are numbered 5, those of the last 6 and 7."""
LISTS = {"train": "0 2 3 6", "val": "5", "test": "1 4 7"}


def write_rsvg(folder: Path, description: str = "<description>the shed</description>") -> Path:
    """A source in the layout of DIOR-RSVG, its files written in another order than that of their names."""
    for name, count in reversed(OBJECTS.items()):
        write_scene(folder / "JPEGImages" / f"{name}.jpg")
        objects = f"<object><name>shed</name>{BOX}{description}</object>" * count
        text = f"<annotation><filename>{name}.jpg</filename>{objects}</annotation>"
        write(folder / "Annotations" / f"{name}.xml", text)
    for split, numbers in LISTS.items():
        write(folder / f"{split}.txt", numbers.replace(" ", "\n") + "\n")
    return folder


def splits(source: Path, out: Path) -> dict[str, str]:
    rows = run_convert("voc", source, out).rows
    return {row.example.id.removeprefix("Annotations/"): row.example.split for row in rows}


def test_lists_of_dior_rsvg_number_objects_over_the_sorted_files(tmp_path: Path) -> None:
    outcome = run_convert("voc", write_rsvg(tmp_path / "in"), tmp_path / "out")
    assert [(row.example.id.removeprefix("Annotations/"), row.example.split) for row in outcome.rows] == [
        ("00002/1", "train"),
        ("00002/2", "test"),
        ("00005/1", "train"),
        ("00005/2", "train"),
        ("00005/3", "test"),
        ("00011/1", "validation"),
        ("10000/1", "train"),
        ("10000/2", "test"),
    ]
    assert outcome.card["notes"][1] == (
        "splits: the lists number the objects, counted from 0 over the sorted XML files, as in DIOR-RSVG; 3 of 4 "
        "pictures have objects in several splits, so that training shows pictures of the others; `data validate` sets "
        "such training records aside"
    )


def test_objects_that_no_list_numbers_are_unlisted(tmp_path: Path) -> None:
    source = write_rsvg(tmp_path / "in")
    for split in ("train", "val"):
        (source / f"{split}.txt").unlink()
    assert list(splits(source, tmp_path / "out").values()) == [
        *("unlisted", "test", "unlisted", "unlisted"),
        *("test", "unlisted", "unlisted", "test"),
    ]


def test_numbered_objects_need_a_description(tmp_path: Path) -> None:
    source = write_rsvg(tmp_path / "in")
    path = source / "Annotations" / "00005.xml"
    path.write_text(path.read_text().replace("<description>the shed</description>", "", 1))
    outcome = run_convert("voc", source, tmp_path / "out")
    assert [row.example.split for row in outcome.rows][2:4] == ["train", "test"]
    assert outcome.reasons == {1: "object 1: description: expected one, as in DIOR-RSVG, found none"}


@pytest.mark.parametrize("change", ["absent", "added", "torn"])
def test_lists_of_other_objects_are_refused(change: str, tmp_path: Path) -> None:
    source = write_rsvg(tmp_path / "in")
    path = source / "Annotations" / "00005.xml"
    reason = r"test.txt, train.txt, val.txt: expected numbers of the .* found numbers up to 7; give all XML files"
    if change == "absent":
        path.unlink()
    elif change == "added":
        write(source / "Annotations" / "00006.xml", path.read_text())
    else:
        path.write_text("<annotation>")
        reason = (
            r"Annotations/00005.xml: expected an XML file, whose objects test.txt, train.txt, val.txt number, found:"
        )
    with pytest.raises(DataError, match=reason):
        run_convert("voc", source, tmp_path / "out")


@pytest.mark.parametrize("described", [True, False])
def test_numbers_that_are_names_of_files_name_them(described: bool, tmp_path: Path) -> None:
    source = write_rsvg(tmp_path / "in", "<description>a</description>" if described else "")
    for split, name in (("train", "00002\n10000\n"), ("val", "00005\n"), ("test", "00011\n")):
        write(source / f"{split}.txt", name)
    found = splits(source, tmp_path / "out")
    assert {name.split("/")[0]: split for name, split in found.items()} == {
        "00002": "train",
        "00005": "validation",
        "00011": "test",
        "10000": "train",
    }


def test_numbers_without_descriptions_name_files(tmp_path: Path) -> None:
    source = write_rsvg(tmp_path / "in", "")
    write(source / "train.txt", "10000\n20000\n30000\n")
    (source / "val.txt").unlink()
    (source / "test.txt").unlink()
    assert splits(source, tmp_path / "out")["10000/shed"] == "train"

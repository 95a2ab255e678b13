"""Conversion of captions in text files, and of RSICap and RSIEval."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.conversion import run_convert, write


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_lists_of_captions_and_of_image_names_are_joined(tmp_path: Path) -> None:
    source = tmp_path / "rsicd_precomp"
    touch(source, "rsicd_images/a.jpg", "rsicd_images/b.jpg")
    write(source / "train_caps.txt", "".join(f"caption {k} of an image .\n" for k in "abcde" + "vwxyz"))
    write(source / "train_filename.txt", "a.jpg\nb.jpg\n")
    write(source / "test_caps.txt", "a port .\na large port .\n \n")
    write(source / "test_filename.txt", "a.jpg\na.jpg\nb.jpg\n")
    outcome = run_convert("caption-files", source, tmp_path / "out")
    found = {(r.example.split, *r.example.images): (r.example.target, r.source_record) for r in outcome.rows}
    assert found == {
        ("test", "rsicd_images/a.jpg"): (("a port .", "a large port ."), 1),
        ("train", "rsicd_images/a.jpg"): (tuple(f"caption {k} of an image ." for k in "abcde"), 1),
        ("train", "rsicd_images/b.jpg"): (tuple(f"caption {k} of an image ." for k in "vwxyz"), 6),
    }
    assert {(r.example.task, r.example.dataset) for r in outcome.rows} == {("image_captioning", "rsicd_precomp")}
    assert (outcome.counts.passed_over, outcome.quarantine) == (1, [])


def test_lists_of_different_lengths_are_quarantined(tmp_path: Path) -> None:
    write(tmp_path / "in" / "train_caps.txt", "one\ntwo\nthree\n")
    write(tmp_path / "in" / "train_filename.txt", "a.jpg\nb.jpg\n")
    outcome = run_convert("caption-files", tmp_path / "in", tmp_path / "out")
    assert "expected one or five captions for each of 2 names in train_filename.txt, found 3" in outcome.reasons[1]


@pytest.mark.parametrize(
    ("text", "images", "task"),
    [
        ("test/a.txt", ("test/a.png",), "image_captioning"),
        ("test/a_caps.txt", ("test/a.jpg",), "image_captioning"),
        ("test/captions/a_caps.txt", ("test/images/a.png",), "image_captioning"),
        ("test/a_caps.txt", ("test/A/a.png", "test/B/a.png"), "change_captioning"),
        ("test/text/a.txt", ("test/im1/a.png", "test/im2/a.png"), "change_captioning"),
        ("test/a_caps.txt", ("test/a_before.png", "test/a_after.png"), "change_captioning"),
    ],
)
def test_text_files_beside_images_and_image_pairs(
    text: str, images: tuple[str, ...], task: str, tmp_path: Path
) -> None:
    touch(tmp_path / "in", *images)
    write(tmp_path / "in" / text, "Two sheds were built .\n\nTwo sheds were built .\nNew sheds .\n")
    (row,) = run_convert("caption-files", tmp_path / "in", tmp_path / "out").rows
    assert (row.example.images, row.example.task, row.example.split) == (images, task, "test")
    assert row.example.target == ("Two sheds were built .", "New sheds .")


def test_text_files_without_image_or_captions_are_quarantined_or_skipped(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.png", "b.png", "c.png", "d.png")
    write(tmp_path / "in" / "a.txt", "A shed .")
    write(tmp_path / "in" / "b.txt", "0 0.5 0.5 0.1 0.1")
    write(tmp_path / "in" / "c.txt", "\n")
    (tmp_path / "in" / "d.txt").write_bytes(b"caf\xe9")
    write(tmp_path / "in" / "none.txt", "A shed .")
    outcome = run_convert("caption-files", tmp_path / "in", tmp_path / "out")
    assert [row.example.id for row in outcome.rows] == ["a"]
    reasons = {item.source_file: item.reason for item in outcome.quarantine}
    assert "expected one caption per line, found '0 0.5" in reasons["b.txt"]
    assert "line 1: expected UTF-8 text" in reasons["d.txt"]
    assert "expected an image none.png" in reasons["none.txt"]
    assert outcome.counts.passed_over == 1


RSICAP = {
    "annotations": [
        {"image_id": "1", "filename": "a.png", "text_input": "Describe it.", "text_output": "A port with ships."},
        {"image_id": "2", "filename": "b.png", "text_output": "A road.", "reviewed": True},
        {"image_id": "3", "filename": "../b.png", "text_output": "A road."},
        {"image_id": "4", "filename": "d.png"},
    ]
}
RSIEVAL = {
    "annotations": [
        {
            "filename": "c.png",
            "caption": "A road and trees.",
            "qa_pairs": [
                {"question": "Are there trees?", "answer": "Yes", "type": "presence"},
                {"question": "", "answer": "Yes", "type": "presence"},
                {"question": "Which season?", "answer": "Summer"},
            ],
        }
    ]
}


def test_rsicap_and_rsieval(tmp_path: Path) -> None:
    source = tmp_path / "RSGPT"
    touch(source, "RSICap/images/a.png", "RSIEval/images/c.png")
    write(source / "RSICap" / "captions.json", RSICAP)
    write(source / "RSIEval" / "annotations.json", RSIEVAL)
    outcome = run_convert("rsicap", source, tmp_path / "out")
    found = [
        (r.example.dataset, r.example.task, r.example.question, r.example.target, r.example.split) for r in outcome.rows
    ]
    describe = "Please provide a detailed description of the picture."
    assert found == [
        ("RSICap", "image_captioning", "Describe it.", ("A port with ships.",), "train"),
        ("RSICap", "image_captioning", describe, ("A road.",), "train"),
        ("RSIEval", "image_captioning", describe, ("A road and trees.",), "test"),
        ("RSIEval", "vqa", "Are there trees?", "Yes", "test"),
        ("RSIEval", "vqa", "Which season?", "Summer", "test"),
    ]
    assert (outcome.rows[0].example.images, outcome.rows[3].extra) == (("RSICap/images/a.png",), {"type": "presence"})
    reasons = [item.reason for item in outcome.quarantine]
    assert ["below the image root" in reasons[0], "expected text_output" in reasons[1]] == [True, True]
    assert "qa_pairs, number 2: prompt: expected a question" in reasons[2]
    assert outcome.counts.unread == {"reviewed": 1}

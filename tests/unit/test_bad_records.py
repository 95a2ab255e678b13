"""Records that cannot be used: set aside before a run and during it, replaced, listed, and limited in number."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box, Example
from geovlm_ray.data.bad_records import SHOWN, BadRecord, BadRecords
from geovlm_ray.data.config import DataConfig
from geovlm_ray.data.images import load_image
from geovlm_ray.data.sampler import REPLACEMENT_OFFSET, PromptSampler, RecordStream, SceneStream
from geovlm_ray.data.sources import open_stream
from geovlm_ray.data.validation.before_training import RecordReport, check_stream
from tests.unit.datasets import example, write_dataset, write_image

BOXES = Example("b", "object_detection", ("a.png",), "Where are ships?", (Box((10, 20, 30, 40)),), dataset="harbours")
ORIGIN = "part-00000.parquet, row {}"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for name in ("a.png", "b.png"):
        write_image(folder / name, ord(name[0]))
    return folder


def opened(folder: Path, records: list[Example], images: Path, max_bad: float = 0.5, shards: int = 1) -> RecordStream:
    write_dataset(folder, records, shards=shards, root=str(images))
    stream = open_stream(DataConfig(source="parquet", path=str(folder), max_bad=max_bad))
    assert isinstance(stream, RecordStream)
    return stream


def shown(example: Example) -> None:
    for image in example.images:
        load_image(image)


def check(stream: RecordStream, images: int = 100, held_out: int = 0) -> RecordReport:
    return check_stream(stream, stream.tasks, stream.held_out(stream.tasks, held_out), shown, images=images)


def test_image_of_another_split_gives_a_warning(images: Path, tmp_path: Path) -> None:
    records = [example(0, ("a.png",)), example(1, ("b.png",)), example(2, ("b.png",), split="test")]
    stream = opened(tmp_path / "data", records, images)
    (line,) = check(stream).lines
    assert "an image is also in a split that is not trained on" in line
    assert "1 records, first: part-00000.parquet, row 1 and part-00000.parquet, row 2" in line
    assert not stream.bad


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (example(1, ("a.png",), question="<|image_pad|>?"), "control token '<|image_pad|>'"),
        (example(1, ("a.png",), question=" "), "question: expected text"),
        (example(1), "images: expected at least one"),
        (example(1, ("a.png",), task="scene_classification", target=()), "expected text, found none"),
        (replace(BOXES, target=(Box((101, 20, 300, 40)),)), "box 1, '101, 20, 300, 40': expected at least 50% of its"),
        (replace(BOXES, target=(Box((10, 20, 10, 40)),)), "box 1, .* expected finite coordinates and a positive area"),
        (replace(BOXES, target=(Box((10, 20, 30, 40)),), frame=Frame("pixel", 9, 9)), "'9 x 9', found 0%"),
        (example(1, ("a.png",), task="dreaming"), "task: expected one of"),
        (example(1, ("a.png",), target="</answer><answer>"), "tags"),
        (example(1, ("absent.png",)), "absent.png: expected a file, found none"),
    ],
)
def test_bad_record_is_set_aside_before_training(bad: Example, reason: str, images: Path, tmp_path: Path) -> None:
    held_out = example(3, ("b.png",), split="test")
    labels = example(4, ("a.png",), task="scene_classification", target=("port",))
    good = [example(2, ("a.png",)), held_out, labels, replace(BOXES, id="r5")]
    stream = opened(tmp_path / "data", [example(0, ("a.png",)), bad, *good], images)
    check(stream)
    (found,) = stream.bad
    assert (found.origin, found.id, found.step) == (ORIGIN.format(1), bad.id, 0)
    with pytest.raises(DataError, match=reason):
        raise DataError(found.reason)
    used = {prompt.example.id for k in range(30) for prompt in PromptSampler(stream, stream.config, 4).batch(k)}
    assert used == {"r0", "r2", "r4", "r5"}


def test_values_of_all_records_are_checked_but_only_some_images_are_decoded(images: Path, tmp_path: Path) -> None:
    records = [example(k, ("absent.png",)) for k in range(40)]
    stream = opened(tmp_path / "data", records, images, max_bad=0.9)
    assert check(stream, images=0).checked == 40
    assert len(stream.bad) == 0
    with pytest.raises(
        DataError, match=r"expected at most 90\.00% bad records \(data\.max_bad\), found 4 of 4: record"
    ):
        check(stream, images=4)
    assert len(stream.bad) == 0


def test_too_many_bad_records_are_one_error_that_names_the_first(images: Path, tmp_path: Path) -> None:
    records = [example(k, ("a.png",), question="<|im_end|>" if k % 2 else "How many?") for k in range(20)]
    stream = opened(tmp_path / "data", records, images, max_bad=0.1)
    with pytest.raises(DataError) as error:
        check(stream)
    text = str(error.value)
    assert text.startswith(f"{tmp_path / 'data'}: expected at most 10.00% bad records (data.max_bad), found 10 of 20: ")
    assert [f"record 'r{k}' ({ORIGIN.format(k)}): expected plain text" in text for k in (1, 3, 5, 7)] == [True] * 3 + [
        False
    ]
    assert text.endswith("; and 7 more")


def test_bad_held_out_example_is_left_out(images: Path, tmp_path: Path) -> None:
    records = [example(0, ("a.png",)), *(example(k, ("b.png",), split="test") for k in range(1, 4))]
    stream = opened(tmp_path / "data", [*records, example(9, ("absent.png",), split="test")], images)
    before = stream.held_out(("vqa",), 9)
    check(stream, held_out=9)
    assert [found.id for found in stream.bad] == ["r9"]
    assert stream.held_out(("vqa",), 9) == [held_out for held_out in before if held_out.id != "r9"]


def test_warnings_are_counted_with_the_first_record(images: Path, tmp_path: Path) -> None:
    records = [
        example(0, ("a.png",), question="<image> How many?"),
        replace(BOXES, frame=Frame("pixel", 200, 100)),
        replace(BOXES, id="c", frame=Frame("pixel", 96, 96)),
    ]
    first, second = ORIGIN.format(0), ORIGIN.format(1)
    assert check(opened(tmp_path / "data", records, images)).lines == [
        f"Warning: image placeholder in the question: 1 records, first: {first}: <image>",
        f"Warning: pixel frame differs from the image size: 1 records, first: {second}: 200 x 100, found 96 x 96",
    ]


def test_of_many_records_evenly_spaced_ones_are_checked(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geovlm_ray.data.validation.before_training.MAX_RECORDS", 10)
    stream = opened(tmp_path / "data", [example(k, ("a.png",)) for k in range(91)], images, shards=3)
    report = check(stream)
    assert report.lines == ["Values of 10 of 91 records checked, evenly spaced."]


def test_scene_that_cannot_be_used_is_an_error() -> None:
    def fails(example: Example) -> None:
        raise DataError("too long")

    with pytest.raises(DataError, match=r"^record 'vqa-[\w-]+': too long$"):
        check_stream(SceneStream(0), ["vqa"], [], fails, images=0)


@pytest.fixture
def stream(images: Path, tmp_path: Path) -> RecordStream:
    """Twelve records of two tasks, with ids that are not unique."""
    records = [example(k // 2, ("a.png",), question=f"Number {k}?") for k in range(8)]
    records += [replace(BOXES, question=f"Number {k}?") for k in range(4)]
    return opened(tmp_path / "data", records, images, max_bad=0.9)


def questions(sampler: PromptSampler, steps: int = 12) -> list[list[str]]:
    return [[f"{p.example.task} {p.example.question}" for p in sampler.batch(step)] for step in range(steps)]


def test_sequence_does_not_depend_on_when_a_record_is_found_to_be_bad(stream: RecordStream) -> None:
    sampler = PromptSampler(stream, stream.config, 4)
    untouched = questions(sampler)
    bad = [sampler.batch(0)[0].example, sampler.batch(1)[1].example]
    found = []
    for step in range(12):
        prompts = sampler.batch(step)
        while unusable := [k for k, prompt in enumerate(prompts) if prompt.example in bad]:
            prompts = [sampler.set_aside(p, "broken") if k in unusable else p for k, p in enumerate(prompts)]
        assert [prompt.group_id for prompt in prompts] == list(range(4 * step, 4 * step + 4))
        found.append([f"{p.example.task} {p.example.question}" for p in prompts])
    known = open_stream(stream.config)
    for each in bad:
        known.set_aside(each, "broken")
    assert questions(PromptSampler(known, stream.config, 4)) == found == questions(sampler)
    names = {f"{each.task} {each.question}" for each in bad}
    changed = [(a, b) for x, y in zip(untouched, found, strict=True) for a, b in zip(x, y, strict=True) if a != b]
    assert changed
    assert all(a in names and b not in names and a.split()[0] == b.split()[0] for a, b in changed)


def test_replacement_of_a_group_is_replaced_under_its_own_id(stream: RecordStream) -> None:
    sampler = PromptSampler(stream, stream.config, 4)
    replacement = sampler.replacement(sampler.prompt(5), 1)
    redrawn = sampler.set_aside(replacement, "broken")
    assert redrawn.group_id == replacement.group_id == REPLACEMENT_OFFSET + 5
    assert redrawn.example != replacement.example
    assert sampler.replacement(sampler.prompt(5), 1) == redrawn
    assert [found.step for found in stream.bad] == [2]


@pytest.mark.parametrize("max_bad", [0.01, 0.5])
def test_record_that_its_format_cannot_read_is_set_aside(max_bad: float, tmp_path: Path) -> None:
    good = {"task": "vqa", "images": ["a.png"], "prompt": "what ?", "reference": "word"}
    lines = [json.dumps({**good, "id": f"r{k}", "reference": 7 if k == 1 else "word"}) for k in range(3)]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    config = DataConfig(source="samples", path=str(tmp_path / "data.jsonl"), max_bad=max_bad)
    named = f"{config.path}, record 2: target of vqa: expected a string, found 7"
    if max_bad == 0.01:
        with pytest.raises(DataError) as error:
            open_stream(config)
        assert str(error.value).endswith(f"(data.max_bad), found 1 of 3: {named}")
    else:
        assert [str(found) for found in open_stream(config).bad] == [named]


def test_task_without_a_good_record_is_an_error(stream: RecordStream) -> None:
    for k in range(4):
        stream.set_aside(stream.of_task("object_detection", k), "broken")
    with pytest.raises(DataError, match="all 4 records of task 'object_detection' are set aside"):
        stream.of_task("object_detection", 0)
    assert stream.of_task("vqa", 0).task == "vqa"


def test_task_without_a_good_record_is_an_error_before_a_run(images: Path, tmp_path: Path) -> None:
    stream = opened(tmp_path / "data", [example(0, ("a.png",)), replace(BOXES, question=" ")], images)
    with pytest.raises(DataError, match="all 1 records of task 'object_detection' are set aside"):
        check(stream)


def test_unreadable_record_is_set_aside_when_it_is_sampled(images: Path, tmp_path: Path) -> None:
    stream = opened(tmp_path / "data", [example(0, ("a.png",)), example(1, ("a.png",), dialect="runes")], images)
    assert {stream.of_task("vqa", k).id for k in range(8)} == {"r0"}
    (found,) = stream.bad
    assert str(found).startswith(f"record 'r1' ({ORIGIN.format(1)}): dialect: expected one of")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (example(1, ("a.png",), question="<|im_end|> How many?"), "control token"),
        (replace(BOXES, id="r1", target=(Box((110, 20, 130, 40)),)), "of its area inside the image"),
        (replace(BOXES, id="r1", target=(Box((10, 20, 10, 40)),)), "positive area"),
    ],
)
def test_record_that_was_not_checked_before_a_run_is_set_aside_when_it_is_sampled(
    bad: Example, reason: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geovlm_ray.data.validation.before_training.MAX_RECORDS", 2)
    good = replace(bad, id="r0", question="How many?", target=BOXES.target if bad.task != "vqa" else bad.target)
    stream = opened(tmp_path / "data", [good, bad, replace(good, id="r2")], images)
    assert check(stream, images=0).checked == 2
    assert {stream.of_task(bad.task, k).id for k in range(6)} == {"r0", "r2"}
    (found,) = stream.bad
    assert (found.origin, found.id) == (ORIGIN.format(1), "r1")
    assert reason in found.reason


def test_torn_first_line_of_the_list_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "bad_records.jsonl"
    file.write_text('{"origin": "part-0')
    for number in range(2):
        bad = BadRecords("data", 10, 0.5)
        bad.keep_in(file)
        bad.add([bad_record(number)])
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == ["r0", "r1"]


def bad_record(k: int) -> BadRecord:
    return BadRecord(ORIGIN.format(k), f"r{k}", "broken", step=k)


def test_bad_records_are_listed_and_known_when_a_run_resumes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "bad_records.jsonl"
    first = BadRecords("data", 100, 0.5)
    first.add([bad_record(0)])
    first.keep_in(file)
    first.add([bad_record(1), bad_record(0), bad_record(2)])
    with file.open("a") as torn:
        torn.write('{"origin": "part-0')
    resumed = BadRecords("data", 100, 0.5)
    resumed.add([bad_record(3)])
    resumed.keep_in(file)
    assert list(resumed) == [bad_record(k) for k in (0, 1, 2, 3)]
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == ["r0", "r1", "r2", "r3"]
    assert resumed.summary == (
        f"4 of 100 records (4.00%) are set aside, first: record 'r0' ({ORIGIN.format(0)}): broken; all of them: {file}"
    )
    *set_aside, torn_line = [record.message for record in caplog.records]
    assert set_aside == [f"set aside {bad_record(k)}" for k in (1, 2)]
    assert torn_line.startswith(f"{file}, line 4 is incomplete")


def test_terminal_shows_the_first_records_of_a_run_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "geovlm_ray")
    bad = BadRecords("data", 100, 0.5)
    bad.keep_in(tmp_path / "bad.jsonl")
    bad.add(map(bad_record, range(SHOWN + 5)))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * SHOWN + ["INFO"] * 5


def test_run_ends_above_the_largest_fraction_of_bad_records(tmp_path: Path) -> None:
    bad = BadRecords("data", 40, 0.05)
    bad.keep_in(tmp_path / "bad.jsonl")
    bad.add(map(bad_record, range(2)))
    with pytest.raises(DataError, match=r"at most 5\.00% bad records \(data\.max_bad\), found 3 of 40: record"):
        bad.add([bad_record(2)])
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 3
    with pytest.raises(DataError, match="found 3 of 40"):
        BadRecords("data", 40, 0.05).keep_in(tmp_path / "bad.jsonl")
    BadRecords("data", 40, 0.1).keep_in(tmp_path / "bad.jsonl")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[]", "line 1: expected a JSON object"),
        ('{"origin": 1, "id": "a", "reason": ""}', "line 1: origin: expected str"),
    ],
)
def test_damaged_list_is_named_with_its_line(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(f"{line}\n")
    with pytest.raises(DataError, match=rf"bad\.jsonl, {message}"):
        BadRecords("data", 40, 0.5).keep_in(tmp_path / "bad.jsonl")


def test_origin_is_relative_to_what_all_datasets_share(images: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_dataset(tmp_path / "data" / name, [example(k, ("a.png",)) for k in range(3)], shards=2, root=str(images))
    shutil.move(tmp_path / "data", tmp_path / "moved")
    stream = open_stream(DataConfig(source="parquet", path=str(tmp_path / "moved")))
    assert isinstance(stream, RecordStream)
    assert [stream.table.origin(i) for i in (0, 1, 2, 5)] == [
        "one/part-00000.parquet, row 0",
        "one/part-00000.parquet, row 1",
        "one/part-00001.parquet, row 0",
        "two/part-00001.parquet, row 0",
    ]
    assert stream.example(1).origin == "one/part-00000.parquet, row 1"

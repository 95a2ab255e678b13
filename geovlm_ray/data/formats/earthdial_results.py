"""EarthDial's result files (hiyamdebary/EarthDial, src/earthdial/eval/<folder>/results/*.jsonl): questions, the model's
answers, and the references, which become the records. They name no images.

The folder says what a file holds, in ``rs_change_detection`` the name of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example, target_texts
from geovlm_ray.data.formats.base import Format, Source, Unit, field_of
from geovlm_ray.data.formats.leftover import leftover, rendered_answer, rendered_prompt, restored, write_records
from geovlm_ray.data.formats.prompts import example_of, task_of
from geovlm_ray.data.formats.streams import json_records, source_files
from geovlm_ray.data.table import Row
from geovlm_ray.tasks import TASKS

CAPTIONS = tuple(f"caption{i}" for i in range(5))
CHANGE_FOLDER = "rs_change_detection"
LAYOUTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "rs_classification": ("scene_classification", ("annotation",)),
    "rs_vqa": ("vqa", ("annotation",)),
    "rs_detection": ("referred_object_detection", ("gt_bbox",)),
    "rs_region_captioning": ("region_captioning", ("annotation",)),
    "rs_image_caption": ("image_captioning", CAPTIONS),
    "rs_grounding_description": ("grounded_description", ("groundtruth",)),
}
"""Task and keys of the references of each folder; where the task judges alike, the prompt's wording refines it."""
CHANGE_TASKS = {
    "change_captioning": ("caption", "dubai", "levir", "muds", "sysu"),
    "referred_object_detection": ("detection",),
    "temporal_classification": ("fmow", "cls", "testset", "classification"),
}
"""What the name of a file of `CHANGE_FOLDER` holds for its task."""


def units(source: Source) -> Iterator[Unit]:
    """Every line of every file."""
    for path in source_files(source, (".jsonl",)):
        yield from json_records(path, source)


def convert(unit: Unit, source: Source) -> Iterable[Row]:
    """The record of a line, if it has a reference."""
    task, keys = layout(unit.file, _folder(source))
    record = unit.value
    prompt = field_of(record, "question")
    answers = [text for text in (field_of(record, key) for key in keys) if text.strip()]
    if not answers:
        return
    worded = task_of(prompt, answers[0], prompt.count("<image>"))
    example = example_of(
        f"{unit.file}:{unit.number}",
        prompt,
        answers,
        (),
        dataset=PurePosixPath(unit.file).stem,
        split="test",
        task=worded if TASKS[worded].target_kind == TASKS[task].target_kind else task,
    )
    yield Row(example, extra=leftover(record, _rendered(example, keys)))


def layout(file: str, folder: str) -> tuple[str, tuple[str, ...]]:
    """Task and keys of the references of a file; ``folder`` is the one of files that lie in none of their own.

    Raises:
        DataError: there is no such folder, or the name does not say what the file holds.
    """
    path = PurePosixPath(file)
    folder = _known(path.parent.parts) or folder
    if folder in LAYOUTS:
        return LAYOUTS[folder]
    if folder != CHANGE_FOLDER:
        known = ", ".join([*LAYOUTS, CHANGE_FOLDER])
        raise DataError(f"folder {folder!r}: expected one of {known}; or give folder=NAME")
    for task, words in CHANGE_TASKS.items():
        if any(word in path.stem.lower() for word in words):
            return task, CAPTIONS
    known = ", ".join(word for words in CHANGE_TASKS.values() for word in words)
    raise DataError(f"file {path.name!r} of {CHANGE_FOLDER}: expected a name that holds one of {known}")


def header(source: Source) -> Mapping[str, Any]:
    """The folder of files that lie at the source's top."""
    return {"folder": _folder(source)}


def restore(rows: Iterator[Row], header: Mapping[str, Any], out: Path) -> None:
    """Write the lines back, but those that were passed over."""
    write_records(out, ((row.source_file, _restored(row, str(header.get("folder", "")))) for row in rows))


def _folder(source: Source) -> str:
    above = source.folder.resolve()
    return source.options.get("folder") or _known(above.parts) or above.name


def _known(folders: Sequence[str]) -> str:
    """The innermost folder that is one of EarthDial's; none: an empty text."""
    return next((name for name in reversed(folders) if name in LAYOUTS or name == CHANGE_FOLDER), "")


def _rendered(example: Example, keys: tuple[str, ...]) -> dict[str, Any]:
    several = TASKS[example.task].target_kind == "captions"
    texts = target_texts(example.target) if several else (rendered_answer(example),)
    references = {key: texts[i] if i < len(texts) else "" for i, key in enumerate(keys)}
    return {"question": rendered_prompt(example, 1)} | references


def _restored(row: Row, folder: str) -> dict[str, Any]:
    _, keys = layout(row.source_file, folder)
    return restored(_rendered(row.example, keys), row.extra)


EARTHDIAL_RESULTS = Format(
    "EarthDial's result files: JSON lines, one file or the folder of evaluation folders; folder=NAME for a file alone",
    units,
    convert,
    options={"folder": ""},
    header=header,
    restore=restore,
)

"""EarthDial's result files (hiyamdebary/EarthDial, src/earthdial/eval/<folder>/results/*.jsonl): questions, model
answers and references. Their questions and references become records, without images.

The folder determines the task of a file; in ``rs_change_detection``, the file name does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example, target_texts
from geovlm_ray.data.formats.base import Format, Source, Unit, field_of
from geovlm_ray.data.formats.prompts import example_of, task_of
from geovlm_ray.data.formats.roundtrip import extra_fields, render_answer, render_prompt, restore_record, write_records
from geovlm_ray.data.formats.streams import json_units
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
"""Task and reference keys by folder; the prompt's wording may select another task with the same kind of target."""
CHANGE_TASKS = {
    "change_captioning": ("caption", "dubai", "levir", "muds", "sysu"),
    "referred_object_detection": ("detection",),
    "temporal_classification": ("fmow", "cls", "testset", "classification"),
}
"""Words in the names of files in `CHANGE_FOLDER` by task."""


def convert(unit: Unit, source: Source) -> Iterable[Row]:
    """The record of a line; none if it has no reference."""
    task, keys = layout(unit.file, _folder(source))
    record = unit.value
    prompt = field_of(record, "question")
    answers = [text for text in (field_of(record, key) for key in keys) if text.strip()]
    if not answers:
        return
    prompt_task = task_of(prompt, answers[0], prompt.count("<image>"))
    example = example_of(
        f"{unit.file}:{unit.number}",
        prompt,
        answers,
        (),
        dataset=PurePosixPath(unit.file).stem,
        split="test",
        task=prompt_task if TASKS[prompt_task].target_kind == TASKS[task].target_kind else task,
    )
    yield Row(example, extra=extra_fields(record, _rendered(example, keys)))


def layout(file: str, folder: str) -> tuple[str, tuple[str, ...]]:
    """Task and reference keys of a file; ``folder`` applies to files outside EarthDial's evaluation folders.

    Raises:
        DataError: the folder is unknown, or the file name does not determine the task.
    """
    path = PurePosixPath(file)
    folder = _known_folder(path.parent.parts) or folder
    if folder in LAYOUTS:
        return LAYOUTS[folder]
    if folder != CHANGE_FOLDER:
        known = ", ".join([*LAYOUTS, CHANGE_FOLDER])
        raise DataError(f"folder {folder!r}: expected one of {known}; or set folder=NAME")
    for task, words in CHANGE_TASKS.items():
        if any(word in path.stem.lower() for word in words):
            return task, CAPTIONS
    known = ", ".join(word for words in CHANGE_TASKS.values() for word in words)
    raise DataError(f"file {path.name!r} of {CHANGE_FOLDER}: expected a name with one of {known}")


def header(source: Source) -> Mapping[str, Any]:
    """The evaluation folder of files at the top level of the source."""
    return {"folder": _folder(source)}


def restore(rows: Iterator[Row], header: Mapping[str, Any], out: Path) -> None:
    """Write the lines back, except skipped ones."""

    def restored(row: Row) -> dict[str, Any]:
        _, keys = layout(row.source_file, str(header.get("folder", "")))
        return restore_record(_rendered(row.example, keys), row.extra)

    write_records(out, ((row.source_file, restored(row)) for row in rows))


def _folder(source: Source) -> str:
    folder = source.folder.resolve()
    return source.options.get("folder") or _known_folder(folder.parts) or folder.name


def _known_folder(folders: Sequence[str]) -> str:
    """The innermost of EarthDial's evaluation folders in a path; empty if there is none."""
    return next((name for name in reversed(folders) if name in LAYOUTS or name == CHANGE_FOLDER), "")


def _rendered(example: Example, keys: tuple[str, ...]) -> dict[str, Any]:
    has_captions = TASKS[example.task].target_kind == "captions"
    texts = target_texts(example.target) if has_captions else (render_answer(example),)
    references = {key: texts[i] if i < len(texts) else "" for i, key in enumerate(keys)}
    return {"question": render_prompt(example, 1)} | references


EARTHDIAL_RESULTS = Format(
    "EarthDial's result files: JSON lines, one file or the folder of evaluation folders; folder=NAME for a single file",
    partial(json_units, endings=(".jsonl",)),
    convert,
    options={"folder": ""},
    header=header,
    restore=restore,
)

"""Lossless write-back of records: keep the source fields that the typed columns do not reproduce, and restore them."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example, target_boxes, target_texts
from geovlm_ray.tasks import TASKS

ABSENT = "(absent)"
"""Key in `Row.extra` for the names of rendered fields that the source record lacks."""

_JSON = (".json", ".jsonl")
_LEADING_TOKENS = re.compile(r"(?:\[[a-zA-Z][\w.]*\] ?)*")


def extra_fields(record: Mapping[str, Any], rendered: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a record that its rendering does not reproduce, for `restore_record`."""
    extra = {key: value for key, value in record.items() if key not in rendered or rendered[key] != value}
    absent = [key for key in rendered if key not in record]
    return extra | {ABSENT: absent} if absent else extra


def restore_record(rendered: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """The source record, from its rendering and its `extra_fields`."""
    absent = (ABSENT, *extra.get(ABSENT, ()))
    return {key: value for key, value in (*rendered.items(), *extra.items()) if key not in absent}


def render_prompt(example: Example, images: int) -> str:
    """An example's question as EarthDial writes most prompts: tokens, placeholders, literal ``\\n``, question."""
    if not images:
        return example.question
    match = _LEADING_TOKENS.match(example.question)
    tokens = match[0] if match else ""
    return f"{tokens}{'<image> ' * images}\\n {example.question[len(tokens) :]}"


def render_answer(example: Example) -> str:
    """An example's target as EarthDial writes it; the first of several captions."""
    if TASKS[example.task].target_kind == "boxes":
        boxes = target_boxes(example.target)
        return "".join(f"[[{', '.join(f'{v:g}' for v in box.coords)}]]" for box in boxes) or "[]"
    texts = target_texts(example.target)
    return ", ".join(texts) if example.task == "multilabel_classification" else texts[0]


def write_records(out: Path, records: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Write records, given with the names of their source files and grouped by them.

    If ``out`` ends in ``.json`` (an array) or ``.jsonl`` (lines), all records go into that file. Else each source file
    gets a file of its name below ``out``, with ``.jsonl`` appended if its name does not end in either.

    Raises:
        DataError: a source file name leaves ``out``.
    """
    if out.suffix in _JSON:
        _write(out, (record for _, record in records))
        return
    for name, group in itertools.groupby(records, key=lambda item: item[0]):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise DataError(f"source_file: expected a name below the source, found {name!r}")
        path = out / name
        path = path if path.suffix in _JSON else path.with_name(f"{path.name}.jsonl")
        _write(path, (record for _, record in group))


def _write(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    opening, separator, closing = ("[\n", ",\n", "\n]\n") if path.suffix == ".json" else ("", "\n", "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(opening)
        for i, record in enumerate(records):
            file.write((separator if i else "") + json.dumps(record, ensure_ascii=False))
        file.write(closing)
    partial.replace(path)

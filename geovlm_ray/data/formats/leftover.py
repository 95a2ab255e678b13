"""Writing records back without loss: what the typed columns do not reproduce of a source, and how it returns."""

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
"""Key in `Row.extra` of the names of rendered fields that the source did not have."""

_JSON = (".json", ".jsonl")
_LEADING_TOKENS = re.compile(r"(?:\[[a-zA-Z][\w.]*\] ?)*")


def leftover(record: Mapping[str, Any], rendered: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a record that its rendering does not reproduce; `restored` puts them back."""
    extra = {key: value for key, value in record.items() if key not in rendered or rendered[key] != value}
    absent = [key for key in rendered if key not in record]
    return extra | {ABSENT: absent} if absent else extra


def restored(rendered: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """The record that `leftover` was taken of."""
    absent = (ABSENT, *extra.get(ABSENT, ()))
    return {key: value for key, value in (*rendered.items(), *extra.items()) if key not in absent}


def rendered_prompt(example: Example, images: int) -> str:
    """An example's question as EarthDial writes most prompts: tokens, placeholders, literal backslash and n, words."""
    if not images:
        return example.question
    found = _LEADING_TOKENS.match(example.question)
    tokens = found[0] if found else ""
    return f"{tokens}{'<image> ' * images}\\n {example.question[len(tokens) :]}"


def rendered_answer(example: Example) -> str:
    """An example's target as EarthDial writes it; of several captions the first."""
    if TASKS[example.task].target_kind == "boxes":
        boxes = target_boxes(example.target)
        return "".join(f"[[{', '.join(f'{v:g}' for v in box.coords)}]]" for box in boxes) or "[]"
    texts = target_texts(example.target)
    return ", ".join(texts) if example.task == "multilabel_classification" else texts[0]


def write_records(out: Path, records: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Write records, each given with the name of its source file, whose records come one after the other.

    They go into one file where ``out`` ends in ``.json`` (an array) or ``.jsonl`` (lines), else into files of those
    names below ``out``, which get ``.jsonl`` at their end where they were not JSON.

    Raises:
        DataError: a name leads out of ``out``.
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
    first, between, last = ("[\n", ",\n", "\n]\n") if path.suffix == ".json" else ("", "\n", "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(first)
        for i, record in enumerate(records):
            file.write((between if i else "") + json.dumps(record, ensure_ascii=False))
        file.write(last)
    partial.replace(path)

"""Records of chats and questions about one image with a pale shed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box, Example
from tests.unit.conversion import Conversion, run_convert, write_json, write_scene

SHED = Box((60.0, 40.0, 120.0, 80.0))
PIXELS = Frame("pixel", 200.0, 160.0)


def messages(question: Any, answer: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def convert(folder: Path, records: list[dict[str, Any]], name: str = "chat", **options: str) -> Conversion:
    """Convert records about the image a.png, of 200 x 160 pixels."""
    write_scene(folder / "in" / "a.png")
    return run_convert(name, write_json(folder / "in" / "records.jsonl", records), folder / "out", **options)


def only(outcome: Conversion) -> Example:
    assert outcome.quarantine == []
    (row,) = outcome.rows
    return row.example

"""Chosen completions of a run with their images, boxes and reward components, as HTML."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from geovlm_ray.data.images import load_image
from geovlm_ray.data.records import frame_from_json, pixels_from_json, target_from_json
from geovlm_ray.errors import DataError
from geovlm_ray.geometry import Frame
from geovlm_ray.report.boxes import PREDICTED_COLOUR, TRUE_COLOUR, draw_boxes
from geovlm_ray.report.page import data_uri, fitted
from geovlm_ray.schema import Box, GroundedText, Target, target_boxes
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.boxes import parse_boxes
from geovlm_ray.tasks.grammar import parse_response

PICTURE_PIXELS = 320
SHOWN_SAMPLES = 3
Row = dict[str, Any]


def gallery(rollouts: Path) -> str:
    """Groups of the first, middle and last step: one for every task in each."""
    files = sorted(rollouts.glob("step-*.parquet"))
    if not files:
        return "<p>No completions yet.</p>"
    chosen = dict.fromkeys((files[0], files[len(files) // 2], files[-1]))
    return "".join(_step(file) for file in chosen)


def _step(file: Path) -> str:
    groups: dict[int, list[Row]] = {}
    for row in _read(file):
        groups.setdefault(row["group_id"], []).append(row)
    by_task: dict[str, list[Row]] = {}
    for rows in groups.values():
        by_task.setdefault(rows[0]["task"], rows)
    step = int(file.stem.removeprefix("step-"))
    return f"<h3>Step {step}</h3>" + "".join(_group(rows) for rows in by_task.values())


def _read(file: Path) -> list[Row]:
    try:
        return pq.read_table(file).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: expected completions as Parquet, found: {' '.join(str(error).split())}") from error


def _group(rows: list[Row]) -> str:
    first = rows[0]
    target = target_from_json(first["task"], json.loads(first["target"]))
    frame = frame_from_json(json.loads(first["frame"]))
    ranked = sorted(rows, key=lambda r: -r["reward"])
    shown = [ranked[i] for i in sorted({0, len(ranked) // 2, len(ranked) - 1})][:SHOWN_SAMPLES]
    cards = "".join(_sample(row, target, frame) for row in shown)
    return (
        f'<section class="group"><h4>{_e(first["task"])} <small>{_e(first["example_id"])}</small></h4>'
        f"<p><b>Question</b> {_e(first['question'])}<br><b>Reference</b> {_e(_reference(target))}</p>"
        f'<div class="samples">{cards}</div></section>'
    )


def _sample(row: Row, target: Target, frame: Frame) -> str:
    pictures = _pictures(row, target, frame)
    parts = {"format": row["format"], "accuracy": row["accuracy"], **json.loads(row["components"])}
    cells = "".join(f"<tr><td>{_e(name)}</td><td>{value:.3f}</td></tr>" for name, value in parts.items())
    status = "" if row["status"] == "ok" else f" · {_e(row['status'])}"
    return (
        f'<div class="sample"><div class="pictures">{pictures}</div><code>{_e(row["completion"])}</code>'
        f"<p>reward <b>{row['reward']:.3f}</b> · advantage {row['advantage']:+.2f} · "
        f"weights v{row['weight_version']}{status}</p>"
        f"<details><summary>reward components</summary><table>{cells}</table></details></div>"
    )


def _pictures(row: Row, target: Target, frame: Frame) -> str:
    """All images of the prompt; true and predicted boxes stand on the last one, which shows the present state."""
    pixels = pixels_from_json(json.loads(row["pixels"]))
    images = [fitted(load_image(reference, pixels), PICTURE_PIXELS) for reference in row["images"]]
    truth, predicted = target_boxes(target), _predicted_boxes(row, target)
    images[-1] = draw_boxes(images[-1], truth, frame, TRUE_COLOUR)
    images[-1] = draw_boxes(images[-1], predicted, frame, PREDICTED_COLOUR)
    return "".join(f'<img alt="" src="{data_uri(image)}">' for image in images)


def _predicted_boxes(row: Row, target: Target) -> list[Box]:
    if TASKS[row["task"]].target_kind not in ("boxes", "grounded"):
        return []
    parsed = parse_response(row["completion"]) or parse_response(row["completion"], "none")
    found = parse_boxes(parsed.answer, row["dialect"]) if parsed else None
    return (
        [Box(c, label) for c, label in zip(found.boxes, found.labels, strict=True) if len(c) in (4, 5)] if found else []
    )


def _reference(target: Target) -> str:
    if isinstance(target, GroundedText):
        return f"{target.text} {_boxes_text(target.boxes)}"
    if isinstance(target, str):
        return target
    boxes = target_boxes(target)
    return _boxes_text(boxes) if boxes else " | ".join(map(str, target))


def _boxes_text(boxes: Sequence[Box]) -> str:
    return ", ".join("[" + ", ".join(f"{c:g}" for c in b.coords) + "]" for b in boxes)


def _e(text: str) -> str:
    return html.escape(str(text))

"""HTML gallery of selected completions of a run with images, boxes and reward components."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from geovlm_ray.core.errors import DataError
from geovlm_ray.report.answers import images_html, reference_text, row_target

SHOWN_SAMPLES = 3
SampleRow = dict[str, Any]


def gallery(rollouts: Path) -> str:
    """The groups of the first, middle and last step, one per task."""
    files = sorted(rollouts.glob("step-*.parquet"))
    if not files:
        return "<p>No completions yet.</p>"
    selected = dict.fromkeys((files[0], files[len(files) // 2], files[-1]))
    return "".join(_step(file) for file in selected)


def _step(file: Path) -> str:
    groups: dict[int, list[SampleRow]] = {}
    for row in _read(file):
        groups.setdefault(row["group_id"], []).append(row)
    by_task: dict[str, list[SampleRow]] = {}
    for rows in groups.values():
        by_task.setdefault(rows[0]["task"], rows)
    step = int(file.stem.removeprefix("step-"))
    return f"<h3>Step {step}</h3>" + "".join(_group(rows) for rows in by_task.values())


def _read(file: Path) -> list[SampleRow]:
    try:
        return pq.read_table(file).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: expected completions as Parquet, found: {' '.join(str(error).split())}") from error


def _group(rows: list[SampleRow]) -> str:
    first = rows[0]
    ranked = sorted(rows, key=lambda r: -r["reward"])
    shown = [ranked[i] for i in sorted({0, len(ranked) // 2, len(ranked) - 1})][:SHOWN_SAMPLES]
    cards = "".join(_sample(row) for row in shown)
    return (
        f'<section class="group"><h4>{_e(first["task"])} <small>{_e(first["example_id"])}</small></h4>'
        f"<p><b>Question</b> {_e(first['question'])}<br><b>Reference</b> {_e(reference_text(row_target(first)))}</p>"
        f'<div class="samples">{cards}</div></section>'
    )


def _sample(row: SampleRow) -> str:
    parts = {"format": row["format"], "accuracy": row["accuracy"], **json.loads(row["components"])}
    cells = "".join(f"<tr><td>{_e(name)}</td><td>{value:.3f}</td></tr>" for name, value in parts.items())
    status = "" if row["status"] == "ok" else f" · {_e(row['status'])}"
    return (
        f'<div class="sample"><div class="pictures">{images_html(row)}</div><code>{_e(row["completion"])}</code>'
        f"<p>reward <b>{row['reward']:.3f}</b> · advantage {row['advantage']:+.2f} · "
        f"weights v{row['weight_version']}{status}</p>"
        f"<details><summary>reward components</summary><table>{cells}</table></details></div>"
    )


def _e(text: str) -> str:
    return html.escape(str(text))

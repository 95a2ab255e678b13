"""``results.html``: metrics, scores by slice, and the worst predictions of each benchmark with their images."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from geovlm_ray.core.files import write_atomically
from geovlm_ray.evaluation.predictions import PredictionRow, Predictions
from geovlm_ray.evaluation.results import Results
from geovlm_ray.evaluation.tables import SCALE, SETS, benchmark_lines, html_table, lines
from geovlm_ray.report.answers import images_html, reference_text, row_target
from geovlm_ray.report.boxes import PREDICTED_COLOUR, TRUE_COLOUR
from geovlm_ray.report.page import page

WORST = 6
"""Predictions shown per benchmark."""
STYLE = """
.results :is(td, th):is(:nth-child(2), :nth-child(n+5)) { text-align: right; white-space: nowrap; }
.results tr.first td { border-top: 2px solid var(--soft); font-weight: 600; }
.cases { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: .8rem; }
.case { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .7rem; }
.case p { margin: .4rem 0; } .case code { max-height: 12em; overflow: auto; }
.pictures { display: flex; gap: 4px; } .pictures img { min-width: 0; flex: 1; max-width: 100%; border-radius: 4px; }
.bar { display: inline-block; height: .7em; background: #64748b; vertical-align: middle; }
.slices { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 1rem; align-items: start; }
"""


def write_page(results: Results, folder: Path) -> Path:
    """Write the page of an evaluation into its folder and return its path.

    Raises:
        DataError: the image of a shown prediction no longer exists.
    """
    sets = _items(SETS)
    body = [
        f"<h1>{html.escape(results.model)} <small>evaluation</small></h1>",
        f"<p>{SCALE} Intervals are bootstrapped over records.</p><ul>{sets}</ul>",
        html_table(results, [line for line in lines(results) if line.benchmark or any(line.published)]),
        f"<h2>Not evaluated</h2><ul>{_items(results.absent)}</ul>" if results.absent else "",
        f"<h2>Skipped and quarantined records</h2><ul>{_items(results.left_out)}</ul>" if results.left_out else "",
        "<h2>Benchmarks</h2><p class='note'>All metrics, the score by subset, and the lowest-scoring predictions "
        "(ties in benchmark order). "
        f'<span class="key" style="border-color:{TRUE_COLOUR}"></span> true boxes, '
        f'<span class="key" style="border-color:{PREDICTED_COLOUR}"></span> predicted boxes.</p>',
    ]
    for name in results.benchmarks:
        rows = Predictions(folder / "predictions", name).rows()
        body.append(_benchmark(results, name, rows))
    target = folder / "results.html"
    write_atomically(target, page(f"{results.model}: evaluation", "".join(body), STYLE))
    return target


def _items(texts: Mapping[str, str]) -> str:
    return "".join(f"<li><b>{html.escape(name)}</b>: {html.escape(text)}</li>" for name, text in texts.items())


def _benchmark(results: Results, name: str, rows: Sequence[PredictionRow]) -> str:
    result = results.benchmarks[name]
    worst = sorted((row for row in rows if row["score"] < 1), key=lambda row: row["score"])[:WORST]
    perfect = sum(row["score"] >= 1 for row in rows)
    return (
        f"<h3>{html.escape(result.title)} <small>{html.escape(name)} · {html.escape(result.task)} · {result.n:,} "
        f"records, {perfect:,} with a perfect score</small></h3>"
        f"<details><summary>all metrics</summary>{html_table(results, benchmark_lines(results, name))}</details>"
        f'<div class="slices">{"".join(_slice_table(*item) for item in result.slices.items())}</div>'
        f'<div class="cases">{"".join(map(_prediction, worst))}</div>'
    )


def _slice_table(dimension: str, slices: Mapping[str, Mapping[str, float]]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{part['n']:,.0f}</td>"
        f"<td>{100 * part['value']:.1f} <small>({100 * part['low']:.1f} to {100 * part['high']:.1f})</small></td>"
        f'<td><span class="bar" style="width:{100 * part["value"]:.0f}px"></span></td></tr>'
        for name, part in slices.items()
    )
    return f"<table><tr><th>{html.escape(dimension)}</th><th>records</th><th>score</th><th></th></tr>{rows}</table>"


def _prediction(row: PredictionRow) -> str:
    return (
        f'<div class="case"><div class="pictures">{images_html(row)}</div>'
        f"<p><b>Question</b> {html.escape(row['question'])}<br>"
        f"<b>Reference</b> {html.escape(reference_text(row_target(row)))}</p>"
        f"<code>{html.escape(row['completion'])}</code><p>score <b>{100 * row['score']:.1f}</b>{_status(row)} "
        f"<small>{html.escape(row['example_id'])}</small></p></div>"
    )


def _status(row: PredictionRow) -> str:
    return "" if row["status"] == "ok" else f" · {html.escape(row['status'])}"

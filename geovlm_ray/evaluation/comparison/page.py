"""HTML page of a comparison: settings, curves, test tables, and the examples with the largest score differences."""

from __future__ import annotations

from typing import Any

from geovlm_ray.core.errors import UNREADABLE, DataError
from geovlm_ray.core.files import read_object
from geovlm_ray.evaluation.comparison import tables
from geovlm_ray.evaluation.comparison.benchmarks import BenchmarkComparison, ComparedExample, PredictionRecord
from geovlm_ray.evaluation.comparison.compare import Comparison
from geovlm_ray.evaluation.comparison.rows import HIGHER, LOWER, TEST_COLUMNS
from geovlm_ray.report.answers import pictures, reference_text
from geovlm_ray.report.curves import Line, chart
from geovlm_ray.report.held_out import COLUMNS, held_out_results
from geovlm_ray.report.page import render

COLOURS = dict(
    zip("ABCDE", ("#2563eb", "#db2777", "#7c3aed", "#0891b2", "#ca8a04"), strict=True),
    **dict(zip("FGHIJ", ("#4b5563", "#65a30d", "#dc2626", "#92400e", "#0f766e"), strict=True)),
)


def comparison_page(comparison: Comparison) -> str:
    """The page as HTML with embedded images; raises DataError for an unreadable prediction record or summary."""
    summaries = {s.letter: read_object(s.folder / "summary.json") for s in comparison.sources if s.held_out}
    results = {letter: held_out_results(summary) for letter, summary in summaries.items()}
    return render(
        "comparison.html",
        comparison=comparison,
        names=", ".join(source.name for source in comparison.sources),
        colours=COLOURS,
        sources=[(source, tables.describe_source(source)) for source in comparison.sources],
        verdicts=tables.verdicts(comparison),
        method=tables.method_text(comparison),
        settings=tables.setting_tables(comparison),
        charts=[
            chart([Line(k, points, COLOURS[k]) for k, points in curve.points.items()], curve.title, curve.unit)
            for curve in comparison.curves
        ],
        test_columns=TEST_COLUMNS,
        held_out=comparison.held_out,
        held_out_columns=COLUMNS,
        before_and_after={letter: [row.cells for row in rows] for letter, rows in results.items() if rows},
        benchmarks=comparison.benchmarks,
        benchmark_notes=[*tables.unpaired_notes(comparison.benchmarks), *comparison.benchmark_notes],
        paper=tables.paper_table(comparison),
        examples=[(row, _examples(row)) for row in comparison.benchmarks],
    )


def _examples(pair: BenchmarkComparison) -> dict[str, list[dict[str, Any]]]:
    """Examples by direction of the score difference."""
    directions = {HIGHER: pair.higher, LOWER: pair.lower}
    return {verdict: list(map(_example, examples)) for verdict, examples in directions.items() if examples}


def _example(example: ComparedExample) -> dict[str, Any]:
    try:
        return {"first": _answer(example.first), "other": _answer(example.other)}
    except UNREADABLE as error:
        record = example.first.example_id
        raise DataError(f"predictions of record {record!r:.200} cannot be shown: {error!s:.500}") from error


def _answer(record: PredictionRecord) -> dict[str, Any]:
    """A prediction with its images, or why they cannot be shown: the machine of a comparison often lacks the data."""
    row = record.model_dump()
    answer = {**row, "reference": reference_text(row), "pictures": [], "missing": ""}
    try:
        return answer | {"pictures": pictures(row)}
    except DataError as error:
        return answer | {"missing": str(error)}

"""HTML page of a comparison: settings, curves, test tables, and the examples with the largest score differences."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.convert import UNREADABLE
from geovlm_ray.evaluation.comparison.benchmarks import BenchmarkRow, ComparedExample, PredictionRecord
from geovlm_ray.evaluation.comparison.compare import Comparison, Setting
from geovlm_ray.evaluation.comparison.sources import ComparedRun
from geovlm_ray.evaluation.comparison.tables import (
    HIGHER,
    LOWER,
    TEST_COLUMNS,
    UNCLEAR,
    ComparisonRow,
    benchmark_lines,
    describe_source,
    format_value,
    held_out_lines,
    method_text,
    paper_table,
    unpaired_notes,
    verdicts,
)
from geovlm_ray.report.answers import images_html, reference_text, row_target
from geovlm_ray.report.boxes import PREDICTED_COLOUR, TRUE_COLOUR
from geovlm_ray.report.curves import Line, chart
from geovlm_ray.report.page import page

COLOURS = dict(
    zip(
        "ABCDEFGHIJ",
        (
            *("#2563eb", "#db2777", "#7c3aed", "#0891b2", "#ca8a04"),
            *("#4b5563", "#65a30d", "#dc2626", "#92400e", "#0f766e"),
        ),
        strict=True,
    )
)
VERDICT_COLOURS = {HIGHER: "#15803d", LOWER: "#b91c1c", UNCLEAR: "#64748b"}
INTRODUCTION = (
    "Runs and evaluations side by side, identified by letters. The baseline of each test is the first one that has the "
    "tested data."
)
INTERVAL_NOTE = "The plot shows the difference and its interval relative to 0, in colour if significant."
HALF_WIDTH = 50
"""Half the width of an interval plot in pixels."""
STYLE = """
.sources { position: sticky; top: 0; z-index: 1; background: #fffffff2; padding: .5rem 0;
  border-bottom: 1px solid var(--line); }
.sources p { margin: .1rem 0; overflow-wrap: anywhere; }
.letter { display: inline-block; min-width: 1.3em; border-radius: 4px; color: white; text-align: center; }
.verdicts { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .6rem 1rem .6rem 2rem; }
.wide { overflow-x: auto; }
.wide :is(td, th) { white-space: nowrap; }
.wide td.text { white-space: normal; overflow-wrap: anywhere; max-width: 26rem; }
.tests :is(td, th) { padding: .25rem .55rem; } .tests .number { text-align: right; }
tr.first td { border-top: 2px solid var(--line); }
.cases { display: grid; grid-template-columns: repeat(auto-fill, minmax(480px, 1fr)); gap: .8rem; }
.case { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .7rem; }
.case p { margin: .3rem 0; overflow-wrap: anywhere; } .case code { max-height: 12em; overflow: auto; }
.answers { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem; } .answers > div { min-width: 0; }
.pictures { display: flex; gap: 4px; } .pictures img { min-width: 0; flex: 1; max-width: 100%; border-radius: 4px; }
h4 { margin: 1.2rem 0 .4rem; }
"""


def comparison_page(comparison: Comparison) -> str:
    """The page as HTML with embedded images.

    Raises:
        DataError: a shown prediction record cannot be read.
    """
    names = ", ".join(source.name for source in comparison.sources)
    body = [
        f"<h1>Comparison <small>of {_e(names)}</small></h1>",
        f'<div class="sources">{"".join(map(_source, comparison.sources))}</div>',
        f'<p class="note">{_e(INTRODUCTION)}</p>',
        "<h2>Summary</h2>"
        + _list(verdicts(comparison) or ["Nothing could be tested; the notes below say why."], "verdicts"),
        f"<details><summary>Method</summary><p>{_e(method_text(comparison))}</p></details>",
        "<h2>Configuration</h2>" + _settings(comparison),
        *_curves(comparison),
        *_held_out(comparison),
        *_benchmarks(comparison),
        *_examples(comparison),
    ]
    return page(f"Comparison of {names}", "".join(body), STYLE)


def _source(source: ComparedRun) -> str:
    return f"<p>{_letter(source.letter)} <b>{_e(source.name)}</b> <small>{_e(describe_source(source))}</small></p>"


def _letter(letter: str) -> str:
    return f'<span class="letter" style="background:{COLOURS[letter]}">{letter}</span>'


def _list(sentences: Sequence[str], kind: str = "note") -> str:
    return f'<ul class="{kind}">{"".join(f"<li>{_e(s)}</li>" for s in sentences)}</ul>' if sentences else ""


def _settings(comparison: Comparison) -> str:
    kinds = dict.fromkeys(setting.kind for setting in comparison.settings)
    if not kinds:
        return '<p class="note">No setting differs.</p>'
    tables = (_setting_table([s for s in comparison.settings if s.kind == kind]) for kind in kinds)
    return '<p class="note">Settings that differ; all others are identical.</p>' + "".join(tables)


def _setting_table(settings: Sequence[Setting]) -> str:
    rows = [(setting.key, *map(format_value, setting.values.values())) for setting in settings]
    return _table([f"settings of the {settings[0].kind}s", *settings[0].values], rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text; run letters in the header are coloured badges."""
    head = "".join(f"<th>{_letter(name) if name in COLOURS else _e(name)}</th>" for name in header)
    body = []
    for row in rows:
        first = ' class="first"' if row[0] else ""
        body.append(f"<tr{first}>" + "".join(f'<td class="text">{_e(cell)}</td>' for cell in row) + "</tr>")
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(body)}</table></div>'


def _curves(comparison: Comparison) -> Iterator[str]:
    if comparison.curves:
        yield "<h2>Training</h2>"
        yield '<p class="note">By step. Thin lines: values; thick lines: exponential moving averages.</p>'
        yield '<div class="charts">'
        for curve in comparison.curves:
            lines = [Line(letter, points, COLOURS[letter]) for letter, points in curve.points.items()]
            yield chart(lines, curve.title, curve.unit)
        yield "</div>"


def _held_out(comparison: Comparison) -> Iterator[str]:
    if comparison.heldout or comparison.heldout_notes:
        yield "<h2>Held-out records after training</h2>"
    if comparison.heldout:
        yield (
            '<p class="note">Mean reward of one completion per held-out record, sampled at the training temperature or '
            "greedy; higher is better. " + INTERVAL_NOTE + "</p>"
        )
        yield _tests(("task", "decoding"), held_out_lines(comparison.heldout))
    yield _list(comparison.heldout_notes)


def _benchmarks(comparison: Comparison) -> Iterator[str]:
    yield "<h2>Benchmarks</h2>"
    if comparison.benchmarks:
        yield (
            '<p class="note">Score in percent: mean accuracy of greedy answers under the default reward. '
            + INTERVAL_NOTE
            + "</p>"
        )
        yield _tests(("benchmark",), benchmark_lines(comparison.benchmarks))
    yield _list([*unpaired_notes(comparison.benchmarks), *comparison.benchmark_notes])
    if comparison.paper:
        header, rows = paper_table(comparison)
        yield "<h3>Published metrics</h3>"
        yield '<p class="note">In percent, as defined in the papers, over all records of each source; not tested.</p>'
        yield _table(header, rows)


def _tests(label_names: Sequence[str], lines: Sequence[ComparisonRow]) -> str:
    """A table of tests with interval plots on a common scale."""
    head = "".join(f"<th>{_e(name)}</th>" for name in label_names)
    head += "".join(f'<th class="number">{_e(name)}</th>' for name in TEST_COLUMNS[:-1])
    head += f"<th></th><th>{_e(TEST_COLUMNS[-1])}</th>"
    limit = max(abs(end) for line in lines for end in (line.test.difference.low, line.test.difference.high)) or 1.0
    rows, previous = [], ""
    for line in lines:
        first = "" if line.labels[0] == previous else ' class="first"'
        label_cells = "".join(f"<td>{_e(name)}</td>" for name in line.labels)
        records, other, against, *rest = line.cells[len(label_names) : -1]
        numbers = [_e(records), _letter_and_number(other), _letter_and_number(against), *map(_e, rest)]
        cells = "".join(f'<td class="number">{cell}</td>' for cell in numbers)
        verdict = f'<td style="color:{VERDICT_COLOURS[line.verdict]}">{_e(line.verdict)}</td>'
        rows.append(f"<tr{first}>{label_cells}{cells}<td>{_interval(line, limit)}</td>{verdict}</tr>")
        previous = line.labels[0]
    return f'<div class="wide"><table class="tests"><tr>{head}</tr>{"".join(rows)}</table></div>'


def _letter_and_number(cell: str) -> str:
    """A cell of a letter and a number, with the letter as a badge."""
    letter, number = cell.split(" ")
    return f"{_letter(letter)} {_e(number)}"


def _interval(line: ComparisonRow, limit: float) -> str:
    difference, colour = line.test.difference, VERDICT_COLOURS[line.verdict]
    low, value, high = (HALF_WIDTH * (1 + x / limit) for x in (difference.low, difference.value, difference.high))
    return (
        f'<svg width="{2 * HALF_WIDTH + 8}" height="14" viewBox="-4 0 {2 * HALF_WIDTH + 8} 14">'
        f'<path d="M{HALF_WIDTH} 0V14" stroke="#94a3b8"/><path d="M{low:.1f} 7H{high:.1f}" stroke="{colour}" '
        f'stroke-width="2"/><circle cx="{value:.1f}" cy="7" r="3.5" fill="{colour}"/></svg>'
    )


def _examples(comparison: Comparison) -> Iterator[str]:
    yield "<h2>Largest score differences</h2>"
    if not comparison.benchmarks:
        yield (
            '<p class="note">No examples: no two of these were evaluated on the same benchmark. Training completions '
            "answer different questions; see the report of each run.</p>"
        )
        return
    yield (
        '<p class="note">The records of each benchmark with the largest score differences in each direction; of equal '
        f'differences, the first records. <span class="key" style="border-color:{TRUE_COLOUR}"></span> true boxes, '
        f'<span class="key" style="border-color:{PREDICTED_COLOUR}"></span> predicted boxes, drawn on top.</p>'
    )
    for row in comparison.benchmarks:
        yield from _benchmark_examples(row)


def _benchmark_examples(row: BenchmarkRow) -> Iterator[str]:
    pair = row.comparison
    yield (
        f"<h3>{_e(pair.title)} <small>{_e(pair.benchmark)} · {_e(pair.task)}</small> {_letter(pair.first)} "
        f"{_letter(pair.other)}</h3>"
    )
    if not (pair.higher or pair.lower):
        yield f'<p class="note">All {pair.test.n:,} records score the same.</p>'
    for verdict, examples in ((HIGHER, pair.higher), (LOWER, pair.lower)):
        if examples:
            cards = "".join(_example(pair.first, pair.other, example) for example in examples)
            yield f'<h4>{pair.other} scores {verdict} than {pair.first}</h4><div class="cases">{cards}</div>'


def _example(first: str, other: str, example: ComparedExample) -> str:
    question, record = example.first.question, example.first.example_id
    try:
        reference = reference_text(row_target(example.first.model_dump()))
        answers = _prediction(first, example.first) + _prediction(other, example.other)
    except UNREADABLE as error:
        raise DataError(f"predictions of record {record!r:.200} cannot be shown: {error!s:.500}") from error
    return (
        f'<article class="case"><p><b>Question</b> {_e(question)}<br><b>Reference</b> {_e(reference)}<br>'
        f'<small>{_e(record)}</small></p><div class="answers">{answers}</div></article>'
    )


def _prediction(letter: str, record: PredictionRecord) -> str:
    status = "" if record.status == "ok" else f" · {_e(record.status)}"
    return (
        f"<div><p>{_letter(letter)} score <b>{100 * record.score:.1f}</b>{status}</p>"
        f'<div class="pictures">{_images(record)}</div><code>{_e(record.completion)}</code></div>'
    )


def _images(record: PredictionRecord) -> str:
    """The images, or why they cannot be shown: the machine of a comparison often lacks the data."""
    try:
        return images_html(record.model_dump())
    except DataError as error:
        return f'<p class="note">{_e(str(error))}</p>'


def _e(text: str) -> str:
    return html.escape(text)

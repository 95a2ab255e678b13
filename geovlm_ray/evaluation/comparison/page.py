"""The page of a comparison: what differs, the tables, the curves, and the cases that differ most, drawn."""

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
    TESTED,
    UNCLEAR,
    TestedLine,
    benchmark_lines,
    described,
    held_out_lines,
    method,
    paper_table,
    plain,
    unpaired,
    verdicts,
)
from geovlm_ray.report.answers import pictures, reference_text, row_target
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
    "What these runs and evaluations have in common, side by side. Each is called by its letter; tests are against the "
    "first one that has what is tested."
)
DRAWING = "Difference and interval are drawn beside 0, in colour where the difference is clear."
WIDE = 50
"""Pixels of half the drawing of an interval."""
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


def comparison_page(found: Comparison) -> str:
    """The page as HTML, with all pictures inside.

    Raises:
        DataError: a record of the predictions that is shown cannot be read.
    """
    names = ", ".join(source.name for source in found.sources)
    body = [
        f"<h1>Comparison <small>of {_e(names)}</small></h1>",
        f'<div class="sources">{"".join(map(_source, found.sources))}</div>',
        f'<p class="note">{_e(INTRODUCTION)}</p>',
        "<h2>In short</h2>" + _list(verdicts(found) or ["Nothing could be tested; see below why."], "verdicts"),
        f"<details><summary>How this is tested</summary><p>{_e(method(found))}</p></details>",
        "<h2>Configuration</h2>" + _settings(found),
        *_curves(found),
        *_held_out(found),
        *_benchmarks(found),
        *_cases(found),
    ]
    return page(f"Comparison of {names}", "".join(body), STYLE)


def _source(source: ComparedRun) -> str:
    return f"<p>{_letter(source.letter)} <b>{_e(source.name)}</b> <small>{_e(described(source))}</small></p>"


def _letter(letter: str) -> str:
    return f'<span class="letter" style="background:{COLOURS[letter]}">{letter}</span>'


def _list(sentences: Sequence[str], kind: str = "note") -> str:
    return f'<ul class="{kind}">{"".join(f"<li>{_e(s)}</li>" for s in sentences)}</ul>' if sentences else ""


def _settings(found: Comparison) -> str:
    kinds = dict.fromkeys(setting.kind for setting in found.settings)
    if not kinds:
        return '<p class="note">No setting differs.</p>'
    tables = (_setting_table([s for s in found.settings if s.kind == kind]) for kind in kinds)
    return '<p class="note">Settings that differ; all others are the same.</p>' + "".join(tables)


def _setting_table(settings: Sequence[Setting]) -> str:
    rows = [(setting.key, *map(plain, setting.values.values())) for setting in settings]
    return _table([f"settings of the {settings[0].kind}s", *settings[0].values], rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text; letters in the header are shown as such."""
    head = "".join(f"<th>{_letter(name) if name in COLOURS else _e(name)}</th>" for name in header)
    body = []
    for row in rows:
        first = ' class="first"' if row[0] else ""
        body.append(f"<tr{first}>" + "".join(f'<td class="text">{_e(cell)}</td>' for cell in row) + "</tr>")
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(body)}</table></div>'


def _curves(found: Comparison) -> Iterator[str]:
    if found.curves:
        yield "<h2>Training</h2>"
        yield '<p class="note">By step; thin lines are the values, thick ones their running mean.</p>'
        yield '<div class="charts">'
        for curve in found.curves:
            lines = [Line(letter, points, COLOURS[letter]) for letter, points in curve.points.items()]
            yield chart(lines, curve.title, curve.unit)
        yield "</div>"


def _held_out(found: Comparison) -> Iterator[str]:
    if found.heldout or found.heldout_notes:
        yield "<h2>Held-out records after training</h2>"
    if found.heldout:
        yield (
            '<p class="note">Mean reward of one completion a record, none of which was trained on; sampled at the '
            "training temperature, and greedy. A larger reward is better. " + DRAWING + "</p>"
        )
        yield _tests(("task", "decoding"), held_out_lines(found.heldout))
    yield _list(found.heldout_notes)


def _benchmarks(found: Comparison) -> Iterator[str]:
    yield "<h2>Benchmarks</h2>"
    if found.benchmarks:
        yield (
            '<p class="note">Score in percent: mean over records of the accuracy that the default reward gives to a '
            "greedy answer. " + DRAWING + "</p>"
        )
        yield _tests(("benchmark",), benchmark_lines(found.benchmarks))
    yield _list([*unpaired(found.benchmarks), *found.benchmark_notes])
    if found.paper:
        header, rows = paper_table(found)
        yield "<h3>Published metrics</h3>"
        yield '<p class="note">In percent, as the paper defines them, of all records that each has; not tested.</p>'
        yield _table(header, rows)


def _tests(what: Sequence[str], lines: Sequence[TestedLine]) -> str:
    """A table of tests; behind the intervals they are drawn, all on the same scale."""
    head = "".join(f"<th>{_e(name)}</th>" for name in what)
    head += "".join(f'<th class="number">{_e(name)}</th>' for name in TESTED[:-1])
    head += f"<th></th><th>{_e(TESTED[-1])}</th>"
    reach = max(abs(end) for line in lines for end in (line.test.difference.low, line.test.difference.high)) or 1.0
    rows, before = [], ""
    for line in lines:
        first = "" if line.what[0] == before else ' class="first"'
        labels = "".join(f"<td>{_e(name)}</td>" for name in line.what)
        records, other, against, *rest = line.cells[len(what) : -1]
        numbers = [_e(records), _lettered(other), _lettered(against), *map(_e, rest)]
        cells = "".join(f'<td class="number">{cell}</td>' for cell in numbers)
        verdict = f'<td style="color:{VERDICT_COLOURS[line.verdict]}">{_e(line.verdict)}</td>'
        rows.append(f"<tr{first}>{labels}{cells}<td>{_interval(line, reach)}</td>{verdict}</tr>")
        before = line.what[0]
    return f'<div class="wide"><table class="tests"><tr>{head}</tr>{"".join(rows)}</table></div>'


def _lettered(cell: str) -> str:
    """A letter and a number."""
    letter, number = cell.split(" ")
    return f"{_letter(letter)} {_e(number)}"


def _interval(line: TestedLine, reach: float) -> str:
    difference, colour = line.test.difference, VERDICT_COLOURS[line.verdict]
    low, value, high = (WIDE * (1 + x / reach) for x in (difference.low, difference.value, difference.high))
    return (
        f'<svg width="{2 * WIDE + 8}" height="14" viewBox="-4 0 {2 * WIDE + 8} 14">'
        f'<path d="M{WIDE} 0V14" stroke="#94a3b8"/><path d="M{low:.1f} 7H{high:.1f}" stroke="{colour}" '
        f'stroke-width="2"/><circle cx="{value:.1f}" cy="7" r="3.5" fill="{colour}"/></svg>'
    )


def _cases(found: Comparison) -> Iterator[str]:
    yield "<h2>Answers that differ most</h2>"
    if not found.benchmarks:
        yield (
            '<p class="note">None can be drawn, as no benchmark was answered by two of these. Completions of training '
            "are no answers to the same questions, and are shown in each run's report.</p>"
        )
        return
    yield (
        '<p class="note">Of each benchmark the records on which the scores differ most, either way, the '
        f'first ones of those that differ as much. <span class="key" style="border-color:{TRUE_COLOUR}"></span> true '
        f'boxes, <span class="key" style="border-color:{PREDICTED_COLOUR}"></span> predicted boxes, which hide a true '
        "one where they are the same.</p>"
    )
    for row in found.benchmarks:
        yield from _met(row)


def _met(row: BenchmarkRow) -> Iterator[str]:
    met = row.met
    yield (
        f"<h3>{_e(met.title)} <small>{_e(met.benchmark)} · {_e(met.task)}</small> {_letter(met.first)} "
        f"{_letter(met.other)}</h3>"
    )
    if not (met.higher or met.lower):
        yield f'<p class="note">All {met.test.n:,} records score the same.</p>'
    for verdict, cases in ((HIGHER, met.higher), (LOWER, met.lower)):
        if cases:
            cards = "".join(_case(met.first, met.other, case) for case in cases)
            yield f'<h4>{met.other} scores {verdict} than {met.first}</h4><div class="cases">{cards}</div>'


def _case(first: str, other: str, case: ComparedExample) -> str:
    question, record = case.first.question, case.first.example_id
    try:
        reference = reference_text(row_target(case.first.model_dump()))
        answers = _answer(first, case.first) + _answer(other, case.other)
    except UNREADABLE as error:
        raise DataError(f"predictions of record {record!r:.200} cannot be shown: {error!s:.500}") from error
    return (
        f'<article class="case"><p><b>Question</b> {_e(question)}<br><b>Reference</b> {_e(reference)}<br>'
        f'<small>{_e(record)}</small></p><div class="answers">{answers}</div></article>'
    )


def _answer(letter: str, answer: PredictionRecord) -> str:
    status = "" if answer.status == "ok" else f" · {_e(answer.status)}"
    return (
        f"<div><p>{_letter(letter)} score <b>{100 * answer.score:.1f}</b>{status}</p>"
        f'<div class="pictures">{_pictures(answer)}</div><code>{_e(answer.completion)}</code></div>'
    )


def _pictures(answer: PredictionRecord) -> str:
    """The images, or why they cannot be shown: a comparison is often made elsewhere than where the data is."""
    try:
        return pictures(answer.model_dump())
    except DataError as error:
        return f'<p class="note">{_e(str(error))}</p>'


def _e(text: str) -> str:
    return html.escape(text)

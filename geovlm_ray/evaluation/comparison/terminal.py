"""What is said of a comparison on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from geovlm_ray.evaluation.comparison.compare import Comparison
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
from geovlm_ray.report.inert_text import inert

STYLES = {HIGHER: "green", LOWER: "red", UNCLEAR: ""}


def print_comparison(found: Comparison, console: Console) -> None:
    """All tables, and in sentences what came out and what is not compared."""
    for source in found.sources:
        _say(console, f"{source.letter}  {source.name}  {described(source)}")
    for kind in dict.fromkeys(setting.kind for setting in found.settings):
        settings = [setting for setting in found.settings if setting.kind == kind]
        rows = [(s.key, *map(plain, s.values.values())) for s in settings]
        _print(console, f"settings of the {kind}s that differ", ["setting", *settings[0].values], rows)
    if found.heldout:
        _print_tests(
            console, "held-out records after training: mean reward", ("task", "decoding"), held_out_lines(found.heldout)
        )
    if found.benchmarks:
        lines = benchmark_lines(found.benchmarks)
        _print_tests(console, "benchmarks: mean score, percent", ("benchmark",), lines)
    if found.paper:
        header, rows = paper_table(found)
        _print(console, "published metrics, percent, not tested", header, rows)
    for sentence in (*unpaired(found.benchmarks), *found.heldout_notes, *found.benchmark_notes):
        _say(console, sentence)
    if found.heldout or found.benchmarks:
        _say(console, method(found))
    for sentence in verdicts(found):
        _say(console, sentence)


def _print_tests(console: Console, title: str, what: Sequence[str], lines: Sequence[TestedLine]) -> None:
    styles = [STYLES[line.verdict] for line in lines]
    _print(console, title, [*what, *TESTED], [line.cells for line in lines], styles)


def _print(
    console: Console, title: str, header: Sequence[str], rows: Iterable[Sequence[str]], styles: Sequence[str] = ()
) -> None:
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    for name in header:
        table.add_column(inert(name), overflow="fold")
    for n, row in enumerate(rows):
        table.add_row(*map(inert, row), style=styles[n] if styles else "")
    _say(console, title)
    console.print(table)


def _say(console: Console, sentence: str) -> None:
    console.print(inert(sentence), soft_wrap=True)

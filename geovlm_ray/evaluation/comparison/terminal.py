"""Terminal output of a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from geovlm_ray.evaluation.comparison.compare import Comparison
from geovlm_ray.evaluation.comparison.tables import (
    HIGHER,
    LOWER,
    TEST_COLUMNS,
    UNCLEAR,
    ComparisonRow,
    benchmark_lines,
    describe_source,
    held_out_lines,
    method_text,
    paper_table,
    setting_tables,
    unpaired_notes,
    verdicts,
)
from geovlm_ray.report.inert_text import inert, print_inert

STYLES = {HIGHER: "green", LOWER: "red", UNCLEAR: ""}


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print all tables, the results in sentences, and notes on what is not compared."""
    for source in comparison.sources:
        print_inert(console, f"{source.letter}  {source.name}  {describe_source(source)}")
    for (kind, *letters), rows in setting_tables(comparison):
        _print_table(console, f"differing {kind}", ["setting", *letters], rows)
    if comparison.heldout:
        _print_tests(
            console,
            "held-out records after training: mean reward",
            ("task", "decoding"),
            held_out_lines(comparison.heldout),
        )
    if comparison.benchmarks:
        lines = benchmark_lines(comparison.benchmarks)
        _print_tests(console, "benchmarks: mean score, percent", ("benchmark",), lines)
    if comparison.paper:
        header, rows = paper_table(comparison)
        _print_table(console, "published metrics, percent, not tested", header, rows)
    for sentence in (*unpaired_notes(comparison.benchmarks), *comparison.heldout_notes, *comparison.benchmark_notes):
        print_inert(console, sentence)
    if comparison.heldout or comparison.benchmarks:
        print_inert(console, method_text(comparison))
    for sentence in verdicts(comparison):
        print_inert(console, sentence)


def _print_tests(console: Console, title: str, labels: Sequence[str], lines: Sequence[ComparisonRow]) -> None:
    styles = [STYLES[line.verdict] for line in lines]
    _print_table(console, title, [*labels, *TEST_COLUMNS], [line.cells for line in lines], styles)


def _print_table(
    console: Console, title: str, header: Sequence[str], rows: Iterable[Sequence[str]], styles: Sequence[str] = ()
) -> None:
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    for name in header:
        table.add_column(inert(name), overflow="fold")
    for n, row in enumerate(rows):
        table.add_row(*map(inert, row), style=styles[n] if styles else "")
    print_inert(console, title)
    console.print(table)

"""Terminal output of a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from geovlm_ray.evaluation.comparison import tables
from geovlm_ray.evaluation.comparison.compare import Comparison
from geovlm_ray.evaluation.comparison.rows import HIGHER, LOWER, TEST_COLUMNS, PairedRow

STYLES = {HIGHER: "green", LOWER: "red"}


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print all tables, the results in sentences, and notes on what is not compared."""
    for source in comparison.sources:
        console.print(f"{source.letter}  {source.name}  {tables.describe_source(source)}")
    for (kind, *letters), rows in tables.setting_tables(comparison):
        _print_table(console, f"differing {kind}", ["setting", *letters], rows)
    held_out_title, benchmark_title = "held-out records after training: mean reward", "benchmarks: mean score, percent"
    _print_tests(console, held_out_title, ("task", "decoding"), comparison.held_out)
    _print_tests(console, benchmark_title, ("benchmark",), comparison.benchmarks)
    if comparison.paper:
        _print_table(console, "published metrics, percent, not tested", *tables.paper_table(comparison))
    notes = [*tables.unpaired_notes(comparison.benchmarks), *comparison.held_out_notes, *comparison.benchmark_notes]
    if comparison.held_out or comparison.benchmarks:
        notes.append(tables.method_text(comparison))
    for sentence in (*notes, *tables.verdicts(comparison)):
        console.print(sentence)


def _print_tests(console: Console, title: str, labels: Sequence[str], rows: Sequence[PairedRow]) -> None:
    if rows:
        styles = [STYLES.get(row.verdict, "") for row in rows]
        _print_table(console, title, [*labels, *TEST_COLUMNS], [row.cells for row in rows], styles)


def _print_table(
    console: Console, title: str, header: Sequence[str], rows: Iterable[Sequence[str]], styles: Sequence[str] = ()
) -> None:
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    for name in header:
        table.add_column(name, overflow="fold")
    for n, row in enumerate(rows):
        table.add_row(*row, style=styles[n] if styles else "")
    console.print(title)
    console.print(table)

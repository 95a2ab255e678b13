"""Terminal tables of dataset conversion, validation and statistics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from geovlm_ray.data.stats import SIZES, Histogram, Stats

if TYPE_CHECKING:
    from geovlm_ray.data.convert import Counts
    from geovlm_ray.data.validation.validate import ValidationReport

MAX_KEYS = 40
"""Maximum number of unread keys that are listed."""
MAX_ROWS = 12
"""Maximum rows of a list; the last row counts the remaining entries."""


def print_conversion(counts: Counts, examples: Mapping[str, str], console: Console) -> None:
    """Print records by task and split, and quarantined records by kind with an example each."""
    table = _table("task", "records")
    for task, n in sorted(counts.tasks.items()):
        _row(table, task, n)
    if table.rows:
        console.print(table)
        console.print("splits: " + ", ".join(f"{split} {n:,}" for split, n in sorted(counts.splits.items())))
    _print_findings("quarantine reason", counts.reasons, examples, console)
    for note in counts.notes:
        console.print(note)
    if counts.unread:
        keys = ", ".join(f"{key} ({n:,})" for key, n in counts.unread.most_common(MAX_KEYS))
        more = f", {len(counts.unread) - MAX_KEYS:,} more" if len(counts.unread) > MAX_KEYS else ""
        console.print(f"keys not used (records): {keys}{more}")
    totals = f"{counts.records:,} records, {counts.passed_over:,} skipped, {counts.set_aside:,} quarantined"
    console.print(totals)


def print_validation(report: ValidationReport, console: Console) -> None:
    """Print a class summary, warnings, and bad records by reason."""
    table = _table("dataset", "task", "classes", "most frequent", "least frequent")
    for (dataset, task), balance in sorted(report.balances.items()):
        ranked = balance.classes.ranked()
        if ranked:
            ends = (f"{name} ({n / max(balance.total, 1):.1%})" for name, n in (ranked[0], ranked[-1]))
            _row(table, dataset, task, len(ranked), *ends)
    if table.rows:
        console.print(table)
    _print_findings("warning", report.warnings.counts, report.warnings.examples, console)
    _print_findings("error", report.reasons.counts, report.reasons.examples, console)
    for shard, reason in report.unreadable.items():
        console.print(reason if str(shard) in reason else f"{shard}: {reason}")
    images = f"{report.images:,} images{f' ({report.absent:,} absent)' if report.absent else ''}"
    console.print(f"{report.records:,} records, {images}, {report.bad:,} bad ({report.bad_fraction:.2%})")


def print_stats(stats: Stats, console: Console) -> None:
    """Print tables of records, content, box sizes and classes."""
    table = _table("dataset", "split", "task", "records")
    for (dataset, split, task), n in sorted(stats.groups.items()):
        _row(table, dataset, split, task, n)
    console.print(table)
    table = _table("task", "images", "boxes", "question", "answer", "reasoning")
    for name, counted in sorted(stats.tasks.items()):
        histograms = (counted.images, counted.boxes, counted.questions, counted.answers)
        _row(table, name, *map(_mean_and_max, histograms), f"{counted.reasoned / counted.records:.1%}")
    console.print(table)
    legend = "per record, mean/maximum: images, boxes, words of question and answer; share of records with reasoning"
    console.print(legend)
    table = _table("boxes of", *(f"{name} < {limit:.0%}" if limit < 1 else name for name, limit in SIZES.items()))
    for name, counted in sorted(stats.tasks.items()):
        if counted.sizes:
            _row(table, name, *(counted.sizes[size] for size in SIZES))
    if table.rows:
        console.print(table)
        console.print("size classes by the share of the image area")
    table = _table("task", "classes", "most frequent")
    for name, counted in sorted(stats.tasks.items()):
        if counted.classes.names:
            first = ", ".join(f"{label} {n:,}" for label, n in counted.classes.ranked()[:MAX_ROWS])
            _row(table, name, len(counted.classes.names), first)
    console.print(table)
    for title, tally in (("sensor", stats.sensors), ("ground sampling distance", stats.gsd)):
        console.print(f"{title}: " + ", ".join(f"{name} {n:,}" for name, n in tally.ranked()[:MAX_ROWS]))
    console.print(f"{stats.records:,} records, {stats.set_aside:,} more quarantined by validation")


def first_examples(folder: Path) -> dict[str, str]:
    """Location and reason of the first quarantined record of each kind from a conversion."""
    from geovlm_ray.data.quarantine import read_quarantine

    examples: dict[str, str] = {}
    for item in read_quarantine(folder, "convert"):
        examples.setdefault(item.kind, f"{item.source_file}, record {item.source_record}: {item.reason}")
    return examples


def _print_findings(title: str, counts: Mapping[str, int], examples: Mapping[str, str], console: Console) -> None:
    if not counts:
        return
    table = _table(title, "count", "first example")
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    for kind, n in ranked[:MAX_ROWS]:
        _row(table, kind, n, examples.get(kind, "")[:300])
    if len(ranked) > MAX_ROWS:
        _row(table, f"{len(ranked) - MAX_ROWS} more", sum(n for _, n in ranked[MAX_ROWS:]), "")
    console.print(table)


def _mean_and_max(histogram: Histogram) -> str:
    summary = histogram.summary()
    return f"{summary['mean']:.1f}/{summary['largest']:g}" if summary else ""


def _table(*names: str) -> Table:
    table = Table()
    for name in names:
        is_number = name in ("records", "count")
        table.add_column(name, justify="right" if is_number else "left", overflow="fold", no_wrap=name == "task")
    return table


def _row(table: Table, *values: str | int) -> None:
    table.add_row(*(f"{v:,}" if isinstance(v, int) else v for v in values))

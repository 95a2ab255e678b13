"""Results beside the published figures, as a table: terminal, Markdown and HTML show the same rows."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from geovlm_ray.evaluation.metrics.bootstrap import Interval
from geovlm_ray.evaluation.results import Result, Results

SETS = {
    "score": "mean over records of the accuracy in [0, 100] that the default reward gives",
    "paper": "the published definitions",
    "sound": "what a reviewer would ask for",
    "reasoning": "how often it names what the answer says, and what the answer is without it or with another record's",
}


SCALE = "All figures are percent, or times 100 where they have no upper bound (CIDEr)."


@dataclass(frozen=True)
class Line:
    """A line of the table; all figures in percent. The first line of a benchmark says which it is."""

    benchmark: str
    n: str
    kind: str
    metric: str
    value: str
    interval: str
    published: tuple[str, ...]

    @property
    def cells(self) -> tuple[str, ...]:
        """All cells in order."""
        return (self.benchmark, self.n, self.kind, self.metric, self.value, self.interval, *self.published)


def models(results: Results) -> list[str]:
    """Whose figures are published for any of the benchmarks."""
    return list(dict.fromkeys(m for r in results.benchmarks.values() for who in r.published.values() for m in who))


def header(results: Results) -> list[str]:
    """Names of the columns."""
    return ["benchmark", "records", "set", "metric", "this model", "95% interval", *models(results)]


def lines(results: Results, whole: bool = True) -> list[Line]:
    """All lines; without ``whole`` those of object sizes, question types and the like are left out."""
    return [line for name in results.benchmarks for line in benchmark_lines(results, name, whole)]


def benchmark_lines(results: Results, name: str, whole: bool = True) -> list[Line]:
    """The lines of one benchmark."""
    return list(_lines(name, results.benchmarks[name], models(results), whole))


def _lines(name: str, result: Result, others: Sequence[str], whole: bool) -> Iterator[Line]:
    none = ("",) * len(others)
    yield Line(name, f"{result.n:,}", "score", "mean", *_shown(result.score), none)
    for metric in dict.fromkeys([*result.published, *result.paper]):
        said = result.published.get(metric, {})
        if whole or said or not _is_part(metric, result.paper):
            value = result.paper.get(metric)
            theirs = tuple(f"{said[who]:.2f}" if who in said else "" for who in others)
            yield Line("", "", "paper", metric, "" if value is None else f"{100 * value:.2f}", "", theirs)
    for metric, interval in result.sound.items():
        if whole or not _is_part(metric, result.sound):
            yield Line("", "", "sound", metric, *_shown(interval), none)
    for metric, found in result.reasoning.items():
        interval = Interval(found["value"], found["low"], found["high"])
        yield Line("", f"{found['n']:,}", "reasoning", metric, *_shown(interval), none)


def _shown(interval: Interval) -> tuple[str, str]:
    return f"{100 * interval.value:.2f}", f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"


def _is_part(metric: str, metrics: Mapping[str, object]) -> bool:
    """Whether a metric is that of a part of the records, such as ``F1@0.5 small``."""
    return any(metric.startswith(f"{other} ") for other in metrics)


def terminal_table(results: Results) -> Table:
    """The table for a terminal, without the lines of parts; names of benchmarks stand above their metrics."""
    table = Table(box=SIMPLE, pad_edge=False, collapse_padding=True)
    table.add_column("benchmark (records)", overflow="fold")
    table.add_column("set", no_wrap=True)
    for name in header(results)[4:]:
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines(results, whole=False):
        if line.benchmark:
            table.add_section()
        count = f" ({line.n})" if line.n else ""
        title = Text(f"{line.benchmark}{count}", style="bold") if line.benchmark else Text(f"  {line.metric}{count}")
        table.add_row(title, *map(Text, line.cells[2:3] + line.cells[4:]))
    return table


def markdown(results: Results) -> str:
    """The results as a Markdown document."""
    rows = [header(results), ["---"] * len(header(results)), *(line.cells for line in lines(results))]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    absent = "\n".join(f"- {name}: {why}" for name, why in results.absent.items())
    sets = "\n".join(f"- {name}: {meaning}" for name, meaning in SETS.items())
    missing = f"\n\nNot evaluated:\n\n{absent}" if absent else ""
    left_out = "\n".join(f"- {name}: {what}" for name, what in results.left_out.items())
    lacking = f"\n\nLeft out:\n\n{left_out}" if left_out else ""
    return f"# Evaluation of {results.model}\n\n{SCALE}\n\n{sets}\n\n{table}{missing}{lacking}\n"


def html_table(results: Results, rows: Sequence[Line]) -> str:
    """Some lines of the table as an HTML element."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header(results))
    body = []
    for line in rows:
        first = ' class="first"' if line.benchmark else ""
        body.append(f"<tr{first}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line.cells) + "</tr>")
    return f'<table class="results"><tr>{head}</tr>{"".join(body)}</table>'

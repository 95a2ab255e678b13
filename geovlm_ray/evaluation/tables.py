"""Tables of results and published results; terminal, Markdown and HTML share the same rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rich.box import SIMPLE
from rich.styled import Styled
from rich.table import Table

from geovlm_ray.evaluation.metrics.bootstrap import Interval
from geovlm_ray.evaluation.results import Results
from geovlm_ray.report.page import escape_markdown

SETS = {
    "score": "mean accuracy under the default reward",
    "paper": "the published definitions",
    "sound": "standard metrics of each task, with bootstrap intervals",
    "reasoning": "consistency with the answer, and the score when the reasoning is removed or swapped between records",
}


SCALE = "All values are in percent; CIDEr, which can exceed 1, is multiplied by 100."


@dataclass(frozen=True)
class TableRow:
    """A table row, values in percent; ``benchmark`` is empty in all but the first row of a benchmark."""

    benchmark: str
    n: str
    kind: str
    metric: str
    value: str
    interval: str
    published: tuple[str, ...]

    @property
    def cells(self) -> tuple[str, ...]:
        """All cells in column order."""
        return (self.benchmark, self.n, self.kind, self.metric, self.value, self.interval, *self.published)


def models(results: Results) -> list[str]:
    """Models with a published result on any of the benchmarks."""
    published = (values for result in results.benchmarks.values() for values in result.published.values())
    return list(dict.fromkeys(model for values in published for model in values))


def header(results: Results) -> list[str]:
    """Column names."""
    return ["benchmark", "records", "set", "metric", "this model", "95% interval", *models(results)]


def lines(results: Results, include_subsets: bool = True) -> list[TableRow]:
    """All rows, optionally without metrics of subsets (by object size, question type and the like)."""
    return [line for name in results.benchmarks for line in benchmark_lines(results, name, include_subsets)]


def benchmark_lines(results: Results, name: str, include_subsets: bool = True) -> Iterator[TableRow]:
    """The rows of one benchmark."""
    result, published_models = results.benchmarks[name], models(results)
    none = ("",) * len(published_models)
    yield TableRow(name, f"{result.n:,}", "score", "mean", *_formatted(result.score), none)
    for metric in dict.fromkeys([*result.published, *result.paper]):
        published = result.published.get(metric, {})
        if include_subsets or published or not _is_subset(metric, result.paper):
            value = result.paper.get(metric)
            cells = tuple(f"{published[model]:.2f}" if model in published else "" for model in published_models)
            yield TableRow("", "", "paper", metric, "" if value is None else f"{100 * value:.2f}", "", cells)
    for metric, interval in result.sound.items():
        if include_subsets or not _is_subset(metric, result.sound):
            yield TableRow("", "", "sound", metric, *_formatted(interval), none)
    for metric, values in result.reasoning.items():
        interval = Interval(values["value"], values["low"], values["high"])
        yield TableRow("", f"{values['n']:,.0f}", "reasoning", metric, *_formatted(interval), none)


def _formatted(interval: Interval) -> tuple[str, str]:
    return f"{100 * interval.value:.2f}", f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"


def _is_subset(metric: str, metrics: Mapping[str, object]) -> bool:
    """Whether a metric is computed on a subset of the records, such as ``F1@0.5 small``."""
    return any(metric.startswith(f"{other} ") for other in metrics)


def terminal_table(results: Results) -> Table:
    """The table for a terminal, without metrics of subsets; each benchmark name is a heading above its metrics."""
    table = Table(box=SIMPLE, pad_edge=False, collapse_padding=True)
    table.add_column("benchmark (records)", overflow="fold")
    table.add_column("set", no_wrap=True)
    for name in header(results)[4:]:
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines(results, include_subsets=False):
        if line.benchmark:
            table.add_section()
        count = f" ({line.n})" if line.n else ""
        title = Styled(f"{line.benchmark}{count}", "bold") if line.benchmark else f"  {line.metric}{count}"
        table.add_row(title, *line.cells[2:3], *line.cells[4:])
    return table


def markdown(results: Results) -> str:
    """The results as a Markdown document."""
    rows = [header(results), ["---"] * len(header(results)), *(line.cells for line in lines(results))]
    table = "\n".join("| " + " | ".join(map(escape_markdown, row)) + " |" for row in rows)
    parts = [f"# Evaluation of {escape_markdown(results.model)}", SCALE, _list(SETS), table]
    parts += ["Not evaluated:", _list(results.absent)] if results.absent else []
    parts += ["Skipped and quarantined records:", _list(results.left_out)] if results.left_out else []
    parts += ["Accepted changes:", "\n".join(f"- {change}" for change in results.changes)] if results.changes else []
    return "\n\n".join(parts) + "\n"


def _list(items: Mapping[str, str]) -> str:
    return "\n".join(f"- {escape_markdown(name)}: {escape_markdown(text)}" for name, text in items.items())

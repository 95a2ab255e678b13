"""The benchmarks as a list."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from geovlm_ray.evaluation.registry import ANY, BENCHMARKS, DRAWN, Benchmark


def print_benchmarks(console: Console) -> None:
    """The 28 with what is published and where their data is to be had, then the drawn ones."""
    for benchmark in BENCHMARKS.values():
        console.print(Text(benchmark.name, style="bold"), Text(f"({benchmark.title})"), soft_wrap=True)
        for line in _lines(benchmark):
            console.print(Text(f"    {line}"), soft_wrap=True)
    console.print(
        Text(
            f"\n{len(BENCHMARKS)} benchmarks; figures are percent, of GeoVLM-R1 (EarthDial). A benchmark's data lies "
            "in the folder of its name below --data, in the format named or as `geovlm-ray data convert` writes it.\n"
            f"Drawn scenes, which need no data: {', '.join(DRAWN)}"
        ),
        soft_wrap=True,
    )


def _lines(benchmark: Benchmark) -> Iterator[str]:
    split = "" if benchmark.split == ANY else f", split {benchmark.split}"
    yield f"{benchmark.task}{', zero-shot' if benchmark.zero_shot else ''}; format {benchmark.reader}{split}"
    shown = [
        f"{metric} {models['GeoVLM-R1']:.2f} ({models['EarthDial']:.2f})"
        for metric, models in benchmark.published.items()
    ]
    if shown:
        yield ", ".join(shown)
    yield f"{benchmark.source}; licence: {benchmark.licence}"
    if benchmark.note:
        yield benchmark.note

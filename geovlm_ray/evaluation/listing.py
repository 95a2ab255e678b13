"""Output of ``geovlm-ray evaluate --list``."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from geovlm_ray.evaluation.registry import ANY, BENCHMARKS, DRAWN, Benchmark


def print_benchmarks(console: Console) -> None:
    """Print the 28 benchmarks with published results and data sources, then the synthetic ones."""
    for benchmark in BENCHMARKS.values():
        console.print(Text(benchmark.name, style="bold"), f"({benchmark.title})")
        for line in _lines(benchmark):
            console.print(f"    {line}")
    console.print()
    console.print(
        f"{len(BENCHMARKS)} benchmarks; published results in percent: GeoVLM-R1 (EarthDial). --data has one "
        "folder per benchmark, of the same name, in the listed format or converted by `geovlm-ray data convert`."
    )
    console.print(f"Synthetic scenes, no data needed: {', '.join(DRAWN)}")


def _lines(benchmark: Benchmark) -> list[str]:
    split = "" if benchmark.split == ANY else f", split {benchmark.split}"
    data = f"{benchmark.task}{', zero-shot' if benchmark.zero_shot else ''}; format {benchmark.reader}{split}"
    published = benchmark.published.items()
    metrics = ", ".join(f"{name} {of['GeoVLM-R1']:.2f} ({of['EarthDial']:.2f})" for name, of in published)
    lines = [data, metrics, f"{benchmark.source}; licence: {benchmark.licence}", benchmark.note]
    return [line for line in lines if line]

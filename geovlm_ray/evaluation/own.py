"""Datasets of one's own as benchmarks, one a task."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.convert import CARD
from geovlm_ray.data.formats import FORMATS
from geovlm_ray.data.parquet import RecordTable, open_datasets
from geovlm_ray.evaluation.datasets import converted_once
from geovlm_ray.evaluation.model import OnProgress, converted
from geovlm_ray.evaluation.registry import ANY, BENCHMARKS, DRAWN, GROUPS, Benchmark

TEST = "test"
SAMPLES = "samples"


def check_paths(paths: Sequence[Path]) -> None:
    """Raise DataError where there is no dataset that can be a benchmark, or its name is taken."""
    taken = {*GROUPS, *BENCHMARKS, *DRAWN}
    for path in paths:
        if not (path / CARD).is_file() and not path.is_file():
            raise DataError(f"{path}: expected a folder of `geovlm-ray data convert` or a file of samples, found none")
        if path.stem in taken:
            raise DataError(f"{path}: expected a name of its own, found another benchmark {path.stem!r}; rename it")
        taken.add(path.stem)


def own_benchmarks(paths: Sequence[Path], out: Path, on_progress: OnProgress) -> list[Benchmark]:
    """A benchmark for each task of each dataset, of its split ``test`` where it has one.

    Args:
        paths: folders that ``data convert`` wrote, or files of the format ``samples``, which are converted first.
        out: folder of the evaluation.
        on_progress: is told how much is converted.

    Raises:
        DataError: one is neither, cannot be read, or has the name of another benchmark.
    """
    check_paths(paths)
    return [benchmark for path in paths for benchmark in _benchmarks(path, out, on_progress)]


def _benchmarks(path: Path, out: Path, on_progress: OnProgress) -> list[Benchmark]:
    told = partial(converted, on_progress, f"records of {path.name} converted")
    folder = converted_once(path.stem, SAMPLES, FORMATS[SAMPLES].options, path, out, told)
    table = RecordTable(open_datasets(folder))
    split = TEST if TEST in table.places("split") else ANY
    tasks = table.places("task")
    if not tasks:
        raise DataError(f"{path}: expected records with a reference, found none")
    return [
        Benchmark(
            name=f"{path.stem}-{task}",
            title=f"{path.name}: {task}",
            task=task,
            split=split,
            family=path.name,
            reader=SAMPLES,
            path=folder,
        )
        for task in tasks
    ]

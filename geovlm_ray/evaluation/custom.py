"""Custom datasets as benchmarks, one per task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.convert import CARD
from geovlm_ray.data.formats import FORMATS
from geovlm_ray.data.parquet import RecordTable, open_datasets
from geovlm_ray.evaluation.datasets import OnProgress, convert_once
from geovlm_ray.evaluation.registry import ANY, BENCHMARKS, DRAWN, GROUPS, Benchmark

TEST = "test"
SAMPLES = "samples"


def check_paths(paths: Sequence[Path]) -> None:
    """Check that every path can become a benchmark.

    Raises:
        DataError: a path is not a dataset, or its name is taken by another benchmark.
    """
    taken = {*GROUPS, *BENCHMARKS, *DRAWN}
    for path in paths:
        if not (path / CARD).is_file() and not path.is_file():
            raise DataError(f"{path}: expected a folder of `geovlm-ray data convert` or a samples file, found neither")
        if path.stem in taken:
            raise DataError(f"{path}: expected a unique name, found another benchmark {path.stem!r}; rename it")
        taken.add(path.stem)


def custom_benchmarks(paths: Sequence[Path], out: Path, on_progress: OnProgress) -> list[Benchmark]:
    """One benchmark per dataset and task, on the split ``test`` if the dataset has one, else on all records.

    Datasets are folders written by ``data convert``, or files in the format ``samples``, which are first converted
    below ``out``.

    Raises:
        DataError: a path is neither, cannot be read, or has the name of another benchmark.
    """
    check_paths(paths)
    return [benchmark for path in paths for benchmark in _benchmarks(path, out, on_progress)]


def _benchmarks(path: Path, out: Path, on_progress: OnProgress) -> list[Benchmark]:
    folder = convert_once(path.stem, SAMPLES, FORMATS[SAMPLES].options, path, out, on_progress)
    table = RecordTable(open_datasets(folder))
    split = TEST if TEST in table.indices_by("split") else ANY
    tasks = table.indices_by("task")
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
            origin=path,
        )
        for task in tasks
    ]

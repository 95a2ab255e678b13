"""Datasets of one's own as benchmarks, one a task."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from geovlm_ray.data.convert import CARD, Labels, convert
from geovlm_ray.data.formats import FORMATS
from geovlm_ray.data.formats.base import Source
from geovlm_ray.data.parquet import RecordTable, open_datasets
from geovlm_ray.errors import DataError
from geovlm_ray.evaluation.model import OnProgress, converted
from geovlm_ray.evaluation.registry import ANY, BENCHMARKS, DRAWN, GROUPS, Benchmark

TEST = "test"
SAMPLES = "samples"


def is_path(name: str) -> bool:
    """Whether a name of a benchmark is rather the path of a dataset; known names come first."""
    return name not in (*GROUPS, *BENCHMARKS, *DRAWN) and ("/" in name or Path(name).exists())


def own_benchmarks(path: Path, out: Path, on_progress: OnProgress) -> list[Benchmark]:
    """A benchmark for each task of a dataset, of its split ``test`` where it has one.

    Args:
        path: a folder that ``data convert`` wrote, or a file of the format ``samples``, which is converted first.
        out: folder of the evaluation.
        on_progress: is told how much is converted.

    Raises:
        DataError: it is neither, or cannot be read.
    """
    folder = path
    if not (path / CARD).is_file():
        if not path.is_file():
            raise DataError(f"{path}: expected a folder of `geovlm-ray data convert` or a file of samples, found none")
        folder = out / "data" / path.stem
        if not (folder / CARD).is_file():
            source = Source(path, path.parent, dict(FORMATS[SAMPLES].options))
            text = f"records of {path.name} converted"
            told = partial(converted, on_progress, text)
            convert(SAMPLES, source, folder, Labels(), workers=1, on_progress=told)
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

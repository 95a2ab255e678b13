"""A task of `benchmarks.data` in a separate process: prints its seconds and its peak memory in GB.

``python -m benchmarks.data_process convert|read PATH OUT``. The memory is the peak of the summed PSS of the process
and its children, sampled every half second. Only modules that the command line also uses are imported.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from pathlib import Path

import psutil

from geovlm_ray.data.config import DataConfig
from geovlm_ray.data.convert import MetadataOverrides, convert
from geovlm_ray.data.formats.base import Source
from geovlm_ray.data.sampler import PromptSampler
from geovlm_ray.data.sources import open_stream

INTERVAL_S = 0.5
READ = 20_000


class PeakMemory(threading.Thread):
    """Samples the memory of this process and its children until ``stopped`` is set."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self.stopped = threading.Event()

    def run(self) -> None:
        """Sample periodically."""
        parent = psutil.Process()
        while not self.stopped.wait(INTERVAL_S):
            total = 0
            for process in [parent, *parent.children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except psutil.NoSuchProcess:
                    continue
            self.peak = max(self.peak, total)


def convert_source(path: Path, out: Path, workers: int) -> None:
    """Convert a source file; an existing output folder is replaced."""
    shutil.rmtree(out, ignore_errors=True)
    source = Source(path, path.parent, {})
    counts = convert("geochat", source, out, MetadataOverrides(), workers=workers, on_progress=lambda counts: None)
    assert counts.set_aside == 0


def main(task: str, path: Path, out: Path) -> None:
    """Run one task."""
    memory = PeakMemory()
    memory.start()
    begun = time.perf_counter()
    if task == "convert":
        convert_source(path, out, os.cpu_count() or 1)
        duration = time.perf_counter() - begun
    else:
        config = DataConfig(source="parquet", path=str(path))
        sampler = PromptSampler(open_stream(config), config, 100)
        duration = time.perf_counter() - begun
        for step in range(READ // 100):
            sampler.batch(step)
    memory.stopped.set()
    memory.join()
    print(duration, memory.peak / 2**30)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))

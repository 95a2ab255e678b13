"""A piece of `benchmarks.data` in a process of its own: prints its seconds and its peak memory in GB.

``python -m benchmarks.data_process convert|read PATH OUT``. The memory is the largest sum over the process and its
children, by their unique and shared pages' share (PSS), looked at every half second. Nothing is imported here that the
command line would not import.
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

LOOKS_S = 0.5
READ = 20_000


class PeakMemory(threading.Thread):
    """Watches this process and its children until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self.stopped = threading.Event()

    def run(self) -> None:
        """Look again and again."""
        me = psutil.Process()
        while not self.stopped.wait(LOOKS_S):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except psutil.NoSuchProcess:
                    continue
            self.peak = max(self.peak, total)


def converted(source: Path, out: Path, workers: int) -> None:
    """Convert into a folder that is empty before."""
    shutil.rmtree(out, ignore_errors=True)
    given = Source(source, source.parent, {})
    counts = convert("geochat", given, out, MetadataOverrides(), workers=workers, on_progress=lambda counts: None)
    assert counts.set_aside == 0


def main(what: str, path: Path, out: Path) -> None:
    """Do one piece."""
    watch = PeakMemory()
    watch.start()
    begun = time.perf_counter()
    if what == "convert":
        converted(path, out, os.cpu_count() or 1)
        taken = time.perf_counter() - begun
    else:
        config = DataConfig(source="parquet", path=str(path))
        sampler = PromptSampler(open_stream(config), config, 100)
        taken = time.perf_counter() - begun
        for step in range(READ // 100):
            sampler.batch(step)
    watch.stopped.set()
    watch.join()
    print(taken, watch.peak / 2**30)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))

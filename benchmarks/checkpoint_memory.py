"""Host memory of starting a learner, of saving and of loading a checkpoint, as multiples of the model.

``python -m benchmarks.checkpoint_memory [--json OUT]`` (about 4 minutes). A model of the mid shape (180 MB in fp32) is
trained for one step by 1, 2 and 4 ranks that communicate by Gloo. For each phase, the peak of each process's own
memory (USS) is compared with what it holds after the phase, or, for saving, with what training held before.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import Figure, at_most, parser, publish
from benchmarks.made_up import scored_groups
from benchmarks.random_model import SHAPES, write_model
from geovlm_ray.config import load_config
from geovlm_ray.core.third_party_logs import silence_third_party_logs

RANKS = (1, 2, 4)
LIMITS = (1.3, 0.3)
"""Multiples of the model that rank 0, and every other rank, may take in addition."""
SAMPLE_S = 0.002


def main() -> int:
    """Measure and publish."""
    options = parser(__doc__ or "").parse_args()
    silence_third_party_logs()
    # Freed tensors go back to the system, so that they are not counted.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**18)
    with tempfile.TemporaryDirectory(prefix="geovlm-ray-bench-") as folder:
        model = Path(folder) / "model"
        write_model(model, SHAPES["small" if options.smoke else "mid"])
        figures = [figure for ranks in RANKS[: 2 if options.smoke else 3] for figure in on_ranks(ranks, model)]
    return publish("checkpoint_memory", figures, options)


def on_ranks(ranks: int, model: Path) -> list[Figure]:
    """The figures of rank 0 and of the largest of the others."""
    context, address = get_context("spawn"), free_address()
    results: Queue[tuple[int, dict[str, float]]] = context.Queue()
    folder = model.parent / f"checkpoint-{ranks}"
    folder.mkdir()
    processes = [
        context.Process(target=measure, args=(r, ranks, address, model, folder, results)) for r in range(ranks)
    ]
    for process in processes:
        process.start()
    measured = dict(results.get() for _ in processes)
    for process in processes:
        process.join()
    figures = []
    for phase in measured[0]:
        figures.append(at_most(f"{phase}, {ranks} ranks, rank 0 / model", measured[0][phase], LIMITS[0]))
        if ranks > 1:
            others = max(measured[rank][phase] for rank in range(1, ranks))
            figures.append(at_most(f"{phase}, {ranks} ranks, other ranks / model", others, LIMITS[1]))
    return figures


def measure(rank: int, ranks: int, address: str, model: Path, folder: Path, results: Queue[Any]) -> None:
    """Start, train a step, save and load on one rank; reports peaks in multiples of the model."""
    import torch.distributed as dist

    from geovlm_ray.learner.ranks import Ranks
    from geovlm_ray.training.local import make_learner

    silence_third_party_logs()
    size = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    config = load_config("demo", [f"model.path={model}", "learner.kl_beta=0", "learner.lr=1e-6"])
    joined, peaks = Ranks.join(rank, ranks, address), {}
    with peak_memory() as start:
        learner = make_learner(config, model, joined)
    peaks["start"] = start.peak - start.after
    learner.step(scored_groups(config, learner, groups=2, size=2, tokens=8))
    with peak_memory() as saving:
        learner.save(folder)
        wait_until(learner.saved)
    peaks["save"] = saving.peak - saving.before
    if ranks > 1:
        dist.barrier()
    with peak_memory() as loading:
        learner.load(folder)
    peaks["load"] = loading.peak - max(loading.before, loading.after)
    results.put((rank, {phase: peak / size for phase, peak in peaks.items()}))
    if ranks > 1:
        dist.barrier()
        dist.destroy_process_group()


class Memory:
    """This process's own memory in bytes: before, after, and the largest of samples in between."""

    before = after = peak = 0


@contextmanager
def peak_memory() -> Iterator[Memory]:
    """Sample the memory of this process while the context is open."""
    memory, process, ended = Memory(), psutil.Process(), threading.Event()
    memory.before = memory.peak = process.memory_full_info().uss

    def sample() -> None:
        while not ended.wait(SAMPLE_S):
            memory.peak = max(memory.peak, process.memory_full_info().uss)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield memory
    finally:
        ended.set()
        sampler.join()
        memory.after = process.memory_full_info().uss


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    while not condition():
        time.sleep(SAMPLE_S)


def free_address() -> str:
    """An address for a process group of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{free.getsockname()[1]}"


if __name__ == "__main__":
    sys.exit(main())

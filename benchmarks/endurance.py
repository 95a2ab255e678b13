"""Resource leaks over many steps: ``python -m benchmarks.endurance [--steps 20000] [--json OUT]``.

Short steps of `benchmarks.toy_policy` through the real loop, actors, records and checkpoints on Ray. Memory and open
files of all processes, the object store and the logs must not grow.

Two limits of Ray are lowered so that they are reached within minutes instead of a day: the size at which logs rotate,
and the number of past tasks that the GCS keeps.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
import ray
from ray._private.internal_api import get_memory_info_reply, get_state_from_address
from rich.console import Console

from actors.cluster import connect
from benchmarks.common import Figure, at_least, at_most, parser, publish
from benchmarks.toy_run import build
from geovlm_ray.config import Config, load_config
from geovlm_ray.core.interfaces import Components
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.data.sources import open_stream
from geovlm_ray.training.preflight import Ready, trained_tasks
from geovlm_ray.training.run import execute

SETTINGS = (
    *("run.name=day", "rollout.prompts_per_step=2", "rollout.group_size=2", "data.stages=[{tasks: [vqa], steps: 1}]"),
    *("placement.rollout.actors=2", "placement.rollout.num_cpus=0", "placement.learner.num_cpus=0"),
    *("learner.lr=0.01", "loop.max_staleness=1", "evaluation.num_examples=0", "checkpoint.every=500"),
)
BOUNDS = {
    "RAY_ROTATION_MAX_BYTES": "5000",
    "RAY_ROTATION_BACKUP_COUNT": "1",
    "RAY_task_events_max_num_task_in_gcs": "10000",
}
SAMPLES = 100
"""Measurements per run, evenly spaced. The object store, whose content fluctuates, is measured after every step and
averaged between measurements."""
SMOKE_STEPS = 10
GROWTH = 1.05
FLAT = ("memory, MB", "open files", "object store, MB", "objects in the store", "Ray's logs, MB", "the run's logs, MB")


def main() -> int:
    """Run, measure and publish."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--steps", type=int, default=20_000, help="steps (default: 20000)")
    options = arguments.parse_args()
    steps = SMOKE_STEPS if options.smoke else options.steps
    silence_third_party_logs()
    os.environ.update(BOUNDS)
    with tempfile.TemporaryDirectory(prefix="geovlm-ray-bench-") as runs:
        config = load_config("demo", [*SETTINGS, f"run.dir={runs}", f"run.steps={steps}"])
        connect()
        stream = open_stream(config.data)
        samples: list[dict[str, float]] = []
        begun = time.perf_counter()
        build_sampled = partial(build_with_sampling, samples=samples)
        execute(config, Ready(Path("toy"), stream, trained_tasks(config, stream)), build_sampled, Console(quiet=True))
        seconds = time.perf_counter() - begun
        written = len(list((config.run.folder / "rollouts").glob("*.parquet")))
        ray.shutdown()
    columns = {name: [sample[name] for sample in samples] for name in samples[0]}
    figures = [
        at_least("steps written down", written, steps),
        Figure("steps/s", steps / seconds),
        *(figure for name in FLAT for figure in growth(name, columns[name])),
    ]
    return publish("endurance", figures, options, settings=SETTINGS, looks=columns)


def build_with_sampling(config: Config, ready: Ready, samples: list[dict[str, float]]) -> Components:
    """The components of the run, with a report that appends resource usage to ``samples``."""
    return replace(build(config, ready), report=resource_sampler(config, samples))


def resource_sampler(config: Config, samples: list[dict[str, float]]) -> Callable[[dict[str, Any]], None]:
    """A callback for every step that appends the resource usage to ``samples`` at evenly spaced steps."""
    every = max(1, config.run.steps // SAMPLES)
    state = get_state_from_address(ray.get_runtime_context().gcs_address)
    session = Path(ray._private.worker.global_worker.node.get_session_dir_path())

    stored: list[tuple[float, float]] = []

    def report(metrics: dict[str, Any]) -> None:
        store = get_memory_info_reply(state).store_stats
        stored.append((store.object_store_bytes_used / 1e6, store.num_local_objects))
        if metrics["step"] % every:
            return
        megabytes, objects = (fmean(column) for column in zip(*stored, strict=True))
        stored.clear()
        memory, files = processes()
        samples.append(
            {
                "step": metrics["step"],
                "memory, MB": memory,
                "open files": files,
                "object store, MB": megabytes,
                "objects in the store": objects,
                "Ray's logs, MB": size(session / "logs"),
                "the run's logs, MB": size(config.run.folder / "logs"),
            }
        )

    return report


def processes() -> tuple[float, float]:
    """Memory without file-backed pages, in MB, and open files of this process and its local cluster."""
    driver = psutil.Process()
    memory = files = 0.0
    for process in (driver, *driver.children(recursive=True)):
        try:
            info = process.memory_info()
            memory += (info.rss - info.shared) / 1e6
            files += process.num_fds()
        except psutil.Error:
            continue
    return memory, files


def size(folder: Path) -> float:
    """Total size of the files in a folder, in MB."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def growth(name: str, values: list[float]) -> list[Figure]:
    """Growth of the mean from the second to the last fifth of the run; a mean of 0 must stay 0."""
    fifth = len(values) // 5
    early, late = fmean(values[fifth : 2 * fifth]), fmean(values[-fifth:])
    return [
        Figure(f"{name}, mean of the second fifth", early),
        at_most(f"{name}, last fifth / second", late / early if early else float(late > 0) + 1, GROWTH),
    ]


if __name__ == "__main__":
    sys.exit(main())

"""A day of training in minutes: ``python -m benchmarks.endurance [--steps 20000] [--json OUT]``.

Short steps of the policy of `benchmarks.toy_policy` through the real loop, actors, records and checkpoints on Ray. What
would run out on a long run has to stay flat: memory and open files of all processes, the object store, the logs.

Two of Ray's own bounds are set lower, so that they are met within minutes as they are within a day: the size at which
its logs rotate, and the number of past tasks that it remembers.
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
LOOKS = 100
"""Times that everything is looked at, in equal distances; at the object store, whose content swings from step to step,
after each step, and the mean since the look before is taken."""
GROWTH = 1.05
FLAT = ("memory, MB", "open files", "object store, MB", "objects in the store", "Ray's logs, MB", "the run's logs, MB")


def main() -> int:
    """Run and publish."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--steps", type=int, default=20_000, help="steps (default: 20000)")
    options = arguments.parse_args()
    silence_third_party_logs()
    os.environ.update(BOUNDS)
    with tempfile.TemporaryDirectory(prefix="geovlm-ray-bench-") as runs:
        config = load_config("demo", [*SETTINGS, f"run.dir={runs}", f"run.steps={options.steps}"])
        connect()
        stream = open_stream(config.data)
        looks: list[dict[str, float]] = []
        begun = time.perf_counter()
        watched = partial(watching, looks=looks)
        execute(config, Ready(Path("toy"), stream, trained_tasks(config, stream)), watched, Console(quiet=True))
        seconds = time.perf_counter() - begun
        written = len(list((config.run.folder / "rollouts").glob("*.parquet")))
        ray.shutdown()
    rows = {name: [look[name] for look in looks] for name in looks[0]}
    figures = [
        at_least("steps written down", written, options.steps),
        Figure("steps/s", options.steps / seconds),
        *(figure for name in FLAT for figure in flat(name, rows[name])),
    ]
    return publish("endurance", figures, options.json, settings=SETTINGS, looks=rows)


def watching(config: Config, ready: Ready, looks: list[dict[str, float]]) -> Components:
    """The parts of the run, and a look at everything now and then."""
    return replace(build(config, ready), report=look_at(config, looks))


def look_at(config: Config, looks: list[dict[str, float]]) -> Callable[[dict[str, Any]], None]:
    """What is told of every step and looks at everything after some."""
    every = max(1, config.run.steps // LOOKS)
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
        looks.append(
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
    """Memory without pages of files, in MB, and open files of this process and all that belong to its cluster."""
    this = psutil.Process()
    memory = files = 0.0
    for process in (this, *this.children(recursive=True)):
        try:
            info = process.memory_info()
            memory += (info.rss - info.shared) / 1e6
            files += process.num_fds()
        except psutil.Error:
            continue
    return memory, files


def size(folder: Path) -> float:
    """Of all files in a folder, in MB."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def flat(name: str, values: list[float]) -> list[Figure]:
    """How the mean of something grew from the second fifth of the run to the last; from nothing it may not at all."""
    fifth = len(values) // 5
    early, late = fmean(values[fifth : 2 * fifth]), fmean(values[-fifth:])
    return [
        Figure(f"{name}, mean of the second fifth", early),
        at_most(f"{name}, last fifth / second", late / early if early else float(late > 0) + 1, GROWTH),
    ]


if __name__ == "__main__":
    sys.exit(main())

"""Throughput of driver, reward dispatch and admission: the real loop with engines that answer instantly.

``python -m benchmarks.control_plane [--json OUT] [--steps 6] [--long 50]``. Loop, pools of rollout and reward actors,
rewards, and the sampler over converted records are the real ones. The engines return pre-generated completions (group
by group, as real engines do), the learner only counts versions, and nothing is logged. One long run measures the growth
of the driver's memory. Then the cases are interleaved: each starts its rollout actors, trains a warm-up step that opens
the connections, and then the steps that are timed, from the first submitted prompt to the last trained group. With 32
rollout actors on few cores the wall-clock time includes the actors' own CPU time, so the limit applies to the driver's
CPU time instead.
"""

from __future__ import annotations

import pickle
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray

from actors.cluster import connect
from actors.reward import RayRewards
from actors.rollout_pool import RayRollouts
from benchmarks.common import ROUNDS, Figure, at_least, at_most, parser, publish, ratio_figures
from benchmarks.data import in_process, write_source
from benchmarks.instant_engine import InstantActor, InstantEngine
from geovlm_ray.config import Config, load_config
from geovlm_ray.core.interfaces import TRAINED, Components, GroupsByStatus
from geovlm_ray.core.schema import Example, Prompt, SampleGroup
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.data.sampler import PromptSampler
from geovlm_ray.data.sources import open_stream
from geovlm_ray.training.loop import train

PROMPTS = 1024
"""Per step: with 8 completions each they fill 32 engines of 256 sequences, vLLM's default."""
GROUP = 8
SETTINGS = (
    f"rollout.prompts_per_step={PROMPTS}",
    f"rollout.group_size={GROUP}",
    "placement.rollout.num_cpus=0",
    "placement.reward.actors=2",
    "placement.reward.num_cpus=0",
    # The default reward runs a network, which is not part of the control plane.
    "reward.forms.region_captioning=content_words",
    "loop.max_staleness=1",
    "checkpoint.every=1000000",
    "data.source=parquet",
    "data.stages=[]",
)
MAX_TIMED_ACTORS = 8
"""With more rollout actors, wall-clock time measures the machine's cores rather than the driver."""
RATE = 5_000.0
MAX_RATIO = partial(at_most, limit=1.25)
GROWTH = 1.05


@dataclass(frozen=True)
class Case:
    """Numbers of rollout actors and of records."""

    actors: int
    records: int

    @property
    def name(self) -> str:
        """The name of the case in figures."""
        return f"{self.actors} actor{'s' if self.actors > 1 else ''}, {self.records:,} records"


CASES = (Case(1, 1_000), Case(8, 1_000), Case(32, 1_000), Case(8, 1_000_000))
SMOKE_CASES = (Case(1, 500), Case(2, 500), Case(3, 500), Case(2, 1_000))


class CountingLearner:
    """A learner that only counts weight versions; it returns the engines' log-probs as its own."""

    def __init__(self, version: int) -> None:
        self.version = version

    def step(self, groups: Sequence[SampleGroup], upcoming: Sequence[Prompt] = ()) -> dict[str, float]:
        """Count one version."""
        self.version += 1
        return {"learner/tokens": float(sum(len(s.token_ids) for g in groups for s in g.samples))}

    def problems(self, prompts: Sequence[Prompt]) -> dict[int, str]:
        """None: nothing is encoded."""
        return {}

    def logprobs(self, groups: Sequence[SampleGroup]) -> list[np.ndarray]:
        """The engines' log-probs."""
        return [np.array(s.logprobs) for g in groups for s in g.samples]

    def weights(self, endpoints: Sequence[Any]) -> Iterator[int]:
        """The version."""
        yield self.version

    def save(self, folder: Path) -> None:
        """No state to save."""

    def saved(self) -> bool:
        """Always True: there is nothing to save."""
        return True

    def close(self) -> None:
        """No resources to release."""

    def load(self, folder: Path) -> None:
        """No state to load."""


class SampleCounter:
    """A recorder that counts the trained samples and records the driver's memory after every step."""

    def __init__(self) -> None:
        self.samples = 0
        self.memory: list[float] = []

    def log_step(self, step: int, metrics: dict[str, float], groups_by_status: GroupsByStatus) -> None:
        """Count the trained samples."""
        self.samples += len(groups_by_status[TRAINED]) * GROUP
        self.memory.append(memory())


class SegmentedRun:
    """A run in segments, each with new rollout actors; ``wall`` and ``cpu`` are microseconds per sample by segment."""

    def __init__(self, name: str, actors: int, dataset: Path) -> None:
        self.config = settings(name, actors, dataset)
        self.prompts = PromptSampler(open_stream(self.config.data), self.config.data, PROMPTS)
        self.steps = 0
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.with_torch = 0

    def continue_for(self, steps: int, rewards: RayRewards) -> SampleCounter:
        """Train one segment: a warm-up step, then ``steps`` steps that are timed."""
        run = {"run": self.config.run.model_copy(update={"name": f"{self.config.run.name}-{self.steps}"})}
        rollouts = RayRollouts(self.config.model_copy(update=run), Path(), InstantActor)
        learner = CountingLearner(self.steps)
        self._train(1, Components(rollouts, rewards, learner, recorder=SampleCounter()))
        counts = SampleCounter()
        wall, cpu = time.perf_counter(), time.process_time()
        self._train(steps, Components(rollouts, rewards, learner, recorder=counts))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        expected = steps * PROMPTS * GROUP
        assert counts.samples == expected, f"expected {expected} samples, trained on {counts.samples}"
        self.wall.append(wall / expected * 1e6)
        self.cpu.append(cpu / expected * 1e6)
        self.with_torch += loaded(rollouts, "torch")
        rollouts.close()
        return counts

    def _train(self, steps: int, components: Components) -> None:
        run = self.config.run.model_copy(update={"steps": self.steps + steps})
        train(self.config.model_copy(update={"run": run}), components, self.prompts, self.steps)
        self.steps += steps


def main() -> int:
    """Measure and publish."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--steps", type=int, default=6, help="timed steps per segment (default: 6)")
    arguments.add_argument("--long", type=int, default=50, help="steps of the long run (default: 50)")
    options = arguments.parse_args()
    silence_third_party_logs()
    cases, rounds, steps, long_steps = CASES, ROUNDS, options.steps, options.long
    if options.smoke:
        cases, rounds, steps, long_steps = SMOKE_CASES, 1, 2, 5
    with tempfile.TemporaryDirectory(prefix="geovlm-ray-bench-") as folder:
        print("Records ...")
        datasets = {n: make_dataset(Path(folder) / str(n), n) for n in sorted({case.records for case in cases})}
        connect()
        runs = {case: SegmentedRun(f"case-{i}", case.actors, datasets[case.records]) for i, case in enumerate(cases)}
        print("Long run ...")
        long = SegmentedRun("long", cases[-1].actors, datasets[cases[-1].records])
        rewards = RayRewards(long.config, long.prompts.stream.tasks)
        figures = long_run(long, long_steps, rewards)
        print("Cases, interleaved ...")
        for run in [run for _ in range(rounds) for run in runs.values()]:
            run.continue_for(steps, rewards)
        figures += compare(runs)
        ray.shutdown()
    figures += [
        Figure("bytes of a sample, pickled", sample_bytes()),
        at_most("rollout actors with torch in them", sum(run.with_torch for run in runs.values()), 0),
    ]
    return publish("control_plane", figures, options, prompts_per_step=PROMPTS, settings=SETTINGS)


def make_dataset(folder: Path, n: int) -> Path:
    """Convert a synthetic dataset of n records: equal numbers of questions, referred objects and region captions."""
    folder.mkdir()
    in_process("convert", write_source(folder / "source.jsonl", n), folder / "converted")
    return folder / "converted"


def long_run(run: SegmentedRun, steps: int, rewards: RayRewards) -> list[Figure]:
    """Growth of the driver's memory from the second to the last fifth of a run."""
    megabytes = run.continue_for(steps, rewards).memory
    fifth = len(megabytes) // 5
    early, late = float(np.median(megabytes[fifth : 2 * fifth])), float(np.median(megabytes[-fifth:]))
    return [
        Figure("long run, samples", float(steps * PROMPTS * GROUP)),
        Figure("long run, driver's memory in the second fifth, MB", early),
        Figure("long run, driver's memory in the last fifth, MB", late),
        at_most("long run, driver's memory, last fifth / second", late / early, GROWTH),
    ]


def compare(runs: Mapping[Case, SegmentedRun]) -> list[Figure]:
    """Rates of all cases, and ratios of the cost per sample between cases."""
    figures = [figure for case, run in runs.items() for figure in rates(case.name, run)]
    one, several, many, large = runs
    pairs = (
        (f"{several.actors} actors / {one.actors}", several, one),
        (f"{many.actors} actors / {one.actors}", many, one),
        (f"{large.records:,} records / {several.records:,}", large, several),
    )
    for name, over, under in pairs:
        a, b = runs[over], runs[under]
        wall_limit = MAX_RATIO if over.actors <= MAX_TIMED_ACTORS else Figure
        figures += ratio_figures(f"time per sample, {name}", a.wall, b.wall, wall_limit)
        figures += ratio_figures(f"driver's CPU time per sample, {name}", a.cpu, b.cpu, MAX_RATIO)
    return figures


def settings(name: str, actors: int, dataset: Path) -> Config:
    """The configuration of a case; its run directory is beside the dataset."""
    own = (f"run.name={name}", f"run.dir={dataset.parent}", f"placement.rollout.actors={actors}")
    return load_config("demo", [*SETTINGS, *own, f"data.path={dataset}"])


def rates(name: str, run: SegmentedRun) -> list[Figure]:
    """Samples per second of a case, and the driver's CPU time per sample."""
    samples_per_s = 1e6 / np.array(run.wall)
    return [
        at_least(f"{name}, samples/s", float(np.median(samples_per_s)), RATE),
        Figure(f"{name}, samples/s, least of {len(samples_per_s)}", float(samples_per_s.min())),
        Figure(f"{name}, samples/s, largest of {len(samples_per_s)}", float(samples_per_s.max())),
        Figure(f"{name}, driver's CPU time, us/sample", float(np.median(run.cpu))),
    ]


def memory() -> float:
    """Memory of this process in MB, without file-backed pages, which the kernel can reclaim."""
    info = psutil.Process().memory_info()
    return (info.rss - info.shared) / 1e6


def loaded(pool: RayRollouts, module: str) -> int:
    """Number of actors of a pool that have imported a module."""
    return sum(ray.get([a.__ray_call__.remote(lambda _, m=module: m in sys.modules) for a in pool.actors]))


def sample_bytes() -> float:
    """Pickled size of a sample in bytes."""
    example = Example("0", "vqa", ("image.png",), "Is there a ship?", "Yes")
    (group,) = InstantEngine(GROUP).generate([Prompt(0, example)])
    return len(pickle.dumps(group.samples)) / GROUP


if __name__ == "__main__":
    sys.exit(main())

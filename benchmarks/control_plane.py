"""What driver, reward dispatch and admission can carry by themselves: the real loop with engines that answer at once.

``python -m benchmarks.control_plane [--json OUT] [--steps 6] [--long 50]``. The loop, the pools of rollout and reward
actors, the rewards and the sampler over converted records are those of every run; the engines hand out completions
drawn beforehand (a group at a time, as real ones finish them), the learner only counts versions, nothing is written
down. First one long run, which shows whether the driver's memory grows; then the cases take turns: each starts its
rollout actors, trains a step in which connections are made, and then some steps that are timed from the first prompt
drawn to the last group trained on. On a machine with few cores the time with 32 rollout actors holds what their
processes, which otherwise have machines of their own, take from the others; there the driver's CPU time has the limit.
"""

from __future__ import annotations

import pickle
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

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
"""Of one step: with 8 completions each they fill 32 engines of 256 sequences, vLLM's default."""
GROUP = 8
FEW, MANY = 1_000, 1_000_000
CASES = {
    "1 actor, 1,000 records": (1, FEW),
    "8 actors, 1,000 records": (8, FEW),
    "32 actors, 1,000 records": (32, FEW),
    "8 actors, 1,000,000 records": (8, MANY),
}
PAIRS = (
    ("8 actors / 1", "8 actors, 1,000 records", "1 actor, 1,000 records"),
    ("32 actors / 1", "32 actors, 1,000 records", "1 actor, 1,000 records"),
    ("1,000,000 records / 1,000", "8 actors, 1,000,000 records", "8 actors, 1,000 records"),
)
SETTINGS = (
    f"rollout.prompts_per_step={PROMPTS}",
    f"rollout.group_size={GROUP}",
    "placement.rollout.num_cpus=0",
    "placement.reward.actors=2",
    "placement.reward.num_cpus=0",
    # Its default form asks a network, which is no control plane.
    "reward.forms.region_captioning=levenshtein_robust",
    "loop.max_staleness=1",
    "checkpoint.every=1000000",
    "data.source=parquet",
    "data.stages=[]",
)
MOST_ACTORS = 8
"""With more the clock measures the machine's cores rather than the driver."""
RATE = 5_000.0
DEARER = partial(at_most, limit=1.25)
GROWTH = 1.05


class CountingLearner:
    """Nothing but the number of the version; its log-probs are those of the engines."""

    def __init__(self, version: int) -> None:
        self.version = version

    def step(self, groups: Sequence[SampleGroup]) -> dict[str, float]:
        """The next version."""
        self.version += 1
        return {"learner/tokens": float(sum(len(s.token_ids) for g in groups for s in g.samples))}

    def logprobs(self, groups: Sequence[SampleGroup]) -> list[np.ndarray]:
        """What the engines say."""
        return [np.array(s.logprobs) for g in groups for s in g.samples]

    def weights(self) -> Iterator[int]:
        """The version."""
        yield self.version

    def save(self, folder: Path) -> None:
        """Nothing to save."""

    def saved(self) -> bool:
        """Nothing is ever being saved."""
        return True

    def close(self) -> None:
        """Nothing to end."""

    def load(self, folder: Path) -> None:
        """Nothing to load."""


class SampleCounter:
    """A tracker that keeps how many samples were trained on, and the memory at every step."""

    def __init__(self) -> None:
        self.samples = 0
        self.memory: list[float] = []

    def log_step(self, step: int, metrics: dict[str, float], groups_by_status: GroupsByStatus) -> None:
        """Count what was admitted."""
        self.samples += len(groups_by_status[TRAINED]) * GROUP
        self.memory.append(memory())


class SegmentedRun:
    """A run that goes on piece by piece, each with rollout actors of its own, and what a sample of each piece cost."""

    def __init__(self, name: str, actors: int, path: Path) -> None:
        self.config = settings(name, actors, path)
        self.prompts = PromptSampler(open_stream(self.config.data), self.config.data, PROMPTS)
        self.steps = 0
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.with_torch = 0

    def go_on(self, steps: int, rewards: RayRewards) -> SampleCounter:
        """Train some steps; notes microseconds a sample by the clock and of the driver's CPU time."""
        run = {"run": self.config.run.model_copy(update={"name": f"{self.config.run.name}-{self.steps}"})}
        rollouts = RayRollouts(self.config.model_copy(update=run), Path(), InstantActor)
        learner = CountingLearner(self.steps)
        self._train(1, Components(rollouts, rewards, learner, tracker=SampleCounter()))
        counts = SampleCounter()
        wall, cpu = time.perf_counter(), time.process_time()
        self._train(steps, Components(rollouts, rewards, learner, tracker=counts))
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
        probe = self.prompts.batch(0)[: self.config.sync.parity_prompts]
        train(self.config.model_copy(update={"run": run}), components, self.prompts, probe, self.steps)
        self.steps += steps


def main() -> int:
    """Measure and publish."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--steps", type=int, default=6, help="steps of a piece (default: 6)")
    arguments.add_argument("--long", type=int, default=50, help="steps of the long run (default: 50)")
    options = arguments.parse_args()
    silence_third_party_logs()
    with tempfile.TemporaryDirectory(prefix="geovlm-ray-bench-") as name:
        print("Records ...")
        paths = {n: records(Path(name) / str(n), n) for n in (FEW, MANY)}
        connect()
        cases = {
            name: SegmentedRun(f"case-{i}", actors, paths[n]) for i, (name, (actors, n)) in enumerate(CASES.items())
        }
        print("Long run ...")
        long = SegmentedRun("long", 8, paths[MANY])
        rewards = RayRewards(long.config, long.prompts.stream.tasks)
        figures = long_run(long, options.long, rewards)
        print("Cases in turns ...")
        for case in [case for _ in range(ROUNDS) for case in cases.values()]:
            case.go_on(options.steps, rewards)
        figures += compared(cases)
        ray.shutdown()
    figures += [
        Figure("bytes of a sample, pickled", sample_bytes()),
        at_most("rollout actors with torch in them", sum(case.with_torch for case in cases.values()), 0),
    ]
    return publish("control_plane", figures, options.json, prompts_per_step=PROMPTS, settings=SETTINGS)


def records(folder: Path, n: int) -> Path:
    """A converted dataset of n records: questions, referred objects and region captions in equal parts."""
    folder.mkdir()
    in_process("convert", write_source(folder / "source.jsonl", n), folder / "converted")
    return folder / "converted"


def long_run(case: SegmentedRun, steps: int, rewards: RayRewards) -> list[Figure]:
    """How the driver's memory grows over a run, the first fifth of which goes before."""
    found = case.go_on(steps, rewards).memory
    fifth = len(found) // 5
    early, late = float(np.median(found[fifth : 2 * fifth])), float(np.median(found[-fifth:]))
    return [
        Figure("long run, samples", float(steps * PROMPTS * GROUP)),
        Figure("long run, driver's memory in the second fifth, MB", early),
        Figure("long run, driver's memory in the last fifth, MB", late),
        at_most("long run, driver's memory, last fifth / second", late / early, GROWTH),
    ]


def compared(cases: Mapping[str, SegmentedRun]) -> list[Figure]:
    """Rates of all cases, and what a sample costs in one over another."""
    figures = [figure for name, case in cases.items() for figure in rates(name, case)]
    for name, over, under in PAIRS:
        a, b = cases[over], cases[under]
        on_few_cores = CASES[over][0] > MOST_ACTORS
        figures += ratio_figures(f"time per sample, {name}", a.wall, b.wall, Figure if on_few_cores else DEARER)
        figures += ratio_figures(f"driver's CPU time per sample, {name}", a.cpu, b.cpu, DEARER)
    return figures


def settings(name: str, actors: int, path: Path) -> Config:
    """The configuration of a case."""
    own = (f"run.name={name}", f"placement.rollout.actors={actors}", f"data.path={path}")
    return load_config("demo", [*SETTINGS, *own])


def rates(name: str, case: SegmentedRun) -> list[Figure]:
    """Samples a second of a case, and what its driver computes for one."""
    found = 1e6 / np.array(case.wall)
    return [
        at_least(f"{name}, samples/s", float(np.median(found)), RATE),
        Figure(f"{name}, samples/s, least of {len(found)}", float(found.min())),
        Figure(f"{name}, samples/s, largest of {len(found)}", float(found.max())),
        Figure(f"{name}, driver's CPU time, us/sample", float(np.median(case.cpu))),
    ]


def memory() -> float:
    """Memory of this process in MB, without pages of mapped files, which the system takes back when it needs them."""
    found = psutil.Process().memory_info()
    return (found.rss - found.shared) / 1e6


def loaded(pool: RayRollouts, module: str) -> int:
    """How many actors of a pool have a module loaded."""
    return sum(ray.get([a.__ray_call__.remote(lambda _, m=module: m in sys.modules) for a in pool.actors]))


def sample_bytes() -> float:
    """Size of a sample as it is sent."""
    example = Example("0", "vqa", ("image.png",), "Is there a ship?", "Yes")
    (group,) = InstantEngine(GROUP).generate([Prompt(0, example)])
    return len(pickle.dumps(group.samples)) / GROUP


if __name__ == "__main__":
    sys.exit(main())

"""Recovery from faults without losing samples: ``python -m benchmarks.faults [--runs 30] [--seed 0]``.

Every run has its own Ray cluster (a head and two workers, each with its own IP address), into which three random
faults of `benchmarks.fault_kinds` are injected. Most runs train `benchmarks.toy_policy` with the real loop and actors;
``--engines N`` of them are ``geovlm-ray train`` with real vLLM. Needs root, and `redis-server` for heads that keep
their state over a restart. Runs without faults give the reference reward.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks import fault_kinds as kinds
from benchmarks.common import Figure, at_least, at_most, parser, publish
from benchmarks.fault_kinds import FaultTarget
from benchmarks.node import Node
from benchmarks.nodes import Nodes, available
from benchmarks.toy_policy import GENERATED
from benchmarks.toy_run import SURVIVORS
from geovlm_ray.core.files import UNDONE
from geovlm_ray.core.third_party_logs import silence_third_party_logs

FAULTS = 3
DEADLINE_S = 420.0
"""Seconds after which a run counts as hung."""
MINUTES = 75
"""Limit of the total duration, on two cores."""
DISK_MB = 128
SMALL = (
    *(
        "evaluation.num_examples=0",
        "checkpoint.every=4",
        "loop.max_staleness=1",
        "run.restarts=5",
        "run.wait_for_nodes_s=120",
    ),
    *("rollout.group_size=4", "placement.reward.actors=2", "placement.reward.num_cpus=0.2"),
    *("placement.learner.actors=2", "placement.learner.num_cpus=0.4"),
)
TOY = (
    *(*SMALL, "placement.rollout.actors=3", "placement.rollout.num_cpus=0.4", "rollout.prompts_per_step=12"),
    *("rollout.stall_s=20", "learner.lr=0.2", "data.stages=[{tasks: [vqa, region_captioning], steps: 1}]"),
)
ENGINE = (
    *(*SMALL, "placement.rollout.actors=2", "placement.rollout.num_cpus=0.8", "rollout.prompts_per_step=6"),
    *("rollout.max_tokens=40", "learner.tokens_per_micro_batch=2048", "rollout.stall_s=120"),
)
TOY_STEPS, ENGINE_STEPS, SMOKE_STEPS = 160, 24, 40
"""Steps per run. Runs continue while a node or the head is down, and must not finish before their last fault."""
REWARD = '''"""1 for a correct answer; does not return while the flag file exists."""

from pathlib import Path

LOOPING = Path("{flag}")


def accuracy(response, target):
    while LOOPING.exists():
        pass
    return float("none of it" not in response)
'''
LAST = 8
"""Final steps over which the reward of a run is averaged."""

Fault = Callable[[FaultTarget], None]


@dataclass
class Outcome:
    """Outcome of one run."""

    seed: int
    engine: bool
    faults: list[str]
    finished: bool = False
    ended_by: list[tuple[str, str]] = field(default_factory=list)
    """Faults that ended the run, each with the driver's error message."""
    problems: list[str] = field(default_factory=list)
    recovery: list[tuple[str, float]] = field(default_factory=list)
    reward: float = float("nan")
    seconds: float = 0.0

    @property
    def rightly_ended(self) -> bool:
        """Whether only faults in `MAY_END` ended the run, each with an error message."""
        may_end = {kind.__name__ for kind in kinds.MAY_END}
        return all(kind in may_end and cause for kind, cause in self.ended_by)


def main() -> int:
    """Measure and publish."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--runs", type=int, default=30, help="runs with faults (default: 30)")
    arguments.add_argument("--engines", type=int, default=6, help="runs with real engines among them (default: 6)")
    arguments.add_argument("--undisturbed", type=int, default=4, help="additional runs without faults (default: 4)")
    arguments.add_argument("--seed", type=int, default=0, help="seed of the first run (default: 0)")
    options = arguments.parse_args()
    faults, steps = FAULTS, TOY_STEPS
    if options.smoke:
        options.runs, options.engines, options.undisturbed, faults, steps = 1, 0, 0, 1, SMOKE_STEPS
    silence_third_party_logs()
    missing = available()
    if missing:
        sys.exit(f"faults: {missing}")
    redis, begun = available(redis=True) is None, time.monotonic()
    undisturbed = [run(options.seed + k, engine=False, faults=0, redis=redis) for k in range(options.undisturbed)]
    outcomes = []
    for k in range(options.runs):
        outcome = run(options.seed + k, engine=k < options.engines, faults=faults, redis=redis, toy_steps=steps)
        outcomes.append(outcome)
        print(f"[{k + 1}/{options.runs}] {outcome}", flush=True)
    more = {"redis": redis, "undisturbed": [vars(o) for o in undisturbed], "disturbed": [vars(o) for o in outcomes]}
    minutes = at_most("minutes, the whole", (time.monotonic() - begun) / 60, MINUTES)
    return publish("faults", [*figures(outcomes), *rewards(undisturbed, outcomes), minutes], options, **more)


def run(seed: int, *, engine: bool, faults: int, redis: bool, toy_steps: int = TOY_STEPS) -> Outcome:
    """One run on its own cluster; ``toy_steps`` is its length if it has no real engines."""
    rng = random.Random(seed)
    steps = ENGINE_STEPS if engine else toy_steps
    reward_function = rng.random() < 0.5
    use_redis = redis and rng.random() < 0.9
    fill_disk = not engine and rng.random() < 0.3
    possible = [*kinds.EVERYWHERE, kinds.looping_reward if reward_function else kinds.sbert]
    possible += [kinds.full_disk] if fill_disk else []
    chosen = rng.sample(possible, faults)
    at_steps = sorted(rng.sample(range(3, min(steps - 6, TOY_STEPS // 3)), faults))
    outcome = Outcome(seed, engine, [kind.__name__ for kind in chosen])
    begun = time.monotonic()
    with ExitStack() as stack:
        runs = stack.enter_context(small_disk())
        nodes = stack.enter_context(Nodes(workers=2, cpus=2, redis=use_redis))
        command = [*_command(engine), *_settings(engine, reward_function, runs, seed, steps)]
        log = stack.enter_context((runs.parent / "log").open("ab"))

        def start(node: Node) -> subprocess.Popen[bytes]:
            return nodes.command(node, command, stdout=log, stderr=log)

        target = FaultTarget(nodes, use_redis, runs, start)
        _run_with_faults(target, outcome, list(zip(at_steps, chosen, strict=True)))
        outcome.problems += target.problems
        if not outcome.problems:
            outcome.problems += _record_problems(runs / "run", steps, engine)
            outcome.reward = float(np.mean([row["reward/mean"] for row in _rows(runs / "run")[-LAST:]]))
        outcome.seconds = time.monotonic() - begun
        if outcome.problems:
            kept = Path(tempfile.mkdtemp(prefix=f"faults-{seed}-")) / "log"
            kept.write_bytes((runs.parent / "log").read_bytes())
            outcome.problems.append(f"log: {kept}")
    return outcome


def _run_with_faults(target: FaultTarget, outcome: Outcome, plan: Sequence[tuple[int, Fault]]) -> None:
    """Run to the end, injecting each fault after its step."""
    progress = ProgressMonitor(target.runs / "run")
    deadline = time.monotonic() + DEADLINE_S
    for step, fault in plan:
        if not _wait_until(partial(progress.reached, step), target, outcome, None, deadline):
            return
        if target.driver.poll() == 0:
            break
        begun, at = time.monotonic(), progress.step
        fault(target)
        if target.driver.poll() is not None:
            at = progress.step
        if not _wait_until(partial(progress.reached, at + 2), target, outcome, fault, deadline):
            return
        outcome.recovery.append((fault.__name__, progress.reached_at(at + 2) - begun))
    if _wait_until(lambda: False, target, outcome, None, deadline) and not outcome.ended_by:
        outcome.finished = True


def _wait_until(
    reached: Callable[[], bool], target: FaultTarget, outcome: Outcome, fault: Fault | None, deadline: float
) -> bool:
    """Wait for a condition or for the successful end of the run; False if the run failed or hung before."""
    name = fault.__name__ if fault else "no fault"
    while time.monotonic() < deadline:
        if reached():
            return True
        code = target.driver.poll()
        if code == 0:
            return True
        if code is not None:
            may_end = fault in kinds.MAY_END and not (fault is kinds.head and target.redis)
            if fault is None or not may_end or name in dict(outcome.ended_by):
                outcome.problems.append(f"the run ended with exit code {code} after {name}")
                return False
            outcome.ended_by.append((name, _error_message(target.runs.parent / "log")))
            _repair(target, fault)
        time.sleep(0.05)
    outcome.problems.append(f"the run hangs after {name}")
    return False


def _repair(target: FaultTarget, fault: Fault) -> None:
    """Repair the cluster as an operator would after a fault that ended the run, and restart the driver."""
    if fault is kinds.full_disk:
        kinds.free_disk(target)
    else:
        for node in list(target.nodes.workers):
            if node.process is not None and node.process.poll() is None:
                target.nodes.kill(node)
            target.nodes.workers.remove(node)
        target.home = target.nodes.add()
        target.nodes.add()
    target.restart_driver()


class ProgressMonitor:
    """Times at which the steps of a run were logged; repeated steps count from the first time."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "metrics.jsonl"
        self._times: dict[int, float] = {}
        self.step = 0
        threading.Thread(target=self._poll, daemon=True).start()

    def reached(self, step: int) -> bool:
        """Whether the run has logged a step."""
        return self.step >= step

    def reached_at(self, step: int) -> float:
        """Monotonic time at which a step was logged, or now if it was not."""
        return next((logged for number, logged in sorted(self._times.items()) if number >= step), time.monotonic())

    def _poll(self) -> None:
        while True:
            lines = self._file.read_bytes().splitlines() if self._file.is_file() else []
            if len(lines) > self.step:
                self._times[len(lines)] = time.monotonic()
                self.step = len(lines)
            time.sleep(0.05)


def _record_problems(folder: Path, steps: int, engine: bool) -> list[str]:
    """All inconsistencies in the metrics and samples of a finished run."""
    problems = []
    numbers = [row["step"] for row in _rows(folder)]
    if numbers != list(range(1, steps + 1)):
        problems.append(f"logged steps: {numbers}")
    table = [row for file in sorted((folder / "rollouts").glob("*.parquet")) for row in _samples(file)]
    prompts = len({row["group_id"] for row in table}) / steps
    group = max(row["sample"] for row in table) + 1
    counts = Counter((row["group_id"], row["sample"]) for row in table)
    expected = {(g, s) for g in range(int(prompts * steps)) for s in range(group)}
    if set(counts) != expected or any(n != 1 for n in counts.values()):
        found = f"{counts.total()} samples with {len(counts)} different keys"
        problems.append(f"expected one sample for each of {len(expected)} (group, sample) keys, found {found}")
    unknown = {row["group_status"] for row in table} - {"trained", "stale", "resampled"}
    if unknown:
        problems.append(f"unknown group statuses: {unknown}")
    return problems + ([] if engine else _unaccounted_samples(folder, table))


def _unaccounted_samples(folder: Path, table: list[dict[str, Any]]) -> list[str]:
    """Toy samples that were recorded twice, that no engine generated, or that a surviving engine lost."""
    generated = {file.name: [int(n) for n in file.read_text().split()] for file in (folder / GENERATED).iterdir()}
    undone = [row for file in (folder / "rollouts" / UNDONE).glob("*.parquet") for row in _samples(file)]
    recorded = Counter(row["token_ids"][1] << 30 | row["token_ids"][2] for row in [*table, *undone])
    problems = []
    duplicates = [number for number, times in recorded.items() if times > 1]
    if duplicates:
        problems.append(f"{len(duplicates)} samples recorded more than once")
    unknown = set(recorded) - {number for numbers in generated.values() for number in numbers}
    if unknown:
        problems.append(f"{len(unknown)} samples that no engine generated")
    for name in json.loads((folder / SURVIVORS).read_text()):
        lost = [number for number in generated.get(name, []) if number not in recorded]
        if lost:
            problems.append(f"{len(lost)} of {len(generated[name])} samples of a surviving engine lost")
    return problems


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _samples(file: Path) -> list[dict[str, Any]]:
    return pq.read_table(file, columns=["group_id", "sample", "group_status", "token_ids"]).to_pylist()


def _error_message(log: Path) -> str:
    """The log line with the driver's final error, or an empty string."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("toy_run:", "geovlm-ray train:")) or "GCS" in line]
    return errors[-1][:500] if errors else ""


def _command(engine: bool) -> list[str]:
    if engine:
        return [str(Path(sys.executable).with_name("geovlm-ray")), "train", "demo"]
    return [sys.executable, "-m", "benchmarks.toy_run"]


def _settings(engine: bool, reward_function: bool, runs: Path, seed: int, steps: int) -> list[str]:
    run_settings = [f"run.dir={runs}", "run.name=run", f"run.seed={seed}", f"run.steps={steps}"]
    reward_settings = []
    if reward_function:
        file = runs.parent / "reward.py"
        file.write_text(REWARD.format(flag=runs / kinds.LOOPING))
        reward_settings = [f"reward.function={file}:accuracy", "reward.time_limit_s=1"]
    return [*(ENGINE if engine else TOY), *run_settings, *reward_settings]


@contextmanager
def small_disk() -> Iterator[Path]:
    """A folder on a separate file system of `DISK_MB`."""
    with tempfile.TemporaryDirectory(prefix="gv-runs-") as name:
        folder = Path(name) / "disk"
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def figures(outcomes: Sequence[Outcome]) -> list[Figure]:
    """Counts of the outcomes, and recovery times by fault."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for outcome in outcomes:
        for fault, recovery in outcome.recovery:
            seconds[fault].append(recovery)
    ended = [o for o in outcomes if o.ended_by]
    return [
        Figure("runs", len(outcomes)),
        Figure("runs with real engines", sum(o.engine for o in outcomes)),
        Figure("faults", sum(len(o.recovery) for o in outcomes)),
        at_least("share of runs that came to their end by themselves", _share(o.finished for o in outcomes), 0.8),
        at_most("runs ended by a fault that may not, or without a cause", sum(not o.rightly_ended for o in ended), 0),
        at_most("runs that hang, fail, or whose ledger is not clean", sum(bool(o.problems) for o in outcomes), 0),
        *(
            Figure(f"seconds until two more steps, {fault}, {name} of {len(values)}", float(statistic(values)))
            for fault, values in sorted(seconds.items())
            for name, statistic in (("median", np.median), ("worst", np.max))
        ),
    ]


def rewards(undisturbed: Sequence[Outcome], outcomes: Sequence[Outcome]) -> list[Figure]:
    """Final rewards of runs with the toy policy, with and without faults."""
    reference = np.array([o.reward for o in undisturbed if not o.problems])
    disturbed = np.array([o.reward for o in outcomes if not o.engine and not o.problems])
    if len(reference) < 2 or len(disturbed) < 2:
        return []
    error = float(np.sqrt(reference.var(ddof=1) / len(reference) + disturbed.var(ddof=1) / len(disturbed)))
    difference = float(disturbed.mean() - reference.mean())
    return [
        Figure("reward at the end, undisturbed", float(reference.mean())),
        Figure("reward at the end, disturbed", float(disturbed.mean())),
        at_most("their difference, in standard errors", abs(difference) / max(error, 1e-9), 3.0),
    ]


def _share(flags: Iterator[bool] | Any) -> float:
    return float(np.mean(list(flags)))


if __name__ == "__main__":
    sys.exit(main())

"""What faults cost a run, and that they cost no sample: ``python -m benchmarks.faults [--runs 30] [--seed 0]``.

Every run has a Ray cluster of its own (a head and two workers with addresses of their own) and meets three random
faults of `benchmarks.fault_kinds`. Most runs train the policy of `benchmarks.toy_policy` through the real loop and the
real actors; ``--engines N`` of them are ``geovlm-ray train`` with real vLLM. Needs root, and `redis-server` for heads
that remember. Runs without faults say what the reward should be.
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
from benchmarks.fault_kinds import Scene
from benchmarks.node import Node
from benchmarks.nodes import Nodes, available
from benchmarks.toy_policy import DRAWN
from benchmarks.toy_run import LIVED
from geovlm_ray.core.files import UNDONE
from geovlm_ray.core.third_party_logs import silence_third_party_logs

FAULTS = 3
DEADLINE_S = 420.0
"""Seconds after which a run hangs."""
MINUTES = 75
"""Longest that all runs together may take, on two cores."""
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
TOY_STEPS, ENGINE_STEPS = 160, 24
"""A run goes on while a node or the head is away, and should not be over before its last fault."""
REWARD = '''"""The accuracy of an answer that is the reference; no answer at all while the file is there."""

from pathlib import Path

LOOPING = Path("{flag}")


def accuracy(response, target):
    while LOOPING.exists():
        pass
    return float("none of it" not in response)
'''
LAST = 8
"""Steps at the end whose mean reward is that of a run."""


@dataclass
class Outcome:
    """What came of a run."""

    seed: int
    engine: bool
    faults: list[str]
    finished: bool = False
    ended_by: list[tuple[str, str]] = field(default_factory=list)
    """Faults that ended it, and what its driver then said."""
    problems: list[str] = field(default_factory=list)
    recovery: list[tuple[str, float]] = field(default_factory=list)
    reward: float = float("nan")
    seconds: float = 0.0

    @property
    def rightly_ended(self) -> bool:
        """Whether only faults ended it that may, and it said why."""
        may = {kind.__name__ for kind in kinds.MAY_END}
        return all(kind in may and cause for kind, cause in self.ended_by)


def main() -> int:
    """Measure and publish."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--runs", type=int, default=30, help="runs with faults (default: 30)")
    arguments.add_argument("--engines", type=int, default=6, help="how many of them have real engines (default: 6)")
    arguments.add_argument("--undisturbed", type=int, default=4, help="runs without faults beside them (default: 4)")
    arguments.add_argument("--seed", type=int, default=0, help="of the first run (default: 0)")
    options = arguments.parse_args()
    silence_third_party_logs()
    missing = available()
    if missing:
        sys.exit(f"faults: {missing}")
    redis, begun = available(redis=True) is None, time.monotonic()
    plain = [run(options.seed + k, engine=False, faults=0, redis=redis) for k in range(options.undisturbed)]
    outcomes = []
    for k in range(options.runs):
        outcome = run(options.seed + k, engine=k < options.engines, faults=FAULTS, redis=redis)
        outcomes.append(outcome)
        print(f"[{k + 1}/{options.runs}] {outcome}", flush=True)
    more = {"redis": redis, "undisturbed": [vars(o) for o in plain], "disturbed": [vars(o) for o in outcomes]}
    minutes = at_most("minutes, the whole", (time.monotonic() - begun) / 60, MINUTES)
    return publish("faults", [*figures(outcomes), *rewards(plain, outcomes), minutes], options.json, **more)


def run(seed: int, *, engine: bool, faults: int, redis: bool) -> Outcome:
    """One run with a cluster of its own."""
    rng = random.Random(seed)
    steps = ENGINE_STEPS if engine else TOY_STEPS
    own_reward = rng.random() < 0.5
    remembers = redis and rng.random() < 0.9
    small = not engine and rng.random() < 0.3
    possible = [*kinds.EVERYWHERE, kinds.looping_reward if own_reward else kinds.sbert]
    possible += [kinds.full_disk] if small else []
    chosen = rng.sample(possible, faults)
    at = sorted(rng.sample(range(3, min(steps - 6, TOY_STEPS // 3)), faults))
    outcome = Outcome(seed, engine, [kind.__name__ for kind in chosen])
    begun = time.monotonic()
    with ExitStack() as made:
        runs = made.enter_context(small_disk())
        nodes = made.enter_context(Nodes(workers=2, cpus=2, redis=remembers))
        command = [*_command(engine), *_settings(engine, own_reward, runs, seed, steps)]
        log = made.enter_context((runs.parent / "log").open("ab"))

        def start(home: Node) -> subprocess.Popen[bytes]:
            return nodes.command(home, command, stdout=log, stderr=log)

        scene = Scene(nodes, remembers, runs, start)
        _play(scene, outcome, list(zip(at, chosen, strict=True)))
        if not outcome.problems:
            outcome.problems += _ledger_problems(runs / "run", steps, engine)
            outcome.reward = float(np.mean([row["reward/mean"] for row in _rows(runs / "run")[-LAST:]]))
        outcome.seconds = time.monotonic() - begun
        if outcome.problems:
            kept = Path(tempfile.mkdtemp(prefix=f"faults-{seed}-")) / "log"
            kept.write_bytes((runs.parent / "log").read_bytes())
            outcome.problems.append(f"log: {kept}")
    return outcome


def _play(scene: Scene, outcome: Outcome, plan: Sequence[tuple[int, Callable[[Scene], None]]]) -> None:
    """Let a run go to its end, with its faults on the way."""
    watch = Watch(scene.runs / "run")
    end = time.monotonic() + DEADLINE_S
    for step, kind in plan:
        if not _until(partial(watch.reached, step), scene, outcome, None, end):
            return
        if scene.driver.poll() == 0:
            break
        begun, at = time.monotonic(), watch.step
        kind(scene)
        if scene.driver.poll() is not None:
            at = watch.step
        if not _until(partial(watch.reached, at + 2), scene, outcome, kind, end):
            return
        outcome.recovery.append((kind.__name__, watch.when(at + 2) - begun))
    if _until(lambda: False, scene, outcome, None, end) and not outcome.ended_by:
        outcome.finished = True


def _until(
    reached: Callable[[], bool], scene: Scene, outcome: Outcome, kind: Callable[[Scene], None] | None, end: float
) -> bool:
    """Wait; False where the run did not get there. The driver's own end is one place to get to."""
    while time.monotonic() < end:
        if reached():
            return True
        code = scene.driver.poll()
        if code == 0:
            return True
        if code is not None:
            may = kind in kinds.MAY_END and not (kind is kinds.head and scene.redis)
            if kind is None or not may or kind.__name__ in dict(outcome.ended_by):
                outcome.problems.append(f"the run ended with {code} after {kind.__name__ if kind else 'nothing'}")
                return False
            outcome.ended_by.append((kind.__name__, _cause(scene.runs.parent / "log")))
            _rebuild(scene, kind)
        time.sleep(0.05)
    outcome.problems.append(f"the run hangs after {kind.__name__ if kind else 'nothing'}")
    return False


def _rebuild(scene: Scene, kind: Callable[[Scene], None]) -> None:
    """Do what a person has to do before a run can go on that was ended."""
    if kind is kinds.full_disk:
        kinds.mend_disk(scene)
    else:
        for node in list(scene.nodes.workers):
            if node.process is not None and node.process.poll() is None:
                scene.nodes.kill(node)
            scene.nodes.workers.remove(node)
        scene.home = scene.nodes.add()
        scene.nodes.add()
    scene.restart_driver()


class Watch:
    """When a run got how far; steps that are made again count from the first time."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "metrics.jsonl"
        self._times: dict[int, float] = {}
        self.step = 0
        threading.Thread(target=self._look, daemon=True).start()

    def reached(self, step: int) -> bool:
        """Whether the run has written down a step."""
        return self.step >= step

    def when(self, step: int) -> float:
        """The time at which a step was written down."""
        return next((when for number, when in sorted(self._times.items()) if number >= step), time.monotonic())

    def _look(self) -> None:
        while True:
            lines = self._file.read_bytes().splitlines() if self._file.is_file() else []
            if len(lines) > self.step:
                self._times[len(lines)] = time.monotonic()
                self.step = len(lines)
            time.sleep(0.05)


def _ledger_problems(folder: Path, steps: int, engine: bool) -> list[str]:
    """What is wrong with the record of a run that came to its end: nothing, or all that is found."""
    problems = []
    numbers = [row["step"] for row in _rows(folder)]
    if numbers != list(range(1, steps + 1)):
        problems.append(f"steps written down: {numbers}")
    table = [row for file in sorted((folder / "rollouts").glob("*.parquet")) for row in _samples(file)]
    prompts = len({row["group_id"] for row in table}) / steps
    group = max(row["sample"] for row in table) + 1
    places = Counter((row["group_id"], row["sample"]) for row in table)
    expected = {(g, s) for g in range(int(prompts * steps)) for s in range(group)}
    if set(places) != expected or any(n != 1 for n in places.values()):
        found = f"{sum(places.values())} samples in {len(places)} places"
        problems.append(f"{found}, expected one in each of {len(expected)}")
    unknown = {row["group_status"] for row in table} - {"trained", "stale", "resampled"}
    if unknown:
        problems.append(f"fates without a name: {unknown}")
    return problems + ([] if engine else _unaccounted(folder, table))


def _unaccounted(folder: Path, table: list[dict[str, Any]]) -> list[str]:
    """Samples of the toy policy that ended twice, came from nowhere, or went with an engine that lived."""
    drawn = {file.name: [int(n) for n in file.read_text().split()] for file in (folder / DRAWN).iterdir()}
    undone = [row for file in (folder / "rollouts" / UNDONE).glob("*.parquet") for row in _samples(file)]
    ended = Counter(row["token_ids"][1] << 30 | row["token_ids"][2] for row in [*table, *undone])
    problems = []
    twice = [number for number, times in ended.items() if times > 1]
    if twice:
        problems.append(f"{len(twice)} samples ended twice")
    nowhere = set(ended) - {number for numbers in drawn.values() for number in numbers}
    if nowhere:
        problems.append(f"{len(nowhere)} samples that no engine drew")
    for name in json.loads((folder / LIVED).read_text()):
        lost = [number for number in drawn.get(name, []) if number not in ended]
        if lost:
            problems.append(f"{len(lost)} of {len(drawn[name])} samples lost of an engine that lived to the end")
    return problems


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _samples(file: Path) -> list[dict[str, Any]]:
    return pq.read_table(file, columns=["group_id", "sample", "group_status", "token_ids"]).to_pylist()


def _cause(log: Path) -> str:
    """The line in which a driver said why it ended."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if line.startswith(("toy_run:", "geovlm-ray train:")) or "GCS" in line]
    return said[-1][:500] if said else ""


def _command(engine: bool) -> list[str]:
    if engine:
        return [str(Path(sys.executable).with_name("geovlm-ray")), "train", "demo"]
    return [sys.executable, "-m", "benchmarks.toy_run"]


def _settings(engine: bool, own_reward: bool, runs: Path, seed: int, steps: int) -> list[str]:
    where = [f"run.dir={runs}", "run.name=run", f"run.seed={seed}", f"run.steps={steps}"]
    function = []
    if own_reward:
        file = runs.parent / "reward.py"
        file.write_text(REWARD.format(flag=runs / kinds.LOOPING))
        function = [f"reward.function={file}:accuracy", "reward.time_limit_s=1"]
    return [*(ENGINE if engine else TOY), *where, *function]


@contextmanager
def small_disk() -> Iterator[Path]:
    """A folder on a disk of its own, of `DISK_MB`."""
    with tempfile.TemporaryDirectory(prefix="gv-runs-") as name:
        folder = Path(name) / "disk"
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def figures(outcomes: Sequence[Outcome]) -> list[Figure]:
    """How the runs ended, and how long they took to go on."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for outcome in outcomes:
        for kind, recovery in outcome.recovery:
            seconds[kind].append(recovery)
    ended = [o for o in outcomes if o.ended_by]
    return [
        Figure("runs", len(outcomes)),
        Figure("runs with real engines", sum(o.engine for o in outcomes)),
        Figure("faults", sum(len(o.recovery) for o in outcomes)),
        at_least("share of runs that came to their end by themselves", _share(o.finished for o in outcomes), 0.8),
        at_most("runs ended by a fault that may not, or without a cause", sum(not o.rightly_ended for o in ended), 0),
        at_most("runs that hang, fail, or whose ledger is not clean", sum(bool(o.problems) for o in outcomes), 0),
        *(
            Figure(f"seconds until two more steps, {kind}, {what} of {len(found)}", float(value(found)))
            for kind, found in sorted(seconds.items())
            for what, value in (("median", np.median), ("worst", np.max))
        ),
    ]


def rewards(plain: Sequence[Outcome], outcomes: Sequence[Outcome]) -> list[Figure]:
    """The last rewards of runs with the toy policy, with and without faults."""
    quiet_ones = np.array([o.reward for o in plain if not o.problems])
    disturbed = np.array([o.reward for o in outcomes if not o.engine and not o.problems])
    if len(quiet_ones) < 2 or len(disturbed) < 2:
        return []
    error = float(np.sqrt(quiet_ones.var(ddof=1) / len(quiet_ones) + disturbed.var(ddof=1) / len(disturbed)))
    difference = float(disturbed.mean() - quiet_ones.mean())
    return [
        Figure("reward at the end, undisturbed", float(quiet_ones.mean())),
        Figure("reward at the end, disturbed", float(disturbed.mean())),
        at_most("their difference, in standard errors", abs(difference) / max(error, 1e-9), 3.0),
    ]


def _share(flags: Iterator[bool] | Any) -> float:
    return float(np.mean(list(flags)))


if __name__ == "__main__":
    sys.exit(main())

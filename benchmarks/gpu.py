"""Everything that is measured on one GPU, in stages with a time limit each.

``python -m benchmarks.gpu --json OUT`` (at most 8 minutes) makes a model of random weights of Qwen2.5-VL-3B's shape and
vocabulary, and measures engine, log-prob parity, rollout, learner, sleeping engine, whole loop with its weight sync,
and TRL. Each stage is a process of its own; OUT is written after each, so that nothing is lost if a later one fails.
``--stage NAME`` runs one. ``--smoke`` runs all of them in small, also on a CPU.

MFU is 6 x (language weights outside the embeddings) x (tokens of the rows) + 6 x (vision weights) x (patches) + 6 x
(output layer) x (completion tokens) floating-point operations per second of a step, divided by the GPU's peak in bf16.
Attention and recomputation are not counted.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig

from benchmarks import bare_vllm
from benchmarks.common import Figure, at_least, at_most, pairs, parser, publish, ratio_figures, record, seconds
from benchmarks.contender import Contender
from benchmarks.made_up import scored_groups
from benchmarks.random_model import SHAPES, UNUSED_IDS, endless, write_model
from benchmarks.shared_prefix import SeparateSequences, step_seconds
from benchmarks.throughput import loop_metrics, whole_loop
from geovlm_ray.config import Config, load_config
from geovlm_ray.core.schema import SampleGroup
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.data.sampler import PromptSampler, SceneStream
from geovlm_ray.learner.grpo_learner import GrpoLearner
from geovlm_ray.learner.micro_batches import MicroBatch, split_into_micro_batches
from geovlm_ray.rewards.local import LocalRewards
from geovlm_ray.training.gpu_memory import ModelShape
from geovlm_ray.training.local import LocalRollouts, make_engine, make_learner

PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12}
"""Dense bf16 peak of a GPU by a part of its name, in operations per second; from the vendor's data sheets."""
SETTINGS = [
    "placement.rollout.num_gpus=0.5",
    "placement.learner.num_gpus=0.5",
    "rollout.gpu_memory_utilization=0.35",
    "rollout.max_tokens=128",
    "rollout.prompts_per_step=32",
    "rollout.max_model_len=1024",
    "learner.kl_beta=0",
    "learner.gradient_checkpointing=true",
    "evaluation.num_examples=0",
]
SMOKE = [
    "placement.rollout.num_gpus=0",
    "placement.learner.num_gpus=0",
    "placement.reward.num_cpus=0",
    "placement.rollout.num_cpus=1",
    "placement.learner.num_cpus=1",
    "rollout.max_tokens=8",
    "rollout.prompts_per_step=4",
    "sync.parity_prompts=1",
]
FULL = ["model.lora=null"]
IN_ONE_PROCESS = ["sync.transport=object_store"]
TRL_ROWS = 8
"""TRL's micro-batch size."""
TRAINED = ["learner.lr=1e-5", "learner.warmup_steps=0", "rollout.enforce_eager=true"]
SYNCS = 3
TOTAL_S = 460
"""Seconds for all stages, after the model is made."""
SMOKE_SLOWER = 3
"""Factor on the time limits of a small run on a CPU."""


@dataclass(frozen=True)
class Bench:
    """A model folder, and how much is measured."""

    model: Path
    smoke: bool

    def config(self, *overrides: str) -> Config:
        """The recipe `debug-gpu` with the random model."""
        return load_config("debug-gpu", [*self.overrides, *overrides])

    @property
    def overrides(self) -> list[str]:
        """Overrides of the recipe."""
        return [f"model.path={self.model}", *SETTINGS, *(SMOKE if self.smoke else [])]

    @property
    def rounds(self) -> int:
        """Repetitions of what is repeated."""
        return 1 if self.smoke else 3


def main() -> int:
    """Run one stage, or all of them one after the other."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--stage", choices=list(STAGES), help="run one stage (default: all)")
    arguments.add_argument("--model", type=Path, help="folder of the model (default: made on the spot)")
    options = arguments.parse_args()
    if options.stage and options.model:
        silence_third_party_logs()
        figures = STAGES[options.stage].run(Bench(options.model, options.smoke))
        return publish("gpu", figures, options, settings=SETTINGS)
    with tempfile.TemporaryDirectory(prefix="geovlm-ray-gpu-") as folder:
        model = options.model or make_model(Path(folder), options.smoke)
        figures, failed = [], []
        # The limits are those of a GPU.
        slower = SMOKE_SLOWER if options.smoke else 1
        deadline = time.monotonic() + slower * TOTAL_S
        for name in [options.stage] if options.stage else STAGES:
            limit = min(slower * STAGES[name].limit_s, deadline - time.monotonic())
            found = run_stage(name, model, Path(folder), options.smoke, limit)
            failed += [] if found else [name]
            figures += found
            code = record("gpu", figures, options, settings=SETTINGS, failed=failed)
    return code or len(failed)


def make_model(folder: Path, smoke: bool) -> Path:
    """Write a model of random weights that never samples its EOS token."""
    shape = SHAPES["3b"]
    if smoke:
        vocabulary = 1000 + UNUSED_IDS
        shape = replace(SHAPES["small"], text={**SHAPES["small"].text, "vocab_size": vocabulary})
    write_model(folder / "random", shape)
    return endless(folder / "random", folder / "model")


def run_stage(name: str, model: Path, folder: Path, smoke: bool, limit_s: float) -> list[Figure]:
    """Figures of a stage that runs in its own process; none if it fails or exceeds its limit."""
    out = folder / f"{name}.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--stage", name, "--model", str(model), "--json", str(out)]
    print(f"Stage {name}, at most {limit_s:.0f} s ...", flush=True)
    begun = time.monotonic()
    process = subprocess.Popen([*command, *(["--smoke"] if smoke else [])], start_new_session=True)
    try:
        process.wait(max(limit_s, 0))
    except subprocess.TimeoutExpired:
        print(f"Stage {name} exceeded its limit")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if not out.is_file():
        return []
    figures = [Figure(**figure) for figure in json.loads(out.read_text())["figures"]]
    return [*figures, Figure(f"stage {name}, s", time.monotonic() - begun)]


def rollout(bench: Bench) -> list[Figure]:
    """Start of an engine, and its tokens/s against bare vLLM."""
    config = bench.config(*FULL)
    begun = time.perf_counter()
    engine = make_engine(config, bench.model)
    started = time.perf_counter() - begun
    runner = engine.llm.llm_engine.model_executor.driver_worker.worker.model_runner
    batches = map(PromptSampler(SceneStream(0), config.data, config.rollout.prompts_per_step).batch, itertools.count())
    engine.generate(next(batches))
    ours, theirs = pairs(
        lambda: engine.generate(next(batches)), lambda: bare_vllm.generate(engine, next(batches)), bench.rounds
    )
    tokens = config.rollout.prompts_per_step * config.rollout.group_size * config.rollout.max_tokens
    return [
        Figure("engine start, s", started),
        Figure("vLLM model runner", 2 if ".gpu." in type(runner).__module__ else 1),
        Figure("rollout, tokens/s", tokens / float(np.median(ours))),
        Figure("bare vLLM, tokens/s", tokens / float(np.median(theirs))),
        *ratio_figures("rollout / bare vLLM, tokens/s", theirs, ours, partial(at_least, limit=0.97)),
    ]


def parity(bench: Bench, *overrides: str) -> list[Figure]:
    """Differences between the log-probs of engine and learner after each of a few syncs, and the seconds of a sync."""
    config = bench.config(*TRAINED, *IN_ONE_PROCESS, *overrides)
    engine, learner = make_engine(config, bench.model), make_learner(config, bench.model)
    rollouts, rewards = LocalRollouts(engine), LocalRewards(config.reward)
    sampler = PromptSampler(SceneStream(0), config.data, config.rollout.prompts_per_step)
    kind = "LoRA" if config.model.lora else "full weights"
    differences, syncs = [], []
    for step in range(SYNCS):
        syncs.append(seconds(lambda: rollouts.update_weights(learner.weights)))
        groups = engine.generate(sampler.batch(step))
        differences.append(largest_difference(learner, groups))
        learner.step(rewards.score(groups))
    return [
        at_most(
            f"{kind}: largest log-prob difference over {SYNCS} syncs", max(differences), config.sync.parity_tolerance
        ),
        Figure(f"{kind}: sync in one process, s", min(syncs)),
        *memory(f"{kind}: engine and learner"),
    ]


def largest_difference(learner: GrpoLearner, groups: Sequence[SampleGroup]) -> float:
    """Largest difference between the learner's log-probs and those of the engine."""
    samples = [s for group in groups for s in group.samples]
    pairs_of = zip(learner.logprobs(groups), samples, strict=True)
    return max(float(np.abs(values - np.array(sample.logprobs)).max()) for values, sample in pairs_of)


def learner(bench: Bench) -> list[Figure]:
    """Tokens/s and MFU of a step with all weights, with a shared prefix and with separate sequences."""
    config = bench.config(*FULL)
    policy = make_learner(config, bench.model)
    groups = scored_groups(config, policy, config.rollout.prompts_per_step, 8, config.rollout.max_tokens)
    policy.step(groups)
    rows = [
        MicroBatch.of(part, policy.encode, policy.encoder).row
        for part in split_into_micro_batches(groups, policy.encode, config.learner.tokens_per_micro_batch)
    ]
    step = min(seconds(lambda: policy.step(groups)) for _ in range(bench.rounds))
    shape = ModelShape.of(AutoConfig.from_pretrained(bench.model))
    operations = 6 * sum(
        shape.language.weights * len(row.input_ids)
        + shape.vision.weights * len(row.images.pixel_values)
        + shape.vocabulary * shape.language.width * len(row.targets)
        for row in rows
    )
    separate = SeparateSequences(policy.row_logprobs, images_once=False)
    few = groups[: max(1, len(groups) // 4)]
    shared_s = step_seconds(policy, policy.row_logprobs, few)
    return [
        Figure("learner, completion tokens/s", sum(len(row.targets) for row in rows) / step),
        Figure("learner, TFLOP/s", operations / step / 1e12),
        *mfu(operations / step),
        Figure("shared prefix / separate sequences, steps/s", step_seconds(policy, separate, few) / shared_s),
        *memory("learner"),
    ]


def mfu(operations_per_second: float) -> list[Figure]:
    """Model FLOPs utilization, if the GPU's peak is known."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    peaks = [peak for part, peak in PEAK_FLOPS.items() if part in name]
    return [at_least("learner, MFU", operations_per_second / peaks[0], 0.4)] if peaks else []


def memory(name: str) -> list[Figure]:
    """Peak GPU memory of this process."""
    if not torch.cuda.is_available():
        return []
    return [Figure(f"{name}: peak GPU memory, GiB", torch.cuda.max_memory_allocated() / 2**30)]


def sleep(bench: Bench) -> list[Figure]:
    """GPU memory and seconds of an engine that sleeps while a learner trains, and their log-probs afterwards."""
    together = ["placement.colocate=true", "loop.max_staleness=0"]
    config = bench.config(*FULL, *TRAINED, *IN_ONE_PROCESS, *together)
    engine, learner = make_engine(config, bench.model), make_learner(config, bench.model)
    rollouts = LocalRollouts(engine)
    prompts = PromptSampler(SceneStream(0), config.data, config.rollout.prompts_per_step).batch(0)
    groups = LocalRewards(config.reward).score(rollouts.generate(prompts))
    awake = free_gib()
    falling_asleep = seconds(rollouts.sleep)
    asleep = free_gib()
    learner.step(groups)
    waking = seconds(lambda: rollouts.update_weights(learner.weights))
    difference = largest_difference(learner, rollouts.generate(prompts))
    return [
        Figure("sleep: GPU memory given back, GiB", asleep - awake),
        Figure("sleep: seconds to fall asleep", falling_asleep),
        Figure("sleep: seconds to wake up with new weights", waking),
        at_most("sleep: log-prob difference after waking up", difference, config.sync.parity_tolerance),
    ]


def free_gib() -> float:
    """Free memory of the GPU in GiB; 0 without one."""
    return torch.cuda.mem_get_info()[0] / 2**30 if torch.cuda.is_available() else 0.0


def trl(bench: Bench) -> list[Figure]:
    """Completion tokens/s of TRL's trainer on the same model, if it is installed."""
    if importlib.util.find_spec("trl") is None:
        return [Figure("TRL is installed", 0)]
    from benchmarks import versus_theirs

    overrides = [*bench.overrides, *FULL, "learner.lr=1e-6", "learner.warmup_steps=0"]
    theirs = Contender(versus_theirs.serve, "debug-gpu", overrides, TRL_ROWS, os.cpu_count())
    rate = float(np.median([theirs.measure("step") for _ in range(bench.rounds)]))
    theirs.close()
    return [Figure("TRL, tokens/s", rate * bench.config().rollout.max_tokens)]


def loop(bench: Bench, staleness: int, transport: str) -> list[Figure]:
    """A few steps of the whole loop on Ray with all weights, and the seconds of a sync."""
    settings = [f"loop.max_staleness={staleness}", f"sync.transport={transport}", "checkpoint.every=1000"]
    overrides = [*bench.overrides, *FULL, *settings]
    with tempfile.TemporaryDirectory(prefix="geovlm-ray-gpu-") as folder:
        metrics = loop_metrics("debug-gpu", overrides, Path(folder), 2 if bench.smoke else 4)
    sync = float(np.median([row["seconds/sync"] for row in metrics]))
    limited = at_most(f"sync by {transport}, s", sync, 0.3)
    figures = [*whole_loop(metrics), limited if transport == "ipc" else Figure(f"sync by {transport}, s", sync)]
    return [replace(figure, name=f"staleness {staleness}: {figure.name}") for figure in figures]


@dataclass(frozen=True)
class Stage:
    """What a stage measures, and its time limit in seconds."""

    run: Callable[[Bench], list[Figure]]
    limit_s: int


STAGES = {
    "rollout": Stage(rollout, 120),
    "parity-full": Stage(lambda bench: parity(bench, *FULL), 100),
    "parity-lora": Stage(parity, 80),
    "learner": Stage(learner, 90),
    "sleep": Stage(sleep, 80),
    "loop-0": Stage(lambda bench: loop(bench, 0, "object_store"), 110),
    "loop-1": Stage(lambda bench: loop(bench, 1, "shared_memory" if bench.smoke else "ipc"), 110),
    "trl": Stage(trl, 120),
}


if __name__ == "__main__":
    sys.exit(main())

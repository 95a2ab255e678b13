"""Costs of the loop's components for `geovlm-ray plan`, measured in one process and in the loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import nnls

from benchmarks.common import seconds
from geovlm_ray.config import Config
from geovlm_ray.core.schema import Prompt, RewardScore, SampleGroup
from geovlm_ray.learner.grpo_learner import GrpoLearner
from geovlm_ray.rewards.local import LocalRewards
from geovlm_ray.rollout.engine import Engine
from geovlm_ray.training.local import LocalRollouts
from geovlm_ray.training.plan.compare import measured_idle
from geovlm_ray.training.plan.planner import predict
from geovlm_ray.training.plan.rates import Setup, columns, rates_from_values

ROUNDS = 3
PARTS = (1, 4, 16)
"""Divisors of the batch size: batches of several sizes separate the costs per iteration and per token."""


def measure(
    config: Config,
    engine: Engine,
    learner: GrpoLearner,
    batches: Iterator[list[Prompt]],
    loop: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """The JSON object ``rates``: all fields of `geovlm_ray.training.plan.rates.Rates`, and derived figures.

    The derived figures are tokens/s of an engine and of the learner, completions/s of a reward actor, MB of a weight
    sync, mean and standard deviation of the lengths, and the loop's step time and idle fractions.

    Args:
        batches: batches of prompts that the engine has not seen.
        loop: metrics of a run of the same configuration, which give the driver's overhead.
        learner: is trained by the measurement.
    """
    decode, generated = rollout_costs(config, engine, batches)
    groups = LocalRewards(config.reward).score(generated)
    learn = learner_costs(learner, groups)
    completions = sum(len(group.samples) for group in groups)
    reward_s = _median_seconds(lambda: LocalRewards(config.reward).score(groups)) / completions
    lengths = [[len(sample.token_ids) for sample in group.samples] for group in groups]
    values: dict[str, Any] = {
        **Setup.of(config).model_dump(),
        **decode,
        **learn,
        "reward_s_per_completion": reward_s,
        **sync_costs(config, engine, learner, next(batches)),
        "overhead_s": max(0.0, _median_phase(loop, "step", "rollout", "parity", "learner", "sync")),
        "completion_tokens": lengths,
    }
    rates = rates_from_values(values, "rates")
    flat = [length for group in lengths for length in group]
    prompts = [engine.encoder.length(group.prompt.example) for group in groups]
    iterations = len(lengths) * values["prefill_s_per_prompt"] + max(flat) * values["decode_s_per_step"]
    return {
        **values,
        "rollout_tokens_per_s": sum(flat) / (iterations + sum(flat) * values["decode_s_per_token"]),
        "learner_tokens_per_s": sum(flat) / predict(rates, rates).busy_s["learner"],
        "reward_completions_per_s": 1 / reward_s,
        "sync_mb": sum(bucket.nbytes for bucket in learner.weights([])) / 1e6,
        **_spread("prompt_tokens", prompts),
        **_spread("completion_tokens", flat),
        "loop": {
            "step_s": _median_phase(loop, "step"),
            "idle": measured_idle(rates, rates, columns(loop, "the loop's metrics")),
        },
    }


def rollout_costs(
    config: Config, engine: Engine, batches: Iterator[list[Prompt]]
) -> tuple[dict[str, float], list[SampleGroup]]:
    """An engine's costs per prompt, iteration and token, fitted to batches of several sizes; and the last batch.

    Each engine generates an equal share of a batch.
    """
    share = -(-config.rollout.prompts_per_step // config.placement.rollout.actors)
    work: list[list[float]] = []
    durations = []
    engine.generate(next(batches)[:share])
    for _ in range(ROUNDS):
        for size, tokens in ((share, 1), *((max(1, share // part), None) for part in PARTS)):
            prompts = next(batches)[:size]
            begun = time.perf_counter()
            groups = engine.generate(prompts, group_size=2 if tokens else None, max_tokens=tokens)
            durations.append(time.perf_counter() - begun)
            lengths = [len(sample.token_ids) for group in groups for sample in group.samples]
            work.append([len(prompts), max(lengths), sum(lengths)])
    names = ("prefill_s_per_prompt", "decode_s_per_step", "decode_s_per_token")
    return _fit(names, work, durations), engine.generate(next(batches))


def learner_costs(learner: GrpoLearner, groups: Sequence[SampleGroup]) -> dict[str, float]:
    """The learner's costs per group and token, fitted to steps with all and with half of each group's samples.

    Measured with rewards that vary in every group, then averaged over all groups, including those without reward
    variance, which the learner skips.
    """
    useful = float(np.mean([len(set(group.rewards)) > 1 for group in groups]))
    work: list[list[float]] = []
    durations = []
    learner.step(_varied(groups, len(groups[0].samples)))
    for _ in range(ROUNDS):
        for size in (len(groups[0].samples), max(2, len(groups[0].samples) // 2)):
            batch = _varied(groups, size)
            begun = time.perf_counter()
            tokens = learner.step(batch)["learner/tokens"]
            durations.append(time.perf_counter() - begun)
            work.append([len(batch), tokens])
    costs = _fit(("learner_s_per_group", "learner_s_per_token"), work, durations)
    return {name: cost * max(useful, 1 / len(groups)) for name, cost in costs.items()}


def sync_costs(config: Config, engine: Engine, learner: GrpoLearner, prompts: list[Prompt]) -> dict[str, float]:
    """Seconds of a weight sync to an engine, and of the two halves of the parity check."""
    probe = prompts[: config.sync.parity_prompts]
    sampling: dict[str, Any] = {"group_size": 1, "max_tokens": config.sync.parity_tokens}
    rollouts = LocalRollouts(engine)
    sync_s = _median_seconds(lambda: rollouts.update_weights(learner.weights))
    groups = engine.generate(probe, **sampling)
    return {
        "sync_s": sync_s,
        "probe_s": _median_seconds(lambda: engine.generate(probe, **sampling)),
        "parity_s": _median_seconds(lambda: learner.logprobs(groups)),
    }


def _varied(groups: Sequence[SampleGroup], size: int) -> list[SampleGroup]:
    """The first ``size`` samples of each group, with alternating rewards 0 and 1."""
    return [
        replace(
            group,
            samples=tuple(
                replace(sample, reward=RewardScore(float(i % 2), 1.0, 0.0))
                for i, sample in enumerate(group.samples[:size])
            ),
        )
        for group in groups
    ]


def _fit(names: Sequence[str], work: list[list[float]], durations: list[float]) -> dict[str, float]:
    """Non-negative least-squares costs that minimise the relative errors of the durations."""
    scaled = np.array(work) / np.array(durations)[:, None]
    costs, _ = nnls(scaled, np.ones(len(durations)))
    return dict(zip(names, map(float, costs), strict=True))


def _median_phase(loop: Sequence[dict[str, Any]], phase: str, *less: str) -> float:
    """Median seconds of a phase, minus those of the phases ``less``, without the first step."""
    return float(np.median([row[f"seconds/{phase}"] - sum(row[f"seconds/{p}"] for p in less) for row in loop[1:]]))


def _spread(name: str, lengths: Sequence[int]) -> dict[str, float]:
    return {f"{name}_mean": float(np.mean(lengths)), f"{name}_std": float(np.std(lengths))}


def _median_seconds(call: Callable[[], object]) -> float:
    return float(np.median([seconds(call) for _ in range(ROUNDS)]))

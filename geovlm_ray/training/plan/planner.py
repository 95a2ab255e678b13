"""Search for the GPU split, batch size, group size and staleness with the highest simulated throughput."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from geovlm_ray.core.errors import ConfigError
from geovlm_ray.training.plan.rates import Rates
from geovlm_ray.training.plan.simulate import (
    Assumed,
    Lengths,
    Setup,
    SimulationResult,
    learner_seconds,
    reward_seconds,
    simulate,
    sync_seconds,
)

MAX_GPUS = 4096
MAX_PROMPTS_PER_STEP = 2**15
"""Largest batch that is tried."""
MAX_PLANS = 8
TIE = 0.95
"""Plans with at least this fraction of the best plan's samples/s count as equally fast."""
SPLITS = 32
"""Number of GPU splits on the coarse grid of `best_split`."""
SIMULATED_GROUPS = 60_000
"""Approximate groups per simulation: large batches are simulated for fewer steps, within the bounds below."""
MIN_STEPS, MAX_STEPS = 3, 40
SETTINGS = ("prompts_per_step", "group_size", "max_staleness", "in_flight")


@dataclass(frozen=True)
class Plan:
    """A simulated setup, and the configuration overrides that produce it."""

    result: SimulationResult
    overrides: tuple[str, ...]


def plans(
    rates: Rates,
    gpus: int,
    assumed: Assumed | None = None,
    *,
    keep: Collection[str] = (),
    seed: int = 0,
) -> list[Plan]:
    """The best plans for a number of GPUs, one per batch size, group size, staleness, sync mode and colocation.

    Sorted by throughput; among plans within `TIE` of the fastest, the one closest to the measured settings comes first.
    The plan closest to the measured settings is always included. The GPU split of each is the best by `estimate`; its
    figures are simulated. ``keep`` names the `SETTINGS` to leave as measured.

    Raises:
        ConfigError: ``gpus`` is not in 1 to `MAX_GPUS`, a kept staleness above 0 on one GPU, or a negative seed.
    """
    if not 1 <= gpus <= MAX_GPUS:
        raise ConfigError(f"GPUs: expected 1 to {MAX_GPUS}, found {gpus}")
    if seed < 0:
        raise ConfigError(f"seed: expected at least 0, found {seed}")
    assumed = assumed or Assumed()
    best = [best_split(rates, setup, assumed, seed) for setup in candidates(rates, gpus, keep)]
    if not best:
        raise ConfigError(
            "max_staleness: expected 0, since engine and learner alternate on one GPU, found the measured "
            f"{rates.max_staleness}; do not keep it, or plan for at least 2 GPUs"
        )
    best.sort(key=lambda split: (split[0] / _samples(split[1]), _distance(rates, split[1])))
    nearest = min(best, key=lambda split: _distance(rates, split[1]))
    chosen = best[:MAX_PLANS] if nearest in best[:MAX_PLANS] else [*best[:MAX_PLANS], nearest]
    results = [_simulated(rates, setup, assumed, seed) for _, setup in chosen]
    fastest = max(result.samples_per_s for result in results)

    def rank(result: SimulationResult) -> tuple[bool, float]:
        tied = result.samples_per_s >= TIE * fastest
        return not tied, _distance(rates, result.setup) if tied else -result.samples_per_s

    return [Plan(result, overrides(result.setup)) for result in sorted(results, key=rank)]


def candidates(rates: Rates, gpus: int, keep: Collection[str]) -> Iterator[Setup]:
    """Setups around the measured settings, with an arbitrary GPU split and the measured reward actors per GPU.

    Batch sizes range from half the measured one to the measured prompts per GPU or twice the batch, whichever is more.
    Besides the measured combination, staleness above 1 is tried with in-flight sync only, since drained engines load
    weights after all submitted batches, and staleness 0 with drained sync only, since nothing is in flight at a sync.
    """
    growth = gpus / (rates.rollout_actors + rates.learner_gpus)
    largest = max(1, math.floor(math.log2(max(1.0, growth))))
    prompts = {max(1, round(rates.prompts_per_step * 2.0**i)) for i in range(-1, largest + 1)}
    prompts = {n for n in prompts if n <= max(MAX_PROMPTS_PER_STEP, rates.prompts_per_step)}
    sizes = {max(2, rates.group_size // 2), rates.group_size, 2 * rates.group_size}
    syncs = {(0, False), (1, False), (1, True), (2, True), (3, True), (rates.max_staleness, rates.in_flight)}
    if "prompts_per_step" in keep:
        prompts = {rates.prompts_per_step}
    if "group_size" in keep:
        sizes = {rates.group_size}
    if "max_staleness" in keep:
        syncs = {sync for sync in syncs if sync[0] == rates.max_staleness}
    if "in_flight" in keep:
        syncs = {sync for sync in syncs if sync[1] == rates.in_flight}
    reward_actors = max(rates.reward_actors, math.ceil(rates.reward_actors * growth))
    for p, g, (k, in_flight) in itertools.product(sorted(prompts), sorted(sizes), sorted(syncs)):
        if gpus > 1:
            yield Setup(gpus - 1, 1, p, g, k, reward_actors, in_flight)
        if k == 0:
            yield Setup(gpus, gpus, p, g, k, reward_actors, in_flight, colocated=True)


def best_split(rates: Rates, setup: Setup, assumed: Assumed, seed: int = 0) -> tuple[float, Setup]:
    """Seconds of a step and setup of the GPU split with the shortest step by `estimate`.

    Searches all splits of up to `SPLITS` + 1 GPUs, otherwise a coarse grid and then all splits around its best one.
    """
    batch = Lengths(rates, seed).batch(0, setup.prompts_per_step, setup.group_size)
    if setup.colocated:
        return estimate(rates, setup, assumed, batch), setup

    def best(learner_gpus: Iterable[int]) -> tuple[float, Setup]:
        splits = [replace(setup, rollout_actors=setup.gpus - n, learner_gpus=n) for n in sorted(learner_gpus)]
        return min(((estimate(rates, split, assumed, batch), split) for split in splits), key=lambda pair: pair[0])

    width = setup.gpus // (SPLITS + 1)
    centre = best({max(1, setup.gpus * i // (SPLITS + 1)) for i in range(1, SPLITS + 1)})[1].learner_gpus
    return best(range(max(1, centre - width), min(setup.gpus - 1, centre + width) + 1))


def estimate(rates: Rates, setup: Setup, assumed: Assumed, lengths: np.ndarray) -> float:
    """Closed-form estimate of the seconds of a step, from the completion lengths of one batch, [prompts, group_size].

    Exact if all completions have the same length, sync is drained, engines run all their groups concurrently, and
    rewards are not the bottleneck; otherwise accurate enough to rank setups.
    """
    engine = np.arange(setup.prompts_per_step) % setup.rollout_actors
    per_engine = {"minlength": setup.rollout_actors}
    longest = np.zeros(setup.rollout_actors)
    np.maximum.at(longest, engine, lengths.max(1))
    waves = np.bincount(engine, lengths.max(1), **per_engine) / assumed.max_concurrent_groups(setup.group_size)
    rollout = (
        np.bincount(engine, **per_engine) * rates.prefill_s_per_prompt
        + np.maximum(longest, waves) * rates.decode_s_per_step
        + np.bincount(engine, lengths.sum(1), **per_engine) * rates.decode_s_per_token
    )
    score = reward_seconds(rates, setup)
    train = learner_seconds(rates, setup, assumed, float(lengths.sum()))
    sync = sync_seconds(rates, setup, assumed)
    parity = setup.rollout_actors * rates.parity_s
    rest = rates.probe_s + rates.overhead_s
    if setup.max_staleness and setup.in_flight:
        return max(score, sync + float(rollout.mean()), sync + rest + parity + train)
    if setup.max_staleness:
        return max(score, sync + rest + float(rollout.max()), sync + rest + parity + train)
    switches = 2 * assumed.switch_s if setup.colocated else 0.0
    return max(float(rollout.max()) + score, parity) + train + sync + rest + switches


def overrides(setup: Setup) -> tuple[str, ...]:
    """Configuration overrides that produce a setup."""
    return (
        f"placement.rollout.actors={setup.rollout_actors}",
        f"placement.learner.actors={setup.learner_gpus}",
        f"rollout.prompts_per_step={setup.prompts_per_step}",
        f"rollout.group_size={setup.group_size}",
        f"loop.max_staleness={setup.max_staleness}",
        f"sync.mode={'in_flight' if setup.in_flight else 'drained'}",
        f"placement.reward.actors={setup.reward_actors}",
    )


def _simulated(rates: Rates, setup: Setup, assumed: Assumed, seed: int) -> SimulationResult:
    steps = min(MAX_STEPS, max(MIN_STEPS, SIMULATED_GROUPS // setup.prompts_per_step))
    return simulate(rates, setup, assumed, steps=steps + setup.max_staleness + 1, seed=seed)


def _samples(setup: Setup) -> int:
    return setup.prompts_per_step * setup.group_size


def _distance(rates: Rates, setup: Setup) -> float:
    """Distance to the measured settings: doublings of batch and group size, plus differences in staleness and sync."""
    return (
        abs(math.log2(setup.prompts_per_step / rates.prompts_per_step))
        + abs(math.log2(setup.group_size / rates.group_size))
        + abs(setup.max_staleness - rates.max_staleness)
        + (setup.in_flight != rates.in_flight)
    )

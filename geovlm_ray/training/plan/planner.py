"""The split of GPUs, the batch, group size and staleness with which a loop of measured rates is fastest."""

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

MOST_GPUS = 4096
LARGEST_BATCH = 2**15
"""Prompts a step that are still tried."""
SHOWN = 8
TIE = 0.95
"""Plans of at least this share of the best one's samples/s count as equally fast."""
SPLITS = 32
"""Splits of the GPUs that are estimated at once; of more GPUs, as many again around the best of them."""
SIMULATED_GROUPS = 60_000
"""Groups of one simulation, about: large batches are simulated for fewer steps, at least `FEWEST_STEPS`."""
FEWEST_STEPS, MOST_STEPS = 3, 40
SETTINGS = ("prompts_per_step", "group_size", "max_staleness", "in_flight")


@dataclass(frozen=True)
class Plan:
    """What the simulation says of a setup, and the settings that make it."""

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
    """The best plans for a number of GPUs, no two of the same batch, group size, staleness, sync and placement.

    The fastest comes first, but of those that are about as fast the one nearest to the measured settings; a plan with
    the measured settings is always among them. Each is the best split by `estimate`, simulated. ``keep`` names those
    of `SETTINGS` that stay as they were measured.

    Raises:
        ConfigError: there is no GPU or more than `MOST_GPUS`, a kept staleness has no room on one, or the seed is
            negative.
    """
    if not 1 <= gpus <= MOST_GPUS:
        raise ConfigError(f"GPUs: expected 1 to {MOST_GPUS}, found {gpus}")
    if seed < 0:
        raise ConfigError(f"seed: expected at least 0, found {seed}")
    assumed = assumed or Assumed()
    best = [best_split(rates, shape, assumed, seed) for shape in shapes(rates, gpus, keep)]
    if not best:
        raise ConfigError(
            "max_staleness: expected 0, since engine and learner take turns on one GPU, found the measured "
            f"{rates.max_staleness}; do not keep it, or plan for 2 GPUs"
        )
    best.sort(key=lambda found: (found[0] / _samples(found[1]), _distance(rates, found[1])))
    nearest = min(best, key=lambda found: _distance(rates, found[1]))
    chosen = best[:SHOWN] if nearest in best[:SHOWN] else [*best[:SHOWN], nearest]
    results = [_simulated(rates, setup, assumed, seed) for _, setup in chosen]
    fastest = max(result.samples_per_s for result in results)

    def place(result: SimulationResult) -> tuple[bool, float]:
        ties = result.samples_per_s >= TIE * fastest
        return not ties, _distance(rates, result.setup) if ties else -result.samples_per_s

    return [Plan(result, overrides(result.setup)) for result in sorted(results, key=place)]


def shapes(rates: Rates, gpus: int, keep: Collection[str]) -> Iterator[Setup]:
    """Settings around the measured ones, placed in some way on the GPUs, with as many reward actors a GPU as measured.

    Batches go from half the measured one to as many prompts a GPU as were measured, or twice the batch. More than one
    batch ahead helps only engines that take weights in flight: others take them when all that is submitted is drawn.
    Without a batch ahead there is nothing in flight when weights come.
    """
    growth = gpus / (rates.rollout_actors + rates.learner_gpus)
    largest = max(1, math.floor(math.log2(max(1.0, growth))))
    prompts = {max(1, round(rates.prompts_per_step * 2.0**i)) for i in range(-1, largest + 1)}
    prompts = {n for n in prompts if n <= max(LARGEST_BATCH, rates.prompts_per_step)}
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
    scorers = max(rates.reward_actors, math.ceil(rates.reward_actors * growth))
    for p, g, (k, in_flight) in itertools.product(sorted(prompts), sorted(sizes), sorted(syncs)):
        if gpus > 1:
            yield Setup(gpus - 1, 1, p, g, k, scorers, in_flight)
        if k == 0:
            yield Setup(gpus, gpus, p, g, k, scorers, in_flight, colocated=True)


def best_split(rates: Rates, shape: Setup, assumed: Assumed, seed: int = 0) -> tuple[float, Setup]:
    """The split of a shape's GPUs with the shortest step by `estimate`, and that step in seconds.

    All splits are tried, or of many GPUs a grid of them and what lies around its best.
    """
    batch = Lengths(rates, seed).batch(0, shape.prompts_per_step, shape.group_size)
    if shape.colocated:
        return estimate(rates, shape, assumed, batch), shape

    def best(learners: Iterable[int]) -> tuple[float, Setup]:
        setups = [replace(shape, rollout_actors=shape.gpus - n, learner_gpus=n) for n in sorted(learners)]
        return min(((estimate(rates, setup, assumed, batch), setup) for setup in setups), key=lambda found: found[0])

    width = shape.gpus // (SPLITS + 1)
    centre = best({max(1, shape.gpus * i // (SPLITS + 1)) for i in range(1, SPLITS + 1)})[1].learner_gpus
    return best(range(max(1, centre - width), min(shape.gpus - 1, centre + width) + 1))


def estimate(rates: Rates, setup: Setup, assumed: Assumed, lengths: np.ndarray) -> float:
    """Seconds of a step in closed form, from one batch's lengths [prompts, group_size].

    Exact where every completion is as long as every other, weights are taken between batches, engines have room for
    their share, and the rewards do not hold anything up; otherwise close enough to choose by.
    """
    engine = np.arange(setup.prompts_per_step) % setup.rollout_actors
    per_engine = {"minlength": setup.rollout_actors}
    longest = np.zeros(setup.rollout_actors)
    np.maximum.at(longest, engine, lengths.max(1))
    waves = np.bincount(engine, lengths.max(1), **per_engine) / assumed.groups_at_once(setup.group_size)
    draws = (
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
        return max(score, sync + float(draws.mean()), sync + rest + parity + train)
    if setup.max_staleness:
        return max(score, sync + rest + float(draws.max()), sync + rest + parity + train)
    switches = 2 * assumed.switch_s if setup.colocated else 0.0
    return max(float(draws.max()) + score, parity) + train + sync + rest + switches


def overrides(setup: Setup) -> tuple[str, ...]:
    """The settings that make a setup."""
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
    steps = min(MOST_STEPS, max(FEWEST_STEPS, SIMULATED_GROUPS // setup.prompts_per_step))
    return simulate(rates, setup, assumed, steps=steps + setup.max_staleness + 1, seed=seed)


def _samples(setup: Setup) -> int:
    return setup.prompts_per_step * setup.group_size


def _distance(rates: Rates, setup: Setup) -> float:
    """How far settings are from the measured ones: doublings of batch and group size, versions of staleness, mode."""
    return (
        abs(math.log2(setup.prompts_per_step / rates.prompts_per_step))
        + abs(math.log2(setup.group_size / rates.group_size))
        + abs(setup.max_staleness - rates.max_staleness)
        + (setup.in_flight != rates.in_flight)
    )

"""Predicted step time of a setup of the training loop, and the GPU splits with the shortest one."""

from __future__ import annotations

import math

from pydantic import BaseModel

from geovlm_ray.core.errors import ConfigError
from geovlm_ray.training.plan.rates import Rates, Setup

SYNCS = ((0, False), (1, False), (1, True), (2, True), (3, True))
"""Staleness, and whether weights are loaded in flight; drained engines gain nothing from more than one batch ahead."""
TIE = 0.95
"""Plans with at least this fraction of the best plan's samples/s count as equally fast."""


class Assumed(BaseModel):
    """Scaling losses, which rates from a single setup do not contain.

    ``learner_efficiency`` is the fraction of per-GPU learner speed kept at each doubling of its GPUs, ``sync_growth``
    the relative increase of sync time at each doubling of the engines.
    """

    learner_efficiency: float = 0.95
    sync_growth: float = 0.1


class Prediction(BaseModel):
    """Predicted step time of a setup, and seconds of a step in which the mean actor of a kind is busy.

    Kinds are ``rollout``, ``reward`` and ``learner``; ``idle``, fractions in [0, 1], also has all GPUs (``gpu``).
    """

    setup: Setup
    step_s: float
    samples_per_s: float
    busy_s: dict[str, float]
    idle: dict[str, float]


def predict(rates: Rates, setup: Setup, assumed: Assumed | None = None) -> Prediction:
    """Predict the step time of a setup, the largest of four bounds, on-policy the first (k = ``max_staleness``):

    - (max(rollout + reward, parity) + learner + rest) / (k + 1): a batch is in the loop for at most k + 1 steps
    - rollout + rest, for the engines
    - reward, for the reward actors
    - parity + learner + rest, for the learner

    ``rollout`` is the time of the last engine: an equal share of the work, which falls with the number of engines, and
    an excess, which does not: the iterations of the longest completion and the larger load of the busiest engine. With
    syncs in flight the second bound has 1 / (k + 1) of the excess, since engines continue with other batches.
    ``reward`` is the time of a batch whose groups all finish at once, ``learner`` that of the GPU with the most groups,
    ``parity`` the learner's check of all engines' probes, and ``rest`` sync, probe and overhead.
    """
    assumed = assumed or Assumed()
    prompts, group_size, engines = setup.prompts_per_step, setup.group_size, setup.rollout_actors
    group_tokens = group_size * rates.lengths.mean
    share = prompts * (rates.prefill_s_per_prompt + group_tokens * rates.decode_s_per_token) / engines
    iterations = rates.lengths.longest(prompts) * rates.decode_s_per_step
    busiest_tokens = rates.lengths.busiest(prompts, group_size, engines)
    busiest_prefill = math.ceil(prompts / engines) * rates.prefill_s_per_prompt
    rollout = busiest_prefill + iterations + busiest_tokens * rates.decode_s_per_token
    reward = math.ceil(prompts / setup.reward_actors) * group_size * rates.reward_s_per_completion
    groups_per_gpu = math.ceil(prompts / setup.learner_gpus) * rates.learner_gpus
    efficiency = assumed.learner_efficiency ** math.log2(setup.learner_gpus / rates.learner_gpus)
    learner = groups_per_gpu * (rates.learner_s_per_group + group_tokens * rates.learner_s_per_token) / efficiency
    parity = engines * rates.parity_s
    doublings = max(0.0, math.log2(engines / rates.rollout_actors))
    rest = rates.sync_s * (1 + assumed.sync_growth * doublings) + rates.probe_s + rates.overhead_s
    steps = setup.max_staleness + 1
    batches = steps if setup.in_flight else 1
    step = max(
        (max(rollout + reward, parity) + learner + rest) / steps,
        share + (rollout - share) / batches + rest,
        reward,
        parity + learner + rest,
    )
    busy = {"rollout": share + iterations / batches * min(1, prompts / engines), "reward": reward, "learner": learner}
    gpu = (engines * busy["rollout"] + setup.learner_gpus * learner) / (engines + setup.learner_gpus)
    idle = {kind: 1 - seconds / step for kind, seconds in [*busy.items(), ("gpu", gpu)]}
    return Prediction(setup=setup, step_s=step, samples_per_s=prompts * group_size / step, busy_s=busy, idle=idle)


def plans(
    rates: Rates, gpus: int, assumed: Assumed | None = None, prompts_per_step: int | None = None
) -> list[Prediction]:
    """The fastest split of GPUs between engines and learner for each of `SYNCS`, sorted by throughput.

    Plans within `TIE` of the fastest come first, in order of `SYNCS`. Batch and group size are as measured, unless
    ``prompts_per_step`` is given; the number of reward actors grows with the GPUs.

    Raises:
        ConfigError: an argument is out of range.
    """
    assumed = assumed or Assumed()
    prompts = rates.prompts_per_step if prompts_per_step is None else prompts_per_step
    for name, value, least, most in (
        ("--gpus", gpus, 2, 4096),
        ("--prompts-per-step", prompts, 1, 2**16),
        ("--learner-efficiency", assumed.learner_efficiency, 0.01, 1),
        ("--sync-growth", assumed.sync_growth, 0, 10),
    ):
        if not least <= value <= most:
            raise ConfigError(f"{name}: expected {least} to {most}, found {value}")
    reward_actors = math.ceil(rates.reward_actors * max(1.0, gpus / (rates.rollout_actors + rates.learner_gpus)))
    batch = {"reward_actors": reward_actors, "prompts_per_step": prompts, "group_size": rates.group_size}

    def fastest(max_staleness: int, in_flight: bool) -> Prediction:
        splits = (
            Setup(rollout_actors=n, learner_gpus=gpus - n, max_staleness=max_staleness, in_flight=in_flight, **batch)
            for n in range(1, gpus)
        )
        return min((predict(rates, split, assumed) for split in splits), key=lambda prediction: prediction.step_s)

    found = [fastest(*sync) for sync in SYNCS]
    tied_s = min(prediction.step_s for prediction in found) / TIE
    return sorted(found, key=lambda prediction: max(prediction.step_s, tied_s))

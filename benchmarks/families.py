"""Speed-up of the learner from encoding each group's images and prompt once, for every model family.

``python -m benchmarks.families [--json OUT]`` (about 10 minutes). As `benchmarks.shared_prefix`: a learner step on a
group of 8 completions of 64 tokens with one 448 x 448 image, against 8 separate packed sequences, for a random fp32
model of each family with a language model of width 512.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.common import Figure, at_least, at_most, in_turns, parser, publish, ratio_figures
from benchmarks.made_up import MID_SETTINGS, scored_groups
from benchmarks.random_families import CONFIGS, save
from benchmarks.shared_prefix import SeparateSequences, difference, gradient, step_seconds
from geovlm_ray.config import load_config
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.learner.micro_batches import MicroBatch
from geovlm_ray.training.local import make_learner

SIZE, TOKENS = 8, 64
SETTINGS = [*MID_SETTINGS, f"rollout.max_tokens={TOKENS}", "learner.tokens_per_micro_batch=1"]
WIDTH = 8
ROUNDS = 6
"""Including one warm-up round."""


def main() -> int:
    """Measure every family and publish."""
    options = parser(__doc__ or "").parse_args()
    silence_third_party_logs()
    figures = [figure for family in CONFIGS for figure in measure(family, options.smoke)]
    return publish("families", figures, options, settings=SETTINGS)


def measure(family: str, smoke: bool) -> list[Figure]:
    """Gradients and step times of one family."""
    config = load_config("demo", SETTINGS)
    with tempfile.TemporaryDirectory(prefix="geovlm-ray-bench-") as folder:
        learner = make_learner(config, save(family, Path(folder), 1 if smoke else WIDTH))
    groups = scored_groups(config, learner, 1, SIZE, TOKENS)
    shared = learner.row_logprobs
    policies = {"shared": shared, "separate": SeparateSequences(shared, images_once=False)}
    micro = MicroBatch.of(groups, learner.encode, learner.encoder)
    gradients = {name: gradient(learner, policy, micro) for name, policy in policies.items()}
    contenders = {name: partial(step_seconds, learner, policy, groups) for name, policy in policies.items()}
    measured = in_turns(contenders, 2 if smoke else ROUNDS)
    weights = sum(p.numel() for p in learner.model.parameters())
    return [
        Figure(f"{family}: weights, millions", weights / 1e6),
        Figure(f"{family}: tokens of a prompt", micro.row.groups[0].prompt),
        *ratio_figures(
            f"{family}: shared prefix / separate sequences, samples/s",
            measured["separate"][1:],
            measured["shared"][1:],
            partial(at_least, limit=1.5),
        ),
        at_most(f"{family}: relative difference of the gradients", difference(gradients, "separate"), 1e-5),
    ]


if __name__ == "__main__":
    sys.exit(main())

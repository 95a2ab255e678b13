"""Work of an engine's thread besides the model, with a vocabulary of 151,936.

``python -m benchmarks.host_work [--json OUT]`` (about 3 minutes). A small model of random weights samples groups of 8
completions of 32 tokens for 448 x 448 scenes: CPU time of the engine's thread for a prompt that enters (at most 1 ms)
and for a generated token (at most 5 us), and tokens/s of an engine against vLLM's own `LLM.generate` with the same
prompts and sampling parameters.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import bare_vllm
from benchmarks.common import ROUNDS, Figure, at_least, at_most, pairs, parser, publish, ratio_figures
from benchmarks.random_model import SHAPES, endless, write_model
from geovlm_ray.config import load_config
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.data.sampler import PromptSampler, SceneStream
from geovlm_ray.rollout.engine import Engine
from geovlm_ray.training.local import make_engine

VOCABULARY = 151_936
PROMPTS, SIZE, TOKENS = 8, 8, 32
SHAPE = replace(SHAPES["small"], text={**SHAPES["small"].text, "vocab_size": VOCABULARY})
SETTINGS = [
    "prompt.image_size=448",
    f"rollout.prompts_per_step={PROMPTS}",
    f"rollout.group_size={SIZE}",
    f"rollout.max_tokens={TOKENS}",
    "rollout.max_model_len=1024",
]


def main() -> int:
    """Measure and publish."""
    options = parser(__doc__ or "").parse_args()
    silence_third_party_logs()
    rounds = 1 if options.smoke else ROUNDS
    config = load_config("demo", SETTINGS)
    with tempfile.TemporaryDirectory(prefix="geovlm-ray-bench-") as folder:
        write_model(Path(folder) / "model", SHAPE)
        engine = make_engine(config, endless(Path(folder) / "model", Path(folder) / "endless"))
    sampler = PromptSampler(SceneStream(0), config.data, PROMPTS)
    batches = map(sampler.batch, itertools.count())
    timed = ThreadTime(engine)
    engine.generate(next(batches))
    timed.seconds.clear()
    for _ in range(rounds):
        engine.generate(next(batches))
    prompts = PROMPTS * rounds
    per_token = (timed.seconds["process_outputs"] + timed.seconds["_group"]) / (prompts * SIZE * TOKENS)
    ours, bare = pairs(
        lambda: engine.generate(next(batches)), lambda: bare_vllm.generate(engine, next(batches)), rounds
    )
    tokens = PROMPTS * SIZE * TOKENS
    figures = [
        at_most("engine's thread, ms/prompt", 1e3 * timed.seconds["_add"] / prompts, 1),
        at_most("engine's thread, us/token", 1e6 * per_token, 5),
        Figure("engine, tokens/s", tokens / float(np.median(ours))),
        Figure("bare vLLM, tokens/s", tokens / float(np.median(bare))),
        *ratio_figures("engine / bare vLLM, tokens/s", bare, ours, partial(at_least, limit=0.97)),
    ]
    return publish("host_work", figures, options, settings=SETTINGS)


class ThreadTime:
    """CPU seconds that the calling thread spends in parts of an engine, by method."""

    def __init__(self, engine: Engine) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._time(engine, "_add")
        self._time(engine, "_group")
        self._time(engine.llm.llm_engine.output_processor, "process_outputs")

    def _time(self, owner: Any, name: str) -> None:
        method: Callable[..., Any] = getattr(owner, name)

        def timed(*arguments: Any, **settings: Any) -> Any:
            begun = time.thread_time()
            try:
                return method(*arguments, **settings)
            finally:
                self.seconds[name] += time.thread_time() - begun

        setattr(owner, name, timed)


if __name__ == "__main__":
    sys.exit(main())

"""Does the README's command make the embedded policy again, and what does packing save?

``python -m benchmarks.sft --json OUT`` trains the tiny policy from random weights (about 15 minutes on two cores), lets
vLLM answer the same held-out scenes of all tasks with it and with the embedded one, and checks that it earns no less
within two standard errors of the difference, sampled and greedy. Then it times forward and backward passes over the
same records, packed and padded, in turns: drawn scenes as they are, and with a long chain of thought in every fourth.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.common import Figure, at_least, parser, publish
from geovlm_ray.config import load_config
from geovlm_ray.core.schema import Prompt
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.data.sampler import SceneStream
from geovlm_ray.data.scenes import SCENE_TASKS, scene_example
from geovlm_ray.evaluation.validation import MODES
from geovlm_ray.learner.sft.batches import Encoded, SftCollator, pack
from geovlm_ray.model.attention import attend_within_sequences
from geovlm_ray.model.config import TINY, ModelConfig
from geovlm_ray.model.forward import packed_logits
from geovlm_ray.model.loading import load_model, model_folder
from geovlm_ray.model.prompts import pad_right
from geovlm_ray.rewards.local import LocalRewards
from geovlm_ray.training.local import make_encoder, make_engine

SCENES = 1200
RECORDS = 96
BUDGET = 2048
ROUNDS = 5
THOUGHT = "first i look at the left , then at the right , and there is one building on farmland . "
Rewards = dict[str, np.ndarray]


def main() -> int:
    """Train, compare, time, publish."""
    options = parser(__doc__ or "").parse_args()
    silence_third_party_logs()
    with tempfile.TemporaryDirectory(prefix="geovlm-sft-") as folder:
        trained = Path(folder) / "tiny"
        command = [str(Path(sys.executable).with_name("geovlm-ray")), "sft", "tiny-sft", "--scratch", "--out"]
        begun = time.perf_counter()
        subprocess.run([*command, str(trained)], check=True)
        seconds = time.perf_counter() - begun
        training = json.loads((trained / "sft_summary.json").read_text())
        new, embedded = (_in_own_process(rewards_of, path) for path in (str(trained), TINY))
    figures = [
        Figure("training from scratch, seconds", seconds),
        Figure("training from scratch, tokens/s", training["tokens"] / training["seconds"]),
        Figure("held-out token accuracy after training", training["evaluation"]["last"]["token_accuracy"]),
        *(figure for mode in MODES for figure in quality(mode, new[mode], embedded[mode])),
        *packing("drawn scenes", thoughts=0, least=1.0),
        *packing("mixed lengths", thoughts=16, least=1.3),
    ]
    return publish("sft", figures, options.json)


def rewards_of(model: str) -> Rewards:
    """Total reward of one completion of every held-out scene, sampled and greedy, through vLLM."""
    silence_third_party_logs()
    config = load_config("demo", ["data.stages=[]"])
    engine, scorer = make_engine(config, model_folder(model)), LocalRewards(config.reward)
    scenes = SceneStream(config.data.seed).held_out(SCENE_TASKS, SCENES)
    prompts = [Prompt(i, scene) for i, scene in enumerate(scenes)]
    drawn = {mode: engine.generate(prompts, group_size=1, greedy=mode == "greedy") for mode in MODES}
    return {mode: np.array([g.rewards[0] for g in scorer.score(groups)]) for mode, groups in drawn.items()}


def quality(mode: str, new: np.ndarray, embedded: np.ndarray) -> list[Figure]:
    """Both means, and their difference in standard errors of two means (not paired, as both models nearly agree)."""
    change = float(new.mean() - embedded.mean())
    se = float(np.hypot(new.std(ddof=1), embedded.std(ddof=1)) / np.sqrt(len(new)))
    return [
        Figure(f"{mode} reward, newly trained", float(new.mean())),
        Figure(f"{mode} reward, embedded", float(embedded.mean())),
        Figure(f"{mode} reward, standard error of the difference", se),
        at_least(f"{mode} reward, difference in standard errors", change / se, -2),
    ]


def packing(name: str, *, thoughts: int, least: float) -> list[Figure]:
    """Records per second of packed and of padded rows of at most `BUDGET` tokens, over the same records.

    ``thoughts`` sentences of reasoning stand in every fourth record, if any; ``least`` is the speed-up to reach.
    """
    torch.set_num_threads(1)
    config = load_config("demo")
    collator = SftCollator(make_encoder(config, model_folder(TINY)), "empty", BUDGET, rotated=False)
    records = []
    for k in range(RECORDS):
        scene = scene_example(SCENE_TASKS[k % len(SCENE_TASKS)], 1, k)
        if thoughts and k % 4 == 0:
            scene = dataclasses.replace(scene, dataset="thoughtful", reasoning=THOUGHT * thoughts)
        records.append(scene)
    sequences = [(collator.encoder.encode(scene), collator.response(scene)) for scene in records]
    plain, model = (load_model(ModelConfig(), model_folder(TINY), torch.device("cpu"), seed=0).train() for _ in "ab")
    attend_within_sequences(model)
    rows, batches = pack(sequences, BUDGET), padded_batches(sequences)
    tokens = sum(len(row.input_ids) for row in rows)
    slots = sum(len(batch) * max(map(_length, batch)) for batch in batches)

    def packed_pass() -> None:
        for row in rows:
            nn.functional.cross_entropy(packed_logits(model, row), row.targets, reduction="sum").backward()

    def padded_pass() -> None:
        for batch in batches:
            padded_loss(plain, batch).backward()

    packed, padded = (np.array(times) for times in zip(*_in_turns(packed_pass, padded_pass), strict=True))
    return [
        Figure(f"{name}: padding in padded rows", 1 - tokens / slots),
        Figure(f"{name}: packed records/s", RECORDS / float(np.median(packed))),
        at_least(f"{name}: packed / padded speed", float(np.median(padded / packed)), least),
    ]


def padded_batches(sequences: Sequence[Encoded]) -> list[list[Encoded]]:
    """The sequences in their order, as many in a batch as fit when each is padded to the longest of them."""
    batches: list[list[Encoded]] = [[]]
    for sequence in sequences:
        longest = max(map(_length, [*batches[-1], sequence]))
        if longest * (len(batches[-1]) + 1) > BUDGET:
            batches.append([])
        batches[-1].append(sequence)
    return batches


def padded_loss(model: nn.Module, batch: Sequence[Encoded]) -> torch.Tensor:
    """Summed cross-entropy of the responses of sequences that are padded on the right."""
    ids = [torch.cat([prompt.input_ids, torch.tensor(response)]) for prompt, response in batch]
    types = [nn.functional.pad(prompt.mm_token_type_ids, (0, len(response))) for prompt, response in batch]
    starts = [len(prompt.input_ids) for prompt, _ in batch]
    answered = pad_right([torch.arange(len(i)) >= start for i, start in zip(ids, starts, strict=True)])
    hidden = model.model(
        input_ids=pad_right(ids),
        attention_mask=pad_right([torch.ones_like(i) for i in ids]),
        mm_token_type_ids=pad_right(types),
        pixel_values=torch.cat([prompt.pixel_values for prompt, _ in batch]),
        image_grid_thw=torch.cat([prompt.image_grid_thw for prompt, _ in batch]),
        use_cache=False,
    ).last_hidden_state
    logits = model.lm_head(hidden[:, :-1][answered[:, 1:]])
    return nn.functional.cross_entropy(logits, pad_right(ids)[answered], reduction="sum")


def _length(sequence: Encoded) -> int:
    return len(sequence[0].input_ids) + len(sequence[1])


def _in_turns(*passes: Callable[[], None]) -> list[list[float]]:
    """Seconds of each pass in every round, after one round that warms up."""
    rounds = []
    for _ in range(ROUNDS + 1):
        seconds = []
        for once in passes:
            begun = time.perf_counter()
            once()
            seconds.append(time.perf_counter() - begun)
        rounds.append(seconds)
    return rounds[1:]


def _in_own_process(function: Callable[[str], Any], argument: str) -> Any:
    """Call a function in a fresh process: two engines do not share one."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, argument).result()


if __name__ == "__main__":
    sys.exit(main())

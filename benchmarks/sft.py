"""Reproduction of the packaged tiny policy, and the speed-up from sequence packing.

``python -m benchmarks.sft --json OUT`` trains the tiny policy from random weights with the README's command (about 15
minutes on two cores), generates completions of the same held-out scenes of all tasks with it and with the packaged one,
and checks that its reward is not lower by more than two standard errors of the difference, sampled and greedy. Then it
times forward and backward passes on the same records, packed and padded, interleaved: synthetic scenes without
reasoning, and with long reasoning in every fourth record.
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

from benchmarks.common import ROUNDS, Figure, at_least, pairs, parser, publish
from geovlm_ray.config import load_config
from geovlm_ray.core.schema import Prompt
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.data.sampler import SceneStream
from geovlm_ray.data.scenes import SCENE_TASKS, scene_example
from geovlm_ray.evaluation.validation import MODES
from geovlm_ray.learner.sft.batches import Encoded, SftCollator, pack_rows
from geovlm_ray.model.config import TINY, ModelConfig
from geovlm_ray.model.loading import load_model, model_folder
from geovlm_ray.model.logprobs import RowLogprobs
from geovlm_ray.model.prompts import pad_right
from geovlm_ray.model.rows import Completion
from geovlm_ray.rewards.local import LocalRewards
from geovlm_ray.training.local import make_encoder, make_engine

SCENES = 1200
RECORDS = 96
BUDGET = 2048
SMOKE_SCENES = 24
SMOKE_SETTINGS = ("sft.steps=4", "sft.eval_examples=12")
REASONING = "first i look at the left , then at the right , and there is one building on farmland . "
Rewards = dict[str, np.ndarray]


def main() -> int:
    """Train, compare, time and publish."""
    options = parser(__doc__ or "").parse_args()
    silence_third_party_logs()
    with tempfile.TemporaryDirectory(prefix="geovlm-sft-") as folder:
        trained = Path(folder) / "tiny"
        command = [str(Path(sys.executable).with_name("geovlm-ray")), "sft", "tiny-sft"]
        command += [*(SMOKE_SETTINGS if options.smoke else ()), "--scratch", "--out", str(trained)]
        begun = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - begun
        training = json.loads((trained / "sft_summary.json").read_text())
        scenes, rounds = (SMOKE_SCENES, 1) if options.smoke else (SCENES, ROUNDS)
        new, embedded = (_in_subprocess(rewards_of, model, scenes) for model in (str(trained), TINY))
    figures = [
        Figure("training from scratch, seconds", seconds),
        Figure("training from scratch, tokens/s", training["tokens"] / training["seconds"]),
        Figure("held-out token accuracy after training", training["evaluation"]["last"]["token_accuracy"]),
        *(figure for mode in MODES for figure in quality(mode, new[mode], embedded[mode])),
        *packing("drawn scenes", thoughts=0, limit=1.0, rounds=rounds),
        *packing("mixed lengths", thoughts=16, limit=1.3, rounds=rounds),
    ]
    return publish("sft", figures, options)


def rewards_of(model: str, num_scenes: int) -> Rewards:
    """Total rewards of one sampled and one greedy completion of every held-out scene, generated with vLLM."""
    silence_third_party_logs()
    config = load_config("demo", ["data.stages=[]"])
    engine, scorer = make_engine(config, model_folder(model)), LocalRewards(config.reward)
    scenes = SceneStream(config.data.seed).held_out(SCENE_TASKS, num_scenes)
    prompts = [Prompt(i, scene) for i, scene in enumerate(scenes)]
    completions = {mode: engine.generate(prompts, group_size=1, greedy=mode == "greedy") for mode in MODES}
    return {mode: np.array([g.rewards[0] for g in scorer.score(groups)]) for mode, groups in completions.items()}


def quality(mode: str, new: np.ndarray, embedded: np.ndarray) -> list[Figure]:
    """Mean rewards of both models, and their unpaired difference in standard errors."""
    change = float(new.mean() - embedded.mean())
    se = float(np.hypot(new.std(ddof=1), embedded.std(ddof=1)) / np.sqrt(len(new)))
    return [
        Figure(f"{mode} reward, newly trained", float(new.mean())),
        Figure(f"{mode} reward, embedded", float(embedded.mean())),
        Figure(f"{mode} reward, standard error of the difference", se),
        at_least(f"{mode} reward, difference in standard errors", change / se, -2),
    ]


def packing(name: str, *, thoughts: int, limit: float, rounds: int) -> list[Figure]:
    """Records per second with packed and with padded rows of at most `BUDGET` tokens, on the same records.

    Every fourth record has ``thoughts`` sentences of reasoning; ``limit`` is the minimum speed-up.
    """
    torch.set_num_threads(1)
    config = load_config("demo")
    collator = SftCollator(make_encoder(config, model_folder(TINY)), "empty", BUDGET)
    records = []
    for k in range(RECORDS):
        scene = scene_example(SCENE_TASKS[k % len(SCENE_TASKS)], 1, k)
        if thoughts and k % 4 == 0:
            scene = dataclasses.replace(scene, dataset="reasoning", reasoning=REASONING * thoughts)
        records.append(scene)
    sequences = [(collator.encoder.encode(scene), Completion(collator.response(scene))) for scene in records]
    plain, model = (load_model(ModelConfig(), model_folder(TINY), torch.device("cpu"), seed=0).train() for _ in "ab")
    row_logprobs = RowLogprobs(model, torch.tensor([], dtype=torch.long))
    rows, batches = pack_rows(sequences, BUDGET), padded_batches(sequences)
    tokens = sum(map(_length, sequences))
    slots = sum(len(batch) * max(map(_length, batch)) for batch in batches)

    def packed_pass() -> None:
        for row in rows:
            row_logprobs(row).sum().neg().backward()

    def padded_pass() -> None:
        for batch in batches:
            padded_loss(plain, batch).backward()

    packed, padded = map(np.array, pairs(packed_pass, padded_pass, rounds))
    return [
        Figure(f"{name}: padding in padded rows", 1 - tokens / slots),
        Figure(f"{name}: packed records/s", RECORDS / float(np.median(packed))),
        at_least(f"{name}: packed / padded speed", float(np.median(padded / packed)), limit),
    ]


def padded_batches(sequences: Sequence[Encoded]) -> list[list[Encoded]]:
    """The sequences in order, as many per batch as fit in `BUDGET` tokens when padded to the longest of them."""
    batches: list[list[Encoded]] = [[]]
    for sequence in sequences:
        longest = max(map(_length, [*batches[-1], sequence]))
        if longest * (len(batches[-1]) + 1) > BUDGET:
            batches.append([])
        batches[-1].append(sequence)
    return batches


def padded_loss(model: nn.Module, batch: Sequence[Encoded]) -> torch.Tensor:
    """Summed cross-entropy of the responses of right-padded sequences."""
    ids = [torch.cat([prompt.input_ids, torch.tensor(response.token_ids)]) for prompt, response in batch]
    types = [(i == model.config.image_token_id).long() for i in ids]
    starts = [len(prompt.input_ids) for prompt, _ in batch]
    answered = pad_right([torch.arange(len(i)) >= start for i, start in zip(ids, starts, strict=True)])
    hidden = model.model(
        input_ids=pad_right(ids),
        attention_mask=pad_right([torch.ones_like(i) for i in ids]),
        mm_token_type_ids=pad_right(types),
        pixel_values=torch.cat([prompt.images.pixel_values for prompt, _ in batch]),
        image_grid_thw=torch.cat([prompt.images.grid_thw for prompt, _ in batch]),
        use_cache=False,
    ).last_hidden_state
    logits = model.lm_head(hidden[:, :-1][answered[:, 1:]])
    return nn.functional.cross_entropy(logits, pad_right(ids)[answered], reduction="sum")


def _length(sequence: Encoded) -> int:
    return len(sequence[0].input_ids) + len(sequence[1])


def _in_subprocess(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a new process, since a process can hold only one engine."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


if __name__ == "__main__":
    sys.exit(main())

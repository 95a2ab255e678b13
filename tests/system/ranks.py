"""Trains single-rank and multi-rank learners on the same groups and compares them."""

from __future__ import annotations

import dataclasses
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from geovlm_ray.config import load_config
from geovlm_ray.core.schema import Prompt, RewardScore, Sample, SampleGroup
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.learner.ranks import Ranks
from geovlm_ray.model.loading import model_folder
from geovlm_ray.training.local import make_learner
from tests.saving import save_whole
from tests.system.remote_calls import listening_addresses


def group(group_id: int, rewards: list[float], length: int, *, image: bool = True) -> SampleGroup:
    example = scene_example("vqa", 0, group_id)
    samples = [
        Sample(tuple(range(300, 300 + length + i)), (-2.0,) * (length + i), "text", "stop", 0, RewardScore(r, 1.0, r))
        for i, r in enumerate(rewards)
    ]
    return SampleGroup(Prompt(group_id, example if image else dataclasses.replace(example, images=())), tuple(samples))


# Two prompts without an image, one group of zero advantage; with one group per micro-batch, ranks get unequal counts.
GROUPS = [
    group(0, [0.0, 1.0], 4),
    group(1, [1.0, 0.0, 0.0], 30, image=False),
    group(2, [1.0, 1.0], 3),
    group(3, [0.5, 0.0], 5, image=False),
    group(4, [0.0, 2.0], 6),
]


def train_rank(
    rank: int, size: int, address: str, overrides: tuple[str, ...], folder: Path, load: str, save: str
) -> None:
    """Load a checkpoint, train two steps, and save weights, metrics, log-probs and another checkpoint."""
    settings = ["model.path=tiny", "learner.lr=1e-4", "learner.tokens_per_micro_batch=1", *overrides]
    config = load_config("demo", settings)
    learner = make_learner(config, model_folder(config.model.path), Ranks.join(rank, size, address))
    if load:
        learner.load(folder / load)
    rows = [learner.step(GROUPS) for _ in range(2)]
    weights = {name: tensor.clone() for bucket in learner.weights([]) for name, tensor in bucket.tensors()}
    logprobs = [torch.from_numpy(row) for row in learner.logprobs(GROUPS)]
    (folder / save).mkdir(exist_ok=True)
    save_whole(learner, folder / save)
    seen = {"rows": rows, "weights": weights, "logprobs": logprobs, "sockets": listening_addresses(os.getpid())}
    torch.save(seen, folder / save / f"seen-{rank}.pt")
    if size > 1:
        # Exiting while the peer still communicates may abort this process.
        dist.barrier()
        dist.destroy_process_group()


def train_ranks(size: int, overrides: tuple[str, ...], folder: Path, load: str, save: str) -> list[dict[str, Any]]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    mp.spawn(train_rank, args=(size, address, overrides, folder, load, save), nprocs=size)
    return [torch.load(folder / save / f"seen-{rank}.pt") for rank in range(size)]


def check_two_ranks_equal_one(overrides: tuple[str, ...], tmp_path: Path, *, resume: bool) -> None:
    """Check that two ranks train as one does and, with ``resume``, that each resumes from the other's checkpoint."""
    (single,) = train_ranks(1, overrides, tmp_path, "", "one")
    first, second = train_ranks(2, overrides, tmp_path, "", "two")
    assert not second["weights"], "rank 1 also sent weights"
    pairs = [(single, first)]
    if resume:
        (resumed_single,) = train_ranks(1, overrides, tmp_path, "two", "three")
        pairs.append((resumed_single, train_ranks(2, overrides, tmp_path, "one", "four")[0]))
    for expected, found in pairs:
        check_equal(expected, found)
    assert first["rows"] == second["rows"]
    addresses = {host for found in (first, second) for host, _ in found["sockets"]}
    assert addresses == {"127.0.0.1"}, "ranks on one machine listen beyond it"


def check_equal(expected: dict[str, Any], found: dict[str, Any]) -> None:
    """Check that two trainings ended with the same metrics, weights and log-probs, up to rounding."""
    assert found["rows"] == [pytest.approx(row, rel=1e-4, abs=1e-6) for row in expected["rows"]]
    assert found["weights"].keys() == expected["weights"].keys()
    # A twentieth of a step: AdamW normalizes gradients that are close to rounding error.
    for name, weight in expected["weights"].items():
        assert torch.allclose(found["weights"][name], weight, atol=5e-6), name
    assert torch.allclose(torch.cat(found["logprobs"]), torch.cat(expected["logprobs"]), atol=1e-4)

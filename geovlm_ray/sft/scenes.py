"""Supervised fine-tuning on demonstrations of the drawn scenes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from geovlm_ray.config import Config
from geovlm_ray.data.scenes import SCENE_TASKS, demonstration, scene_example
from geovlm_ray.errors import RunError
from geovlm_ray.policy.forward import CompletionBatch
from geovlm_ray.policy.model import load_model, load_processor, resolve_model
from geovlm_ray.policy.prompts import PromptEncoder
from geovlm_ray.policy.tiny import build_model, build_processor, save
from geovlm_ray.schema import Example
from geovlm_ray.sft.trainer import encode_batch, train

CORPUS_SCENES_PER_TASK = 400
Demonstration = tuple[Example, str]


def fine_tune(config: Config, out: Path, *, scratch: bool) -> None:
    """Train on fresh scenes in every step and write a Hugging Face model folder.

    ``scratch`` begins with a new tiny model and its own tokenizer instead of ``config.model``. The weights
    are written as fp16: half the size, and the same for every later reader.

    Raises:
        RunError: the output folder holds something already.
    """
    if out.exists() and any(out.iterdir()):
        raise RunError(f"output folder {out}: expected none or an empty one, found files in it")
    console = Console()
    seed = config.data.seed
    if scratch:
        processor = build_processor(_corpus(seed), image_size=config.prompt.image_size)
        model: nn.Module = build_model(processor, seed=config.run.seed)
    else:
        folder = resolve_model(config.model.path)
        processor = load_processor(folder)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = load_model(config.model, folder, device, config.run.seed)
    encoder = PromptEncoder(processor, config.prompt)
    begun = time.time()

    def log(step: int, loss: float) -> None:
        console.print(f"step {step}/{config.sft.steps}  loss {loss:.4f}  {time.time() - begun:.0f} s", highlight=False)

    # One process draws and encodes ahead of the training.
    data = Demonstrations(encoder, seed, config.sft.batch_size)
    loader = DataLoader(data, batch_size=None, num_workers=1, prefetch_factor=4)
    train(model, iter(loader), config.sft, log)
    save(model.half(), processor, out)
    console.print(f"Model: {out.resolve()}")


class Demonstrations(IterableDataset):
    """Endless batches of new scenes with the ideal response, all tasks in turn."""

    def __init__(self, encoder: PromptEncoder, seed: int, batch_size: int) -> None:
        self.encoder = encoder
        self.seed = seed
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[CompletionBatch]:
        for start in itertools.count(0, self.batch_size):
            yield encode_batch(
                self.encoder, [_demonstration(self.seed, k) for k in range(start, start + self.batch_size)]
            )


def _demonstration(seed: int, k: int) -> Demonstration:
    example = scene_example(SCENE_TASKS[k % len(SCENE_TASKS)], seed, k // len(SCENE_TASKS))
    return example, demonstration(example)


def _corpus(seed: int) -> Iterator[str]:
    for k in range(CORPUS_SCENES_PER_TASK * len(SCENE_TASKS)):
        example, response = _demonstration(seed, k)
        yield f"user\n{example.question}"
        yield response
        yield "assistant\n"

"""Batches of random completions for `benchmarks.rewards`: perturbed copies of random references."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from geovlm_ray.core.schema import Box, Example, GroundedText, Target
from geovlm_ray.data.answers import format_boxes
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.answers.labels import BIGEARTHNET_19

GROUP = 8
"""Completions per prompt, which share its reference."""
NUMBERS = ("two", "three", "four", "several", "many", "a few", "5", "12")
LOOKS = ("white", "red", "small", "large", "grey", "long", "blue", "round", "old", "dark green")
THINGS = ("ships", "buildings", "planes", "storage tanks", "vehicles", "trees", "houses", "tennis courts", "bridges")
VERBS = ("are parked", "can be seen", "lie", "stand", "are arranged in rows", "were built", "are scattered")
PLACES = (
    "on the left of",
    "on the right of",
    "near",
    "beside",
    "at the top of",
    "along",
    "between",
    "at the bottom of",
)
GROUNDS = ("the airport runway", "the river", "a wide road", "the forest", "bare farmland", "the harbour", "a car park")


@dataclass(frozen=True)
class Batch:
    """Completions of one task; ``answers`` are the contents of the answer tags of ``responses``."""

    examples: list[Example]
    answers: list[str]

    @property
    def responses(self) -> list[str]:
        """The complete responses, with reasoning and answer tags."""
        return [f"<think>I look at the image.</think><answer>{answer}</answer>" for answer in self.answers]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Each answer with its reference caption."""
        return [(a, e.target[0]) for a, e in zip(self.answers, self.examples, strict=True)]  # type: ignore[index,misc]

    @property
    def boxes(self) -> list[tuple[Box, ...]]:
        """The target boxes of each answer."""
        return [e.target for e in self.examples]  # type: ignore[misc]


def random_batch(task: str, seed: int, prompts: int) -> Batch:
    """`GROUP` perturbed copies of each reference of random prompts of a task; deterministic for a seed."""
    rng = random.Random(f"{task}{seed}")
    targets = [_target(task, rng) for _ in range(prompts)]
    examples = [Example(str(i), task, (), "", target) for i, target in enumerate(targets) for _ in range(GROUP)]
    return Batch(examples, [_answer(e.target, rng) for e in examples])


def _target(task: str, rng: random.Random) -> Target:
    kind = TASKS[task].target_kind
    if kind == "classes":
        return tuple(rng.sample(BIGEARTHNET_19, rng.randint(1, 5) if task.startswith("multi") else 1))
    if kind == "vqa":
        return f"{rng.choice(NUMBERS)} {rng.choice(THINGS)}"
    if kind == "captions":
        return (_caption(rng),)
    boxes = tuple(Box(_moved((x, y, x + rng.uniform(2, 20), y + rng.uniform(2, 20)), rng)) for x, y in _corners(rng))
    return GroundedText(_caption(rng), boxes) if kind == "grounded" else boxes


def _corners(rng: random.Random) -> list[tuple[float, float]]:
    return [(rng.uniform(1, 78), rng.uniform(1, 78)) for _ in range(rng.randint(1, 15))]


def _caption(rng: random.Random) -> str:
    parts = (NUMBERS, LOOKS, THINGS, VERBS, PLACES, GROUNDS)
    return " and ".join(" ".join(map(rng.choice, parts)) for _ in range(rng.randint(1, 3)))


def _answer(target: Target, rng: random.Random) -> str:
    if isinstance(target, GroundedText):
        return f"{_reworded(target.text, rng)} {_answer(target.boxes, rng)}"
    if isinstance(target, str):
        return _reworded(target, rng)
    boxes = [b for b in target if isinstance(b, Box)]
    if boxes:
        return format_boxes(
            [(_moved(b.coords, rng), None) for b in boxes if rng.random() > 0.1] or [((1, 2, 3, 4), None)]
        )
    return _reworded(", ".join(map(str, target)), rng)


def _reworded(text: str, rng: random.Random) -> str:
    words = [rng.choice(LOOKS) if rng.random() < 0.2 else w for w in text.split() if rng.random() > 0.1]
    return " ".join([*words, f"{rng.random():.4f}"])


def _moved(coords: Sequence[float], rng: random.Random) -> tuple[float, ...]:
    return tuple(round(c + rng.uniform(-0.9, 0.9), 1) for c in coords)

"""Honest baseline: the reference answer with typical errors of an imperfect model."""

from __future__ import annotations

import re

import numpy as np

from geovlm_ray.core.schema import target_boxes
from geovlm_ray.data.answers import format_boxes
from geovlm_ray.evaluation.probes.answers import Item, texts, vocabulary
from geovlm_ray.rewards.facts import states_fact

ERROR_PERIOD = 5
"""Every n-th classification and VQA answer is wrong; of n or more boxes, the last one is missing."""
EDGE_NOISE = 0.07
"""Standard deviation of the noise on each box edge, relative to the box width or height."""

_SYNONYMS = {
    "a": "the", "an": "the", "image": "picture", "on": "upon", "is": "appears", "are": "appear", "there": "here",
    "built": "constructed", "removed": "gone", "many": "several", "some": "few", "large": "big", "small": "little",
    "beside": "near", "difference": "change", "has": "had", "been": "been", "was": "is", "at": "in", "only": "just",
}  # fmt: skip
_WORD = re.compile(r"[a-z]+")


def honest(item: Item) -> str:
    """The perturbed reference; deterministic for an item."""
    if item.kind == "classes":
        return ", ".join(_classes(item))
    if item.kind == "vqa":
        return _wrong_answer(item) if _is_wrong(item) else texts(item.example)[0]
    if item.kind == "boxes":
        return format_boxes(honest_boxes(item), item.example.dialect)
    if item.kind == "captions":
        return paraphrase(texts(item.example)[0])
    return f"{paraphrase(texts(item.example)[0])} {format_boxes(honest_boxes(item), item.example.dialect)}"


def honest_boxes(item: Item) -> list[tuple[tuple[float, ...], str | None]]:
    """(coordinates, label) of the true boxes with noise on their edges; the last of five or more is missing."""
    rng = np.random.default_rng(item.index)
    true = target_boxes(item.example.target)
    noisy = []
    for box in true[: len(true) - (len(true) >= ERROR_PERIOD)]:
        x1, y1, x2, y2 = box.coords[:4]
        moved = np.array(box.coords[:4]) + rng.normal(0, EDGE_NOISE, 4) * np.array([x2 - x1, y2 - y1] * 2)
        noisy.append(((*map(float, np.round(moved, 1)), *box.coords[4:]), box.label))
    return noisy


def paraphrase(text: str) -> str:
    """Replace words by synonyms and drop every sixth word that states no fact; facts stay unchanged."""
    words = text.split()
    droppable = [i for i, word in enumerate(words) if not _states_fact(word)]
    dropped = set(droppable[5::6])
    return " ".join(_SYNONYMS.get(w.lower(), w) for i, w in enumerate(words) if i not in dropped)


def _states_fact(word: str) -> bool:
    match = _WORD.search(word.lower())
    return any(c.isdigit() for c in word) or bool(match and states_fact(match[0]))


def _is_wrong(item: Item) -> bool:
    return item.index % ERROR_PERIOD == ERROR_PERIOD - 1


def _wrong_answer(item: Item) -> str:
    """The first different answer in the pool, or "unknown"."""
    answers = dict.fromkeys(text for e in item.pool for text in texts(e))
    return next((a for a in answers if a != texts(item.example)[0]), "unknown")


def _classes(item: Item) -> list[str]:
    """The true classes; in every `ERROR_PERIOD`-th list, a wrong one replaces the last."""
    true = list(texts(item.example))
    if not _is_wrong(item):
        return true
    others = [name for name in vocabulary(item) if name not in true]
    return [*true[:-1], others[item.index % len(others)] if others else "unknown"]

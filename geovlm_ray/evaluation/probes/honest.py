"""The honest baseline: a reference as a model that means well would give it, somewhat wrong."""

from __future__ import annotations

import re

import numpy as np

from geovlm_ray.data.answers import written
from geovlm_ray.evaluation.probes.answers import Item, boxes, texts, vocabulary
from geovlm_ray.rewards.fact_words import facts_of

WRONG = 5
"""One answer in so many is wrong where an answer can only be right or wrong."""
SHIFT = 0.07
"""Standard deviation of an edge's place, in widths or heights of its box."""

_SYNONYMS = {
    "a": "the", "an": "the", "image": "picture", "on": "upon", "is": "appears", "are": "appear", "there": "here",
    "built": "constructed", "removed": "gone", "many": "several", "some": "few", "large": "big", "small": "little",
    "beside": "near", "difference": "change", "has": "had", "been": "been", "was": "is", "at": "in", "only": "just",
}  # fmt: skip
_WORD = re.compile(r"[a-z]+")


def honest(item: Item) -> str:
    """The perturbed reference; the same for the same item."""
    if item.kind == "classes":
        return ", ".join(_classes(item))
    if item.kind == "vqa":
        return _other(item) if _is_wrong(item) else texts(item.example)[0]
    if item.kind == "boxes":
        return written(honest_boxes(item), item.example.dialect)
    if item.kind == "captions":
        return paraphrase(texts(item.example)[0])
    return f"{paraphrase(texts(item.example)[0])} {written(honest_boxes(item), item.example.dialect)}"


def honest_boxes(item: Item) -> list[tuple[tuple[float, ...], str | None]]:
    """The true boxes with their edges moved; of five and more boxes the last is forgotten."""
    rng = np.random.default_rng(item.index)
    true = boxes(item.example)
    found = []
    for box in true[: len(true) - (len(true) >= WRONG)]:
        x1, y1, x2, y2 = box.coords[:4]
        moved = np.array(box.coords[:4]) + rng.normal(0, SHIFT, 4) * np.array([x2 - x1, y2 - y1] * 2)
        found.append(((*map(float, np.round(moved, 1)), *box.coords[4:]), box.label))
    return found


def paraphrase(text: str) -> str:
    """The text in other words, its facts as they are, and every sixth of its other words left out."""
    words = text.split()
    plain = [i for i, word in enumerate(words) if not _states_fact(word)]
    dropped = set(plain[5::6])
    return " ".join(_SYNONYMS.get(w.lower(), w) for i, w in enumerate(words) if i not in dropped)


def _states_fact(word: str) -> bool:
    found = _WORD.search(word.lower())
    return any(c.isdigit() for c in word) or bool(found and facts_of(found[0]))


def _is_wrong(item: Item) -> bool:
    return item.index % WRONG == WRONG - 1


def _other(item: Item) -> str:
    """Another answer of the pool."""
    answers = dict.fromkeys(text for e in item.pool for text in texts(e))
    return next((a for a in answers if a != texts(item.example)[0]), "unknown")


def _classes(item: Item) -> list[str]:
    """The true classes; one in `WRONG` lists has another in place of its last."""
    true = list(texts(item.example))
    if not _is_wrong(item):
        return true
    others = [name for name in vocabulary(item) if name not in true]
    return [*true[:-1], others[item.index % len(others)] if others else "unknown"]

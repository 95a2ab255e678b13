"""VQA rewards: equivalence with the truth (default), and the paper's Jaccard similarity of the words."""

from __future__ import annotations

import re

from geovlm_ray.core.schema import Example
from geovlm_ray.rewards.base import RewardResult
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.tasks.answers.short_answers import agreement

_TOKEN = re.compile(r"\d+(?:\.\d+)?|[^\W\d]+")


def equivalence(answer: str, example: Example, config: RewardConfig) -> RewardResult:
    """1 if the answer means the same as the truth, else the Jaccard similarity of their content words.

    The component is ``equivalent`` if the type of the truth (yes or no, a quantity, a position, ...) decided, else
    ``jaccard``.
    """
    found = agreement(answer, str(example.target), example.question, config.class_synonyms)
    return RewardResult(found.value, {"equivalent" if found.typed else "jaccard": found.value})


def jaccard(answer: str, example: Example, config: RewardConfig) -> RewardResult:
    """Jaccard similarity of the word sets (the paper's); repeated words have no penalty."""
    truth = str(example.target)
    said, true = set(_words(answer)), set(_words(truth))
    value = len(said & true) / len(said | true) if said or true else float(answer.strip() == truth.strip())
    return RewardResult(value, {"jaccard": value})


def _words(text: str) -> list[str]:
    return _TOKEN.findall(text.casefold())

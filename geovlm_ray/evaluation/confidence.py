"""Confidence of an answer: the mean probability of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from geovlm_ray.core.schema import Sample


class Tokenizer(Protocol):
    """What `mean_probability` needs of a tokenizer of transformers."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The text of tokens."""
        ...


def mean_probability(sample: Sample, tokenizer: Tokenizer) -> float:
    """Mean probability of the tokens of the answer; of all tokens of a response without answer tags."""

    def tokens_until(tag: str) -> int:
        """Number of the first tokens whose text contains a tag."""
        low, high = 0, len(sample.token_ids)
        while low < high:
            middle = (low + high) // 2
            contains = tag in tokenizer.decode(sample.token_ids[:middle], skip_special_tokens=True)
            low, high = (low, middle) if contains else (middle + 1, high)
        return low

    probabilities = np.exp(sample.logprobs)
    if "<answer>" in sample.text:
        start = tokens_until("<answer>")
        end = tokens_until("</answer>") if "</answer>" in sample.text else len(probabilities)
        probabilities = probabilities[start:end] if start < end else probabilities
    return float(probabilities.mean()) if len(probabilities) else 0.0

"""Credit for the labels of predicted boxes, the same in every notation."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from geovlm_ray.core.schema import Example, GroundedText, target_boxes
from geovlm_ray.tasks.answers.box_labels import MAX_LABEL_WORDS, class_key, is_generic, needs_labels
from geovlm_ray.tasks.answers.class_names import ClassNames
from geovlm_ray.tasks.answers.words import words

MISSING_LABEL = 0.5
"""Share of the IoU that a box without a label earns where the true boxes have several classes; a label that is not the
true one earns nothing."""


def label_credit(labels: Sequence[str | None], example: Example, names: ClassNames) -> np.ndarray:
    """Credit of each predicted label with each true box, [n_pred, n_gt].

    1 for the right class, for a true box without a label, and for a missing label that the task does not need;
    `MISSING_LABEL` for one that it needs; 0 for another label. A label that names no class (`is_generic`, or words of
    the question, or in a grounded description any other word) counts as missing.
    """
    missing = MISSING_LABEL if needs_labels(example) else 1.0
    is_prose, asked = isinstance(example.target, GroundedText), _phrases(example.question)
    true_keys = [names.key_of(box.label) if box.label else None for box in target_boxes(example.target)]
    rows: dict[str | None, list[float]] = {}
    for label in dict.fromkeys(labels):
        key = class_key(label, names)
        unstated = key is None and (not label or is_generic(label) or is_prose or "".join(words(label)) in asked)
        rows[label] = [1.0 if true is None or key == true else missing if unstated else 0.0 for true in true_keys]
    return np.array([rows[label] for label in labels], dtype=np.float64).reshape(len(labels), len(true_keys))


@functools.lru_cache(maxsize=1024)
def _phrases(question: str) -> frozenset[str]:
    """The phrases of a question that are short enough to be a label, each joined to one word."""
    found = words(question)
    lengths = range(1, MAX_LABEL_WORDS + 1)
    return frozenset("".join(found[i : i + length]) for i in range(len(found)) for length in lengths)

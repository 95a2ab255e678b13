"""Consistency of reasoning and answer: whether the reasoning names the facts of the answer (our definition).

An answer can state objects (class names, nouns of a caption), counts (numbers above one, or the number of boxes),
places (directions, or box positions), and yes or no. For each kind that the answer states, the reasoning either names
all of its facts or not. Facts are extracted by `geovlm_ray.rewards.facts`.
"""

from __future__ import annotations

from geovlm_ray.core.geometry import hbb
from geovlm_ray.evaluation.metrics.sound import AnsweredExample, answer_boxes
from geovlm_ray.rewards.facts import facts
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.answers.box_reader import without_boxes
from geovlm_ray.tasks.answers.class_answers import UNKNOWN, class_reader
from geovlm_ray.tasks.answers.conclusions import conclusion
from geovlm_ray.tasks.answers.phrases import FILLER
from geovlm_ray.tasks.answers.polarity import polarity
from geovlm_ray.tasks.answers.quantities import stated_quantity
from geovlm_ray.tasks.answers.words import DELIMITERS, tokens, words

KINDS = ("objects", "counts", "places", "yes or no")
SIDE_TOLERANCE = 0.05
"""A box centre this close to the image centre, as a fraction of the image side, counts as lying on both sides."""
CENTRE_TOLERANCE = 1 / 6
"""A box centre this close to the image centre, as a fraction of the image side, counts as "center"."""
MAX_NAME_WORDS = 6


def consistency(reasoning: str, answered: AnsweredExample) -> dict[str, bool]:
    """For each of `KINDS` that the answer states, whether the reasoning names all of it."""
    example, answer = answered.example, answered.answer
    kind = TASKS[example.task].target_kind
    if kind == "classes":
        reader = class_reader(example)
        keys = set(reader.keys(answer))
        mentioned = reader.mentioned(reasoning) | {UNKNOWN + name for name in _names(reasoning)}
        return {"objects": keys <= mentioned} if keys else {}
    if kind == "vqa":
        return _question(reasoning, tokens(conclusion(answer)))
    if kind == "captions":
        return _caption(reasoning, answer)
    boxes = [box for box in answer_boxes(answered).boxes if len(box) in (4, 5)]
    named = _boxes(reasoning, boxes, example.frame.scale) if boxes else {}
    if boxes and example.task in ("object_detection", "grounded_description"):
        named["counts"] = str(len(boxes)) in _counts(reasoning)
    return named | (_caption(reasoning, without_boxes(answer)) if kind == "grounded" else {})


def _question(reasoning: str, answer: list[str]) -> dict[str, bool]:
    said, quantity = polarity(answer), stated_quantity(answer, ())
    if said is not None:
        return {"yes or no": facts(reasoning).denies != said}
    if quantity and quantity.low == quantity.high and quantity.low.is_integer():
        return {"counts": f"{quantity.low:g}" in _counts(reasoning)}
    name = "".join(word for word in answer if word not in FILLER and word not in DELIMITERS)
    return {"objects": name in _names(reasoning)} if name else {}


def _caption(reasoning: str, answer: str) -> dict[str, bool]:
    stated, named = facts(answer), facts(reasoning)
    kinds = {
        "objects": (stated.objects, named.objects),
        "places": (stated.values("direction"), named.values("direction")),
        "counts": (stated.values("number"), _counts(reasoning)),
    }
    return {kind: found <= others for kind, (found, others) in kinds.items() if found}


def _boxes(reasoning: str, boxes: list[tuple[float, ...]], scale: tuple[float, float]) -> dict[str, bool]:
    """Whether the reasoning names a place of every box."""
    named = facts(reasoning).values("direction")
    offsets = (((x1 + x2) / 2 / scale[0] - 0.5, (y1 + y2) / 2 / scale[1] - 0.5) for x1, y1, x2, y2 in hbb(boxes))
    return {"places": all(named & _places(x, y) for x, y in offsets)}


def _places(x: float, y: float) -> set[str]:
    """Words for a position; x (rightwards) and y (downwards) are offsets from the image centre in [-0.5, 0.5]."""
    sides = {"left": -x, "right": x, "top": -y, "bottom": y}
    words = {side for side, distance in sides.items() if distance > -SIDE_TOLERANCE}
    return words | ({"center"} if max(abs(x), abs(y)) <= CENTRE_TOLERANCE else set())


def _counts(text: str) -> set[str]:
    """Numbers that a text states, including one ("a ship" is 1); a negation is 0."""
    stated = facts(text)
    single = stated.values("quantity") & {"1"}
    return {*stated.values("number"), *single, *(("0",) if stated.denies else ())}


def _names(text: str) -> set[str]:
    """All word n-grams of a text up to `MAX_NAME_WORDS`, joined, in the normal form of words."""
    found = words(text)
    return {
        "".join(found[i:j]) for i in range(len(found)) for j in range(i + 1, min(i + MAX_NAME_WORDS, len(found)) + 1)
    }

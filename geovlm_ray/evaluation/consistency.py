"""Whether the reasoning of a response names what its answer says (our definition).

An answer says objects (class names, things in a caption), counts (numbers above one, or how many boxes), places
(directions, or where boxes lie) and yes or no. Each kind that an answer says is either named by the reasoning, all of
it, or not. Words are read as `geovlm_ray.rewards.facts` reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from geovlm_ray.core.geometry import hbb
from geovlm_ray.core.schema import target_texts
from geovlm_ray.evaluation.metrics.sound import Answered, answer_boxes
from geovlm_ray.rewards.facts import facts
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.boxes import strip_boxes
from geovlm_ray.tasks.labels import label_key, parse_labels

KINDS = ("objects", "counts", "places", "yes or no")
MIDDLE = 0.05
"""Distance from the middle, as a share of the side, within which a box may be said to lie on either side."""
CENTRE = 1 / 6
"""Distance from the middle within which a box may be said to lie in the center."""
LONGEST_NAME = 6
_WORD = re.compile(r"\w+")


def consistency(reasoning: str, answered: Answered) -> dict[str, bool]:
    """For each of `KINDS` that an answer says whether the reasoning names it."""
    example, answer = answered.example, answered.answer
    kind = TASKS[example.task].target_kind
    if kind == "classes":
        names = parse_labels(answer, target_texts(example.target), example.labels)
        return {"objects": _all(names, _names(reasoning))} if names else {}
    if kind == "vqa":
        return _question(reasoning, label_key(answer))
    if kind == "captions":
        return _caption(reasoning, answer)
    boxes = [box for box in answer_boxes(answered).boxes if len(box) in (4, 5)]
    found = _boxes(reasoning, boxes, example.frame.scale) if boxes else {}
    if boxes and example.task in ("object_detection", "grounded_description"):
        found["counts"] = str(len(boxes)) in _counts(reasoning)
    return found | (_caption(reasoning, strip_boxes(answer)) if kind == "grounded" else {})


def _question(reasoning: str, answer: str) -> dict[str, bool]:
    if answer in ("yes", "no"):
        return {"yes or no": ("negation" in facts(reasoning).said) == (answer == "no")}
    if answer.isdecimal():
        return {"counts": answer in _counts(reasoning)}
    return {"objects": answer in _names(reasoning)} if answer else {}


def _caption(reasoning: str, answer: str) -> dict[str, bool]:
    said, named = facts(answer).said, facts(reasoning).said
    kinds = {"objects": "object", "places": "direction"}
    found = {kind: _all(said[fact], named.get(fact, ())) for kind, fact in kinds.items() if said.get(fact)}
    return found | ({"counts": _all(said["number"], _counts(reasoning))} if said.get("number") else {})


def _boxes(reasoning: str, boxes: list[tuple[float, ...]], scale: tuple[float, float]) -> dict[str, bool]:
    """Whether each box lies at one of the places that are named."""
    named = facts(reasoning).said.get("direction", frozenset())
    offsets = (((x1 + x2) / 2 / scale[0] - 0.5, (y1 + y2) / 2 / scale[1] - 0.5) for x1, y1, x2, y2 in hbb(boxes))
    return {"places": all(named & _places(x, y) for x, y in offsets)}


def _places(x: float, y: float) -> set[str]:
    """Words for a place; x and y are its distances from the middle, rightwards and downwards."""
    sides = {"left": -x, "right": x, "top": -y, "bottom": y}
    found = {side for side, distance in sides.items() if distance > -MIDDLE}
    return found | ({"center"} if max(abs(x), abs(y)) <= CENTRE else set())


def _counts(text: str) -> set[str]:
    """Numbers that a text states, one of something among them; nothing of something is 0."""
    found = facts(text)
    bound = {value for value, _ in found.bound.get("number", ())}
    return {*found.said.get("number", ()), *bound, *(("0",) if "negation" in found.said else ())}


def _names(text: str) -> set[str]:
    """All runs of words of a text, in the form in which labels are compared."""
    words = _WORD.findall(text)
    return {
        label_key(" ".join(words[i:j]))
        for i in range(len(words))
        for j in range(i + 1, min(i + LONGEST_NAME, len(words)) + 1)
    }


def _all(values: Iterable[str], named: Iterable[str]) -> bool:
    return set(values) <= set(named)

"""Labels of the boxes in a text: from JSON objects, from ``<ref>`` tags, and from the words beside a box."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from geovlm_ray.core.schema import Example, GroundedText, target_boxes
from geovlm_ray.tasks.answers.box_notations import FoundBox, word_set
from geovlm_ray.tasks.answers.class_names import SHIPPED, ClassNames, Synonyms, class_names

LABELLED_DIALECTS = ("json", "tagged")
"""Dialects that write the label of every box that has one."""
MAX_LABEL_WORDS = 3
"""Longer texts beside a box are a label only if they name a class."""
MAX_GAP_WORDS = 14
"""Words before or after a box that are searched for a class name."""

_DIGITS = re.compile(r"[\d_#]+")
_FIELD = re.compile(
    r"[\"']?\b(?:(?:class|object|category|label)_?name|label|class|category|name|type|object|object_class|cls|damage|"
    r"damage_\w{1,8})[\"']? ?[:=] ?(?:\"([^\"\n]*)\"|'([^'\n]*)')",
    re.IGNORECASE,
)
_MARK = re.compile(r"[{}]")
_REF = re.compile(r"<ref>([^<]*)</ref>")
_TAG = re.compile(r"<[^<>]{0,40}>")
_WORD = re.compile(r"[^\W\d_](?:[\w'/-]*\w)?")
_CLAUSE_END = re.compile(r"\n|[.!?](?=\s|\Z)")

_LINKS = word_set("and or also & a an the one another plus")
_CHATTER = word_set(
    "sure okay ok yes here answer answers result results output final detected found detections object objects target "
    "targets item items instance instances thing box boxes bbox bboxes bounding location locations position positions "
    "region regions area coordinates coordinate coords xyxy first second third image json list label labels class none "
    "confidence score probability format normalized approximately approx roughly estimated absolute relative "
    "partially visible unknown x y px pixels percent angle top left right bottom corner corners at located"
)
"""Words beside a box that name no class."""
_SENTENCE = word_set(
    "is are was were be in on of with has have can see there this that it i located at from to which located visible "
    "shows contains near by"
)


def box_classes(example: Example, synonyms: Synonyms = SHIPPED) -> ClassNames | None:
    """The class names of a record's boxes; None if no true box has a label."""
    true = tuple(dict.fromkeys(box.label for box in target_boxes(example.target) if box.label))
    return class_names(tuple(dict.fromkeys((*example.labels, *true))), synonyms) if true else None


def class_key(label: str | None, names: ClassNames) -> str | None:
    """Key of the one class that a label names, None if it names none or several."""
    named = named_class(label, names) if label else None
    return names.key_for(named) if named else None


def needs_labels(example: Example) -> bool:
    """Whether the boxes of an answer need labels.

    In object detection from a list of classes, they do unless the question names the one class that is asked for,
    whatever is in the image; elsewhere, if the true boxes have several classes. The text of a grounded description
    names its objects itself.
    """
    true = {box.label for box in target_boxes(example.target) if box.label}
    if isinstance(example.target, GroundedText) or (example.target and not true):
        return False
    if len(true) > 1 or example.task != "object_detection" or len(example.labels) < 2 or not example.question:
        return len(true) > 1
    return class_names(example.labels).key_of(example.question) is None


def writes_labels(example: Example) -> bool:
    """Whether reference answers write the labels of boxes: where they are needed, and in JSON and tags if they exist.

    Outside JSON, labels after the text of a grounded description would be words of it.
    """
    boxes = target_boxes(example.target)
    has_labels = any(box.label for box in boxes) if boxes else bool(example.labels)
    dialects = ("json",) if isinstance(example.target, GroundedText) else LABELLED_DIALECTS
    return needs_labels(example) or (has_labels and example.dialect in dialects)


def is_generic(label: str) -> bool:
    """Whether a label names no class, such as "object", or describes the object in more than a few words."""
    words = [word.lower() for word in _WORD.findall(label)]
    return len(words) > MAX_LABEL_WORDS or set(words) <= _CHATTER | _LINKS


def box_labels(text: str, boxes: Sequence[FoundBox], names: ClassNames | None) -> list[str | None]:
    """The label of each box of a text; without ``names``, only those that are marked as labels.

    A label is the field of a box's JSON object, the ``<ref>`` before the box, or the words beside it: the one class
    that they name, or up to `MAX_LABEL_WORDS` words that are no sentence. Boxes with only punctuation between them
    share their label.
    """
    fields, in_object = _fields(text, boxes, names)
    if all(fields) or (names is None and "<ref>" not in text):
        return fields
    edges = zip([0, *(b.end for b in boxes)], [*(b.start for b in boxes), len(text)], strict=True)
    gaps = [text[a:b] for a, b in edges]
    beside = _beside(gaps, in_object, names)
    return [field or label for field, label in zip(fields, beside, strict=True)]


def _fields(text: str, boxes: Sequence[FoundBox], names: ClassNames | None) -> tuple[list[str | None], list[bool]]:
    """The label of the innermost JSON object around each box, and whether the box lies in an object.

    Of several fields, such as "label" and "damage", the one that names a class is the label.
    """
    labels: list[str | None] = [None] * len(boxes)
    in_object = [False] * len(boxes)
    if "{" not in text:
        return labels, in_object
    marks: list[tuple[int, str, int]] = [(hit.start(), hit[0], 0) for hit in _MARK.finditer(text)]
    fields = [hit[1] or hit[2] or "" for hit in _FIELD.finditer(text)]
    marks += [(hit.start(), "label", k) for k, hit in enumerate(_FIELD.finditer(text))]
    marks += [(box.start, "box", k) for k, box in enumerate(boxes)]
    stack: list[tuple[list[str], list[int]]] = [([], [])]
    for _, mark, k in [*sorted(marks), *[(0, "}", 0)] * text.count("{")]:
        if mark == "{":
            stack.append(([], []))
        elif mark == "label":
            stack[-1][0].append(fields[k])
        elif mark == "box":
            stack[-1][1].append(k)
            in_object[k] = len(stack) > 1
        elif len(stack) > 1:
            found, members = stack.pop()
            if found:
                naming = [label for label in found if names and named_class(label, names)]
                for member in members:
                    labels[member] = (naming or found)[0]
            else:
                stack[-1][1].extend(members)
    return labels, in_object


def _beside(gaps: list[str], in_object: list[bool], names: ClassNames | None) -> list[str | None]:
    """Labels from the texts around boxes: all before their boxes or all after them, whichever names more classes."""
    count = len(gaps) - 1
    before = [_gap_label(gap, names, before=True, known_only=k) for gap, k in zip(gaps[:-1], in_object, strict=True)]
    if all(is_known for _, is_known in before):
        return [label for label, _ in before]
    after = [_gap_label(gap, names, before=False, known_only=k) for gap, k in zip(gaps[1:], in_object, strict=True)]
    known = [sum(1 for label, is_known in side if label and is_known) for side in (before, after)]
    leads = known[0] > known[1] or (known[0] == known[1] and before[0][0] is not None)
    labels: list[str | None] = []
    for k in range(count) if leads else reversed(range(count)):
        label = (before if leads else after)[k][0]
        gap = gaps[k] if leads else gaps[k + 1]
        shares = labels and label is None and not (_words(gap) - _LINKS)
        labels.append(labels[-1] if shares else label)
    return labels if leads else labels[::-1]


def _words(gap: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(gap[:400])}


def _gap_label(gap: str, names: ClassNames | None, *, before: bool, known_only: bool) -> tuple[str | None, bool]:
    """The label in a text before (or after) a box, and whether it names a class."""
    near = gap[-200:] if before else gap[:200]
    refs = _REF.findall(gap[-400:] if before else gap[:400]) if "<" in gap else []
    if refs:
        return (refs[-1] if before else refs[0]).strip(), True
    if names is None:
        return None, False
    near = _TAG.sub(" ", near) if "<" in near else near
    clause_text = _CLAUSE_END.split(near)[-1 if before else 0]
    for part in map(str.split, (clause_text, near)):
        named = _named_classes(" ".join(part[-MAX_GAP_WORDS:] if before else part[:MAX_GAP_WORDS]), names)
        if named:
            return (named[0], True) if len(named) == 1 else (None, False)
    clause = [w for w in _WORD.findall(clause_text) if w.lower() not in _LINKS]
    lowered = {part for word in clause for part in word.lower().split("-")}
    is_label = 1 <= len(clause) <= MAX_LABEL_WORDS and not lowered & (_SENTENCE | _CHATTER)
    return (" ".join(clause), False) if is_label and not known_only else (None, False)


def named_class(text: str, names: ClassNames) -> str | None:
    """The vocabulary's name of the one class that a short text names, None if there is none or several."""
    named = _named_classes(text, names)
    return named[0] if len(named) == 1 else None


@functools.lru_cache(maxsize=16_384)
def _named_classes(text: str, names: ClassNames) -> tuple[str, ...]:
    """The vocabulary's names of the classes that a text names; numbers of objects, as in "ship1", are ignored."""
    keys = names.keys_in(text) or names.keys_in(_DIGITS.sub(" ", text))
    return tuple(map(names.name_of, keys))

"""Reference answers as people write them: text, tags, JSON boxes, lists and numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from geovlm_ray.core.errors import DataError, did_you_mean
from geovlm_ray.core.schema import Box, Example, GroundedText, Target, target_boxes, target_texts
from geovlm_ray.data.formats.base import Source, short_repr
from geovlm_ray.data.formats.prompts import denies_boxes, example_of, lists_classes, localization_task, task_of
from geovlm_ray.data.formats.quads import smallest_rotated_box
from geovlm_ray.data.formats.record_fields import check_spelling
from geovlm_ray.data.records import is_coordinate
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.answers.box_dialects import parse_boxes
from geovlm_ray.tasks.answers.labels import BIGEARTHNET, split_labels
from geovlm_ray.tasks.answers.no_boxes import says_none

BOX_KEYS = ("bbox_2d", "bbox", "box", "bounding_box")
LABEL_KEYS = ("label", "class", "category", "name")
_FENCE = re.compile(r"```(?:json)?\s*([\[{][^`]*)```")
_PLAIN_BOXES = re.compile(r"[\s\d.,;()-]{7,}")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+")
_NUMBER = re.compile(r"-?\d{1,9}(?:\.\d{1,9})?")
_QWEN_BOX = re.compile(r"<\|box_start\|>\s?\(([\d., ]{1,60})\)\s?,\s?\(([\d., ]{1,60})\)\s?<\|box_end\|>")
_QWEN_REF = re.compile(r"<\|object_ref_(start|end)\|>")


@dataclass(frozen=True)
class Reference:
    """A reference answer: its text, or its boxes (None if it is text), and the chain of thought before it.

    ``usual`` is the unit that is usual for boxes written like this, ``dialect`` the notation in which they are written;
    ``choices`` are the texts of a list.
    """

    text: str
    boxes: tuple[Box, ...] | None = None
    reasoning: str | None = None
    usual: str = "percent"
    dialect: str = "brackets"
    choices: tuple[str, ...] = ()


def reference_of(value: Any) -> Reference:
    """Parse a reference answer of any JSON type.

    Raises:
        DataError: it is empty, or of another form.
    """
    if isinstance(value, bool):
        return Reference("yes" if value else "no")
    if isinstance(value, int | float):
        return Reference(f"{value:g}" if isinstance(value, float) else str(value))
    if isinstance(value, str):
        return _text_reference(value)
    if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
        return Reference(value[0], choices=tuple(value))
    boxes = _json_boxes(value)
    if boxes is None:
        raise DataError(f"expected an answer, found {short_repr(value)}")
    return Reference("", boxes, usual="pixel", dialect=_json_dialect(value))


def raw_example(
    source: Source,
    id: str,
    prompt: str,
    reference: Reference,
    images: tuple[str, ...],
    *,
    dataset: str,
    split: str,
) -> Example:
    """The raw record of a prompt and its reference answer, with the task of the option ``task`` or an inferred one.

    Raises:
        DataError: the answer does not have the form of the task's, or the prompt has no words.
    """
    task = source.options.get("task", "auto")
    if _says_none(task, prompt, reference):
        reference = replace(reference, boxes=())
    answer = reference.text if reference.boxes is None else "[1, 1, 2, 2]"
    if task == "auto" and reference.boxes is not None:
        task = localization_task(prompt, len(reference.boxes))
    elif task == "auto":
        task = task_of(prompt, answer, len(images))
        if len(reference.choices) > 1 and TASKS[task].target_kind == "vqa" and lists_classes(prompt, reference.choices):
            task = "multilabel_classification"
    kind = TASKS[task].target_kind
    if reference.boxes is not None and kind != "boxes":
        raise DataError(f"answer of {task}: expected text, found boxes")
    example = example_of(id, prompt, (answer,), images, dataset=dataset, split=split, task=task)
    chosen = source.options.get("dialect", "auto")
    return replace(
        example,
        target=_target(task, example, reference),
        dialect=reference.dialect if chosen == "auto" else chosen,
        reasoning=reference.reasoning,
    )


def _says_none(task: str, prompt: str, reference: Reference) -> bool:
    """Whether an answer in words means no boxes, under the given task or under ``auto``."""
    if reference.boxes is not None or len(reference.choices) > 1:
        return False
    if task == "auto":
        return denies_boxes(prompt, reference.text)
    return TASKS[task].target_kind == "boxes" and says_none(reference.text, prompt) and "[" not in reference.text


def check_task(source: Source) -> None:
    """Check the option ``task``.

    Raises:
        DataError: it is neither ``auto`` nor a task.
    """
    task = source.options.get("task", "auto")
    if task != "auto" and task not in TASKS:
        raise DataError(
            f"option task: expected auto or one of {', '.join(TASKS)}, found {task!r}{did_you_mean(task, TASKS)}"
        )


def single_class(task: str, name: str, labels: tuple[str, ...] = ()) -> str:
    """The name of a task with one class.

    Raises:
        DataError: the name is a list of several, and not one of ``labels`` as a whole.
    """
    names = split_labels(name, (*BIGEARTHNET, *labels))
    if len(names) > 1 and name not in labels:
        raise DataError(
            f"answer of {task}: expected one class, found {len(names)} in {short_repr(name)}; "
            "use the task multilabel_classification, or list the class among the labels"
        )
    return name


def tag_content(text: str, tag: str) -> tuple[str, str] | None:
    """The text between the first ``<tag>`` and the last ``</tag>``, and the text before; None without them."""
    start, end = text.find(f"<{tag}>"), text.rfind(f"</{tag}>")
    if start < 0 or end < start:
        return None
    return text[start + len(tag) + 2 : end].strip(), text[:start]


def _text_reference(value: str) -> Reference:
    text, reasoning = value.strip(), None
    if thought := tag_content(text, "think"):
        reasoning = thought[0] or None
        text = text[text.rfind("</think>") + len("</think>") :].strip()
    if answered := tag_content(text, "answer"):
        text = answered[0]
    if not text:
        raise DataError(f"expected an answer, found {short_repr(value)}")
    fenced = _FENCE.search(text)
    candidate = fenced[1] if fenced else text
    if candidate[:1] in ("[", "{") and (loaded := _loaded(candidate)) is not None:
        boxes = _json_boxes(loaded)
        if boxes is not None:
            dialect = _json_dialect(loaded)
            usual: str = "pixel" if dialect == "json" or fenced else "percent"
            return Reference(text, boxes, reasoning, usual, dialect)
    if plain := _plain_boxes(text):
        return Reference(text, plain, reasoning)
    tagged = _QWEN_BOX.sub(r"<box>[[\1, \2]]</box>", _QWEN_REF.sub(_ref_tag, text))
    if "<box>" in tagged:
        parsed = parse_boxes(tagged, "tagged")
        if parsed is None or parsed.malformed:
            raise DataError(f"expected boxes of 4 or 5 numbers between <box> tags, found {short_repr(text)}")
        boxes = tuple(Box(coords, label) for coords, label in zip(parsed.boxes, parsed.labels, strict=True))
        if not _words_outside_tags(tagged):
            return Reference(tagged, boxes, reasoning, "permille", "tagged")
        return Reference(tagged, None, reasoning, "permille", "tagged")
    return Reference(text, None, reasoning)


def _plain_boxes(text: str) -> tuple[Box, ...]:
    """The boxes of an answer that is nothing but ``(x1, y1), (x2, y2)`` or ``x1, y1, x2, y2``, else none."""
    numbers = [float(n) for n in _NUMBER.findall(text)] if _PLAIN_BOXES.fullmatch(text) else []
    separated = text.count(",") >= 3 or text.count("(") == len(numbers) / 2
    if _THOUSANDS.fullmatch(text):
        return ()
    if not numbers or len(numbers) % 4 or not separated or ("(" not in text and len(numbers) > 4):
        return ()
    return tuple(Box(tuple(numbers[i : i + 4])) for i in range(0, len(numbers), 4))


def _ref_tag(match: re.Match[str]) -> str:
    return "<ref>" if match[1] == "start" else "</ref>"


def _words_outside_tags(tagged: str) -> bool:
    """Whether a text has words besides the names and boxes in its tags."""
    outside = re.sub(r"<ref>[^<]*</ref>|<box>[^<]*</box>", " ", tagged)
    return bool(re.search(r"\w", outside))


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _json_boxes(value: Any) -> tuple[Box, ...] | None:
    """The boxes of a JSON value: objects with a box, lists of 4, 5 or 8 numbers, or one of either; else None.

    Raises:
        DataError: some of its items are boxes, others are not.
    """
    if isinstance(value, Mapping) or (isinstance(value, list) and value and all(map(is_coordinate, value))):
        value = [value]
    if not isinstance(value, list):
        return None
    if len(value) == 2 and all(map(_is_corner, value)):
        value = [value]
    items = list(_box_items(value))
    if value and not any(coords is not None for coords, _ in items):
        return None
    boxes = []
    for (coords, label), item in zip(items, value, strict=True):
        if coords is None:
            raise DataError(f"expected a box of 4, 5 or 8 numbers, found {short_repr(item)}")
        boxes.append(box_of(coords, label))
    return tuple(boxes)


def _box_items(value: list[Any]) -> Iterator[tuple[Any, str | None]]:
    for item in value:
        if isinstance(item, list) and len(item) == 2 and all(map(_is_corner, item)):
            yield [*item[0], *item[1]], None
            continue
        if isinstance(item, Mapping):
            coords = next((item[key] for key in BOX_KEYS if key in item), None)
            label = next((item[key] for key in LABEL_KEYS if isinstance(item.get(key), str)), None)
            if coords is not None and label is None:
                check_spelling({key: v for key, v in item.items() if isinstance(v, str)}, LABEL_KEYS)
            yield coords, label
        else:
            yield (item if isinstance(item, list) and item and all(map(is_coordinate, item)) else None), None


def _is_corner(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_coordinate, value))


def box_of(coords: Any, label: str | None = None) -> Box:
    """A box of 4 numbers, 5 with an angle, or 8, the corners of a quadrilateral.

    Raises:
        DataError: the coordinates are something else.
    """
    if not isinstance(coords, list) or len(coords) not in (4, 5, 8) or not all(map(is_coordinate, coords)):
        raise DataError(f"expected a box of 4, 5 or 8 numbers, found {short_repr(coords)}")
    numbers = tuple(map(float, coords))
    return Box(smallest_rotated_box(numbers) if len(numbers) == 8 else numbers, label)


def _json_dialect(value: Any) -> str:
    items = value if isinstance(value, list) else [value]
    return "json" if any(isinstance(item, Mapping) for item in items) else "brackets"


def _target(task: str, example: Example, reference: Reference) -> Target:
    """The target of an example whose text target was parsed without labels of boxes."""
    kind = TASKS[task].target_kind
    if reference.boxes is not None:
        return reference.boxes
    if kind == "captions" and reference.choices:
        return tuple(text.strip() for text in reference.choices if text.strip()) or example.target
    if kind == "classes":
        names = reference.choices or target_texts(example.target)
        if task == "multilabel_classification":
            return names
        if len(names) > 1:
            raise DataError(f"answer of {task}: expected one class, found {short_repr(list(names))}")
        return (single_class(task, names[0], example.labels),)
    if len(reference.choices) > 1:
        raise DataError(f"answer of {task}: expected one answer, found {short_repr(list(reference.choices))}")
    if kind in ("boxes", "grounded") and reference.dialect == "tagged":
        return _with_labels(example.target, reference.text)
    return example.target


def _with_labels(target: Target, text: str) -> Target:
    """A target whose boxes have the names before them in a text with tags."""
    parsed = parse_boxes(text, "tagged")
    labels, boxes = parsed.labels if parsed else (), target_boxes(target)
    if len(labels) != len(boxes):
        return target
    named = tuple(Box(box.coords, label) for box, label in zip(boxes, labels, strict=True))
    return GroundedText(target.text, named) if isinstance(target, GroundedText) else named

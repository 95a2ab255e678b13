"""Parse prompts and answers of published datasets: task, sensor, listed classes and typed target.

GeoChat (mbzuai-oryx/GeoChat, geochat/eval, docs/Evaluation.md) and EarthDial (hiyamdebary/EarthDial,
src/earthdial/train/constants.py) mark the task, and EarthDial the sensor, with tokens such as ``[refer]`` and
``[hr_rgb_0.5]``; without a token the wording decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Box, Example, GroundedText, Target, target_boxes
from geovlm_ray.data.formats.base import question_words, short_repr
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.answers.box_dialects import parse_boxes, strip_boxes
from geovlm_ray.tasks.answers.labels import BIGEARTHNET, label_keys, split_labels
from geovlm_ray.tasks.answers.no_boxes import denies_first, says_none

SENSORS = {
    "hr": "high-resolution optical",
    "s1": "Sentinel-1",
    "s2": "Sentinel-2",
    "l8": "Landsat-8",
    "hyper": "hyperspectral",
    "inf": "thermal infrared",
}
MAX_PERCENT = 110.0
"""Maximum coordinate of a horizontal box in percent; published boxes exceed the image slightly."""
MAX_CLASS_WORDS = 8
"""Maximum words of a class name; an answer with a longer item is a sentence, even if the prompt says "classify"."""

_SENSOR = re.compile(rf"\[({'|'.join(SENSORS)})_(?:[a-z]+_)+(\d+(?:\.\d+)?)\]", re.IGNORECASE)
_CLASS = re.compile(
    r"\bclassify\b|\b(?:classes|options|categories)\s*:|\b(?:of|from) the following (?:scene )?(?:classes|categories)\b"
    r"|\blist of (?:the )?(?:classes|categories|labels)\b|\bone of\s*:"
)
_MULTI_LABEL = re.compile(
    r"\bwhich ones\b|\blist of (?:the )?(?:classes|categories|labels)\b|\bmulti-?label\b"
    r"|\ball (?:the )?(?:classes|categories|labels)\b|\bwhich (?:[\w-]+ ){0,3}(?:classes|categories|labels)[^.?]* are\b"
)
_CLASS_LISTS = (
    re.compile(
        r"(?:\b(?:classes|options|categories|labels)|\bone of|\bbelongs? to|\bchoose from)\s*:([^\n?\"\\]+)",
        re.IGNORECASE,
    ),
    re.compile(r"\?([^?\n]+)\.\s*Answer with a list of\b", re.IGNORECASE),
)
_LAND_COVER = frozenset(label_keys(BIGEARTHNET))
_ONE_WORD = re.compile(r"\banswer\b[^.?]*\b(?:single|one) word\b")
_DESCRIBE = re.compile(r"\b(?:describe|caption|summari[sz]e)\b|\bdescription of\b")
_CAPTION = re.compile(r"\b(?:caption|describe|description|summari[sz]e)\b")
_ASKS_BOXES = re.compile(
    r"\bbounding box(?:es)?\b[^.?]{0,500}\bform\b"
    r"|\b(?:with|using|give|output|provide|include)\b[^.?]{0,500}\bbounding box"
)
_DEMANDS_BOXES = re.compile(
    r"\b(?:detect|locali[sz]e|locate|where (?:is|are)|draw|box(?:es)?|bbox(?:es)?|coordinates)\b"
    r"|\b(?:list|give|output|provide|return|report|show)\b[^?.]{0,100}\b(?:positions?|locations?)\b"
)
_SEEKS = re.compile(r"\b(?:find|mark|point (?:out|to)|spot|identify|outline|search for|show me)\b")
_SEEKS_NO_BOXES = re.compile(
    r"\b(?:how many|how much|number|count|differences?|chang\w*|which|what|class(?:es)?|categor\w+|types?|names?"
    r"|colou?r|area of|land[- ](?:cover|use))\b"
)
_WHICH_CLASSES = re.compile(
    r"\b(?:which|what) (?:[\w-]+ ){0,4}(?:classes|categories|labels)\b[^.?]{0,200}"
    r"\b(?:are|exist|appear|occur|apply|cover|can (?:be|you|i|we)|do (?:you|we)|contain|show|include|visible|present)\b"
)
_LISTED_THINGS = re.compile(r"\b(?:classes|categories|labels|tags|types|objects|scenes|land[- ](?:cover|use)s?)\b")
_CHANGES = r"(?:chang\w*|differ(?:s|ed|ent|ences?)?|transform\w*|evol\w*)"
_ASKS_CHANGES = re.compile(
    rf"\bwhat(?:['’]s|(?: (?:is|are|has|have|had|was|were|did|else|been|you see|the|any|some|main|major|key|visible"
    rf"|notable|significant|important|obvious|most|semantic))*) (?:{_CHANGES}|happened(?! to))"
    rf"|\bhow (?:has|have|had|did|does|do|is|are|was|were)\b[^?.]{{0,200}}\b(?:{_CHANGES}|develop\w*)"
    rf"|\b(?:list|identify|find|point out|tell|spot|report|note|state|explain|outline|detail|analy[sz]e|give|show"
    rf"|highlight|mention|compare|any|are there)\b[^?.]{{0,200}}\b{_CHANGES}"
    r"|\bcompare (?:the|these|both|two)\b"
)
_CHANGE_DETAIL = re.compile(
    r"\b(?:types?|kinds?|number|percent\w*|how (?:many|much)|colou?rs?|which|why|reasons?|cause\w*)\b"
)
_CLOSED = re.compile(r"\W*(?:<image>\W*)*(?:is|are|has|have|had|do|does|did|was|were|can)\b")
_NAMED = re.compile(r"<(ref|p)>[^<]*</\1>")
_FILLER = re.compile(
    r"an?|the|and|or|of|to|in|on|at|its?|is|are|was|th(?:is|at|ese|ose)|t?here|i|we|you|can|see|yes|sure|no|with|as|by"
    r"|for|following|image|picture|photo|objects?|found|detected|located|visible|positions?|locations?|coordinates"
    r"|box(?:es)?|bounding|bbox|answer|results?|all"
)
"""Words around the boxes of an answer that do not make it a description."""
MIN_CHANGE_WORDS = 4
"""Least number of words of an answer that describes changes."""
_PLURAL = re.compile(r"\ball\b|\bevery\b|\beach\b|\bobjects\b|\bbuildings\b|\bregions\b|\bareas\b")
_BRACES = re.compile(r"\{\s*<")
_BOX = re.compile(r"\{\s*<|\[\s*[-+]?\d")
_MARKUP = re.compile(r"</?p>|<delim>")


def example_of(
    id: str,
    prompt: str,
    answers: Sequence[str],
    images: tuple[str, ...],
    *,
    dataset: str,
    split: str = "train",
    task: str = "",
) -> Example:
    """The example of a prompt and its reference answers; an empty ``task`` is inferred from both.

    Raises:
        DataError: the prompt has no words, or the answers do not parse under the task.
    """
    task = task or task_of(prompt, answers[0], len(images))
    sensor, gsd = sensor_of(prompt)
    return Example(
        id=id,
        task=task,
        images=images,
        question=question_of(prompt),
        target=target_of(task, answers),
        dataset=dataset,
        split=split,
        labels=listed_classes(prompt) if TASKS[task].target_kind == "classes" else (),
        gsd=gsd,
        sensor=sensor,
    )


def question_of(prompt: str) -> str:
    """The words of a prompt.

    Raises:
        DataError: the prompt has none.
    """
    question = question_words(prompt)
    if not question:
        raise DataError(f"prompt: expected a question, found {short_repr(prompt)}")
    return question


def task_of(prompt: str, answer: str, images: int) -> str:
    """Infer the task from a prompt, and if it is ambiguous, from the number of images and the form of the answer."""
    text = prompt.lower()
    if "[refer]" in text:
        return "referred_object_detection"
    if "[grounding]" in text:
        return _grounding_task(answer, images)
    if "[vqa]" in text:
        return "vqa"
    if _WHICH_CLASSES.search(text) and _are_names(answer):
        return "multilabel_classification"
    if _asks_for_classes(text, answer):
        return _classification_task(text, answer, images)
    return _task_without_classes(text, answer, images)


def sensor_of(prompt: str) -> tuple[str | None, float | None]:
    """Sensor and metres per pixel of EarthDial's token, such as ``[s2_rgb_10]``; None without a token."""
    match = _SENSOR.search(prompt)
    return (SENSORS[match[1].lower()], float(match[2])) if match else (None, None)


def listed_classes(prompt: str) -> tuple[str, ...]:
    """The classes that a prompt lists, sorted so that shuffled lists give the same vocabulary."""
    for pattern in _CLASS_LISTS:
        match = pattern.search(prompt)
        names = split_labels(match[1].split(". ")[0]) if match else []
        if len(names) > 1:
            return tuple(sorted(set(names)))
    return ()


def target_of(task: str, answers: Sequence[str]) -> Target:
    """Parse reference answers as a task's target: one answer, or several captions.

    Raises:
        DataError: an answer is empty, lacks boxes, or has a malformed box.
    """
    kind = TASKS[task].target_kind
    texts = [_MARKUP.sub("", answer).strip() for answer in answers]
    if not all(texts) or (len(texts) > 1 and kind != "captions"):
        raise DataError(f"answer of {task}: expected one non-empty answer, found {', '.join(map(short_repr, answers))}")
    if kind == "captions":
        return tuple(texts)
    text = texts[0]
    if kind == "vqa":
        return text
    if kind == "classes":
        names = split_labels(text) if task == "multilabel_classification" else [text.strip(" .\"'")]
        if not names or not all(names):
            raise DataError(f"answer of {task}: expected class names, found {short_repr(text)}")
        return tuple(names)
    boxes = boxes_of(task, text)
    if kind == "boxes":
        return boxes
    if not boxes:
        raise DataError(f"answer of {task}: expected a description with boxes, found {short_repr(text)}")
    return GroundedText(text, boxes)


def boxes_of(task: str, text: str) -> tuple[Box, ...]:
    """Parse the boxes of an answer, in GeoChat's braces or in brackets; no boxes only for an empty list.

    Raises:
        DataError: there is no box, or a malformed one.
    """
    parsed = parse_boxes(text, "geochat" if _BRACES.search(text) else "brackets")
    if parsed is None or parsed.malformed:
        found = "none" if parsed is None else f"{parsed.malformed} malformed"
        raise DataError(f"answer of {task}: expected boxes of 4 or 5 numbers, found {found} in {short_repr(text)}")
    return tuple(map(Box, parsed.boxes))


def check_percent(example: Example) -> Example:
    """The example, if its boxes can be in percent.

    Raises:
        DataError: a horizontal box reaches far beyond the image, as pixels would, or all lie in the first percent of
            it, as fractions would.
    """
    numbers = [v for box in target_boxes(example.target) for v in box.coords[:4] if len(box.coords) == 4]
    if numbers and max(numbers) > MAX_PERCENT:
        raise DataError(
            f"boxes: expected percent of the image, found {max(numbers):g}; convert boxes in other units with the "
            "format chat and its option frame"
        )
    if numbers and min(numbers) >= 0 and max(numbers) <= 1 and not all(v.is_integer() for v in numbers):
        raise DataError(
            f"boxes: expected percent of the image, found only fractions up to {max(numbers):g}; convert them with the "
            "format chat and frame=fraction"
        )
    return example


def _asks_for_classes(text: str, answer: str) -> bool:
    if not (_CLASS.search(text) or "[classify]" in text or "[treeclassify]" in text):
        return False
    return _are_names(answer)


def _are_names(answer: str) -> bool:
    return all(len(piece.split()) <= MAX_CLASS_WORDS for piece in answer.split(","))


def _classification_task(text: str, answer: str, images: int) -> str:
    names = split_labels(answer)
    # Images with several BigEarthNet classes are multi-label.
    if _MULTI_LABEL.search(text) or (len(names) > 1 and _LAND_COVER.issuperset(label_keys(tuple(names)))):
        return "multilabel_classification"
    if "damage" in text:
        return "damage_assessment"
    return "temporal_classification" if images > 1 else "scene_classification"


def _captioning_task(images: int) -> str:
    return "change_captioning" if images > 1 else "image_captioning"


def _grounding_task(answer: str, images: int) -> str:
    """The task of a ``[grounding]`` prompt; EarthDial also uses the token for damage captions."""
    if _BOX.search(answer):
        return "grounded_description" if strip_boxes(_MARKUP.sub("", answer)) else "visual_grounding"
    return "change_captioning" if images > 1 else "grounded_description"


def _task_without_classes(text: str, answer: str, images: int) -> str:
    if answer.strip(" .").lower() in ("yes", "no"):
        return "vqa"
    if "[identify]" in text:
        return "region_captioning"
    if "[caption]" in text:
        return _captioning_task(images)
    if "[changedet]" in text:
        return "vqa" if _ONE_WORD.search(text) else "object_detection" if _BOX.search(answer) else "change_captioning"
    return _task_by_wording(text, answer, images)


def _task_by_wording(text: str, answer: str, images: int) -> str:
    if _ASKS_BOXES.search(text) and not (_BOX.search(answer) and _DESCRIBE.search(text) and _describes(answer, text)):
        return localization_task(text)
    if _ONE_WORD.search(text):
        return "vqa"
    if _BOX.search(answer):
        return "grounded_description" if _describes(answer, text) else localization_task(text)
    if _CAPTION.search(text):
        return "region_captioning" if _BOX.search(text) or "<box>" in text else _captioning_task(images)
    if images > 1 and _describes_changes(answer, text):
        return "change_captioning"
    return "vqa"


def _describes(answer: str, prompt: str) -> bool:
    """Whether an answer with boxes is a description: a long text, or words of content outside the names of objects.

    The words count if the prompt asks for a description, or if objects are named in tags and it asks for no boxes.
    """
    text = strip_boxes(answer)
    if len(text.split()) > MAX_CLASS_WORDS:
        return True
    if not _DESCRIBE.search(prompt) and (requests_boxes(prompt) or not _NAMED.search(answer)):
        return False
    words = re.findall(r"[^\W\d_]+", strip_boxes(_NAMED.sub(" ", answer)).lower())
    return not all(map(_FILLER.fullmatch, words))


def _describes_changes(answer: str, prompt: str) -> bool:
    if not _ASKS_CHANGES.search(prompt) or _CHANGE_DETAIL.search(prompt):
        return False
    words = re.findall(r"\w+", answer.lower())
    if len(words) < 2 or (_CLOSED.match(prompt) and words[0] in ("yes", "no")):
        return False
    return len(words) >= MIN_CHANGE_WORDS or says_none(answer, prompt)


def requests_boxes(prompt: str) -> bool:
    """Whether a prompt asks to detect or locate something, and not to count, name or compare."""
    text = prompt.lower()
    if "[refer]" in text or _ASKS_BOXES.search(text):
        return True
    if re.search(r"\b(?:how many|number of|count)\b", text) or "[vqa]" in text:
        return False
    return bool(_DEMANDS_BOXES.search(text) or (_SEEKS.search(text) and not _SEEKS_NO_BOXES.search(text)))


def denies_boxes(prompt: str, answer: str) -> bool:
    """Whether an answer in words says that there is nothing of what a prompt asks to locate.

    A plain "no" answers a question such as "Can you detect ships?"; a number is a count.
    """
    plain = answer.strip(" .").lower()
    if plain.isdigit() or (plain in ("yes", "no") and prompt.rstrip().endswith("?")):
        return False
    return not _BOX.search(answer) and requests_boxes(prompt) and says_none(answer, prompt) and denies_first(answer)


def lists_classes(prompt: str, names: Sequence[str]) -> bool:
    """Whether a list of names answers a prompt that asks for several classes or objects."""
    return bool(_LISTED_THINGS.search(prompt.lower())) and all(len(n.split()) <= MAX_CLASS_WORDS for n in names)


def localization_task(prompt: str, boxes: int = 1) -> str:
    """The task of a prompt that asks for boxes: grounding of one object, or detection of all that are meant."""
    if "[refer]" in prompt:
        return "referred_object_detection"
    return "object_detection" if boxes != 1 or _PLURAL.search(prompt.lower()) else "visual_grounding"

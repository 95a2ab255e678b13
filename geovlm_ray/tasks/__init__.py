"""Earth-observation tasks: target type, prompt instruction and reward of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from geovlm_ray.core.errors import DataError, expected_one_of

TargetKind = Literal["classes", "vqa", "boxes", "captions", "grounded"]


@dataclass(frozen=True)
class Task:
    """One task.

    ``instruction`` follows the question of a prompt (`geovlm_ray.tasks.instructions`); ``{boxes}`` in it stands for
    the notation and unit of boxes. ``reward`` is the paper's reward and ``default_reward`` the default one: keys of
    `geovlm_ray.rewards.registry.REWARDS`, or user functions ``path/file.py:function``.
    """

    name: str
    target_kind: TargetKind
    instruction: str
    reward: str
    default_reward: str


_CLASS = "Answer with the class name."
_CLASSES = "Answer with the class names, separated by commas."
_WORD = "Answer with a single word or phrase."
_BOXES = "Answer with boxes as {boxes}."
_SENTENCE = "Answer with one sentence."
_PHRASE = "Answer with a short phrase."
_GROUNDED = "Answer with a description, the boxes of each object after it as {boxes}."

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("scene_classification", "classes", _CLASS, "recall", "fbeta"),
        Task("multilabel_classification", "classes", _CLASSES, "recall", "fbeta"),
        Task("temporal_classification", "classes", _CLASS, "recall", "fbeta"),
        Task("damage_assessment", "classes", _CLASS, "accuracy", "exact_match"),
        Task("vqa", "vqa", _WORD, "jaccard", "equivalence"),
        Task("object_detection", "boxes", _BOXES, "detection_best_iou", "detection"),
        Task("referred_object_detection", "boxes", _BOXES, "referred_detection_best_iou", "referred_detection"),
        Task("visual_grounding", "boxes", _BOXES, "referred_detection_best_iou", "referred_detection"),
        Task("region_captioning", "captions", _PHRASE, "sbert", "sbert_robust"),
        Task("image_captioning", "captions", _SENTENCE, "levenshtein", "content_words"),
        Task("grounded_description", "grounded", _GROUNDED, "grounded_description", "grounded_description_robust"),
        Task("change_captioning", "captions", _SENTENCE, "hslr", "hslr_robust"),
    )
}
"""Built-in tasks; `geovlm_ray.tasks.extensions.activate` adds those of a configuration and of its plugins."""


def find_task(name: str, where: str = "") -> Task:
    """The task with a name; ``where`` precedes the error message and names the record.

    Raises:
        DataError: There is no such task.
    """
    if name not in TASKS:
        raise DataError(f"{where}task: {expected_one_of(TASKS, name)}")
    return TASKS[name]

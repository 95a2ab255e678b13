"""Registry of rewards by name."""

from __future__ import annotations

from geovlm_ray.rewards import captions, classes, detection, vqa
from geovlm_ray.rewards.base import RewardSpec, per_answer
from geovlm_ray.rewards.captions import SBERT_ONLY, caption_reward
from geovlm_ray.rewards.config import is_function
from geovlm_ray.rewards.detection import box_reward, published_box_reward
from geovlm_ray.rewards.grounded import grounded_reward
from geovlm_ray.tasks import TASKS

REWARDS: dict[str, RewardSpec] = {
    "recall": RewardSpec(per_answer(classes.recall), "classes"),
    "fbeta": RewardSpec(per_answer(classes.fbeta), "classes"),
    "exact_match": RewardSpec(per_answer(classes.exact_match), "classes"),
    "accuracy": RewardSpec(per_answer(classes.accuracy), "classes"),
    "equivalence": RewardSpec(per_answer(vqa.equivalence), "vqa"),
    "jaccard": RewardSpec(per_answer(vqa.jaccard), "vqa"),
    "detection": RewardSpec(box_reward(detection.matched_iou), "boxes"),
    "detection_f1": RewardSpec(box_reward(detection.f1), "boxes"),
    "detection_best_iou": RewardSpec(published_box_reward(detection.best_iou), "boxes"),
    "detection_precision": RewardSpec(published_box_reward(detection.precision), "boxes"),
    "referred_detection": RewardSpec(box_reward(detection.matched_iou), "boxes"),
    "referred_detection_best_iou": RewardSpec(published_box_reward(detection.best_iou), "boxes"),
    "sbert": RewardSpec(caption_reward(captions.cosine, robust=False), "captions", lambda c: SBERT_ONLY),
    "sbert_robust": RewardSpec(caption_reward(captions.cosine, robust=True), "captions", lambda c: SBERT_ONLY),
    "levenshtein": RewardSpec(caption_reward(captions.levenshtein, robust=False), "captions"),
    "content_words": RewardSpec(caption_reward(captions.levenshtein, robust=True), "captions"),
    "hslr": RewardSpec(caption_reward(captions.hslr, robust=False), "captions", lambda c: c.hslr),
    "hslr_robust": RewardSpec(caption_reward(captions.hslr, robust=True), "captions", lambda c: c.hslr),
    "grounded_description": RewardSpec(grounded_reward(robust=False), "grounded", lambda c: c.grounded),
    "grounded_description_robust": RewardSpec(grounded_reward(robust=True), "grounded", lambda c: c.grounded),
}

RENAMED = {"jaccard_robust": "equivalence", "levenshtein_robust": "content_words"}
"""Renamed rewards: old name to current name."""


def check_reward(key: str, task: str, reward: str) -> None:
    """Check that a built-in reward exists and scores the target kind of a task; ``key`` names the setting.

    Raises:
        ValueError: It does not.
    """
    kind = TASKS[task].target_kind
    allowed = [name for name, spec in REWARDS.items() if spec.target_kind == kind]
    if reward in RENAMED:
        raise ValueError(f"{key}: unknown reward {reward!r}; it is now {RENAMED[reward]!r}")
    if not is_function(reward) and reward not in allowed:
        raise ValueError(
            f"{key}: {reward!r} does not score {kind}; expected path/file.py:function or one of {', '.join(allowed)}"
        )

"""Registry of rewards by name."""

from __future__ import annotations

from geovlm_ray.rewards import captions, classes, detection, grounded, vqa
from geovlm_ray.rewards.base import RewardSpec
from geovlm_ray.rewards.captions import caption_reward
from geovlm_ray.rewards.config import is_function
from geovlm_ray.tasks import TASKS

REWARDS: dict[str, RewardSpec] = {
    "recall": RewardSpec(classes.recall, "classes"),
    "fbeta": RewardSpec(classes.fbeta, "classes"),
    "accuracy": RewardSpec(classes.accuracy, "classes"),
    "jaccard": RewardSpec(vqa.jaccard, "vqa"),
    "jaccard_robust": RewardSpec(vqa.jaccard_counts, "vqa"),
    "detection": RewardSpec(detection.matched_iou, "boxes"),
    "detection_f1": RewardSpec(detection.f1, "boxes"),
    "detection_best_iou": RewardSpec(detection.best_iou, "boxes"),
    "detection_precision": RewardSpec(detection.precision, "boxes"),
    "referred_detection": RewardSpec(detection.matched_iou, "boxes"),
    "referred_detection_best_iou": RewardSpec(detection.best_iou, "boxes"),
    "sbert": RewardSpec(caption_reward(captions.cosine, gated=False), "captions", lambda config: True),
    "sbert_robust": RewardSpec(
        caption_reward(captions.cosine_above_floor, gated=True), "captions", lambda config: True
    ),
    "levenshtein": RewardSpec(caption_reward(captions.levenshtein, gated=False), "captions"),
    "levenshtein_robust": RewardSpec(caption_reward(captions.levenshtein, gated=True), "captions"),
    "hslr": RewardSpec(caption_reward(captions.hslr, gated=False), "captions", captions.hslr_embeds),
    "hslr_robust": RewardSpec(caption_reward(captions.hslr_above_floor, gated=True), "captions", captions.hslr_embeds),
    "grounded_description": RewardSpec(grounded.grounded_description, "grounded", grounded.grounded_embeds),
    "grounded_description_robust": RewardSpec(
        grounded.grounded_description_robust, "grounded", grounded.grounded_embeds
    ),
}


def check_reward(key: str, task: str, reward: str) -> None:
    """Check that a built-in reward exists and scores the target kind of a task; ``key`` names the setting.

    Raises:
        ValueError: It does not.
    """
    kind = TASKS[task].target_kind
    allowed = [name for name, spec in REWARDS.items() if spec.target_kind == kind]
    if not is_function(reward) and reward not in allowed:
        raise ValueError(
            f"{key}: {reward!r} does not score {kind}; expected path/file.py:function or one of {', '.join(allowed)}"
        )

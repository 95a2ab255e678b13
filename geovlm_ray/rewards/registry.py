"""Every form of a reward by name."""

from __future__ import annotations

from geovlm_ray.rewards import captions, classes, detection, grounded, vqa
from geovlm_ray.rewards.base import Form
from geovlm_ray.rewards.captions import judged_by
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.tasks import TASKS

FORMS: dict[str, Form] = {
    "recall": Form(classes.recall, "classes"),
    "fbeta": Form(classes.fbeta, "classes"),
    "accuracy": Form(classes.accuracy, "classes"),
    "jaccard": Form(vqa.jaccard, "vqa"),
    "jaccard_robust": Form(vqa.jaccard_counts, "vqa"),
    "detection": Form(detection.matched_iou, "boxes"),
    "detection_f1": Form(detection.f1, "boxes"),
    "detection_best_iou": Form(detection.best_iou, "boxes"),
    "detection_precision": Form(detection.precision, "boxes"),
    "referred_detection": Form(detection.matched_iou, "boxes"),
    "referred_detection_best_iou": Form(detection.best_iou, "boxes"),
    "sbert": Form(judged_by(captions.cosine, gated=False), "captions", lambda config: True),
    "sbert_robust": Form(judged_by(captions.cosine_above_floor, gated=True), "captions", lambda config: True),
    "levenshtein": Form(judged_by(captions.levenshtein, gated=False), "captions"),
    "levenshtein_robust": Form(judged_by(captions.levenshtein, gated=True), "captions"),
    "hslr": Form(judged_by(captions.hslr, gated=False), "captions", captions.hslr_embeds),
    "hslr_robust": Form(judged_by(captions.hslr_above_floor, gated=True), "captions", captions.hslr_embeds),
    "grounded_description": Form(grounded.grounded_description, "grounded", grounded.grounded_embeds),
    "grounded_description_robust": Form(grounded.grounded_description_robust, "grounded", grounded.grounded_embeds),
}


def check_forms(config: RewardConfig) -> None:
    """Raise ValueError where a configuration names a form that does not score its task."""
    for task, form in config.forms.items():
        kind = TASKS[task].target_kind
        fitting = [name for name, f in FORMS.items() if f.target_kind == kind]
        if form not in fitting:
            raise ValueError(
                f"reward.forms.{task}: {form!r} does not score {kind}; expected one of {', '.join(fitting)}"
            )

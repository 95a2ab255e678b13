"""Class balance of datasets."""

from __future__ import annotations

from dataclasses import dataclass, field

from geovlm_ray.core.schema import Example, target_boxes, target_texts
from geovlm_ray.data.validation.tally import Findings, Tally
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.answers.labels import label_key

RARE = 0.01
"""Class fraction below which a class is reported as rare."""
DOMINANT = 0.9
"""Class fraction above which a class is reported as dominant."""
MIN_RECORDS = 20
"""Minimum number of records for reporting a dominant class."""
MAX_CLASSES = 1_000
"""Maximum number of classes; with more distinct values, they are descriptions rather than classes."""


def classes_of(example: Example) -> list[str]:
    """Classes of an example: its distinct class names, its VQA answer, or the label of each box."""
    kind = TASKS[example.task].target_kind
    if kind == "classes":
        return list(dict.fromkeys(target_texts(example.target)))
    if kind == "vqa":
        return [str(example.target).strip().casefold()]
    return [box.label for box in target_boxes(example.target) if box.label]


@dataclass
class Balance:
    """Class counts of one task of one dataset. ``total`` counts records, or labelled boxes for tasks with boxes."""

    task: str
    total: int = 0
    classes: Tally = field(default_factory=Tally)
    vocabulary: dict[str, str] = field(default_factory=dict)

    def add(self, example: Example) -> None:
        """Add an example of the task."""
        classes = classes_of(example)
        self.total += 1 if TASKS[self.task].target_kind in ("classes", "vqa") else len(classes)
        for name in classes:
            self.classes.add(name)
        if example.labels and len(self.vocabulary) < MAX_CLASSES:
            self.vocabulary.update((label_key(name), name) for name in example.labels)

    def merge(self, other: Balance) -> None:
        """Add the counts of other records of the same task."""
        self.total += other.total
        self.classes.merge(other.classes)
        self.vocabulary.update(other.vocabulary)

    def warn(self, dataset: str, findings: Findings) -> None:
        """Add warnings about rare, unused and dominant classes."""
        where = f"{dataset}, {self.task}"
        kind = TASKS[self.task].target_kind
        ranked = self.classes.ranked()
        if kind != "vqa" and len(ranked) <= MAX_CLASSES:
            rare = [(name, n) for name, n in ranked if n < RARE * self.total]
            if rare:
                example = f"{where}: '{rare[-1][0]}' has {rare[-1][1]} of {self.total}"
                findings.add(f"rare class (below {RARE:.0%} of its task)", example, len(rare))
        used = {label_key(name) for name, _ in ranked}
        unused = [name for key, name in self.vocabulary.items() if key not in used]
        if unused and ranked:
            findings.add("vocabulary class without records", f"{where}: '{unused[0]}'", len(unused))
        if kind in ("classes", "vqa") and self.total >= MIN_RECORDS and ranked[0][1] > DOMINANT * self.total:
            example = f"{where}: '{ranked[0][0]}' has {ranked[0][1]} of {self.total}"
            findings.add(f"dominant answer (above {DOMINANT:.0%} of its task)", example)

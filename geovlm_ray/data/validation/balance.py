"""How evenly the classes of a dataset occur."""

from __future__ import annotations

from dataclasses import dataclass, field

from geovlm_ray.core.schema import Example, target_boxes, target_texts
from geovlm_ray.data.validation.tally import Findings, Tally
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.labels import label_key

RARE = 0.01
DOMINANT = 0.9
FEW = 20
"""Records below which nothing is said of dominance."""
VOCABULARY = 1_000
"""Labels of boxes of which there are more are descriptions, not classes."""


def classes_of(example: Example) -> list[str]:
    """What an example counts for: its class names, each once; its answer; or the label of every box."""
    kind = TASKS[example.task].target_kind
    if kind == "classes":
        return list(dict.fromkeys(target_texts(example.target)))
    if kind == "vqa":
        return [str(example.target).strip().casefold()]
    return [box.label for box in target_boxes(example.target) if box.label]


@dataclass
class Balance:
    """Classes of one task of one dataset. ``total`` is records, or boxes with a label where boxes have them."""

    task: str
    total: int = 0
    classes: Tally = field(default_factory=Tally)
    vocabulary: dict[str, str] = field(default_factory=dict)

    def add(self, example: Example) -> None:
        """Count an example of the task."""
        found = classes_of(example)
        self.total += 1 if TASKS[self.task].target_kind in ("classes", "vqa") else len(found)
        for name in found:
            self.classes.add(name)
        if example.labels and len(self.vocabulary) < VOCABULARY:
            self.vocabulary.update((label_key(name), name) for name in example.labels)

    def merge(self, other: Balance) -> None:
        """Take in the counts of other records of the same task."""
        self.total += other.total
        self.classes.merge(other.classes)
        self.vocabulary.update(other.vocabulary)

    def warn(self, dataset: str, findings: Findings) -> None:
        """Add what is out of balance."""
        where = f"{dataset}, {self.task}"
        kind = TASKS[self.task].target_kind
        ranked = self.classes.ranked()
        if kind != "vqa" and len(ranked) <= VOCABULARY:
            rare = [(name, n) for name, n in ranked if n < RARE * self.total]
            if rare:
                example = f"{where}: '{rare[-1][0]}' has {rare[-1][1]} of {self.total}"
                findings.add(f"a class with less than {RARE:.0%} of its task", example, len(rare))
        named = {label_key(name) for name, _ in ranked}
        absent = [name for key, name in self.vocabulary.items() if key not in named]
        if absent and ranked:
            findings.add("a class of the vocabulary that no record has", f"{where}: '{absent[0]}'", len(absent))
        if kind in ("classes", "vqa") and self.total >= FEW and ranked[0][1] > DOMINANT * self.total:
            example = f"{where}: '{ranked[0][0]}' has {ranked[0][1]} of {self.total}"
            findings.add(f"an answer that is true of more than {DOMINANT:.0%} of its task", example)

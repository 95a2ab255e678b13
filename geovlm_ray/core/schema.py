"""The objects that flow through the system, frozen, each checking its own invariants."""

from __future__ import annotations

from dataclasses import dataclass, field

from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.pixels import PixelSettings

TASK_NAMES = (
    "scene_classification",
    "multilabel_classification",
    "temporal_classification",
    "damage_assessment",
    "vqa",
    "object_detection",
    "referred_object_detection",
    "visual_grounding",
    "region_captioning",
    "image_captioning",
    "grounded_description",
    "change_captioning",
)


@dataclass(frozen=True)
class Box:
    """``(x1, y1, x2, y2)`` or ``(x1, y1, x2, y2, angle in degrees)`` in the units of the example's frame."""

    coords: tuple[float, ...]
    label: str | None = None

    def __post_init__(self) -> None:
        if len(self.coords) not in (4, 5):
            raise ValueError(f"a box has 4 or 5 numbers, found {len(self.coords)}: {self.coords}")


@dataclass(frozen=True)
class GroundedText:
    """A description and the boxes of the objects it speaks of."""

    text: str
    boxes: tuple[Box, ...]


# Classes and captions are tuples of strings (captions: alternative references), VQA answers are a string.
Target = tuple[str, ...] | str | tuple[Box, ...] | GroundedText


def target_boxes(target: Target) -> tuple[Box, ...]:
    """The boxes of a target; none where it is of another kind."""
    if isinstance(target, GroundedText):
        return target.boxes
    return tuple(item for item in target if isinstance(item, Box))


def target_texts(target: Target) -> tuple[str, ...]:
    """The texts of a target: class names, the answer, the captions, or the words of a grounded description."""
    if isinstance(target, GroundedText):
        return (target.text,)
    return (target,) if isinstance(target, str) else tuple(item for item in target if isinstance(item, str))


@dataclass(frozen=True)
class Example:
    """One record of a dataset.

    ``images`` are references (`geovlm_ray.data.images.load_image` says which there are), in the order in which the
    prompt shows them. ``labels`` is the vocabulary of the dataset where it has one; ``reasoning`` a chain of
    thought where the dataset carries one. ``gsd`` is metres per pixel. ``pixels`` says how the bands of the images
    become RGB.
    """

    id: str
    task: str
    images: tuple[str, ...]
    question: str
    target: Target
    dataset: str = ""
    split: str = "train"
    frame: Frame = field(default_factory=Frame)
    dialect: str = "brackets"
    labels: tuple[str, ...] = ()
    reasoning: str | None = None
    gsd: float | None = None
    sensor: str | None = None
    pixels: PixelSettings = field(default_factory=PixelSettings)

    def __post_init__(self) -> None:
        if self.task not in TASK_NAMES:
            raise ValueError(f"record {self.id!r}: task {self.task!r} is none of {', '.join(TASK_NAMES)}")


@dataclass(frozen=True)
class RewardScore:
    """What one completion earned.

    ``format`` and ``accuracy`` lie in [0, 1]; ``total`` is their combination; ``components`` are the named
    parts of the accuracy; ``status`` is ``ok``, ``unparseable``, ``too_long``, ``timeout``, ``error`` or
    ``invalid_record``.
    """

    total: float
    format: float
    accuracy: float
    components: dict[str, float] = field(default_factory=dict)
    status: str = "ok"


@dataclass(frozen=True)
class Prompt:
    """One draw of the sampler: an example and the place of the draw in the sampler's sequence.

    ``prefill`` is the beginning of the completion, which the model then goes on with.
    """

    group_id: int
    example: Example
    prefill: str = ""


@dataclass(frozen=True)
class Sample:
    """One completion.

    ``token_ids`` and ``logprobs`` have the same length: the sampled ids, the end-of-sequence id included
    where it was drawn, and the log-probability each had when it was drawn. ``weight_version`` is the
    version of the weights that drew it; where engines took new ones on the way, ``weight_updates`` holds (number of
    the first token, version) of each later version. ``reward`` is None until the reward pool has scored it.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: str
    weight_version: int
    reward: RewardScore | None = None
    weight_updates: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if len(self.token_ids) != len(self.logprobs):
            raise ValueError(f"{len(self.token_ids)} token ids but {len(self.logprobs)} log-probs")


@dataclass(frozen=True)
class SampleGroup:
    """The G completions of one prompt; the prompt and its images stand in it once."""

    prompt: Prompt
    samples: tuple[Sample, ...]

    @property
    def group_id(self) -> int:
        """The number by which the group is known everywhere."""
        return self.prompt.group_id

    @property
    def weight_version(self) -> int:
        """The oldest weights that drew any of its samples."""
        return min(s.weight_version for s in self.samples)

    @property
    def rewards(self) -> tuple[float, ...]:
        """Total reward of each sample.

        Raises:
            ValueError: a sample has not been scored.
        """
        if any(s.reward is None for s in self.samples):
            raise ValueError(f"group {self.group_id} has samples without a reward")
        return tuple(s.reward.total for s in self.samples if s.reward is not None)

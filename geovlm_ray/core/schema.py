"""Data classes passed between components; immutable, with invariants checked on construction."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import compress
from typing import Literal

from geovlm_ray.core.geometry import Frame, ordered
from geovlm_ray.core.pixels import PixelSettings


@dataclass(frozen=True)
class Box:
    """``(x1, y1, x2, y2)`` or ``(x1, y1, x2, y2, angle in degrees)`` in the example's frame.

    Datasets write opposite corners in any order; here ``x1 <= x2`` and ``y1 <= y2``.
    """

    coords: tuple[float, ...]
    label: str | None = None

    def __post_init__(self) -> None:
        if len(self.coords) not in (4, 5):
            raise ValueError(f"a box has 4 or 5 numbers, found {len(self.coords)}: {self.coords}")
        object.__setattr__(self, "coords", ordered(self.coords))


@dataclass(frozen=True)
class GroundedText:
    """A description and the boxes of the objects that it mentions."""

    text: str
    boxes: tuple[Box, ...]


# Class names and captions (alternative references) are tuples of strings; a VQA answer is a string.
Target = tuple[str, ...] | str | tuple[Box, ...] | GroundedText


def target_boxes(target: Target) -> tuple[Box, ...]:
    """Boxes of a target; empty if it has none."""
    if isinstance(target, GroundedText):
        return target.boxes
    return tuple(item for item in target if isinstance(item, Box))


Rotated = bool | Literal["auto"]
"""Whether boxes keep their angles; ``auto``: where `is_rotated`."""


def is_rotated(target: Target) -> bool:
    """Whether a box of a target has an angle, also of 0: what is asked for must not tell how the true boxes lie."""
    return any(len(box.coords) == 5 for box in target_boxes(target))


def keeps_angles(rotated: Rotated, target: Target) -> bool:
    """Whether the boxes of a target are written and compared with their angles; otherwise, their envelopes are."""
    return is_rotated(target) if rotated == "auto" else rotated


def target_texts(target: Target) -> tuple[str, ...]:
    """Texts of a target: class names, VQA answer, captions, or the text of a grounded description."""
    if isinstance(target, GroundedText):
        return (target.text,)
    return (target,) if isinstance(target, str) else tuple(item for item in target if isinstance(item, str))


@dataclass(frozen=True)
class Example:
    """One record of a dataset; ``task`` is a key of `geovlm_ray.tasks.TASKS`, checked where records are read.

    ``images`` are image references (see `geovlm_ray.data.images.load_image`) in prompt order. ``labels`` is the
    dataset's label vocabulary and ``reasoning`` its chain of thought, if it has them. ``gsd`` is the ground sample
    distance in metres per pixel. ``pixels`` configures the conversion of image bands to RGB. ``rotated`` says that
    answers have boxes with angles although the target shows none, as that of a record without objects. ``origin`` is
    the shard and row that a record was read from; ids need not be unique.
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
    rotated: bool = False
    origin: str = ""


@dataclass(frozen=True)
class RewardScore:
    """Reward of one completion.

    ``format`` and ``accuracy`` lie in [0, 1]; ``total`` combines them; ``components`` are the named components of the
    accuracy; ``status`` is ``ok``, ``unparseable``, ``too_long``, ``timeout``, ``error`` or ``invalid_record``.
    """

    total: float
    format: float
    accuracy: float
    components: dict[str, float] = field(default_factory=dict)
    status: str = "ok"


@dataclass(frozen=True)
class Prompt:
    """An example drawn by the prompt sampler; ``group_id`` is its position in the sampler's sequence.

    ``prefill`` is a fixed beginning of the response, which the model continues: part of the prompt for engine and
    learner, and of the text that is scored.
    """

    group_id: int
    example: Example
    prefill: str = ""


@dataclass(frozen=True)
class Sample:
    """One completion.

    ``token_ids`` are the tokens after the prompt, including an end-of-sequence token if one was sampled; ``logprobs``
    are their log-probs under the sampling policy, of the same length. ``text`` is the response that is scored: the
    prompt's prefill and the completion. ``weight_version`` is the weight version at the start of generation. If weights
    were synced during generation, ``weight_updates`` holds (index of the first token, version) of each later version.
    ``reward`` is None until the reward pool scores the sample.

    ``loss_mask`` is False for tokens that the environment wrote, such as the result of a tool: the policy reads but is
    not trained on them, and their log-probs have no meaning. Empty: the policy wrote all tokens. ``images`` are
    references of the images whose placeholders are among ``token_ids``, in order.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: str
    weight_version: int
    reward: RewardScore | None = None
    weight_updates: tuple[tuple[int, int], ...] = ()
    loss_mask: tuple[bool, ...] = ()
    images: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.token_ids) != len(self.logprobs):
            raise ValueError(f"{len(self.token_ids)} token ids but {len(self.logprobs)} log-probs")
        if self.loss_mask and len(self.loss_mask) != len(self.token_ids):
            raise ValueError(f"{len(self.token_ids)} token ids but a loss mask of length {len(self.loss_mask)}")
        if self.loss_mask and not self.loss_mask[-1]:
            raise ValueError("the last token of a completion must be of the policy; drop those that follow it")

    @property
    def policy_logprobs(self) -> tuple[float, ...]:
        """Log-probs of the tokens that the policy wrote."""
        return tuple(compress(self.logprobs, self.loss_mask)) if self.loss_mask else self.logprobs


@dataclass(frozen=True)
class SampleGroup:
    """The G completions of one prompt; the prompt and its image references are stored once.

    ``problem`` says why the prompt's record cannot be shown, and has no samples, or cannot be scored; empty if it can.
    """

    prompt: Prompt
    samples: tuple[Sample, ...]
    problem: str = ""

    @property
    def group_id(self) -> int:
        """Identifier of the group, equal to that of its prompt."""
        return self.prompt.group_id

    @property
    def weight_version(self) -> int:
        """Oldest weight version among the samples."""
        return min(s.weight_version for s in self.samples)

    @property
    def rewards(self) -> tuple[float, ...]:
        """Total reward of each sample; raises ValueError if one has not been scored."""
        if any(s.reward is None for s in self.samples):
            raise ValueError(f"group {self.group_id} has samples without a reward")
        return tuple(s.reward.total for s in self.samples if s.reward is not None)

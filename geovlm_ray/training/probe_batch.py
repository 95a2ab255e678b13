"""The fixed prompts on which engines and learner are compared after every weight sync."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from geovlm_ray.core.schema import Prompt
from geovlm_ray.data.images import SCENE_PREFIX


def probe_batch(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """The first ``count`` prompts, and the first one with image files again, with other bands of the same files.

    Engines cache what they computed for an image. An engine that takes the two renderings of a file for one image gives
    log-probs of the wrong picture, which the comparison with the learner shows.
    """
    probe = list(prompts[:count])
    for prompt in probe:
        example = prompt.example
        if example.images and not any(image.startswith(SCENE_PREFIX) for image in example.images):
            bands = () if example.pixels.bands == (1,) else (1,)
            repainted = replace(example, pixels=replace(example.pixels, bands=bands))
            return [*probe, replace(prompt, group_id=len(prompts), example=repainted)]
    return probe

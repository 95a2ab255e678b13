"""The fixed prompts on which engines and learner are compared after every weight sync."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from geovlm_ray.config import Config
from geovlm_ray.core.interfaces import Components, Prompts
from geovlm_ray.core.schema import Prompt, SampleGroup
from geovlm_ray.data.images import SCENE_PREFIX


class ParityProbe:
    """The prompts of the comparison; one of a record that turns out bad is replaced."""

    def __init__(self, config: Config, components: Components, prompts: Prompts) -> None:
        self.settings = config.sync
        self.components = components
        self.prompts = prompts
        self._batch = self._of_first_step()

    def completions(self) -> list[list[SampleGroup]]:
        """Short completions from every engine, [engines][prompts], which the learner can encode.

        Raises:
            DataError: too many records are bad.
        """
        while True:
            probed = self.components.rollouts.probe(self._batch, self.settings.parity_tokens)
            problems = problems_of(self.components, [group for groups in probed for group in groups])
            if not problems:
                return probed
            for prompt in self._batch:
                if prompt.group_id in problems:
                    self.prompts.set_aside(prompt, problems[prompt.group_id])
            self._batch = self._of_first_step()

    def _of_first_step(self) -> list[Prompt]:
        return probe_batch(self.prompts.batch(0), self.settings.parity_prompts)


def problems_of(components: Components, groups: Sequence[SampleGroup]) -> dict[int, str]:
    """Why the records of groups cannot be shown, scored or encoded, keyed by group id."""
    problems = {group.group_id: group.problem for group in groups if group.problem}
    return problems or components.learner.problems([group.prompt for group in groups])


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

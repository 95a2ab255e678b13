"""Identity of images in the engine's caches, and the probe batch that checks it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geovlm_ray.core.pixels import PixelSettings
from geovlm_ray.core.schema import Example, Prompt
from geovlm_ray.model.prompts import PromptEncoder
from geovlm_ray.rollout.engine import image_identity
from geovlm_ray.training.probe_batch import probe_batch


@pytest.fixture
def example(tmp_path: Path) -> Example:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return Example("a", "vqa", (str(tmp_path / "a.png"),), "Is there a ship?", "yes")


def identities(encoder: PromptEncoder, example: Example) -> list[str]:
    return [image_identity(image) for image in encoder.images(example)]


def test_images_are_identified_by_what_the_engine_sees(
    encoder: PromptEncoder, example: Example, tmp_path: Path
) -> None:
    other_bands = replace(example, pixels=PixelSettings(bands=(3, 2, 1)))
    Image.open(example.images[0]).save(tmp_path / "copy.png")
    copy = replace(example, id="b", images=(str(tmp_path / "copy.png"),))
    assert identities(encoder, example) != identities(encoder, other_bands)
    assert identities(encoder, example) == identities(encoder, copy)


def test_file_that_changes_is_another_image(encoder: PromptEncoder, example: Example) -> None:
    before = identities(encoder, example)
    Image.new("RGB", (40, 60)).save(example.images[0])
    assert identities(encoder, example) != before


@pytest.mark.parametrize("bands", [(), (1,), (3, 2, 1)])
def test_probe_batch_has_one_file_in_two_renderings(
    encoder: PromptEncoder, example: Example, bands: tuple[int, ...]
) -> None:
    scene = replace(example, images=("scene:vqa:3",))
    example = replace(example, pixels=PixelSettings(bands=bands))
    prompts = [Prompt(k, e) for k, e in enumerate((scene, example, example))]
    probe = probe_batch(prompts, 2)
    assert probe[:2] == prompts[:2]
    assert [p.group_id for p in probe] == [0, 1, 3]
    assert probe[2].example.images == example.images
    assert identities(encoder, probe[2].example) != identities(encoder, example)


def test_probe_batch_of_scenes_is_the_first_prompts(example: Example) -> None:
    prompts = [Prompt(k, replace(example, images=(f"scene:vqa:{k}",))) for k in range(3)]
    assert probe_batch(prompts, 2) == prompts[:2]

"""Settings of predictions over scenes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from geovlm_ray.core.errors import ConfigError
from geovlm_ray.core.files import read_object, write_atomically
from geovlm_ray.core.pixels import PERCENTILES
from geovlm_ray.data.geo.composites import Composite


@dataclass(frozen=True)
class PredictSettings:
    """What is asked about every window, and how windows are cut and rendered.

    ``classes`` are the names that answers may give, as the labels of records in training, and ``rotated`` whether boxes
    are asked for with angles. ``side`` and ``overlap`` are in pixels of the scene. ``composites`` are the pictures of
    each scene, by default its first bands; ``percentiles`` and ``value_range`` are as in
    `geovlm_ray.data.geo.composites.Renderer`. ``samples`` more answers are drawn for the agreement.
    """

    task: str
    question: str
    side: int
    overlap: int
    composites: tuple[Composite, ...] = ()
    percentiles: tuple[float, float] = PERCENTILES
    value_range: tuple[float, float] | None = None
    samples: int = 0
    classes: tuple[str, ...] = ()
    rotated: bool = False


def check_settings(settings: PredictSettings, sources: Sequence[Sequence[str]], folder: Path) -> None:
    """Write settings and sources into the folder of unfinished answers, or compare them with those that are there.

    Answers name their source by its place, so that the order of the sources counts.

    Raises:
        ConfigError: the folder has answers of other settings or sources.
    """
    file = folder / "settings.json"
    now = json.loads(json.dumps({**asdict(settings), "sources": sources}))
    if not os.path.lexists(file):
        write_atomically(file, json.dumps(now, indent=1) + "\n")
        return
    before = read_object(file)
    changed = [key for key in now if before.get(key) != now[key]]
    if changed:
        key = changed[0]
        raise ConfigError(
            f"{folder}: expected unfinished answers with {key} = {now[key]!r:.200}, found {before.get(key)!r:.200}; "
            "remove the folder to begin again"
        )

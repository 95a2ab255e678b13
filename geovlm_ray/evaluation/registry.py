"""The benchmarks: the 28 of the paper, defined in ``benchmarks.yaml``, and synthetic ones that need no data."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import Field

from geovlm_ray.core.errors import ConfigError, did_you_mean
from geovlm_ray.core.section import Section
from geovlm_ray.data.formats import FORMATS
from geovlm_ray.data.scenes import SCENE_TASKS

ANY = "any"


class Benchmark(Section):
    """A benchmark: the records of ``task`` in ``split``, or in all splits if that is `ANY`.

    ``name`` is also the name of its folder below the data root. ``reader`` is the format of its source, None for
    synthetic scenes. ``prompt`` replaces the dataset's question and may contain the placeholders ``{question}`` and
    ``{labels}`` (the class names). ``published`` is {metric of the ``paper`` set: {model: percent}}. ``path`` is the
    folder of the shards of a custom dataset, ``origin`` what was given for it.
    """

    name: str
    title: str
    task: str
    family: str = "synthetic scenes"
    reader: str | None = None
    options: dict[str, str] = Field(default_factory=dict)
    split: str = ANY
    prompt: str | None = None
    zero_shot: bool = False
    published: dict[str, dict[str, float]] = Field(default_factory=dict)
    source: str = ""
    licence: str = ""
    note: str = ""
    path: Path | None = None
    origin: Path | None = None

    @property
    def reader_options(self) -> dict[str, str]:
        """The reader's default options, overridden by ``options``."""
        return {**(FORMATS[self.reader].options if self.reader else {}), **self.options}

    def missing_data_message(self, data: Path | None) -> str:
        """Message for missing data: the expected folder, and where to get the data."""
        folder = f"{data / self.name}" if data else f"a folder {self.name} below --data (in a run: evaluation.data)"
        return (
            f"expected its data in {folder}, found none: get it from {self.source} (licence: {self.licence}), in a "
            f"format of `geovlm-ray data convert {self.reader}` or converted by it"
        )


_PAPER = yaml.safe_load((files("geovlm_ray") / "evaluation" / "benchmarks.yaml").read_text())
BENCHMARKS = {name: Benchmark(name=name, **values) for name, values in _PAPER.items()}
DRAWN = {
    f"drawn-{task}": Benchmark(name=f"drawn-{task}", title=f"synthetic scenes: {task}", task=task)
    for task in SCENE_TASKS
}
GROUPS = {"all": BENCHMARKS, "drawn": DRAWN}


def is_path(name: str) -> bool:
    """Whether a benchmark argument is the path of a dataset; known benchmark names take precedence."""
    return name not in (*GROUPS, *BENCHMARKS, *DRAWN) and ("/" in name or Path(name).exists())


def find(names: Sequence[str]) -> list[Benchmark]:
    """Look up benchmarks by name, without duplicates; ``all`` are the paper's, ``drawn`` the synthetic ones.

    Raises:
        ConfigError: a name is unknown.
    """
    known = BENCHMARKS | DRAWN
    found: dict[str, Benchmark] = {}
    for name in names:
        if name in GROUPS:
            found |= GROUPS[name]
        elif name in known:
            found[name] = known[name]
        else:
            raise ConfigError(
                f"benchmark {name!r}: expected all, drawn, a name listed by `geovlm-ray evaluate --list`, or the path "
                f"of an existing dataset{did_you_mean(name, [*GROUPS, *known])}"
            )
    return list(found.values())

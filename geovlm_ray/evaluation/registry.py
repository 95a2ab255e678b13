"""The benchmarks: the 28 of the paper, drawn ones that need no data, and datasets of one's own.

What is known of the 28 stands in ``benchmarks.yaml``.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

from geovlm_ray.core.errors import ConfigError
from geovlm_ray.core.schema import TASK_NAMES
from geovlm_ray.data.formats import FORMATS

ANY = "any"


class Benchmark(BaseModel):
    """One benchmark.

    ``name`` is also the name of its folder below the data root. Its records are those of ``task`` in ``split``, of any
    where that is `ANY`; ``reader`` is the format in which its source comes, None where it is drawn. ``prompt`` is asked
    in place of the dataset's own question, whose words it may hold as ``{question}`` and its classes as ``{labels}``.
    ``published`` has percent by metric of the `paper` set and model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    task: str
    family: str = "drawn scenes"
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

    @property
    def reader_options(self) -> dict[str, str]:
        """All options of the reader."""
        return {**(FORMATS[self.reader].options if self.reader else {}), **self.options}

    def where(self, data: Path | None) -> str:
        """Why it is absent, and where its data is to be had."""
        folder = f"{data / self.name}" if data else f"a folder {self.name} below --data (in a run: evaluation.data)"
        return (
            f"expected its data in {folder}, found none: get it from {self.source} (licence: {self.licence}), as what "
            f"`geovlm-ray data convert {self.reader}` reads or writes"
        )


def _paper_benchmarks() -> dict[str, Benchmark]:
    text = (files("geovlm_ray") / "evaluation" / "benchmarks.yaml").read_text()
    return {name: Benchmark(name=name, **values) for name, values in yaml.safe_load(text).items()}


BENCHMARKS = _paper_benchmarks()
DRAWN = {
    f"drawn-{task}": Benchmark(name=f"drawn-{task}", title=f"drawn scenes: {task}", task=task) for task in TASK_NAMES
}
GROUPS = {"all": BENCHMARKS, "drawn": DRAWN}


def is_path(name: str) -> bool:
    """Whether a name of a benchmark is rather the path of a dataset; known names come first."""
    return name not in (*GROUPS, *BENCHMARKS, *DRAWN) and ("/" in name or Path(name).exists())


def find(names: Sequence[str]) -> list[Benchmark]:
    """Benchmarks by name; ``all`` are the paper's, ``drawn`` the drawn ones. Each comes once.

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
            near = difflib.get_close_matches(name, [*GROUPS, *known], 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"benchmark {name!r}: expected all, drawn, a name that `geovlm-ray evaluate --list` shows, or the path "
                f"of a dataset that is there{hint}"
            )
    return list(found.values())

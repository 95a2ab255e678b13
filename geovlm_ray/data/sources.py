"""Sources of examples, known by name; a new format is one reader and one line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from geovlm_ray.data.config import DataConfig
from geovlm_ray.data.sampler import RecordStream, SceneStream, Stream
from geovlm_ray.data.samples import read_samples
from geovlm_ray.errors import ConfigError, DataError

READERS: dict[str, Callable[[Path], Iterator]] = {"samples": read_samples}


def open_stream(config: DataConfig) -> Stream:
    """The examples of a data section.

    Raises:
        ConfigError: the source is unknown.
        DataError: a file is absent, a record cannot be read, or a stage names a task without records.
    """
    if config.source == "scenes":
        return SceneStream(config.seed)
    if config.source not in READERS:
        known = ", ".join(["scenes", *READERS])
        raise ConfigError(f"data.source: expected one of {known}, found {config.source!r}")
    path = Path(config.path)
    if not path.is_file():
        raise DataError(f"data.path: expected a file, found none at {config.path!r}")
    stream = RecordStream(list(READERS[config.source](path)), config.seed, name=str(path))
    for stage in config.stages:
        for task in stage.tasks:
            stream.require(task)
    return stream


def image_root(config: DataConfig) -> Path | None:
    """The folder that the examples' image paths are relative to; None for drawn scenes."""
    if config.source == "scenes":
        return None
    return Path(config.root) if config.root else Path(config.path).parent

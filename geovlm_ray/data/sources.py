"""Opening of the example stream of a data configuration."""

from __future__ import annotations

import tempfile
from pathlib import Path

from geovlm_ray.core.errors import ConfigError, DataError, expected_one_of
from geovlm_ray.data.bad_records import BadRecord
from geovlm_ray.data.config import DataConfig
from geovlm_ray.data.convert import MetadataOverrides, convert
from geovlm_ray.data.formats import FORMATS
from geovlm_ray.data.formats.base import Source
from geovlm_ray.data.formats.image_roots import image_root_of
from geovlm_ray.data.parquet import RecordTable, open_datasets
from geovlm_ray.data.quarantine import read_quarantine
from geovlm_ray.data.sampler import RecordStream, SceneStream, Stream


def open_stream(config: DataConfig) -> Stream:
    """Open the example stream of a data configuration, with boxes as they are in the data.

    Raises:
        ConfigError: The source is unknown.
        DataError: A file is absent, too many records cannot be read, or a stage names a task without scenes or records.
    """
    stream: Stream = SceneStream(config.seed) if config.source == "scenes" else _open_records(config)
    for stage in config.stages:
        for task in stage.tasks:
            stream.count(task)
    return stream


def _open_records(config: DataConfig) -> RecordStream:
    path, root = Path(config.path), Path(config.root) if config.root else None
    unreadable: list[BadRecord] = []
    if config.source == "parquet":
        table = RecordTable(open_datasets(path, root))
    elif config.source in FORMATS:
        table, unreadable = read_source(config.source, path, root)
    else:
        raise ConfigError(f"data.source: {expected_one_of(['scenes', 'parquet', *FORMATS], config.source)}")
    stream = RecordStream(table, config, name=config.path)
    stream.bad.total += len(unreadable)
    stream.bad.add(unreadable)
    return stream


def read_source(name: str, path: Path, root: Path | None = None) -> tuple[RecordTable, list[BadRecord]]:
    """Convert a source to a temporary dataset and open it; also returns the records that cannot be read.

    Raises:
        DataError: The source is absent, has no usable record, or stores images inside its files, which
            `geovlm-ray data convert` has to extract first.
    """
    if not path.exists():
        raise DataError(f"data.path: expected a file or folder, found none at {str(path)!r}")
    form = FORMATS[name]
    source = Source(path, root or image_root_of(path), dict(form.options))
    if form.stores_images(source):
        raise DataError(f"{path}: {name} stores images inside its files; run `geovlm-ray data convert {name}` first")
    with tempfile.TemporaryDirectory(prefix="geovlm-ray-") as folder:
        out = Path(folder) / "data"
        counts = convert(name, source, out, MetadataOverrides(), workers=1, on_progress=lambda counts: None)
        unreadable = []
        for item in read_quarantine(out, "convert"):
            where = path if path.is_file() else path / item.source_file
            unreadable.append(BadRecord(f"{where}, record {item.source_record}", item.id or "", item.reason))
        if not counts.records:
            first = f"; first: {unreadable[0]}" if unreadable else ""
            raise DataError(f"{path}: expected {name} records with a reference, found none{first}")
        return RecordTable(open_datasets(out)), unreadable

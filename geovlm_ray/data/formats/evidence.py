"""What the beginning of a source holds, for recognizing its format: file names, first records, lines and tags."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from geovlm_ray.data.formats.base import Source, Unit
from geovlm_ray.data.formats.files import HIDDEN_PREFIXES, IMAGE_ENDINGS, sample_evenly
from geovlm_ray.data.formats.json_members import MAX_RECORD_BYTES, json_members
from geovlm_ray.data.formats.shards import ENDINGS as SHARD_ENDINGS
from geovlm_ray.data.formats.shards import ShardRecord, shard_units
from geovlm_ray.data.formats.streams import external_link, json_records, relative

DATA_ENDINGS = (".json", ".jsonl", ".txt", ".xml", *SHARD_ENDINGS)
MAX_FOLDERS = 2_000
MAX_FILES = 20_000
FILES_EACH = 6
"""Files of each kind that are opened."""
RECORDS_EACH = 10
MEMBERS = 2_000
"""Members of a JSON object's arrays that are read."""
HEAD_BYTES = 2**16
_TAG = re.compile(rb"<([A-Za-z][\w.-]*)")


@dataclass
class Evidence:
    """The beginning of a source.

    ``files`` are names relative to the source; ``records`` the first records of JSON and Parquet files, ``members`` the
    first member by key of the arrays in files of one JSON object; ``lines`` the first lines of text files by name;
    ``tags`` the tags of XML files; ``problems`` say what could not be read.
    """

    files: list[str] = field(default_factory=list)
    records: list[Mapping[str, Any]] = field(default_factory=list)
    members: list[Mapping[str, Any]] = field(default_factory=list)
    lines: dict[str, list[str]] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def with_suffix(self, *endings: str) -> list[str]:
        """The files with one of the endings, in any case."""
        return [name for name in self.files if name.lower().endswith(endings)]

    def note(self, unit: Unit) -> None:
        """Keep the problem of a unit, if it has one."""
        if unit.problem is not None:
            self.problems.append(f"{unit.file}, record {unit.number}: {unit.problem}")

    @property
    def images(self) -> list[str]:
        """The image files."""
        return self.with_suffix(*IMAGE_ENDINGS)


def collect_evidence(source: Source) -> Evidence:
    """Read the beginning of a source; what cannot be read is left out and named."""
    found = Evidence(files=list(islice(_names(source), MAX_FILES)))
    for name in sample_evenly(found.with_suffix(*DATA_ENDINGS), FILES_EACH):
        if (source.folder / name).stat().st_size == 0:
            found.problems.append(f"{name} is empty")
    for name in sample_evenly(found.with_suffix(".json", ".jsonl", ".txt"), FILES_EACH):
        if (problem := _encoding_problem(_head(source.folder / name))) is not None:
            found.problems.append(f"{name}: {problem}")
    for name in sample_evenly(found.with_suffix(".json", ".jsonl"), FILES_EACH):
        _add_json(source.folder / name, source, found)
    for name in sample_evenly(found.with_suffix(*SHARD_ENDINGS), FILES_EACH):
        for unit in islice(shard_units(source.folder / name, source), RECORDS_EACH):
            found.note(unit)
            if isinstance(unit.value, ShardRecord):
                found.records.append(unit.value.fields | unit.value.images)
    for name in sample_evenly(found.with_suffix(".txt"), FILES_EACH):
        head = _head(source.folder / name).decode("utf-8-sig", "replace")
        found.lines[name] = [line.strip() for line in head.splitlines()[:RECORDS_EACH] if line.strip()]
    for name in sample_evenly(found.with_suffix(".xml"), FILES_EACH):
        found.tags |= {tag.decode() for tag in _TAG.findall(_head(source.folder / name))}
    return found


def _names(source: Source) -> Iterator[str]:
    """The regular files of a source, without hidden ones and links out of it."""
    if source.path.is_file():
        if external_link(source.path, source) is None:
            yield source.path.name
        return
    for number, (folder, subfolders, files) in enumerate(os.walk(source.path)):
        if number == MAX_FOLDERS:
            return
        subfolders[:] = sorted(s for s in subfolders if not s.startswith(HIDDEN_PREFIXES))
        for path in (Path(folder) / name for name in sorted(files) if not name.startswith(HIDDEN_PREFIXES)):
            if (not path.is_symlink() or external_link(path, source) is None) and path.is_file():
                yield relative(path, source)


def _encoding_problem(head: bytes) -> str | None:
    """What is wrong with the beginning of a text file that is not UTF-8; a cut last character is right."""
    try:
        head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3 or len(head) < HEAD_BYTES:
            return f"expected UTF-8 text, found byte {head[error.start]:#x}"
    return None


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""


def _add_json(path: Path, source: Source, found: Evidence) -> None:
    """Add the first records of an array or of JSON lines, and the first members of an object's arrays."""
    is_object = _head(path).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
    is_table = is_object and not _has_two_records(path)
    if is_table:
        members: dict[str, Any] = {}
        for key, unit in islice(json_members(path, "", None), MEMBERS):
            found.note(replace(unit, file=relative(path, source)))
            if unit.problem is None:
                members[key] = (
                    unit.value if unit.number > 0 and members.get(key) == [] else members.get(key, unit.value)
                )
        found.members.append(members)
    for unit in islice(json_records(path, source), RECORDS_EACH):
        if not is_table:
            found.note(unit)
        if isinstance(unit.value, dict):
            found.records.append(unit.value)


def _has_two_records(path: Path) -> bool:
    """Whether the first two lines begin objects, as in JSON lines."""
    with path.open("rb") as file:
        file.readline(MAX_RECORD_BYTES)
        return file.readline(16).lstrip().startswith(b"{")

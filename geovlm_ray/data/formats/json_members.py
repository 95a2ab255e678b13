"""Stream the members of JSON arrays in bounded memory, whatever the file holds.

Built on ijson's basic events: ijson's ``items`` keeps a path per open bracket, so that 100 KB of ``[`` would take
25 GB, and reads the file once per array. Unlike strict JSON, a byte-order mark and NaN are accepted.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import ijson

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.formats.base import Unit

CHUNK = 2**18
MAX_RECORD_BYTES = 16 * 2**20
"""Maximum size of a record in bytes."""
MAX_DEPTH = 100
"""Maximum nesting depth."""

_OPENS = frozenset({"start_map", "start_array"})
_CLOSES = frozenset({"end_map", "end_array"})
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_COMPLETE_STRINGS = re.compile(rb'(?:[^"]++|' + _STRING + rb")*+", re.DOTALL)
_NON_FINITE = re.compile(rb"(" + _STRING + rb")|-?(?:NaN|Infinity)", re.DOTALL)


def json_members(path: Path, name: str, keys: Collection[str] | None = ()) -> Iterator[tuple[str, Unit]]:
    """Stream the contents of a JSON file in order, as pairs of a key and a unit of the file ``name``.

    - Object: the members of the arrays under ``keys`` (None: under any key), numbered from 1 in each array. A unit with
      number 0 and an empty list starts an array. Any other key yields one unit with its value and number 0.
    - Array: its members, with the key ``""``.

    NaN and the infinities, which Python writes though they are not JSON, become None. Nothing is read after an error:
    the last unit has the problem, with the key of the array where it occurred.
    """
    key, number = "", 0
    try:
        with path.open("rb") as file:
            bounded = _BoundedFile(_token_chunks(file))
            events = ijson.basic_parse(bounded, use_float=True, buf_size=CHUNK)
            in_array = next(events, ("", None))[0] == "start_array"
            for event, value in events:
                if event == "map_key":
                    key, number = value, 0
                    first, item = next(events)
                    in_array = first == "start_array" and (keys is None or key in keys)
                    yield key, Unit(name, 0, [] if in_array else _value(first, item, events))
                elif in_array and event != "end_array":
                    member = _value(event, value, events)
                    number += 1
                    yield key, Unit(name, number, member)
                else:
                    in_array = False
                bounded.record_bytes = 0
    except (OSError, ValueError, ijson.JSONError, DataError) as error:
        reason = " ".join(str(error).split())[:300]
        yield key, Unit(name, number + 1, problem=f"expected JSON, found an error; nothing after it was read: {reason}")


def _value(event: str, value: Any, events: Iterator[tuple[str, Any]]) -> Any:
    """Build the value that starts with an event; consumes the events of the value."""
    builder = ijson.ObjectBuilder()
    builder.event(event, value)
    depth = int(event in _OPENS)
    while depth:
        event, value = next(events)
        builder.event(event, value)
        depth += (event in _OPENS) - (event in _CLOSES)
        if depth > MAX_DEPTH + 1:
            raise DataError(f"brackets nested more than {MAX_DEPTH} deep")
    return builder.value


class _BoundedFile:
    """Chunks as a file that raises if a record is too long; ``record_bytes`` counts from the end of the last record."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks = chunks
        self.record_bytes = 0

    def read(self, size: int = -1) -> bytes:
        """The next chunk, of any size; empty at the end, and when ijson probes with size 0."""
        if size == 0:
            return b""
        if self.record_bytes > MAX_RECORD_BYTES:
            raise DataError(f"a record longer than {MAX_RECORD_BYTES} bytes")
        chunk = next(self.chunks, b"")
        self.record_bytes += len(chunk)
        return chunk


def _token_chunks(file: Any) -> Iterator[bytes]:
    """A file's bytes without byte-order mark, NaN replaced by null, in chunks that split no string or literal."""
    rest = b""
    if file.read(3) != b"\xef\xbb\xbf":
        file.seek(0)
    # Doubling the unfinished rest of a long string keeps the repeated search for its end linear in total.
    while chunk := file.read(max(CHUNK, len(rest))):
        rest += chunk
        match = _COMPLETE_STRINGS.match(rest)
        assert match is not None
        complete = match[0].rstrip(b"-NaInfity")
        rest = rest[len(complete) :]
        if complete:
            yield _replace_non_finite(complete)
        if len(rest) > MAX_RECORD_BYTES:
            raise DataError(f"a string longer than {MAX_RECORD_BYTES} bytes")
    if rest:
        yield _replace_non_finite(rest)


def _replace_non_finite(chunk: bytes) -> bytes:
    if b"NaN" in chunk or b"Infinity" in chunk:
        return _NON_FINITE.sub(lambda match: match[1] or b"null", chunk)
    return chunk

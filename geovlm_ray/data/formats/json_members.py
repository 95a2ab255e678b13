"""The members of JSON arrays in a stream, in memory that does not grow with the file, whatever the file holds.

It builds on ijson's plain events: ijson's own ``items`` keeps a path for every open bracket, so that 100 KB of ``[``
would take 25 GB, and reads the file once for every array. Unlike strict JSON, a byte-order mark and NaN are no fault.
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
LONGEST_RECORD = 16 * 2**20
"""Bytes of one record; a longer one is set aside."""
DEEPEST = 100
"""Levels of nesting."""

_OPENS = frozenset({"start_map", "start_array"})
_CLOSES = frozenset({"end_map", "end_array"})
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_WHOLE_STRINGS = re.compile(rb'(?:[^"]++|' + _STRING + rb")*+", re.DOTALL)
_NOT_FINITE = re.compile(rb"(" + _STRING + rb")|-?(?:NaN|Infinity)", re.DOTALL)


def json_members(path: Path, name: str, keys: Collection[str] | None = ()) -> Iterator[tuple[str, Unit]]:
    """What a JSON file holds, piece by piece, in its order, as units of the file ``name``.

    Of an object the members of the arrays under ``keys`` (None: under any), each with its key; they are numbered
    within their array, and number 0, an empty list, says that it begins. Of every other key the value, as number 0.
    Of an array the members, with the key ``""``. NaN and the infinities, which are no JSON but which Python writes,
    are None. After a fault nothing more can be read: a last unit with its problem says so, with the key of the array
    that it stood in.
    """
    reader = _Reader(keys)
    try:
        for key, number, value in reader.members(path):
            yield key, Unit(name, number, value)
    except (OSError, ValueError, ijson.JSONError, DataError) as error:
        reason = " ".join(str(error).split())[:300]
        problem = f"expected JSON, found a fault; nothing after it was read: {reason}"
        yield reader.key, Unit(name, reader.number + 1, problem=problem)


class _Reader:
    """Builds the values of one file out of its events."""

    def __init__(self, keys: Collection[str] | None) -> None:
        self.keys = keys
        self.key = ""
        self.number = 0

    def members(self, path: Path) -> Iterator[tuple[str, int, Any]]:
        """Key, number and value of every piece."""
        with path.open("rb") as file:
            bounded = _Bounded(_whole_tokens(file))
            events = ijson.basic_parse(bounded, use_float=True, buf_size=CHUNK)
            kind = next(events, ("", None))[0]
            if kind == "start_array":
                yield from self._array(events, bounded)
            elif kind == "start_map":
                for event, value in events:
                    if event == "map_key":
                        yield from self._under(value, events, bounded)
            for _ in events:  # whatever follows the value is a fault, which the parser finds
                pass

    def _under(self, key: str, events: Iterator[tuple[str, Any]], bounded: _Bounded) -> Iterator[tuple[str, int, Any]]:
        self.key, self.number = key, 0
        event, value = next(events)
        if event == "start_array" and (self.keys is None or key in self.keys):
            yield key, 0, []
            yield from self._array(events, bounded)
        else:
            yield key, 0, _value(event, value, events)
        bounded.since = 0

    def _array(self, events: Iterator[tuple[str, Any]], bounded: _Bounded) -> Iterator[tuple[str, int, Any]]:
        for event, value in events:
            if event == "end_array":
                return
            member = _value(event, value, events)
            self.number += 1
            bounded.since = 0
            yield self.key, self.number, member


def _value(first: str, plain: Any, events: Iterator[tuple[str, Any]]) -> Any:
    """The value that begins with an event; the events that belong to it are taken."""
    if first not in _OPENS:
        return plain
    result: Any = {} if first == "start_map" else []
    outer: list[tuple[Any, str]] = []
    into, key = result, ""
    for event, value in events:
        if event == "map_key":
            key = value
        elif event in _CLOSES:
            if not outer:
                break
            into, key = outer.pop()
        else:
            opens = event in _OPENS
            item = value if not opens else {} if event == "start_map" else []
            if type(into) is list:
                into.append(item)
            else:
                into[key] = item
            if opens:
                if len(outer) >= DEEPEST:
                    raise DataError(f"brackets nested more than {DEEPEST} deep")
                outer.append((into, key))
                into = item
    return result


class _Bounded:
    """Chunks as a file, which refuses to be read further than a record may be long; ``since`` counts from the last."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks = chunks
        self.since = 0

    def read(self, size: int = -1) -> bytes:
        """The next chunk, whatever its size; empty at the end, and where ijson probes with size 0."""
        if size == 0:
            return b""
        if self.since > LONGEST_RECORD:
            raise DataError(f"a record longer than {LONGEST_RECORD} bytes")
        chunk = next(self.chunks, b"")
        self.since += len(chunk)
        return chunk


def _whole_tokens(file: Any) -> Iterator[bytes]:
    """A file's bytes without a byte-order mark, NaN replaced by null, in chunks that end within no text or literal."""
    rest = b""
    if file.read(3) != b"\xef\xbb\xbf":
        file.seek(0)
    # What is left over of a long text is doubled, so that looking for its end again takes linear time in all.
    while chunk := file.read(max(CHUNK, len(rest))):
        rest += chunk
        match = _WHOLE_STRINGS.match(rest)
        assert match is not None
        whole = match[0].rstrip(b"-NaInfity")
        rest = rest[len(whole) :]
        if whole:
            yield _finite(whole)
        if len(rest) > LONGEST_RECORD:
            raise DataError(f"a text longer than {LONGEST_RECORD} bytes")
    if rest:
        yield _finite(rest)


def _finite(chunk: bytes) -> bytes:
    if b"NaN" in chunk or b"Infinity" in chunk:
        return _NOT_FINITE.sub(lambda hit: hit[1] or b"null", chunk)
    return chunk

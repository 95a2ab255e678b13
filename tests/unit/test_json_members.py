"""The stream of a JSON file's members gives what the whole file holds, whatever the file holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geovlm_ray.data.formats import json_members as module
from geovlm_ray.data.formats.json_members import json_members

TEXTS = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(
    ["NaN", '"Infinity"', "\\", '\\"]NaN', "{["]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def pieces(path: Path, keys: tuple[str, ...] | None = ()) -> list[tuple[str, int, Any]]:
    """Key, number and value, or the problem in the place of the value."""
    return [(key, unit.number, unit.problem or unit.value) for key, unit in json_members(path, "x", keys)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    value=st.dictionaries(TEXTS, VALUES, max_size=5),
    chunk=st.integers(1, 40),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_an_object_comes_whole(
    value: dict, chunk: int, ascii_only: bool, indent: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    path = tmp_path / "x.json"
    path.write_text(json.dumps(value, ensure_ascii=ascii_only, indent=indent), encoding="utf-8")
    seen: dict[str, Any] = {}
    for key, number, piece in pieces(path, None):
        if number == 0:
            seen[key] = piece
        else:
            seen[key].append(piece)
    assert repr(seen) == repr(value)


def test_what_python_writes_beyond_json_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('\ufeff{"a": [NaN, -Infinity, "NaN", [Infinity]], "b": NaN}')
    assert pieces(path, ("a",)) == [
        *(("a", i, v) for i, v in enumerate(([], None, None, "NaN", [None]))),
        ("b", 0, None),
    ]


def test_members_of_an_array_have_no_key(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('[1, [2, {"c": [3]}], {}]')
    assert pieces(path) == [("", 1, 1), ("", 2, [2, {"c": [3]}]), ("", 3, {})]


@pytest.mark.parametrize(
    ("text", "before", "reason"),
    [
        ('{"a": [1, {"b": 2}, {"c', 2, "premature EOF"),
        ('{"a": [1]} x', 1, "trailing garbage"),
        ('{"a": [1, 1e999]}', 1, "overflow"),
        ('{"a": [1, 2}', 2, "expected JSON"),
        ('{"a": [1, ' + "[" * 1_000_000, 1, "nested more than 100 deep"),
        ('{"a": [1, "' + "x" * 17_000_000, 1, "longer than 16777216 bytes"),
        ('{"a": [1, [' + f'"{"x" * 1000}", ' * 18_000, 1, "a record longer than 16777216 bytes"),
        ("\x00\x01\xff", 0, "invalid"),
        ("", 0, "premature EOF"),
    ],
)
def test_after_a_fault_there_is_its_reason(text: str, before: int, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    found = [(number, value) for _, number, value in pieces(path, ("a",)) if number > 0]
    assert [number for number, _ in found] == list(range(1, before + 2))
    assert "nothing after it was read" in found[-1][1]
    assert reason in found[-1][1]


def test_a_file_that_cannot_be_opened_is_a_problem(tmp_path: Path) -> None:
    ((_, _, problem),) = pieces(tmp_path)
    assert "Is a directory" in problem

"""Streaming the members of a JSON file yields the same values as parsing the full file."""

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


def members(path: Path, keys: tuple[str, ...] | None = ()) -> list[tuple[str, int, Any]]:
    """(key, number, value or problem) of every member."""
    return [(key, unit.number, unit.problem or unit.value) for key, unit in json_members(path, "x", keys)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    value=st.dictionaries(TEXTS, VALUES, max_size=5),
    chunk=st.integers(1, 40),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_members_reconstruct_the_object(
    value: dict, chunk: int, ascii_only: bool, indent: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    path = tmp_path / "x.json"
    path.write_text(json.dumps(value, ensure_ascii=ascii_only, indent=indent), encoding="utf-8")
    collected: dict[str, Any] = {}
    for key, number, member in members(path, None):
        if number == 0:
            collected[key] = member
        else:
            collected[key].append(member)
    assert repr(collected) == repr(value)


def test_nan_infinity_and_byte_order_mark_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('\ufeff{"a": [NaN, -Infinity, "NaN", [Infinity]], "b": NaN}')
    assert members(path, ("a",)) == [
        *(("a", i, v) for i, v in enumerate(([], None, None, "NaN", [None]))),
        ("b", 0, None),
    ]


def test_members_of_an_array_have_no_key(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('[1, [2, {"c": [3]}], {}]')
    assert members(path) == [("", 1, 1), ("", 2, [2, {"c": [3]}]), ("", 3, {})]


@pytest.mark.parametrize(
    ("text", "valid", "reason"),
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
def test_syntax_error_ends_the_stream_with_a_reason(text: str, valid: int, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    found = [(number, value) for _, number, value in members(path, ("a",)) if number > 0]
    assert [number for number, _ in found] == list(range(1, valid + 2))
    assert "nothing after it was read" in found[-1][1]
    assert reason in found[-1][1]


def test_unreadable_file_yields_a_problem(tmp_path: Path) -> None:
    ((_, _, problem),) = members(tmp_path)
    assert "Is a directory" in problem

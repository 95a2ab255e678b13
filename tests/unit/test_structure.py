"""Limits on code structure: folders, import direction, function and file length, documentation."""

from __future__ import annotations

import pytest

from tests.structure import Counts, count, main


@pytest.fixture(scope="module")
def counts() -> Counts:
    return count()


def test_folder_and_loose_module_counts_are_limited(counts: Counts) -> None:
    assert len(counts.folders) <= 14
    assert len(counts.loose_modules) <= 5


def test_imports_point_in_one_direction(counts: Counts) -> None:
    assert counts.cycles == ()
    assert counts.upward_imports == ()
    assert len(counts.longest_chain) <= 12, counts.longest_chain


def test_function_and_file_lengths_are_limited(counts: Counts) -> None:
    assert counts.longest_function[0] <= 60, counts.longest_function
    assert counts.largest_file[0] <= 400, counts.largest_file


def test_public_names_are_documented_and_typed(counts: Counts) -> None:
    assert counts.undocumented == ()
    assert counts.untyped == ()


def test_main_prints_the_counts(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    assert "cycles between folders: 0" in capsys.readouterr().out

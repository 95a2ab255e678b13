"""The structure of the code: few folders, imports in one direction, short functions and files, documented names."""

from __future__ import annotations

import pytest

from tests.structure import Counts, count, main


@pytest.fixture(scope="module")
def counts() -> Counts:
    return count()


def test_there_are_few_folders_and_loose_modules(counts: Counts) -> None:
    assert len(counts.folders) <= 14
    assert len(counts.loose_modules) <= 5


def test_imports_run_in_one_direction(counts: Counts) -> None:
    assert counts.cycles == ()
    assert counts.upward_imports == ()
    assert len(counts.longest_chain) <= 12, counts.longest_chain


def test_functions_and_files_are_short(counts: Counts) -> None:
    assert counts.longest_function[0] <= 60, counts.longest_function
    assert counts.largest_file[0] <= 400, counts.largest_file


def test_every_public_name_is_documented_and_typed(counts: Counts) -> None:
    assert counts.undocumented == ()
    assert counts.untyped == ()


def test_the_counts_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    assert "cycles between folders: 0" in capsys.readouterr().out

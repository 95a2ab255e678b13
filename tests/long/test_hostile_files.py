"""Hostile inputs of commands that read many files: one error, no traceback, no hang."""

from __future__ import annotations

import pytest

from tests.hostile_run import wrong_cases

pytestmark = pytest.mark.slow
OF_FILES = ("data", "report", "export", "plan")
"""Half of the cases, by their time."""


@pytest.mark.parametrize("command", OF_FILES)
def test_hostile_input_ends_every_command_with_at_most_one_error(command: str) -> None:
    assert wrong_cases(command) == ""

"""Hostile inputs of commands that are not in test_hostile_files.py: one error, no traceback, no hang."""

from __future__ import annotations

import pytest

from geovlm_ray.cli import COMMANDS
from tests.hostile_run import wrong_cases
from tests.long.test_hostile_files import OF_FILES

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in OF_FILES])
def test_hostile_input_ends_every_command_with_at_most_one_error(command: str) -> None:
    assert wrong_cases(command) == ""

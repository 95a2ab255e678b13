"""Hostile arguments, files and texts through every command: one error, no traceback, no control sequence, no hang."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile import STRINGS, problem
from tests.hostile_cases import hostile_heartbeat

pytestmark = pytest.mark.slow

RICH = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""The control sequences of Rich: styles and movements of the cursor."""


def test_hostile_texts_have_no_effect_on_a_terminal(tmp_path: Path) -> None:
    text = "".join(STRINGS.values())
    (tmp_path / "actors").mkdir()
    (tmp_path / "actors" / "driver.json").write_text(json.dumps(hostile_heartbeat(text)))
    (tmp_path / "config.yaml").write_text(json.dumps({"run": {"name": text, "steps": 1}}))
    output = _on_terminal(["top", str(tmp_path), "--once"])
    assert "my[red]run" in output
    assert "\x1b" in output, "the terminal path of Rich was not taken"
    assert not problem(0, RICH.sub("", output).replace("\r\n", "\n"), "")


def test_log_lines_beside_a_live_display_are_inert(tmp_path: Path) -> None:
    code = (
        "import logging, sys, time\n"
        "from geovlm_ray.commands.progress import Progress\n"
        "from geovlm_ray.core.terminal import inert_streams\n"
        "from geovlm_ray.core.third_party_logs import silence_third_party_logs\n"
        "from geovlm_ray.report.terminal import open_console\n"
        "with inert_streams():\n"
        "    silence_third_party_logs()\n"
        "    with Progress(open_console()) as progress:\n"
        "        progress.show(1, '\\x1b[35mmagenta')\n"
        "        logging.getLogger('x').warning('\\x1b]8;;file:///etc/passwd\\x07\\x1b[31mred\\nsecond')\n"
        "        print('\\x1b[32mgreen', flush=True)\n"
        "        time.sleep(0.3)\n"
    )
    output = _on_terminal([], ["-c", code])
    for escaped in ("\\x1b]8;;file:///etc/passwd\\x07\\x1b[31mred\\nsecond", "\\x1b[32mgreen", "\\x1b[35mmagenta"):
        assert escaped in output
    for raw in ("\x1b]8", "\x1b[31m", "\x1b[32mgreen", "\x1b[35m"):
        assert raw not in output


def _on_terminal(arguments: list[str], how: list[str] | None = None) -> str:
    """What a command prints on a terminal of 200 columns."""
    how = how or ["-m", "geovlm_ray"]
    here, there = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200", "LINES": "50"}
    process = subprocess.Popen([sys.executable, *how, *arguments], stdout=there, stderr=there, env=environment)
    os.close(there)
    output = b""
    while select.select([here], [], [], 60)[0]:
        try:
            chunk = os.read(here, 65_536)
        except OSError:
            break
        if not chunk:
            break
        output += chunk
    os.close(here)
    assert process.wait() == 0
    return output.decode()

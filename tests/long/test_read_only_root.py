"""A run on Ray needs no writable place but those of the containers: /tmp, its home, the shared folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.system.runs import MINUTES, arguments, environment, metrics

pytestmark = pytest.mark.slow
READ_ONLY = (
    *("unshare", "--mount", "sh", "-euc"),
    # The home and the shared folder of the test are in /tmp.
    'mount --make-rprivate / && mount --bind /tmp /tmp && mount -o remount,bind,ro / && exec "$@"',
    "sh",
)


def test_run_trains_with_a_read_only_root(tmp_path: Path) -> None:
    if os.geteuid() != 0 or subprocess.run([*READ_ONLY, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs root, and the right to mount")
    write = subprocess.run([*READ_ONLY, "touch", "/var/tmp/file"], capture_output=True, text=True, check=False)
    assert "Read-only file system" in write.stderr
    home, shared = tmp_path / "home", tmp_path / "shared"
    home.mkdir()
    shared.mkdir()
    result = subprocess.run(
        [*READ_ONLY, *arguments(shared, "first", 2)],
        env={**environment(), "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=12 * MINUTES,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert "Read-only file system" not in result.stdout + result.stderr
    assert len(metrics(shared / "first")) == 2

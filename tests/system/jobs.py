"""Runs `ray job` as a user does from another machine."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.system.runs import COMMAND, MINUTES

RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class JobClient:
    """Client of a job server; the environment holds the server's address and token."""

    environment: dict[str, str]

    def ray(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `ray ...` and wait for it."""
        return subprocess.run(
            [RAY, *words], env=self.environment, capture_output=True, text=True, timeout=5 * MINUTES, check=False
        )

    def job(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `ray job ...` and wait for it."""
        return self.ray("job", *words)

    def wait_for(self, status: str, job: str, seconds: float = MINUTES) -> None:
        """Wait until a job reaches a status."""
        deadline = time.monotonic() + seconds
        while status not in (output := self.job("status", job).stdout.upper()):
            assert time.monotonic() < deadline, (
                f"{job} is not {status}: {output}\n{self.job('logs', job).stdout[-4000:]}"
            )
            time.sleep(1)


def check_failed_and_stopped(client: JobClient) -> None:
    """Check that a failed job exits with 1 and its error, and a stopped job with 0 and status STOPPED."""
    failed = client.job("submit", "--submission-id=failed", "--", COMMAND, "train", "no-such-recipe")
    assert failed.returncode == 1
    assert "neither a recipe" in failed.stdout
    command = [RAY, "job", "submit", "--submission-id=long", "--", "sleep", "300"]
    waiting = subprocess.Popen(command, env=client.environment)
    client.wait_for("RUNNING", "long")
    assert client.job("stop", "long").returncode == 0
    assert waiting.wait(timeout=MINUTES) == 0
    client.wait_for("STOPPED", "long")

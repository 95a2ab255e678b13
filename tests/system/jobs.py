"""`ray job` as a user types it on a laptop, for the tests that submit jobs."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.system.runs import COMMAND, MINUTES

RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class Laptop:
    """A machine that knows a cluster's job server, and its token, from its environment."""

    environment: dict[str, str]

    def ray(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`ray ...` to its end."""
        return subprocess.run(
            [RAY, *words], env=self.environment, capture_output=True, text=True, timeout=5 * MINUTES, check=False
        )

    def job(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`ray job ...` to its end."""
        return self.ray("job", *words)

    def wait_for(self, status: str, job: str, seconds: float = MINUTES) -> None:
        """Wait until a job has a status."""
        deadline = time.monotonic() + seconds
        while status not in (said := self.job("status", job).stdout.upper()):
            assert time.monotonic() < deadline, f"{job} is not {status}: {said}\n{self.job('logs', job).stdout[-4000:]}"
            time.sleep(1)


def check_failed_and_stopped(laptop: Laptop) -> None:
    """A job that fails ends with 1 and says why; one that is stopped ends with 0 and says that it was stopped."""
    failed = laptop.job("submit", "--submission-id=failed", "--", COMMAND, "train", "no-such-recipe")
    assert failed.returncode == 1
    assert "neither a recipe" in failed.stdout
    command = [RAY, "job", "submit", "--submission-id=long", "--", "sleep", "300"]
    waiting = subprocess.Popen(command, env=laptop.environment)
    laptop.wait_for("RUNNING", "long")
    assert laptop.job("stop", "long").returncode == 0
    assert waiting.wait(timeout=MINUTES) == 0
    laptop.wait_for("STOPPED", "long")

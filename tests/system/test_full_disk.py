"""A full disk ends a run with one error that names the file, leaves nothing partial, and costs no result."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.runs import MINUTES, environment

pytestmark = pytest.mark.slow
NAMESPACE = ["unshare", "--map-root-user", "--mount"]


def errors_of(kind: str, folder: Path) -> list[str]:
    """The errors of a run on a disk with too little space, until it finishes like one on a disk with space."""
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("user namespaces, in which a small disk can be mounted, are not permitted here")
    command = [*NAMESPACE, sys.executable, "-m", "tests.system.full_disk", kind, str(folder)]
    result = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=10 * MINUTES, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert "Traceback" not in result.stderr, result.stderr[-4000:]
    errors: list[str] = json.loads((folder / "errors.json").read_text())
    for error in errors:
        assert re.search(r"disk/(a|out)", error), error
        assert re.search(r"(cannot|could not) be written.*: .*No space left on device", error), error
    return errors


def test_training_reports_every_file_that_cannot_be_written_and_finishes_with_more_space(tmp_path: Path) -> None:
    found = " ".join(errors_of("train", tmp_path))
    assert sum(name in found for name in ("config.yaml", "contents.json", "metrics.jsonl", "tensorboard/")) > 1
    always = ("rollouts/step-", "checkpoints/step-", "evaluations/", "report.html")
    assert [name for name in always if name not in found] == []


@pytest.mark.long
def test_fine_tuning_reports_every_file_that_cannot_be_written_and_finishes_with_more_space(tmp_path: Path) -> None:
    found = " ".join(errors_of("sft", tmp_path))
    assert [name for name in ("checkpoints/step-", "the model could not be written") if name not in found] == []

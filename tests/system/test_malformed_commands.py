"""Malformed Parquet files through every command that reads a dataset: one message that names the fault."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from geovlm_ray.cli import main
from tests.unit.malformed import IN_FILE, IN_ROW, ROW, SHARD, malformed_dataset

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", [*IN_ROW, *IN_FILE])
def test_every_command_names_the_fault(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "2000")
    fault, message = {**IN_ROW, **IN_FILE}[name]
    folder = malformed_dataset(tmp_path / "data", fault)
    where = rf"{SHARD}, row {ROW}\b.*?" if name in IN_ROW else ""
    settings = ["demo", "data.source=parquet", f"data.path={folder}", "data.stages=[]", f"run.dir={tmp_path}"]
    for command in (
        ["train", *settings, "--dry-run", "--local"],
        ["train", *settings, "--local"],
        ["sft", *settings, "--out", str(tmp_path / "model")],
        ["data", "stats", str(folder)],
        ["data", "preview", str(folder), "--out", str(tmp_path / "page.html")],
    ):
        assert main(command) == 1, command
        output = " ".join("".join(capfd.readouterr()).split())
        assert "Traceback" not in output
        assert re.search(f"{where}{message}", output), f"{command}\n{output}"
    assert main(["data", "validate", str(folder), "--workers", "1"]) == 1
    assert "Traceback" not in "".join(capfd.readouterr())

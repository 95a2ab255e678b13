"""The notebooks of the documentation, run in small in an empty folder."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"
SMALL = {"first-run": "STEPS, HELD_OUT = 2, 20", "own-data": "SFT_STEPS, RL_STEPS = 2, 1"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run_notebooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_notebooks", DOCS / "run_notebooks.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_notebook_is_run_here() -> None:
    assert {file.stem for file in (DOCS / "notebooks").glob("*.ipynb")} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_notebook_runs_and_shows_pictures(name: str, tmp_path: Path, run_notebooks: ModuleType) -> None:
    notebook = run_notebooks.without_folder(run_notebooks.run_notebook(name, tmp_path, SMALL[name]), tmp_path)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) >= 2
    printed = "".join(output.get("text", "") for output in outputs)
    assert "Traceback" not in printed
    assert "\x1b[2K" not in printed, "a live display is no output of a notebook"
    assert str(tmp_path) not in printed

"""Run a notebook of `docs/notebooks` in an empty folder and keep its outputs.

python docs/run_notebooks.py first-run own-data
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_output

NOTEBOOKS = Path(__file__).parent / "notebooks"
LIMIT_S = 1800
"""Seconds of one cell."""


def run_notebook(name: str, folder: Path, parameters: str | None = None) -> Any:
    """Run a notebook in a folder, and return it with its outputs.

    ``parameters`` replaces the code of its cell with the tag ``parameters``.

    Raises:
        CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        if parameters and "parameters" in cell.metadata.get("tags", ()):
            cell.source = parameters
    client = NotebookClient(notebook, timeout=LIMIT_S, resources={"metadata": {"path": str(folder)}})
    client.execute()
    return notebook


def without_folder(notebook: Any, folder: Path) -> Any:
    """The notebook with the folder left out of what its cells printed, in one piece each, and without times."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        printed = "".join(output.text for output in cell.get("outputs", ()) if output.output_type == "stream")
        if printed:
            shown = [output for output in cell.outputs if output.output_type != "stream"]
            text = printed.replace(f"{folder}/", "")
            cell.outputs = [new_output("stream", name="stdout", text=text), *shown]
    return notebook


def main() -> None:
    """Renew the outputs of notebooks."""
    parser = argparse.ArgumentParser(description="run notebooks and keep their outputs")
    parser.add_argument("names", nargs="+", metavar="NAME", help="notebook without its ending")
    for name in parser.parse_args().names:
        with tempfile.TemporaryDirectory() as folder:
            notebook = without_folder(run_notebook(name, Path(folder)), Path(folder))
        nbformat.write(notebook, NOTEBOOKS / f"{name}.ipynb")


if __name__ == "__main__":
    main()

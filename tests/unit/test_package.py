"""Contents of the wheel."""

from __future__ import annotations

import tomllib
from pathlib import Path

TOP = Path(__file__).parents[2]


def test_every_data_file_is_in_the_wheel() -> None:
    settings = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["setuptools"]
    package = TOP / "geovlm_ray"
    included = {file for pattern in settings["package-data"]["geovlm_ray"] for file in package.glob(pattern)}
    files = {file for file in package.rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    assert not {file for file in files - included if file.suffix not in (".py", ".pyc")}

"""Hooks of the documentation site: pages of the API, and the files of the repository's root that pages link to."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

TOP = Path(__file__).parents[1]
PACKAGES = ("geovlm_ray", "actors")
ABOUT = ("SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/results/README.md")
"""Files outside of docs/, as pages below about/."""
_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^```(\w+)\b.+$", re.M)
"""The start of a fenced block with more than its language, which tests of the documentation read."""


def on_config(config: Any) -> Any:
    """Fill the sections of the navigation whose pages are generated."""
    pages = {"API": [f"api/{name}.md" for name in _folders()], "About": [f"about/{_page(name)}" for name in ABOUT]}
    for section in (*config["nav"], *(entry for part in config["nav"] for sub in part.values() for entry in sub)):
        for name in pages.keys() & (section.keys() if isinstance(section, dict) else set()):
            section[name] = pages[name]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages about the repository, and a page of the API for each folder of a package."""
    for name in ABOUT:
        files.append(File.generated(config, f"about/{_page(name)}", content=(TOP / name).read_text()))
    for name, folder in _folders().items():
        text = f"# {name}\n\n" + "\n\n".join(f"::: {_module(path)}" for path in sorted(folder.glob("*.py")))
        files.append(File.generated(config, f"api/{name}.md", content=text))
    return files


def _folders() -> dict[str, Path]:
    """The folders of the packages by their module."""
    found = {path.parent for package in PACKAGES for path in (TOP / package).rglob("*.py")}
    return {_module(folder): folder for folder in sorted(found)}


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Let links to files of the repository lead to their pages; those that have none become text."""
    path = page.file.src_uri
    origin = next((name for name in ABOUT if path == f"about/{_page(name)}"), f"docs/{path}")

    def changed(match: re.Match[str]) -> str:
        text, link, anchor = match[1], match[2], match[3] or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))
        target = f"{target}/README.md" if (TOP / target / "README.md").is_file() else target
        if target == "README.md":
            found, anchor = "index.md", ""
        elif target.startswith("docs/"):
            found = target.removeprefix("docs/")
        elif target in ABOUT:
            found = f"about/{_page(target)}"
        else:
            return text
        return f"[{text}]({posixpath.relpath(found, posixpath.dirname(path) or '.')}{anchor})"

    return _FENCE.sub(r"```\1", _LINK.sub(changed, markdown))


def _page(name: str) -> str:
    return "results.md" if name.startswith("benchmarks/") else name.lower()


def _module(path: Path) -> str:
    parts = path.relative_to(TOP).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")

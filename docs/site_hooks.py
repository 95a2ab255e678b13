"""Hooks of the documentation site: pages of the API, and the files of the repository's root that pages link to."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

TOP = Path(__file__).parents[1]
PACKAGES = ("geovlm_ray", "actors")
ABOUT = ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/results/README.md")
"""Files outside of docs/, as pages below about/."""
_LINK = re.compile(r"(\]\()(?!https?:|#)([^)#\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages about the repository, and a page of the API for each folder of a package."""
    for name in ABOUT:
        files.append(File.generated(config, f"about/{_page(name)}", content=(TOP / name).read_text()))
    for package in PACKAGES:
        for folder in sorted({path.parent for path in (TOP / package).rglob("*.py")}):
            modules = [_module(path) for path in sorted(folder.glob("*.py")) if path.stem not in ("__main__",)]
            text = f"# {_module(folder)}\n\n" + "\n\n".join(f"::: {module}" for module in modules)
            files.append(File.generated(config, f"api/{_module(folder)}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Let links to files of the repository lead to their pages; those that have none become text."""
    path = page.file.src_uri
    origin = next((name for name in ABOUT if path == f"about/{_page(name)}"), f"docs/{path}")

    def changed(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), match[2]))
        if target.startswith("docs/"):
            found = target.removeprefix("docs/")
        elif target in ABOUT or f"{target}/README.md" in ABOUT:
            found = f"about/{_page(target if target in ABOUT else f'{target}/README.md')}"
        else:
            return match[0]
        if found == "studies" or (TOP / "docs" / found).is_dir():
            found = f"{found}/README.md"
        return f"{match[1]}{posixpath.relpath(found, posixpath.dirname(path) or '.')}"

    return _LINK.sub(changed, markdown)


def _page(name: str) -> str:
    return "results.md" if name.startswith("benchmarks/") else name.lower()


def _module(path: Path) -> str:
    parts = path.relative_to(TOP).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")

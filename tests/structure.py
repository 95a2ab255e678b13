"""Structure metrics of the code: folders, imports between them, lengths, annotations and docstrings.

``python -m tests.structure`` prints them; `tests.unit.test_structure` asserts their limits.
"""

from __future__ import annotations

import ast
import functools
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[1]
LIBRARY = TOP / "geovlm_ray"
CODE = (LIBRARY, TOP / "actors")


@dataclass(frozen=True)
class Counts:
    """Counts of the library; ``undocumented`` and ``untyped`` name public functions and classes as FILE:LINE NAME."""

    folders: tuple[str, ...]
    loose_modules: tuple[str, ...]
    cycles: tuple[tuple[str, ...], ...]
    longest_chain: tuple[str, ...]
    upward_imports: tuple[str, ...]
    longest_function: tuple[int, str]
    largest_file: tuple[int, str]
    undocumented: tuple[str, ...]
    untyped: tuple[str, ...]


@dataclass(frozen=True)
class Definition:
    """A function or class; ``public`` where its name and those of the classes around it have no leading ``_``."""

    where: str
    node: ast.FunctionDef | ast.ClassDef
    public: bool

    @property
    def lines(self) -> int:
        """Length of the definition."""
        return (self.node.end_lineno or 0) - self.node.lineno + 1

    @property
    def is_typed(self) -> bool:
        """Whether a function's arguments and result have annotations."""
        assert isinstance(self.node, ast.FunctionDef)
        given = self.node.args
        arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs]
        untyped = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
        return self.node.returns is not None and not untyped


def count() -> Counts:
    """Count all structure metrics of the library and the actors."""
    folders = sorted(path.name for path in LIBRARY.iterdir() if (path / "__init__.py").is_file())
    found = [definition for path in _files() for definition in _definitions(path)]
    functions = [d for d in found if isinstance(d.node, ast.FunctionDef)]
    files = [(len(path.read_text().splitlines()), str(path.relative_to(TOP))) for path in _files()]
    return Counts(
        folders=tuple(folders),
        loose_modules=tuple(sorted(path.stem for path in LIBRARY.glob("*.py"))),
        cycles=tuple(_cycles(folder_imports())),
        longest_chain=_longest_chain(folder_imports()),
        upward_imports=tuple(_upward_imports()),
        longest_function=max((d.lines, d.where) for d in functions),
        largest_file=max(files),
        undocumented=tuple(d.where for d in found if d.public and not ast.get_docstring(d.node)),
        untyped=tuple(d.where for d in functions if d.public and not d.is_typed),
    )


@functools.cache
def module_imports() -> dict[str, frozenset[str]]:
    """Library modules that each module imports, at module level or inside functions."""
    names = {_module(path): path for path in LIBRARY.rglob("*.py")}
    found = {}
    for name, path in names.items():
        imported = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules = {f"{node.module}.{alias.name}": node.module for alias in node.names}
                imported |= {full if full in names else module for full, module in modules.items()}
        found[name] = frozenset(imported & names.keys() - {name})
    return found


def folder_imports() -> dict[str, set[str]]:
    """Folders and loose modules that each folder and loose module imports."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for name, imported in module_imports().items():
        found[_folder(name)] |= {_folder(other) for other in imported} - {_folder(name)}
    return dict(found)


def _upward_imports() -> Iterator[str]:
    """Imports that violate the layer order in pyproject.toml."""
    contracts = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract.get("exhaustive"))
    level = {name.strip(): -i for i, layer in enumerate(layers) for name in layer.split("|")}
    for name, imported in module_imports().items():
        for other in imported:
            importer, imported_folder = _folder(name), _folder(other)
            if importer != imported_folder and level.get(imported_folder, -len(layers)) >= level.get(importer, 0):
                yield f"{name} imports {other}"


def _cycles(graph: dict[str, set[str]]) -> Iterator[tuple[str, ...]]:
    for name, imported in graph.items():
        if name in _reachable(graph, name):
            yield (name, *sorted(other for other in imported if name in _reachable(graph, other)))


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    pending = list(graph[start])
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += graph.get(name, ())
    return found


def _longest_chain(graph: dict[str, set[str]]) -> tuple[str, ...]:
    """Longest import chain of folders and loose modules."""

    @functools.cache
    def chain(name: str) -> tuple[str, ...]:
        return max(((name, *chain(other)) for other in graph.get(name, ())), key=len, default=(name,))

    return max(map(chain, graph), key=len)


def _files() -> Iterator[Path]:
    for folder in CODE:
        yield from sorted(folder.rglob("*.py"))


def _definitions(path: Path) -> Iterator[Definition]:
    return _definitions_below(ast.parse(path.read_text()), path, public=True)


def _definitions_below(parent: ast.AST, path: Path, public: bool) -> Iterator[Definition]:
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            setter = any(isinstance(d, ast.Attribute) and d.attr == "setter" for d in node.decorator_list)
            is_public = public and not node.name.startswith("_") and not setter
            yield Definition(f"{path.relative_to(TOP)}:{node.lineno} {node.name}", node, is_public)
            yield from _definitions_below(node, path, is_public and isinstance(node, ast.ClassDef))
        else:
            yield from _definitions_below(node, path, public)


def _module(path: Path) -> str:
    return ".".join(path.relative_to(TOP).with_suffix("").parts).removesuffix(".__init__")


def _folder(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def main() -> None:
    """Print the counts."""
    counts = count()
    print(f"folders: {len(counts.folders)} ({', '.join(counts.folders)})")
    print(f"loose modules: {len(counts.loose_modules)} ({', '.join(counts.loose_modules)})")
    print(f"cycles between folders: {len(counts.cycles)}")
    print(f"longest chain of folders: {len(counts.longest_chain)} ({' > '.join(counts.longest_chain)})")
    print(f"imports upward: {len(counts.upward_imports)}")
    print(f"longest function: {counts.longest_function[0]} lines ({counts.longest_function[1]})")
    print(f"largest file: {counts.largest_file[0]} lines ({counts.largest_file[1]})")
    print(f"public names without a docstring: {len(counts.undocumented)}, without types: {len(counts.untyped)}")


if __name__ == "__main__":
    main()

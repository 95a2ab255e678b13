"""Extensions of a configuration: its own tasks, and plugins, which add entries to the registries of the package.

The registries are plain dicts that every process has of its own. `activate` therefore runs in every process that uses
them, before it does: when a configuration is loaded, and first in actors and worker processes.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Annotated

from pydantic import Field

from geovlm_ray.core.errors import ConfigError
from geovlm_ray.core.section import PathText, Section
from geovlm_ray.tasks import TASKS, TargetKind, Task

RESERVED = ("all", *TASKS)
"""Task names that a configuration cannot define: the built-in tasks, and the name of totals over all tasks."""


class TaskConfig(Section):
    """A task of a configuration."""

    target: TargetKind = Field(description="target kind, which determines notation, metrics and built-in rewards")
    instruction: str = Field(
        min_length=1,
        description="answer format, appended to the question of a prompt; {boxes} stands for their notation and unit",
    )
    reward: PathText = Field(description="path/file.py:function, or the name of a built-in reward of the target kind")


class Extensions(Section):
    """Plugins and tasks that a configuration adds to the built-in parts."""

    plugins: tuple[PathText, ...] = Field(
        (), description="Python files or modules, imported in every process; they add entries to registries"
    )
    tasks: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], TaskConfig] = Field(
        default_factory=dict, description="tasks by name, beside the built-in ones"
    )


_plugins: list[str] = []
_tasks: dict[str, TaskConfig] = {}


def activate(extensions: Extensions) -> None:
    """Import the plugins that this process has not imported yet, and register the tasks.

    Raises:
        ConfigError: A plugin cannot be imported, or a task has a reserved name.
    """
    for plugin in map(_absolute, extensions.plugins):
        if plugin not in _plugins:
            _import(plugin)
            _plugins.append(plugin)
    for name, task in extensions.tasks.items():
        if name in RESERVED:
            raise ConfigError(f"tasks.{name}: expected a name other than {', '.join(RESERVED)}")
        TASKS[name] = Task(name, task.target, task.instruction, reward=task.reward, default_reward=task.reward)
        _tasks[name] = task


def active() -> Extensions:
    """Everything that `activate` was called with in this process, for its child processes; files have full paths."""
    return Extensions(plugins=tuple(_plugins), tasks=dict(_tasks))


def _absolute(plugin: str) -> str:
    return str(Path(plugin).resolve()) if plugin.endswith(".py") else plugin


def _import(plugin: str) -> None:
    """Import a Python file, which may import modules from its own folder, or a module by its name."""
    path = Path(plugin)
    if path.suffix == ".py" and not path.is_file():
        raise ConfigError(f"plugins: expected a Python file, found none at {path}")
    try:
        if path.suffix == ".py":
            _import_file(path)
        else:
            importlib.import_module(plugin)
    except Exception as error:
        raise ConfigError(f"plugins: {plugin!r} cannot be imported: {type(error).__name__}: {error}") from error


def _import_file(path: Path) -> None:
    name = f"geovlm_ray_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    sys.path.append(str(path.parent))
    # Objects of a plugin's classes can be pickled only if its module is registered.
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])

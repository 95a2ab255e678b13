"""Completion of commands, recipes and settings in shells: ``eval "$(register-python-argcomplete geovlm-ray)"``."""

from __future__ import annotations

import argparse
import os
import shlex
from typing import Any

import argcomplete


def typed_words() -> list[str]:
    """Words after the program name in the line that the shell wants completed."""
    line = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
    try:
        return shlex.split(line)[1:]
    except ValueError:
        # An open quotation mark.
        return line.split()[1:]


def complete(parser: argparse.ArgumentParser) -> None:
    """Print the completions, and exit."""
    for sub in _parsers(parser):
        for action in sub._actions:
            if action.dest in _COMPLETERS:
                action.completer = _COMPLETERS[action.dest]  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def _parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    found = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [each for sub in action.choices.values() for each in _parsers(sub)]
    return found


def _recipes(**_: Any) -> list[str]:
    from geovlm_ray.config import recipe_names

    return recipe_names()


def _settings(**_: Any) -> list[str]:
    from geovlm_ray.report.settings import settings

    keys = (each.key for setting in settings() for each in (setting, *setting.entries))
    return [f"{key}=" for key in keys if "[]" not in key and "NAME" not in key]


_COMPLETERS = {"recipe": _recipes, "diff": _recipes, "overrides": _settings}
"""Completers of arguments, by name; argcomplete completes files for the others."""

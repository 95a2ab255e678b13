"""``geovlm-ray config``: settings with descriptions, as YAML that can be used."""

from __future__ import annotations

import argparse
import sys

from geovlm_ray.core.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("recipe", nargs="?", default="demo", help="recipe or YAML file (default: demo)")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="overrides of settings")
    parser.add_argument("--grep", metavar="WORD", help="only settings whose key or description has this word")
    parser.add_argument("--diff", metavar="RECIPE", help="only settings that differ from another recipe or file")


def run(args: argparse.Namespace) -> int:
    """Print the settings."""
    from geovlm_ray.config import load_config
    from geovlm_ray.core.terminal import inert
    from geovlm_ray.report.settings import as_yaml, differences, is_about

    if "=" in args.recipe:
        args.recipe, args.overrides = "demo", [args.recipe, *args.overrides]
    config = load_config(args.recipe, args.overrides)
    others = differences(config, load_config(args.diff)) if args.diff else None
    notes = {key: f"{args.diff}: {value}" for key, value in (others or {}).items()}
    text = as_yaml(
        config,
        lambda s: (others is None or s.key in others) and (not args.grep or is_about(s, args.grep)),
        notes,
    )
    if args.grep and not text:
        raise ConfigError(f"--grep {args.grep}: expected a word of a setting, found none with it")
    sys.stdout.write("".join(f"{inert(line)}\n" for line in text.splitlines()))
    return 0

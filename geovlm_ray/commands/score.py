"""``geovlm-ray score``: offline rewards of responses; with ``--probe``, a test of the rewards for hackability."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from geovlm_ray.core.errors import ConfigError, DataError
from geovlm_ray.core.files import text_lines, write_atomically
from geovlm_ray.core.terminal import inert
from geovlm_ray.report.terminal import open_console

if TYPE_CHECKING:
    from geovlm_ray.rewards import RewardConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="FILE | reward.key=value",
        help="JSON lines with id, task, response, target, and optional frame, dialect, labels; reward overrides",
    )
    parser.add_argument(
        "--recipe", help="recipe or YAML file of the plugins, tasks and reward settings (default: the default rewards)"
    )
    parser.add_argument("--out", type=Path, help="output of the scores (default: standard output)")
    parser.add_argument(
        "--probe",
        action="store_true",
        help="print rewards of degenerate answers to the references of FILE (default: synthetic scenes); return 1 if a "
        "reward can be hacked",
    )


def run(args: argparse.Namespace) -> int:
    """Score every line, or probe; return 1 if a line is invalid or a reward can be hacked."""
    from geovlm_ray.config import reward_config

    settings = [a for a in args.overrides if a.startswith(("reward.", "reward="))]
    files = [a for a in args.overrides if a not in settings]
    config = reward_config(settings, args.recipe)
    if len(files) > 1 or not (files or args.probe):
        raise ConfigError(
            f"expected one file of JSON lines and optional reward.key=value, found {', '.join(files) or 'no file'}"
        )
    path = Path(files[0]) if files else None
    return probe(path, args.out, config) if args.probe or path is None else score(path, args.out, config)


def score(path: Path, out: Path | None, config: RewardConfig) -> int:
    """Score the records of a file; return 1 if a line is invalid."""
    from geovlm_ray.evaluation.scoring import score_lines

    if out and not out.parent.is_dir():
        raise DataError(f"--out {out}: expected an existing folder, found no {out.parent}")
    scored, problems = score_lines(text_lines(path), config)
    for problem in problems:
        sys.stderr.write(f"{inert(f'{path}, {problem}')}\n")
    text = "".join(f"{line}\n" for line in scored)
    if out:
        write_atomically(out, text)
    else:
        sys.stdout.write(text)
    return int(bool(problems))


def probe(path: Path | None, out: Path | None, config: RewardConfig) -> int:
    """Print probe tables of the configured rewards and the paper preset; return 1 if a configured one is hackable."""
    from geovlm_ray.evaluation.probes.confidence import confidence_text, probe_confidence
    from geovlm_ray.evaluation.probes.references import file_references, scene_references
    from geovlm_ray.evaluation.probes.suite import run_probes
    from geovlm_ray.evaluation.probes.table import as_json, as_text, verdict
    from geovlm_ray.rewards import RewardConfig, needs_embedder
    from geovlm_ray.rewards.sbert import SbertEmbedder

    examples = file_references(path) if path else scene_references()
    paper = RewardConfig(preset="paper", think=config.think, sbert=config.sbert, time_limit_s=config.time_limit_s)
    configs = {"configured": config} if config.preset == "paper" else {"configured": config, "paper": paper}
    tasks = {e.task for e in examples}
    embedder = None
    if any(needs_embedder(task, c) for task in tasks for c in configs.values()):
        embedder = SbertEmbedder.from_config(config.sbert)
    console = open_console()
    rows = {name: run_probes(examples, c, embedder) for name, c in configs.items()}
    for name, table in rows.items():
        console.print(
            f"{name} rewards: mean accuracy reward over {len(examples)} references of {path or 'synthetic scenes'}"
        )
        for line in as_text(table).splitlines():
            console.print(line)
        console.print()
    console.print(verdict(rows["configured"]))
    stated = [] if config.confidence == "none" else probe_confidence(examples, config, embedder)
    if stated:
        console.print()
        console.print("Mean reward by share of right answers and stated confidence:")
        for line in confidence_text(stated).splitlines():
            console.print(line)
    if out:
        out.write_text(json.dumps({name: as_json(table) for name, table in rows.items()}, indent=1))
    return int(any(row.gamed_by for row in rows["configured"]) or any(row.gamed_by for row in stated))

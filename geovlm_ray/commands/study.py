"""``geovlm-ray study``: a predefined ablation with a few small runs and a results page."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from geovlm_ray.commands.progress import Progress
from geovlm_ray.core.errors import ConfigError, RunError
from geovlm_ray.core.files import read_text
from geovlm_ray.core.interrupts import resumable
from geovlm_ray.report.terminal import open_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("name", nargs="?", help="name of a study from --list")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="overrides of the settings of all runs"
    )
    parser.add_argument("--list", action="store_true", help="list all studies and exit")
    parser.add_argument("--out", type=Path, help="output folder of runs and page (default: studies/NAME)")
    parser.add_argument("--recipe", default="demo", help="base recipe of all runs (default: demo)")
    parser.add_argument(
        "--seeds", type=int, metavar="N", help="run seeds 0 to N-1; completed runs are kept (default: the study's)"
    )
    parser.add_argument("--short", action="store_true", help="a few steps per run, as a smoke test")
    parser.add_argument("--jobs", type=int, default=2, help="concurrent runs, one core each (default: 2)")
    parser.add_argument("--cluster", action="store_true", help="run on Ray, one run at a time")
    parser.add_argument(
        "--publish", type=Path, metavar="DIR", help="copy the page to DIR/NAME and list its answer in DIR/README.md"
    )


def run(args: argparse.Namespace) -> int:
    """Execute the missing runs of a study and write its page; return 1 if a run failed."""
    from geovlm_ray.evaluation.studies.study import load_study, study_names

    console = open_console()
    if args.list:
        for name in study_names():
            study = load_study(name)
            console.print(f"{name:<18} {study.seeds:>2} seeds  {study.title}")
        return 0
    from rich.markdown import Markdown

    from geovlm_ray.config import load_config
    from geovlm_ray.evaluation.studies.page import write_study
    from geovlm_ray.evaluation.studies.processes import run_all
    from geovlm_ray.evaluation.studies.publish import publish
    from geovlm_ray.evaluation.studies.results import read_runs
    from geovlm_ray.evaluation.studies.runs import StudyPlan

    if args.name is None:
        raise ConfigError(f"NAME: expected a study, one of {', '.join(study_names())}, found none")
    if args.jobs < 1:
        raise ConfigError(f"--jobs: expected at least 1, found {args.jobs}")
    study = load_study(args.name)
    study = study.shortened() if args.short else study
    study = study if args.seeds is None else study.with_seeds(args.seeds)
    load_config(args.recipe, args.overrides)
    out = (args.out or Path("studies") / args.name).absolute()
    plan = StudyPlan(study, out, args.recipe, tuple(args.overrides), args.cluster)
    how = f"what the runs have saved is in {out}; run the same command to resume"
    with resumable(how), Progress(console) as progress:
        failed = run_all(plan, args.jobs, progress.show)
    runs = read_runs(plan)
    if not any(runs.values()):
        name, reason = next(iter(failed.items()))
        raise RunError(
            f"study {args.name}: expected a completed run, found none; {name}: {reason} (logs in {plan.logs})"
        )
    page = write_study(plan, runs, failed, shlex.join(["geovlm-ray", *sys.argv[1:]]))
    if args.publish:
        publish(out, args.publish)
    console.print(Markdown(read_text(page).partition("![")[0], hyperlinks=False), soft_wrap=False)
    for name, reason in failed.items():
        console.print(f"{name} failed: {reason}; see {plan.logs / f'{name}.log'}", style="red")
    console.print(f"Page: {page}")
    return int(bool(failed))

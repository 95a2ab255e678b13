"""``geovlm-ray train``: reinforcement fine-tuning."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from geovlm_ray.config import Config, load_config, recipe_names
from geovlm_ray.core.cluster_address import cluster_address
from geovlm_ray.core.errors import ConfigError, UserError
from geovlm_ray.core.files import read_objects
from geovlm_ray.core.placement import GIB
from geovlm_ray.report.terminal import open_console

if TYPE_CHECKING:
    from geovlm_ray.training.capacity import Node

MAX_ANSWER_CHARS = 60
"""Answers in tables are truncated to this length."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("recipe", help=f"recipe ({', '.join(recipe_names())}) or YAML file")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="overrides of its settings")
    parser.add_argument("--local", action="store_true", help="run everything in this process, without Ray")
    parser.add_argument(
        "--plan", type=Path, metavar="BENCH.json", help="compare the run with the step time predicted from these rates"
    )
    accept = "resume although files that the run reads have changed; contents.json and the report list the changes"
    parser.add_argument("--accept-changes", action="store_true", help=accept)
    dry_run = "check configuration, model and data, print the actor placement, and exit"
    parser.add_argument("--dry-run", action="store_true", help=dry_run)


def run(args: argparse.Namespace) -> int:
    """Train, or run the checks of --dry-run."""
    config = load_config(args.recipe, args.overrides)
    console = open_console()
    if args.dry_run:
        return dry_run(config, args.local, console)
    from geovlm_ray.report.held_out import max_reward
    from geovlm_ray.training.preflight import prepare
    from geovlm_ray.training.run import execute

    rates = None
    if args.plan:
        from geovlm_ray.training.plan.compare import compare_with_plan
        from geovlm_ray.training.plan.rates import Setup, read_rates

        if config.run.steps < 2:
            raise ConfigError(f"--plan: expected run.steps of at least 2 (step 1 is warm-up), found {config.run.steps}")
        rates = read_rates(args.plan)
    console.print(f"Checking model and data of {args.recipe} ...")
    ready = prepare(config)
    _print_lines(ready.notes, console)
    if args.local:
        from geovlm_ray.training.local import build
    else:
        from actors.cluster import build
    summary = execute(config, ready, build, console, accept_changes=args.accept_changes)
    print_summary(summary, max_reward(config.reward), console)
    if rates:
        metrics = config.run.folder / "metrics.jsonl"
        for line in compare_with_plan(rates, Setup.of(config), read_objects(metrics), str(metrics)).splitlines():
            console.print(line)
    console.print(f"Report: {(config.run.folder / 'report.html').resolve()}")
    return 0


def _cluster_nodes() -> list[Node]:
    from actors.cluster import cluster_nodes

    return cluster_nodes()


def _check_cluster(config: Config) -> None:
    from actors.cluster import check_room

    check_room(config)


def dry_run(config: Config, local: bool, console: Console) -> int:
    """Print the checks, the requested actors and a verdict; return 1 if a check fails."""
    from geovlm_ray.training.preflight import CHECKS, problems

    failed: list[str] = []
    results: dict[str, Any] = {}

    def show(name: str, problem: UserError | None) -> None:
        if problem:
            failed.append(name)
            _print_lines([f"FAILED: {name}: {problem}"], console, style="bold red")
        else:
            _print_lines([f"{name}: ok"], console)

    for name, problem in problems(config, CHECKS, results):
        show(name, problem)
    if "records" in results:
        _print_lines([results["data"].bad.summary, *results["records"].lines], console)
    if local:
        console.print("placement: everything in this process")
    else:
        show("placement", _placement_problem(config, console))
    if "model" in results and not local:
        _print_gpu_memory(config, results["model"], console)
    if failed:
        console.print(f"Not ready to train; fix first: {', '.join(failed)}", style="bold red", markup=False)
        return 1
    console.print("Ready to train", style="bold green")
    return 0


def _placement_problem(config: Config, console: Console) -> UserError | None:
    """Print the actors and the resources, of this machine or of the cluster; what keeps the actors from starting."""
    from geovlm_ray.training.capacity import check_fits, describe_node, resource_requests, this_machine, total_resources

    address = cluster_address()
    nodes = _cluster_nodes() if address else [this_machine()]
    title = "Actors, packed" if config.placement.strategy == "pack" else "Actors, spread over the nodes"
    table = Table("actor", "count", "CPUs each", "GPUs each", "GiB each", title=title)
    for kind in resource_requests(config):
        resources = (kind.num_cpus, kind.num_gpus, kind.memory_gb)
        table.add_row(kind.name, str(kind.count), *(f"{each:g}" for each in resources))
    console.print(table)
    target = f"cluster {address}, {len(nodes)} nodes" if address else "this machine"
    console.print(f"{target}: {describe_node(total_resources(nodes))}")
    try:
        if address:
            _check_cluster(config)
        else:
            check_fits(config, nodes)
    except UserError as error:
        return error
    return None


def _print_lines(lines: Iterable[str], console: Console, style: str = "") -> None:
    for line in filter(None, lines):
        console.print(line, markup=False, highlight=False, soft_wrap=True, style=style)


def _print_gpu_memory(config: Config, model: Path, console: Console) -> None:
    """Print what each actor will take of a GPU, if any actor has one."""
    from geovlm_ray.training.gpu_memory import actors_on_gpus, gpu_bytes

    available = gpu_bytes(config)
    actors = actors_on_gpus(config, model, available)
    if not actors:
        return
    if not available:
        console.print("GPU memory: unknown here; set placement.gpu_memory_gb to estimate what the actors will take")
        return
    title = f"Estimated memory of a GPU of {available / GIB:.0f} GiB, GiB"
    table = Table("actor", "holds", "total", "at most", title=title)
    for actor in actors:
        parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in actor.parts.items())
        table.add_row(actor.actor, parts, f"{actor.total / GIB:.1f}", f"{actor.limit / GIB:.1f}")
    console.print(table)


def print_summary(summary: dict, max_reward: float, console: Console) -> None:
    """Print the run time, the held-out rewards before and after training, and the constant and most common answers."""
    from geovlm_ray.report.held_out import ALL, held_out_results, incomparable, task_answers
    from geovlm_ray.report.metrics import run_figures

    figures = run_figures(summary)
    console.print(
        f"{figures.steps} steps in {figures.seconds:.0f} s; max log-prob difference of engines and learner: "
        f"{figures.parity_max_abs:.2g}"
    )
    if reason := incomparable(summary):
        console.print(f"Held-out rewards before and after training cannot be compared: {reason}", markup=False)
    results = held_out_results(summary)
    for decoding in dict.fromkeys(result.decoding for result in results):
        rows = [result for result in results if result.decoding == decoding]
        title = f"Held-out reward (max {max_reward:g}) of {rows[0].after.n} examples, {decoding}, paired change"
        rewards = _summary_table(
            *("task", "before", "after", "change", "95% interval", "constant", "majority"), title=title
        )
        for row in rows:
            means = (f"{row.before.mean:.3f}", f"{row.after.mean:.3f}", f"{row.change.mean:+.3f}")
            baselines = (f"{row.constant:.3f}", row.majority_text)
            style = "bold" if row.task == ALL else ""
            rewards.add_row(row.task, *means, row.change.interval_text(), *baselines, style=style)
        console.print(rewards)
    if results:
        answers = _summary_table("task", "best constant answer", "majority class", "most common after RL", "share")
        for each in task_answers(summary):
            answers.add_row(*(textwrap.shorten(cell, MAX_ANSWER_CHARS, placeholder="...") for cell in each.cells))
        console.print(answers)


def _summary_table(*columns: str, title: str | None = None) -> Table:
    return Table(*columns, title=title, box=SIMPLE, show_edge=False, pad_edge=False, padding=(0, 0))

"""``geovlm-ray evaluate``: a model on benchmarks, or a file of given responses."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from geovlm_ray.commands.progress import Progress, open_console
from geovlm_ray.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from geovlm_ray.config import Config
    from geovlm_ray.core.interfaces import RolloutPool
    from geovlm_ray.evaluation.responses import Evaluation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A model and its benchmarks, or a file and its format; output."""
    parser.add_argument(
        "model", nargs="?", help="tiny, a run, checkpoint, adapter or model folder, a Hugging Face name"
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that differ")
    parser.add_argument("--list", action="store_true", help="show all benchmarks and stop")
    on = parser.add_argument_group("evaluating a model")
    on.add_argument(
        "--benchmarks", nargs="+", metavar="NAME", help="all, drawn, names of --list, or datasets of your own by path"
    )
    on.add_argument("--data", type=Path, metavar="ROOT", help="folder that has a folder for each benchmark")
    on.add_argument(
        "--out",
        type=Path,
        help="folder of the results (default: evaluations/ and the name of the model, before it that of its run)",
    )
    on.add_argument("--limit", type=int, metavar="N", help="at most N records of each benchmark, evenly chosen")
    on.add_argument("--recipe", help="how prompts are written (default: as the model was trained, else geovlm-r1)")
    on.add_argument("--reasoning", action="store_true", help="ask again with the reasoning removed and swapped")
    on.add_argument("--local", action="store_true", help="one engine in this process, without Ray")
    given = parser.add_argument_group("evaluating a file of responses")
    given.add_argument("--predictions", type=Path, help="JSON lines: responses and their targets")
    given.add_argument("--task", help="records of this task only; with a format, the evaluation folder of the file")
    given.add_argument("--format", choices=["earthdial"], help="default: records as `score` takes them")
    parser.add_argument("--json", type=Path, help="where the metrics go as JSON")


def run(args: argparse.Namespace) -> int:
    """Evaluate, print both metric sets and write them."""
    if args.model and "=" in args.model:
        args.model, args.overrides = None, [args.model, *args.overrides]
    if args.json and not args.json.parent.is_dir():
        raise DataError(f"--json {args.json}: expected an existing folder, found no {args.json.parent}")
    if args.list:
        from geovlm_ray.evaluation.listing import print_benchmarks

        print_benchmarks(open_console())
        return 0
    if (args.model is None) == (args.predictions is None):
        raise ConfigError(
            f"expected either a model or --predictions FILE, found {'neither' if args.model is None else 'both'}"
        )
    return _model(args) if args.model else _predictions(args)


def _model(args: argparse.Namespace) -> int:
    if not args.benchmarks:
        raise ConfigError(
            "--benchmarks: expected all, drawn, or names that `geovlm-ray evaluate --list` shows, found none"
        )
    # An option that takes several names takes the overrides behind it too.
    args.overrides += [name for name in args.benchmarks if "=" in name]
    named = [name for name in args.benchmarks if "=" not in name]
    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit: expected at least 1, found {args.limit}")
    if args.data is not None and not args.data.is_dir():
        raise DataError(f"--data {args.data}: expected a folder with a folder for each benchmark, found none")
    from geovlm_ray.evaluation.registry import find, is_path

    # What is slow to load comes after what may be wrong.
    benchmarks = find([name for name in named if not is_path(name)])
    from geovlm_ray.evaluation.model import Evaluated, evaluate
    from geovlm_ray.evaluation.own import own_benchmarks
    from geovlm_ray.evaluation.results import RESULTS
    from geovlm_ray.evaluation.settings import evaluation_config
    from geovlm_ray.evaluation.tables import terminal_table
    from geovlm_ray.serving.export.merge import merged_model
    from geovlm_ray.serving.model_ref import resolve_model

    console = open_console()
    ref = resolve_model(args.model, args.recipe, args.overrides)
    origin = (ref.run.name,) if ref.run else ()
    out = args.out or Path("evaluations") / "-".join((*origin, ref.path.name))
    if out.exists() and not out.is_dir():
        raise DataError(f"--out {out}: expected a folder, found a file")
    out.mkdir(parents=True, exist_ok=True)
    config = evaluation_config(ref.config, merged_model(ref, out / "model"), out, args.data, args.limit)
    with Progress(console) as progress:
        benchmarks += own_benchmarks([Path(name) for name in named if is_path(name)], out, progress.show)
        what = Evaluated(args.model, benchmarks, args.data, args.limit, args.reasoning)
        results = evaluate(what, config, out, _local if args.local else _cluster, console, progress.show)
    console.print(terminal_table(results))
    console.print(f"Everything, worst cases drawn: {(out / 'results.html').resolve()}", soft_wrap=True, highlight=False)
    if args.json:
        from geovlm_ray.core.files import read_text, write_atomically

        write_atomically(args.json, read_text(out / RESULTS))
    return 0


def _local(config: Config) -> RolloutPool:
    from geovlm_ray.training.local import LocalRollouts, make_engine

    return LocalRollouts(make_engine(config, Path(config.model.path)))


def _cluster(config: Config) -> RolloutPool:
    from actors.cluster import engines

    return engines(config)


def _predictions(args: argparse.Namespace) -> int:
    from geovlm_ray.config import reward_config
    from geovlm_ray.core.files import write_atomically
    from geovlm_ray.evaluation.responses import evaluate_earthdial, evaluate_records

    config = reward_config(args.overrides)
    if args.format and not args.task:
        raise DataError("--format earthdial: expected --task with the name of the evaluation folder, found none")
    if args.format:
        found = evaluate_earthdial(args.predictions, args.task, config)
    else:
        found = evaluate_records(args.predictions, args.task, config)
    print_tables(found, open_console())
    if args.json:
        write_atomically(args.json, json.dumps(dataclasses.asdict(found), indent=2))
    return 0


def print_tables(found: Evaluation, console: Console) -> None:
    """One table a set."""
    paper = Table("metric", "value")
    for name, value in found.paper.items():
        paper.add_row(name, f"{value:.4f}")
    sound = Table("metric", "value", "95% interval")
    for name, interval in found.sound.items():
        sound.add_row(name, f"{interval.value:.4f}", f"{interval.low:.4f} to {interval.high:.4f}")
    console.print(f"paper: the published definitions, {found.n} records")
    console.print(paper)
    console.print("sound: what a reviewer would ask for, with bootstrap intervals")
    console.print(sound)

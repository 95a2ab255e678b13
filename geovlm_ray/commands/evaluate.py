"""``geovlm-ray evaluate``: benchmarks of a model, or metrics of a file of responses."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from geovlm_ray.commands.progress import Progress
from geovlm_ray.core.errors import ConfigError, DataError
from geovlm_ray.core.files import read_text, write_atomically
from geovlm_ray.core.interrupts import resumable
from geovlm_ray.report.terminal import open_console

if TYPE_CHECKING:
    from geovlm_ray.config import Config
    from geovlm_ray.core.interfaces import RolloutPool
    from geovlm_ray.evaluation.metrics.maps import MapObjects
    from geovlm_ray.evaluation.responses import ResponseMetrics

QUESTION = "Give me the location of every {label} in the image."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "model",
        nargs="?",
        help="tiny, a run, checkpoint, adapter or model folder, a Hugging Face name, or with --geo a map of `predict`",
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="overrides of settings")
    parser.add_argument("--list", action="store_true", help="list all benchmarks and exit")
    on = parser.add_argument_group("evaluating a model")
    on.add_argument(
        "--benchmarks", nargs="+", metavar="NAME", help="all, drawn, names from --list, or paths of custom datasets"
    )
    on.add_argument("--data", type=Path, metavar="ROOT", help="folder with one subfolder per benchmark")
    on.add_argument("--out", type=Path, help="results folder (default: evaluations/RUN-MODEL)")
    on.add_argument("--limit", type=int, metavar="N", help="at most N records per benchmark, evenly spaced")
    on.add_argument(
        "--reasoning", action="store_true", help="also answer with the reasoning removed and with swapped reasoning"
    )
    accept = "resume although files that are read have changed, and keep the predictions; results list the changes"
    on.add_argument("--accept-changes", action="store_true", help=accept)
    on.add_argument("--local", action="store_true", help="one engine in this process, without Ray")
    on_map = parser.add_argument_group("evaluating a map")
    on_map.add_argument(
        "--geo", type=Path, metavar="TRUTH", help="reference objects: a GeoJSON, GeoPackage, FlatGeobuf or Shapefile"
    )
    on_map.add_argument("--scene", type=Path, help="raster file of the reference objects")
    on_map.add_argument(
        "--prompt",
        default=QUESTION,
        metavar="TEXT",
        help=f"question about a {{label}} (default: {QUESTION!r})",
    )
    on_map.add_argument("--class", dest="column", default="", help="column with the class (default: class, ...)")
    on_map.add_argument("--label", default="", help="class of all reference objects, instead of a column")
    add_boxes(on_map)
    on_map.add_argument("--window", type=int, metavar="PIXELS", help="as for `predict`, also --overlap")
    on_map.add_argument("--overlap", type=int, metavar="PIXELS", help=argparse.SUPPRESS)
    given = parser.add_argument_group("evaluating a file of responses")
    given.add_argument("--predictions", type=Path, help="JSON lines with responses and targets")
    given.add_argument(
        "--task", help="only records of this task; with --format, the name of the file's evaluation folder"
    )
    given.add_argument("--format", choices=["earthdial"], help="file format (default: JSON lines as for `score`)")
    parser.add_argument(
        "--recipe",
        help="recipe or YAML file of prompt settings, plugins and tasks (default: those of training, else geovlm-r1)",
    )
    parser.add_argument("--json", type=Path, help="output of the metrics as JSON")


def run(args: argparse.Namespace) -> int:
    """Evaluate, print both metric sets and write them as JSON."""
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
    if args.model and args.geo:
        return _evaluate_map(args)
    return _evaluate_model(args) if args.model else _evaluate_predictions(args)


def _evaluate_model(args: argparse.Namespace) -> int:
    if not args.benchmarks:
        raise ConfigError(
            "--benchmarks: expected all, drawn, names from `geovlm-ray evaluate --list` or paths, found none"
        )
    # argparse puts overrides that follow --benchmarks into args.benchmarks.
    args.overrides += [name for name in args.benchmarks if "=" in name]
    names = [name for name in args.benchmarks if "=" not in name]
    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit: expected at least 1, found {args.limit}")
    if args.data is not None and not args.data.is_dir():
        raise DataError(f"--data {args.data}: expected a folder with one subfolder per benchmark, found none")
    from geovlm_ray.evaluation.registry import find, is_path

    # Check the names before the slow imports.
    benchmarks = find([name for name in names if not is_path(name)])
    from geovlm_ray.evaluation.custom import custom_benchmarks
    from geovlm_ray.evaluation.model import EvaluationSpec, evaluate
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
    model = merged_model(ref, out / "model", replace=args.accept_changes)
    config = evaluation_config(ref.config, model, out, args.data, args.limit)
    how = f"the answers so far are in {out}; run the same command to resume"
    with resumable(how), Progress(console) as progress:
        benchmarks += custom_benchmarks([Path(name) for name in names if is_path(name)], out, progress.show)
        spec = EvaluationSpec(args.model, benchmarks, args.data, args.limit, args.reasoning)
        build, accept = build_engines(args.local), args.accept_changes
        results = evaluate(spec, config, out, build, console, progress.show, accept_changes=accept)
    console.print(terminal_table(results))
    console.print(f"Report: {(out / 'results.html').resolve()}")
    if args.json:
        write_atomically(args.json, read_text(out / RESULTS))
    return 0


def _evaluate_map(args: argparse.Namespace) -> int:
    """Compare a map, or what a model finds, with reference objects, and print the metrics."""
    from geovlm_ray.data.geo.layers import ENDINGS
    from geovlm_ray.serving.predict.evaluate_map import PAGE, RESULTS, class_rows, evaluate_map, read_map, read_truth

    if args.scene is None:
        raise ConfigError("--scene: expected the raster file of the reference objects, found none")
    out, scene = args.out or Path("evaluations") / f"{args.geo.stem}-{Path(args.model).stem}", str(args.scene)
    truth = read_truth(args.geo, scene, args.column, args.label)
    classes = sorted(set(truth.labels))
    is_map = Path(args.model).suffix.lower() in ENDINGS
    out.mkdir(parents=True, exist_ok=True)
    found = read_map(Path(args.model), scene, classes) if is_map else _objects_on_map(args, classes, out)
    metrics = evaluate_map(found, truth, scene, out)
    header, rows = class_rows(metrics)
    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    console = open_console()
    console.print(table)
    console.print(f"Report: {(out / PAGE).resolve()}")
    if args.json:
        write_atomically(args.json, read_text(out / RESULTS))
    return 0


def _objects_on_map(args: argparse.Namespace, classes: list[str], out: Path) -> MapObjects:
    """What a model finds in the scene."""
    from geovlm_ray.evaluation.settings import evaluation_config
    from geovlm_ray.serving.export.merge import merged_model
    from geovlm_ray.serving.model_ref import resolve_model
    from geovlm_ray.serving.predict.evaluate_map import find_objects
    from geovlm_ray.serving.predict.settings import PredictSettings

    ref = resolve_model(args.model, args.recipe, args.overrides)
    side, overlap = window_and_overlap(args.window, args.overlap, ref.config.prompt.image_size)
    settings = PredictSettings("referred_object_detection", args.prompt, side, overlap, rotated=args.boxes == "rotated")
    config = evaluation_config(ref.config, merged_model(ref, out / "model", replace=args.accept_changes), out)
    how = f"the answers so far are in {out}; run the same command to resume"
    with resumable(how), Progress(open_console()) as progress:

        def show(label: str, done: int, total: int) -> None:
            progress.show(done, f"of {total:,} windows about {label} answered")

        return find_objects(str(args.scene), classes, settings, config, build_engines(args.local), out, show)


def add_boxes(group: argparse._ArgumentGroup) -> None:
    """Add the argument for the boxes that a model was trained to give."""
    group.add_argument(
        "--boxes",
        choices=("horizontal", "rotated"),
        default="horizontal",
        help="boxes that are asked for: rotated if the training data had angles (default: horizontal)",
    )


def window_and_overlap(window: int | None, overlap: int | None, image_size: int) -> tuple[int, int]:
    """Side and overlap of windows in pixels, by default ``image_size`` and a quarter of the side.

    Raises:
        ConfigError: one of them is invalid.
    """
    side = image_size if window is None else window
    if side < 1:
        raise ConfigError(f"--window: expected 1 or more, found {side}")
    shared = side // 4 if overlap is None else overlap
    if not 0 <= shared < side:
        raise ConfigError(f"--overlap: expected 0 to below the window of {side} pixels, found {shared}")
    return side, shared


def build_engines(local: bool) -> Callable[[Config], RolloutPool]:
    """What builds the engines: one in this process, or rollout actors on Ray."""
    return _local if local else _cluster


def _local(config: Config) -> RolloutPool:
    from geovlm_ray.training.local import StreamedRollouts, make_engine

    return StreamedRollouts(make_engine(config, Path(config.model.path)))


def _cluster(config: Config) -> RolloutPool:
    from actors.cluster import start_rollouts

    return start_rollouts(config)


def _evaluate_predictions(args: argparse.Namespace) -> int:
    from geovlm_ray.config import reward_config
    from geovlm_ray.evaluation.responses import evaluate_earthdial, evaluate_records

    config = reward_config(args.overrides, args.recipe)
    if args.format and not args.task:
        raise DataError("--format earthdial: expected --task with the name of the evaluation folder, found none")
    evaluate = evaluate_earthdial if args.format else evaluate_records
    metrics = evaluate(args.predictions, args.task, config)
    print_tables(metrics, open_console())
    if args.json:
        write_atomically(args.json, json.dumps(dataclasses.asdict(metrics), indent=2))
    return 0


def print_tables(metrics: ResponseMetrics, console: Console) -> None:
    """Print one table per metric set."""
    paper = Table("metric", "value")
    for name, value in metrics.paper.items():
        paper.add_row(name, f"{value:.4f}")
    sound = Table("metric", "value", "95% interval")
    for name, interval in metrics.sound.items():
        sound.add_row(name, f"{interval.value:.4f}", f"{interval.low:.4f} to {interval.high:.4f}")
    console.print(f"paper: the published definitions, {metrics.n} records")
    console.print(paper)
    console.print("sound: standard metrics of each task, with bootstrap intervals")
    console.print(sound)

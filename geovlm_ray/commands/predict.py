"""``geovlm-ray predict``: from scenes to a map of what a model finds in them."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from geovlm_ray.commands.evaluate import add_boxes, build_engines, window_and_overlap
from geovlm_ray.commands.progress import Progress
from geovlm_ray.core.errors import ConfigError
from geovlm_ray.core.interrupts import resumable
from geovlm_ray.report.terminal import open_console

if TYPE_CHECKING:
    from geovlm_ray.serving.predict.features import SceneFeatures
    from geovlm_ray.serving.predict.settings import PredictSettings

_OVERRIDE = re.compile(r"[a-z_]+(\.\w+)+=")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("model", help="tiny, a run, checkpoint, adapter or model folder, or a Hugging Face name")
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="raster files, folders, patterns or a converted dataset"
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="overrides of settings")
    parser.add_argument("--task", required=True, help="task of the question, as in `geovlm-ray score`")
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="question about every window")
    formats = ".geojson, .gpkg, .fgb, .json (COCO) or .csv"
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help=f"map to write: {formats}")
    parser.add_argument(
        "--after", nargs="+", default=(), metavar="SOURCE", help="later scenes of change pairs, in the order of SOURCE"
    )
    asked = parser.add_argument_group("form of the answers, as in training")
    asked.add_argument("--classes", default="", metavar="A,B,C", help="names that answers may give")
    add_boxes(asked)
    pixels = parser.add_argument_group("windows and pixels")
    pixels.add_argument(
        "--window", type=int, metavar="PIXELS", help="side of a window in pixels of the scene (default: image_size)"
    )
    pixels.add_argument(
        "--overlap", type=int, metavar="PIXELS", help="pixels that windows share (default: a quarter of a window)"
    )
    pixels.add_argument(
        "--bands",
        action="append",
        default=[],
        metavar="SPEC",
        help="bands of a picture: R,G,B, one band, or A/B for (A - B) / (A + B); several: one picture each",
    )
    stretch = pixels.add_mutually_exclusive_group()
    stretch.add_argument(
        "--range", nargs=2, type=float, metavar=("LOW", "HIGH"), help="values shown as black and white"
    )
    stretch.add_argument(
        "--percentiles", nargs=2, type=float, metavar=("LOW", "HIGH"), help="the same as percentiles (default: 2 98)"
    )
    answers = parser.add_argument_group("answers")
    answers.add_argument(
        "--samples", type=int, default=0, metavar="K", help="draw K more answers; their agreement is a column"
    )
    answers.add_argument("--reasoning", action="store_true", help="add the reasoning as a column")
    answers.add_argument(
        "--accept-changes", action="store_true", help="continue although weights or scenes have changed since"
    )
    answers.add_argument("--local", action="store_true", help="one engine in this process, without Ray")
    answers.add_argument("--recipe", help="recipe or YAML file of prompt settings (default: those of training)")


def run(args: argparse.Namespace) -> int:
    """Predict, and print where the map is."""
    args.overrides += [source for source in args.sources if _OVERRIDE.match(source) and not Path(source).exists()]
    args.sources = [source for source in args.sources if source not in args.overrides]
    if not args.out.absolute().parent.is_dir():
        raise ConfigError(f"--out {args.out}: expected an existing folder, found no {args.out.absolute().parent}")
    from geovlm_ray.evaluation.settings import evaluation_config
    from geovlm_ray.serving.export.merge import merged_model
    from geovlm_ray.serving.model_ref import resolve_model
    from geovlm_ray.serving.predict.features import check_format
    from geovlm_ray.serving.predict.outputs import check_outputs
    from geovlm_ray.serving.predict.run import predict, unfinished_folder
    from geovlm_ray.serving.predict.sources import scene_paths

    check_format(args.out)
    first = scene_paths(args.sources, repeated=bool(args.after))
    later = scene_paths(args.after, repeated=True) if args.after else []
    if later and len(later) != len(first):
        raise ConfigError(f"--after: expected {len(first)} scenes, one for each SOURCE, found {len(later)}")
    pairs = list(zip(first, later, strict=True)) if later else [(path,) for path in first]
    check_outputs(args.out, pairs)
    console = open_console()
    ref = resolve_model(args.model, args.recipe, args.overrides)
    settings = _settings(args, ref.config.prompt.image_size)
    folder = unfinished_folder(args.out)
    folder.mkdir(exist_ok=True)
    config = evaluation_config(ref.config, merged_model(ref, folder / "model", replace=args.accept_changes), folder)
    how = f"the answers so far are in {folder}; run the same command to resume"
    with resumable(how), Progress(console) as progress:

        def show(done: int, total: int) -> None:
            progress.show(done, f"of {total:,} windows answered")

        build = build_engines(args.local)
        scenes, files = predict(
            pairs,
            settings,
            config,
            build,
            args.out,
            show,
            reasoning=args.reasoning,
            accept_changes=args.accept_changes,
            announce=console.print,
        )
    for scene in scenes:
        console.print(f"{scene.name}: {len(scene.features):,} features, in {_place(scene)}")
    console.print("Files: " + ", ".join(str(file) for file in files))
    return 0


def _place(scene: SceneFeatures) -> str:
    if scene.georeference:
        return scene.georeference.crs.to_string()
    if scene.has_control_points:
        return f"pixels: {scene.name} has ground control points only; `gdalwarp` writes a copy with a georeference"
    return "pixels: the scene has no georeference"


def _settings(args: argparse.Namespace, image_size: int) -> PredictSettings:
    from geovlm_ray.core.pixels import PERCENTILES
    from geovlm_ray.data.geo.composites import Composite
    from geovlm_ray.serving.predict.settings import PredictSettings
    from geovlm_ray.tasks import find_task

    find_task(args.task, "--")
    side, overlap = window_and_overlap(args.window, args.overlap, image_size)
    if args.samples < 0:
        raise ConfigError(f"--samples: expected 0 or more, found {args.samples}")
    for name, limits in (("--range", args.range), ("--percentiles", args.percentiles)):
        if limits and not limits[0] < limits[1]:
            raise ConfigError(f"{name}: expected LOW < HIGH, found {limits[0]:g} and {limits[1]:g}")
    if args.percentiles and not (args.percentiles[0] >= 0 and args.percentiles[1] <= 100):
        low, high = args.percentiles
        raise ConfigError(f"--percentiles: expected numbers from 0 to 100, found {low:g} and {high:g}")
    if not args.prompt.strip():
        raise ConfigError("--prompt: expected a question, found none")
    classes = tuple(dict.fromkeys(name.strip() for name in args.classes.split(",")))
    if args.classes and not all(classes):
        raise ConfigError(f"--classes: expected names separated by commas, found {args.classes!r}")
    return PredictSettings(
        args.task,
        args.prompt.strip(),
        side,
        overlap,
        tuple(map(Composite.parse, args.bands)),
        tuple(args.percentiles) if args.percentiles else PERCENTILES,
        tuple(args.range) if args.range else None,
        args.samples,
        classes if args.classes else (),
        args.boxes == "rotated",
    )

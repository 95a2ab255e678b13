"""``geovlm-ray data``: convert, export, validate, summarize and preview datasets."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geovlm_ray.commands.progress import Progress
from geovlm_ray.commands.publish import add_push_arguments
from geovlm_ray.commands.publish import publish as publish_folder
from geovlm_ray.core.errors import ConfigError, DataError, did_you_mean
from geovlm_ray.core.files import read_object, write_atomically
from geovlm_ray.report.terminal import open_console

if TYPE_CHECKING:
    from geovlm_ray.data.convert import Counts
    from geovlm_ray.data.formats.base import Format
    from geovlm_ray.data.validation.validate import ValidationReport

AUTO = "auto"
"""Name for the format that the source looks like."""
MAX_NEGATIVES = 0.9
CONVERTED = "folder written by `data convert`, or a parent folder of several"


class _HelpWithFormats(argparse.Action):
    """Help that lists the formats, imported lazily."""

    def __call__(self, parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        from geovlm_ray.data.formats import FORMATS

        parser.epilog = f"formats:\n  {AUTO:<18} the format that the source looks like (data convert only)"
        for name, form in FORMATS.items():
            parser.epilog += f"\n  {name:<18} {form.summary}"
            parser.epilog += "".join(f"\n  {'':<18}   {key}={default}" for key, default in form.options.items())
        parser.print_help()
        parser.exit()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands and their arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_convert(actions)
    export = _add_formatted(actions, "export", "write a converted dataset in its source format")
    export.add_argument("dir", type=Path, metavar="DIR", help="folder written by `data convert`")
    export.add_argument("out", type=Path, metavar="OUT", help="output file or folder, must not exist")
    validate = actions.add_parser("validate", help="check every record and image, quarantine bad records")
    validate.add_argument("dir", type=Path, metavar="DIR", help=CONVERTED)
    _add_recipe(validate)
    _add_images(validate)
    _add_limits(validate, "bad")
    stats = actions.add_parser("stats", help="statistics of datasets")
    stats.add_argument("dir", type=Path, metavar="DIR", help=CONVERTED)
    stats.add_argument("--json", type=Path, metavar="OUT", help="output of the statistics as JSON")
    stats.add_argument("--workers", type=int, default=os.cpu_count(), help="worker processes (default: one per core)")
    _add_recipe(stats)
    preview = actions.add_parser("preview", help="a page with sample records of every task and their boxes")
    preview.add_argument("dir", type=Path, metavar="DIR", help=CONVERTED)
    preview.add_argument("--out", type=Path, required=True, metavar="FILE.html", help="output page")
    preview.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="settings of the prompts, which override the recipe"
    )
    preview.add_argument("--each", type=int, default=6, help="records per task (default: 6)")
    preview.add_argument("--seed", type=int, default=0, help="seed of the sample (default: 0)")
    preview.add_argument(
        "--recipe", default="geovlm-r1", help="recipe or YAML file of the prompts and answers (default: geovlm-r1)"
    )
    _add_images(preview)
    published = actions.add_parser("publish", help="write a dataset card, and upload a converted dataset to the Hub")
    published.add_argument("dir", type=Path, metavar="DIR", help="output folder of `data convert`")
    add_push_arguments(published)
    scenes = actions.add_parser("scenes", help="an image of synthetic scenes of every task and their boxes")
    scenes.add_argument("--out", type=Path, default=Path("scenes.png"), help="output PNG (default: scenes.png)")
    scenes.add_argument("--seed", type=int, default=0, help="seed of the scenes (default: 0)")
    scenes.add_argument("--each", type=int, default=4, help="scenes per task (default: 4)")


def _add_formatted(actions: Any, name: str, summary: str) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=summary, add_help=False)
    parser.add_argument(
        "-h", "--help", nargs=0, action=_HelpWithFormats, help="show this help with the list of formats"
    )
    parser.add_argument("format", metavar="FORMAT", help="one of the formats below, or of a plugin of --recipe")
    _add_recipe(parser)
    return parser


def _add_convert(actions: Any) -> None:
    parser = _add_formatted(actions, "convert", "convert a dataset to Parquet")
    parser.add_argument("source", type=Path, metavar="SRC", help="source file or folder")
    parser.add_argument("out", type=Path, metavar="OUT", help="output folder, new or empty")
    parser.add_argument("overrides", nargs="*", metavar="option=value", help="format options, and negatives=SHARE")
    parser.add_argument(
        "--images",
        type=Path,
        help="base folder of relative image paths (default: that of SRC, or a usual one beside it that has the images)",
    )
    parser.add_argument("--dataset", help="dataset name (default: from the format)")
    parser.add_argument(
        "--split", help="train, validation, test or another split (default: from the source, else train)"
    )
    parser.add_argument("--licence", help="licence of the dataset, stored with every record")
    _add_limits(parser, "quarantined")


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", help="recipe or YAML file with the plugins and tasks of the data (default: none)")


def _add_images(parser: argparse.ArgumentParser) -> None:
    images = "optional: the dataset may have annotations without images (default: required)"
    parser.add_argument("--images", choices=["required", "optional"], default="required", help=images)
    parser.add_argument("--root", type=Path, help="base folder of the images (default: as at conversion)")


def _add_limits(parser: argparse.ArgumentParser, bad: str) -> None:
    limit = f"fail if a larger fraction is {bad} (default: 0.01)"
    parser.add_argument("--max-bad", type=float, default=0.01, metavar="FRACTION", help=limit)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="worker processes (default: one per core)")


def run(args: argparse.Namespace) -> int:
    """Run the subcommand; exceeding --max-bad raises DataError."""
    if getattr(args, "workers", 1) < 1:
        raise ConfigError(f"--workers: expected 1 or more, found {args.workers}")
    if not 0 <= getattr(args, "max_bad", 0.0) <= 1:
        raise ConfigError(f"--max-bad: expected a fraction from 0 to 1, found {args.max_bad}")
    for option in ("json", "out"):
        path = getattr(args, option, None)
        if path is not None and args.action in ("stats", "preview") and not path.parent.is_dir():
            raise ConfigError(f"--{option} {path}: expected an existing folder, found no {path.parent}")
    if getattr(args, "seed", 0) < 0 or getattr(args, "each", 1) < 1:
        raise ConfigError(f"expected --seed of 0 or more and --each of 1 or more, found {args.seed} and {args.each}")
    if getattr(args, "recipe", None):
        from geovlm_ray.config import load_config

        load_config(args.recipe)
    actions = {action.__name__: action for action in (convert, export, validate, stats, preview, publish, scenes)}
    actions[args.action](args)
    return 0


def convert(args: argparse.Namespace) -> None:
    """Convert a source to Parquet and print the counts."""
    from geovlm_ray.data.convert import MetadataOverrides
    from geovlm_ray.data.convert import convert as run_conversion
    from geovlm_ray.data.formats.base import Source
    from geovlm_ray.data.formats.detect import recognized_format
    from geovlm_ray.data.formats.image_roots import image_root_of
    from geovlm_ray.data.negatives import write_negatives
    from geovlm_ray.report.data_tables import first_examples, print_conversion

    if not args.source.exists():
        raise DataError(f"{args.source}: expected a source file or folder, found none")
    images = args.images or image_root_of(args.source)
    if not images.is_dir():
        raise DataError(f"--images {images}: expected a folder, found none")
    console = open_console()
    name = args.format
    if name == AUTO:
        name, reason = recognized_format(Source(args.source, images))
        console.print(f"{args.source} looks like {name}: {reason}")
    negatives = _negatives(args)
    options = _options(name, args.overrides)
    with Progress(console) as progress:
        counts = run_conversion(
            name,
            Source(args.source, images, options, with_empty=negatives > 0),
            args.out,
            MetadataOverrides(args.dataset, args.split, args.licence),
            workers=args.workers,
            more=partial(write_negatives, negatives),
            on_progress=lambda done: progress.show(done.records, "records", f", {done.set_aside:,} quarantined"),
        )
    print_conversion(counts, first_examples(args.out), console)
    console.print(f"Dataset: {args.out.resolve()}")
    _check_bad_fraction(counts, args.source, "quarantined entries", args.out / "quarantine.parquet", args.max_bad)


def _negatives(args: argparse.Namespace) -> float:
    """Take the option ``negatives`` of all formats from the options."""
    given = [option for option in args.overrides if option.partition("=")[0] == "negatives"]
    args.overrides = [option for option in args.overrides if option not in given]
    text = given[-1].partition("=")[2] if given else "0"
    share = float(text) if re.fullmatch(r"0?\.\d{1,6}|0", text) else -1.0
    if not 0 <= share <= MAX_NEGATIVES:
        raise ConfigError(f"option negatives: expected a share from 0 to {MAX_NEGATIVES:g}, found {text!r:.100}")
    return share


def export(args: argparse.Namespace) -> None:
    """Write a converted dataset in its source format."""
    from geovlm_ray.data.convert import CARD
    from geovlm_ray.data.formats import FORMATS
    from geovlm_ray.data.negatives import FILE as NEGATIVES
    from geovlm_ray.data.parquet import open_datasets

    restore = _format(args.format).restore
    if restore is None:
        supported = ", ".join(name for name, form in FORMATS.items() if form.restore is not None)
        raise DataError(f"FORMAT: expected a format with export, one of {supported}, found {args.format!r}")
    datasets = open_datasets(args.dir)
    card = args.dir / CARD
    if len(datasets) > 1 or not card.is_file():
        raise DataError(f"{args.dir}: expected one dataset with its {CARD}, found {len(datasets)} datasets below it")
    metadata = read_object(card)
    if metadata.get("format") != args.format:
        raise DataError(
            f"{args.dir}: expected a dataset converted from {args.format}, found {metadata.get('format')!r}"
        )
    if args.out.exists():
        raise DataError(f"{args.out}: expected a path that does not exist, found one; remove it first")
    rows = (row for shard, _, row in datasets[0].rows() if shard.name != NEGATIVES)
    restore(rows, metadata.get("header", {}), args.out)
    console = open_console()
    console.print(f"Output: {args.out.resolve()}")
    if metadata.get("set_aside"):
        quarantine = args.dir / "quarantine.parquet"
        console.print(f"Excluded {metadata['set_aside']} entries quarantined at conversion, see {quarantine}")


def validate(args: argparse.Namespace) -> None:
    """Validate datasets, write their quarantines and print the findings."""
    from geovlm_ray.data.parquet import open_datasets
    from geovlm_ray.data.validation.validate import validate as run_validation
    from geovlm_ray.report.data_tables import print_validation

    datasets = open_datasets(args.dir, args.root)
    console = open_console()
    with Progress(console) as progress:
        report = run_validation(
            datasets,
            need_images=args.images == "required",
            workers=args.workers,
            on_progress=lambda unit, done: progress.show(done, f"{unit} checked"),
        )
    print_validation(report, console)
    if report.unreadable:
        raise DataError(
            f"{args.dir}: expected readable shards, found {len(report.unreadable)} unreadable; convert the source again"
        )
    _check_bad_fraction(report, args.dir, "bad records", Path("quarantine.parquet"), args.max_bad)


def stats(args: argparse.Namespace) -> None:
    """Print the statistics and write them as JSON."""
    from geovlm_ray.data.parquet import open_datasets
    from geovlm_ray.data.stats import collect_stats
    from geovlm_ray.report.data_tables import print_stats

    console = open_console()
    with Progress(console) as progress:
        statistics = collect_stats(
            open_datasets(args.dir), workers=args.workers, on_progress=lambda n: progress.show(n, "records")
        )
    print_stats(statistics, console)
    if args.json:
        write_atomically(args.json, json.dumps(statistics.plain(), indent=2, ensure_ascii=False) + "\n")


def preview(args: argparse.Namespace) -> None:
    """Write the preview page."""
    from geovlm_ray.config import load_config
    from geovlm_ray.data.parquet import open_datasets
    from geovlm_ray.report.preview import preview as make_page

    config = load_config(args.recipe, args.overrides)
    datasets = open_datasets(args.dir, args.root)
    answers = config.data.answer_format
    if answers is None:
        from geovlm_ray.model.answer_format import answer_format_of
        from geovlm_ray.model.loading import model_folder

        model = model_folder(config.model.path, weights=False)
        answers = answer_format_of(config.data, config.prompt, model)
    page = make_page(datasets, config, answers, each=args.each, seed=args.seed, need_images=args.images == "required")
    write_atomically(args.out, page)
    open_console().print(f"Preview: {args.out.resolve()}")


def publish(args: argparse.Namespace) -> None:
    """Write the card of a dataset into its folder, and upload the folder if a repository is named."""
    from geovlm_ray.core.hub import Publication
    from geovlm_ray.data.parquet import QUARANTINE, open_datasets
    from geovlm_ray.data.stats import collect_stats
    from geovlm_ray.report.dataset_card import README, public_files

    if args.push:
        Publication(args.dir, args.push, "dataset")
    console = open_console()
    with Progress(console) as progress:
        stats = collect_stats(
            open_datasets(args.dir)[:1], workers=1, on_progress=lambda done: progress.show(done, "records read")
        )
    files = public_files(args.dir, stats)
    write_atomically(args.dir / README, files[README])
    console.print(f"Card: {(args.dir / README).resolve()}")
    if args.push:
        # Reasons in the quarantine name local paths.
        publish_folder(Publication(args.dir, args.push, "dataset", files, {QUARANTINE}), args, console)


def scenes(args: argparse.Namespace) -> None:
    """Write the image of synthetic scenes."""
    from geovlm_ray.report.scenes import contact_sheet

    if args.out.suffix.lower() != ".png":
        raise ConfigError(f"--out: expected a .png file, found {args.out}")
    contact_sheet(args.seed, args.each).save(args.out)
    open_console().print(f"Scenes: {args.out.resolve()}")


def _check_bad_fraction(
    counts: Counts | ValidationReport, source: Path, bad: str, quarantine: Path, max_bad: float
) -> None:
    """Raise DataError if there are no records or more than ``max_bad`` of them are bad."""
    if not counts.records:
        raise DataError(f"{source}: expected records, found none")
    if counts.bad_fraction > max_bad:
        raise DataError(
            f"{source}: expected at most {max_bad:.2%} {bad} (--max-bad), found {counts.bad_fraction:.2%}; "
            f"reasons in {quarantine}"
        )


def _format(name: str) -> Format:
    from geovlm_ray.data.formats import FORMATS

    if name not in FORMATS:
        raise ConfigError(
            f"FORMAT: expected {AUTO} or one of {', '.join(FORMATS)}, found {name!r}{did_you_mean(name, FORMATS)}"
        )
    return FORMATS[name]


def _options(name: str, given: Iterable[str]) -> dict[str, str]:
    """The options of a format: defaults, overridden by the command line."""
    options = dict(_format(name).options)
    for argument in given:
        key, equals, value = argument.partition("=")
        if not equals:
            raise ConfigError(f"{argument!r}: expected option=value")
        if key not in options:
            known = f"expected one of {', '.join(options)}" if options else "the format has none"
            raise ConfigError(f"unknown option {key!r} of {name}; {known}{did_you_mean(key, options)}")
        options[key] = value
    return options

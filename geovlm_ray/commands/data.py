"""``geovlm-ray data``: convert the field's formats, check the result, and look at it."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geovlm_ray.data.convert import Counts
    from geovlm_ray.data.formats.base import Format
    from geovlm_ray.data.validation.validate import ValidationReport

CONVERTED = "folder that `data convert` wrote, or one with several of them below it"


class _HelpWithFormats(argparse.Action):
    """Help that lists the formats, which are imported only for that."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        from geovlm_ray.data.formats import FORMATS

        lines = [f"  {name:<18} {form.summary}{_options_text(form)}" for name, form in FORMATS.items()]
        parser.epilog = "\n".join(["formats:", *lines])
        parser.print_help()
        parser.exit()


def _options_text(form: Format) -> str:
    return "".join(f"\n  {'':<18}   {key}={default}" for key, default in form.options.items())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do with data."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_convert(actions)
    _add_export(actions)
    _add_validate(actions)
    stats = actions.add_parser("stats", help="what datasets hold, in numbers")
    stats.add_argument("dir", type=Path, metavar="DIR", help=CONVERTED)
    stats.add_argument("--json", type=Path, metavar="OUT", help="where the numbers go as JSON")
    stats.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    preview = actions.add_parser("preview", help="a page of records of every task, their boxes drawn on the images")
    preview.add_argument("dir", type=Path, metavar="DIR", help=CONVERTED)
    preview.add_argument("--out", type=Path, required=True, metavar="FILE.html", help="page to write")
    preview.add_argument("--each", type=int, default=6, help="records of each task (default: 6)")
    preview.add_argument("--seed", type=int, default=0, help="seed of the choice (default: 0)")
    _add_images(preview)
    scenes = actions.add_parser("scenes", help="a picture of drawn scenes of every task, their boxes drawn on them")
    scenes.add_argument("--out", type=Path, default=Path("scenes.png"), help="PNG to write (default: scenes.png)")
    scenes.add_argument("--seed", type=int, default=0, help="seed of the scenes (default: 0)")
    scenes.add_argument("--each", type=int, default=4, help="scenes of each task (default: 4)")


def _add_formatted(actions: Any, name: str, summary: str) -> argparse.ArgumentParser:
    parser = actions.add_parser(
        name, help=summary, add_help=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-h", "--help", nargs=0, action=_HelpWithFormats, help="show this, the formats with it")
    parser.add_argument("format", metavar="FORMAT", help="one of the formats below")
    return parser


def _add_convert(actions: Any) -> None:
    parser = _add_formatted(actions, "convert", "a source in one of the field's formats, to Parquet")
    parser.add_argument("source", type=Path, metavar="SRC", help="file or folder")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write, which must be new or empty")
    parser.add_argument("overrides", nargs="*", metavar="option=value", help="options of the format")
    parser.add_argument("--images", type=Path, help="folder that image paths are relative to (default: that of SRC)")
    parser.add_argument("--dataset", help="name of the dataset (default: what the format says)")
    parser.add_argument("--split", help="train, validation, test or another (default: what the source says, or train)")
    parser.add_argument("--licence", help="note on the licence, kept with every record")
    _add_limits(parser, "set aside")


def _add_export(actions: Any) -> None:
    parser = _add_formatted(actions, "export", "a converted dataset, back to the format that it came in")
    parser.add_argument("dir", type=Path, metavar="DIR", help="folder that `data convert` wrote")
    parser.add_argument("out", type=Path, metavar="OUT", help="file or folder to write, which must not exist")


def _add_validate(actions: Any) -> None:
    parser = actions.add_parser("validate", help="check every record and image; bad ones are set aside")
    parser.add_argument("dir", type=Path, metavar="DIR", help=CONVERTED)
    _add_images(parser)
    _add_limits(parser, "bad")


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        choices=["required", "optional"],
        default="required",
        help="optional: for sources that come as annotations alone (default: required)",
    )
    parser.add_argument("--root", type=Path, help="folder of the images (default: the one given at conversion)")


def _add_limits(parser: argparse.ArgumentParser, bad: str) -> None:
    parser.add_argument(
        "--max-bad", type=float, default=0.01, metavar="FRACTION", help=f"fail if more is {bad} (default: 0.01)"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one a core)")


def run(args: argparse.Namespace) -> int:
    """Do it; 1 where too much is bad."""
    from geovlm_ray.core.errors import ConfigError

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
    actions = {
        "convert": convert,
        "export": export,
        "validate": validate,
        "stats": stats,
        "preview": preview,
        "scenes": scenes,
    }
    actions[args.action](args)
    return 0


def convert(args: argparse.Namespace) -> None:
    """Convert a source and say what became of it."""
    from rich.console import Console

    from geovlm_ray.commands.progress import Progress
    from geovlm_ray.core.errors import DataError
    from geovlm_ray.data.convert import MetadataOverrides
    from geovlm_ray.data.convert import convert as run_conversion
    from geovlm_ray.data.formats.base import Source
    from geovlm_ray.report.data_tables import first_examples, print_conversion

    options = _options(args.format, args.overrides)
    images = args.images or (args.source if args.source.is_dir() else args.source.parent)
    if not images.is_dir():
        raise DataError(f"--images {images}: expected a folder, found none")
    console = Console()
    with Progress(console) as progress:

        def show(counts: Counts) -> None:
            progress.show(counts.records, "records", f", {counts.set_aside:,} set aside")

        counts = run_conversion(
            args.format,
            Source(args.source, images, options),
            args.out,
            MetadataOverrides(args.dataset, args.split, args.licence),
            workers=args.workers,
            on_progress=show,
        )
    print_conversion(counts, first_examples(args.out), console)
    console.print(f"Dataset: {args.out.resolve()}", highlight=False, markup=False, soft_wrap=True)
    _judge(counts, args.source, "was set aside", args.out / "quarantine.parquet", args.max_bad)


def export(args: argparse.Namespace) -> None:
    """Write a dataset back."""
    from geovlm_ray.core.errors import DataError
    from geovlm_ray.core.files import read_object
    from geovlm_ray.data.convert import CARD
    from geovlm_ray.data.formats import FORMATS
    from geovlm_ray.data.parquet import open_datasets

    restore = _format(args.format).restore
    if restore is None:
        able = ", ".join(name for name, form in FORMATS.items() if form.restore is not None)
        raise DataError(f"{args.format} cannot be written back, only {able} can")
    datasets = open_datasets(args.dir)
    card = args.dir / CARD
    if len(datasets) > 1 or not card.is_file():
        raise DataError(f"{args.dir}: expected one dataset with its {CARD}, found {len(datasets)} datasets below it")
    about = read_object(card)
    if about.get("format") != args.format:
        raise DataError(f"{args.dir}: expected a dataset converted from {args.format}, found {about.get('format')!r}")
    if args.out.exists():
        raise DataError(f"{args.out}: expected no such file or folder, found one; remove it first")
    restore((row for _, _, row in datasets[0].rows()), about.get("header", {}), args.out)
    print(f"Written: {args.out.resolve()}")
    if about.get("set_aside"):
        where = args.dir / "quarantine.parquet"
        print(f"Without the {about['set_aside']} entries that conversion set aside, see {where}", file=sys.stderr)


def validate(args: argparse.Namespace) -> None:
    """Check datasets, write their quarantines and say what was found."""
    from rich.console import Console

    from geovlm_ray.commands.progress import Progress
    from geovlm_ray.core.errors import DataError
    from geovlm_ray.data.parquet import open_datasets
    from geovlm_ray.data.validation.validate import validate as run_validation
    from geovlm_ray.report.data_tables import print_validation

    datasets = open_datasets(args.dir, args.root)
    console = Console()
    with Progress(console) as progress:
        report = run_validation(
            datasets,
            need_images=args.images == "required",
            workers=args.workers,
            on_progress=lambda what, done: progress.show(done, f"{what} checked"),
        )
    print_validation(report, console)
    if report.unreadable:
        raise DataError(f"{args.dir}: {len(report.unreadable)} shards cannot be read: convert the source again")
    _judge(report, args.dir, "of the records are bad", Path("quarantine.parquet"), args.max_bad)


def stats(args: argparse.Namespace) -> None:
    """Print the numbers, and write them."""
    from rich.console import Console

    from geovlm_ray.commands.progress import Progress
    from geovlm_ray.core.files import write_atomically
    from geovlm_ray.data.parquet import open_datasets
    from geovlm_ray.data.stats import gather
    from geovlm_ray.report.data_tables import print_stats

    console = Console()
    with Progress(console) as progress:
        found = gather(open_datasets(args.dir), workers=args.workers, on_progress=lambda n: progress.show(n, "records"))
    print_stats(found, console)
    if args.json:
        write_atomically(args.json, json.dumps(found.plain(), indent=2, ensure_ascii=False) + "\n")


def preview(args: argparse.Namespace) -> None:
    """Write the page."""
    from geovlm_ray.core.files import write_atomically
    from geovlm_ray.data.parquet import open_datasets
    from geovlm_ray.report.preview import preview as make_page

    datasets = open_datasets(args.dir, args.root)
    page = make_page(datasets, each=args.each, seed=args.seed, need_images=args.images == "required")
    write_atomically(args.out, page)
    print(f"Preview: {args.out.resolve()}")


def scenes(args: argparse.Namespace) -> None:
    """Write the picture."""
    from geovlm_ray.core.errors import ConfigError
    from geovlm_ray.report.scenes import contact_sheet

    if args.out.suffix.lower() != ".png":
        raise ConfigError(f"--out: expected the name of a PNG, found {args.out}")
    contact_sheet(args.seed, args.each).save(args.out)
    print(f"Scenes: {args.out.resolve()}")


def _judge(found: Counts | ValidationReport, source: Path, bad: str, quarantine: Path, max_bad: float) -> None:
    """Raise DataError where there are no records, or too much is bad."""
    from geovlm_ray.core.errors import DataError

    if not found.records:
        raise DataError(f"{source}: expected records, found none")
    if found.bad_fraction > max_bad:
        raise DataError(
            f"{source}: {found.bad_fraction:.2%} {bad}, at most {max_bad:.2%} (--max-bad) may be; which and why is in "
            f"{quarantine}"
        )


def _format(name: str) -> Format:
    from geovlm_ray.core.errors import ConfigError
    from geovlm_ray.data.formats import FORMATS

    if name not in FORMATS:
        raise ConfigError(f"FORMAT: expected one of {', '.join(FORMATS)}, found {name!r}{_near(name, FORMATS)}")
    return FORMATS[name]


def _options(name: str, given: Iterable[str]) -> dict[str, str]:
    """The options of a format with their defaults, and what the command line says instead."""
    from geovlm_ray.core.errors import ConfigError

    options = dict(_format(name).options)
    for argument in given:
        key, equals, value = argument.partition("=")
        if not equals:
            raise ConfigError(f"{argument!r}: expected option=value")
        if key not in options:
            known = f"expected one of {', '.join(options)}" if options else "the format has none"
            raise ConfigError(f"unknown option {key!r} of {name}; {known}{_near(key, options)}")
        options[key] = value
    return options


def _near(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]!r}?" if close else ""

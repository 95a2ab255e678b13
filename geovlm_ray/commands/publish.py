"""Arguments and messages of commands that publish a folder on the Hugging Face Hub."""

from __future__ import annotations

import argparse

from rich.console import Console

from geovlm_ray.core.hub import Publication


def add_push_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `publish`."""
    hub = parser.add_argument_group("publishing on the Hugging Face Hub")
    hub.add_argument("--push", metavar="OWNER/NAME", help="upload the folder to this repository; it is made if absent")
    hub.add_argument("--private", action="store_true", help="make a private repository")
    hub.add_argument("--dry-run", action="store_true", help="list what --push would upload, without the network")


def publish(publication: Publication, args: argparse.Namespace, console: Console) -> None:
    """Upload a folder, or with ``--dry-run`` list what would be uploaded.

    Raises:
        RunError: the Hub cannot be reached or refuses.
    """
    if args.dry_run:
        for name, size in publication.files.items():
            console.print(f"  {name}  {size:,} bytes", markup=False)
        console.print(f"Would upload {publication.description}")
        return
    console.print(f"Uploading {publication.description} ...")
    console.print(f"Published: {publication.push(private=args.private)}")

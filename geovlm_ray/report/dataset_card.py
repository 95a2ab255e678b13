"""The card of a converted dataset on the Hugging Face Hub: records, classes, licences, columns and how to load it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from geovlm_ray import __version__
from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import read_object
from geovlm_ray.data.convert import CARD
from geovlm_ray.data.parquet import Dataset
from geovlm_ray.data.stats import Stats
from geovlm_ray.report.page import render

README = "README.md"
MAX_CLASSES = 40
"""Classes of a task that are listed."""
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""Size categories of the Hub with their upper limits."""


def public_files(folder: Path, stats: Stats) -> dict[str, bytes]:
    """The files of a converted dataset that differ from those in its folder: the card, and facts without local paths.

    Raises:
        DataError: the folder has no ``dataset.json``.
    """
    if not (folder / CARD).is_file():
        raise DataError(f"{folder}: expected a dataset of `geovlm-ray data convert` with its {CARD}, found none")
    facts = read_object(folder / CARD)
    has_images = facts.get("image_root") == "."
    local = {str(facts.get(key, "")) for key in ("source", "image_root")} - {"", "."}
    notes = [note for note in facts.get("notes", ()) if not any(path in note for path in local)]
    public = {**facts, "source": Path(str(facts.get("source", ""))).name, "image_root": ".", "notes": notes}
    text = dataset_card(folder, public, stats, has_images=has_images)
    return {README: text.encode(), CARD: (json.dumps(public, indent=2) + "\n").encode()}


def dataset_card(folder: Path, facts: Mapping[str, Any], stats: Stats, *, has_images: bool) -> str:
    """The card: Markdown with YAML metadata."""
    licences: Counter[str] = Counter(row.licence for _, _, row in Dataset(folder, folder).rows())
    total = sum(stats.groups.values())
    metadata = DatasetCardData(
        language="en",
        license="other",
        size_categories=next((name for limit, name in SIZES if total < limit), "n>1M"),
        task_categories=["visual-question-answering", "object-detection", "image-to-text"],
        tags=["remote-sensing", "earth-observation", "geovlm-ray"],
        configs=[{"config_name": "default", "data_files": "part-*.parquet"}],
    )
    names = sorted({name for name, _, _ in stats.groups if name})
    text = render(
        "dataset_card.md",
        title=", ".join(names) or facts["source"] or folder.name,
        version=__version__,
        format=facts.get("format"),
        groups=[(name, split, task, f"{n:,}") for (name, split, task), n in sorted(stats.groups.items())],
        licences=[(licence or "not stated", f"{n:,}") for licence, n in licences.most_common()],
        classes=[
            (task, ", ".join(f"{name} ({n:,})" for name, n in part.classes.ranked()[:MAX_CLASSES]))
            for task, part in sorted(stats.tasks.items())
            if part.classes.names
        ],
        options=facts.get("options") or {},
        notes=facts.get("notes") or [],
        set_aside=facts.get("set_aside") or 0,
        has_images=has_images,
    )
    return str(DatasetCard(f"---\n{metadata}\n---\n\n{text}"))

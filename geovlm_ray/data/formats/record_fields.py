"""Fields that records of questions and answers have in common: images, split, metadata, unknown keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from geovlm_ray.core.errors import DataError, did_you_mean
from geovlm_ray.data.formats.base import Source, Unit, field_of, image_reference, short_repr
from geovlm_ray.data.formats.files import SPLITS, normalize_split, split_from_name

IMAGE_KEYS = ("images", "image", "image_path", "image_paths")
PATH_KEYS = ("path", "image", "image_url", "url")
METADATA_KEYS = ("split", "sensor", "gsd", "licence", "license")
TYPO_SIMILARITY = 0.8
"""Similarity of an unknown key to a known one from which it is taken for a misspelling."""


def image_references(record: Mapping[str, Any], source: Source, embedded: Sequence[str] = ()) -> tuple[str, ...]:
    """The images of a record: those under its image keys, else ``embedded`` ones from its messages.

    Raises:
        DataError: an image is neither a path nor an object with one, or lies outside the image root.
    """
    for key in IMAGE_KEYS:
        value = record.get(key)
        if value is not None and value != []:
            items = value if isinstance(value, list) else [value]
            return tuple(image_path(key, item, source) for item in items)
    if not embedded:
        raise DataError(f"expected an image under one of {', '.join(IMAGE_KEYS)}, found only {', '.join(record)}"[:500])
    return tuple(embedded)


def check_placeholders(questions: Sequence[str], images: Sequence[str]) -> None:
    """Check that the placeholders ``<image>`` of a record's questions are as many as its images, if it has any.

    Each question may also repeat the placeholders of all images.

    Raises:
        DataError: there are more or fewer.
    """
    counts = [n for question in questions if (n := question.count("<image>"))]
    if counts and sum(counts) != len(images) and any(n != len(images) for n in counts):
        raise DataError(f"images: expected one for each placeholder <image>, {sum(counts)} in all, found {len(images)}")


def image_path(key: str, value: Any, source: Source) -> str:
    """An image path relative to the image root, from a path or an object with one; an absolute one must lie below it.

    Raises:
        DataError: the value is something else, is a URL or image data, or lies outside the image root.
    """
    if isinstance(value, Mapping):
        value = next((value[name] for name in PATH_KEYS if value.get(name) is not None), value)
        if isinstance(value, Mapping) and value.get("url") is not None:
            value = value["url"]
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{key}: expected the path of an image, found {short_repr(value)}")
    path = value.strip().removeprefix("file://")
    if "://" in path[:12] or path.startswith("data:"):
        raise DataError(
            f"{key}: expected the path of an image file, found {short_repr(path[:80])}; save the image first"
        )
    if path.startswith("/"):
        root = source.images.resolve()
        if not Path(path).is_relative_to(root):
            raise DataError(
                f"{key}: expected a path below the image root {root}, found {short_repr(path)}; give --images with the "
                "folder that holds all images"
            )
        path = Path(path).relative_to(root).as_posix()
    return image_reference(path)


def split_of(record: Mapping[str, Any], unit: Unit, source: Source, default: str = "train") -> str:
    """The split of a record: its own, else that of its file's folder or name."""
    value = record.get("split")
    if value is not None:
        return normalize_split(field_of(record, "split")) or default
    return split_of_file(unit.file, source, default)


def split_of_file(file: str, source: Source, default: str = "train") -> str:
    """The split that the source's folder, a folder below it (such as ``labels_val2017``) or the file's name states.

    The first that states one counts, from the top; else it is ``default``.
    """
    folder = source.folder.resolve().name
    if folder.lower() in SPLITS:
        return normalize_split(folder)
    names = (*PurePosixPath(file).parts[:-1], PurePosixPath(file).stem)
    return next((split for name in names if (split := split_from_name(name, ""))), default)


def positive_number(record: Mapping[str, Any], key: str) -> float | None:
    """A positive number under a key; None if it is absent or null.

    Raises:
        DataError: the value is something else.
    """
    value = record.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        raise DataError(f"{key}: expected a positive number, found {short_repr(value)}")
    return float(value)


def optional_text(record: Mapping[str, Any], key: str) -> str | None:
    """A text under a key; None if it is absent, null or blank.

    Raises:
        DataError: the value is something else.
    """
    value = record.get(key)
    return (field_of(record, key).strip() or None) if value is not None else None


def licence_of(record: Mapping[str, Any]) -> str:
    """The licence of a record; empty if it states none."""
    return optional_text(record, "licence") or optional_text(record, "license") or ""


def check_spelling(record: Mapping[str, Any], known: Sequence[str]) -> None:
    """Reject a key that is not known but spelled nearly like a known key that the record lacks.

    Raises:
        DataError: there is such a key.
    """
    absent = [key for key in known if record.get(key) is None]
    for key in record:
        if key not in known and (near := did_you_mean(key.lower(), absent, TYPO_SIMILARITY)):
            raise DataError(f"unknown key {key!r}{near} Correct, rename or remove it")

"""BigEarthNet (Sumbul et al., 2019 and 2021): patches of Sentinel-1 or Sentinel-2 bands as 8-bit RGB images.

A patch is a folder with one TIFF per band. Its CORINE classes are in ``*_labels_metadata.json`` beside them (version 1)
or, as 19 classes, in a table of all patches (version 2, `geovlm_ray.data.formats.bigearthnet_metadata`). Sentinel-2
patches become true-colour images: reflectance 0 to 0.2 (stored as 0 to 2000) of bands 4, 3 and 2 as red, green and
blue. Sentinel-1 patches become the usual dual-polarisation false colour: backscatter in VV, in VH, and VV - VH, each
over a fixed range of decibels, so that images are comparable. The images are written to the output folder.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example
from geovlm_ray.data import tiff
from geovlm_ray.data.formats.base import Format, Source, Unit, field_of, short_repr
from geovlm_ray.data.formats.bigearthnet_metadata import ListedPatch, listed_patches, table_of
from geovlm_ray.data.formats.files import choice_option, folder_units, split_of_folder
from geovlm_ray.data.formats.streams import external_link, read_single_object, relative
from geovlm_ray.data.images import image_size
from geovlm_ray.data.table import Row
from geovlm_ray.tasks.answers.labels import BIGEARTHNET_19, BIGEARTHNET_43

VOCABULARIES = {"43": BIGEARTHNET_43, "19": BIGEARTHNET_19}
LABELS = ("auto", *VOCABULARIES)
"""Choices of the nomenclature; ``auto`` is that of the version, 43 or 19."""
METADATA = "_labels_metadata.json"
GSD_METRES = 10.0
WHITE_LEVEL = 2000
"""Stored value (reflectance times 10,000) that maps to 255."""
DECIBEL_RANGES = np.array([[-25.0, 0.0], [-30.0, -5.0], [0.0, 15.0]])
"""Decibels that map to 0 and 255, for VV, VH and VV - VH."""
MAX_PATCH_PIXELS = 2**22

# The 19-class nomenclature (Sumbul et al., 2021, BigEarthNet-MM). Of the 43 classes missing here, those with the same
# name in both nomenclatures map to themselves, the rest are dropped.
_MERGED_CLASSES = {
    "Urban fabric": ("Continuous urban fabric", "Discontinuous urban fabric"),
    "Arable land": ("Non-irrigated arable land", "Permanently irrigated land", "Rice fields"),
    "Permanent crops": (
        "Vineyards",
        "Fruit trees and berry plantations",
        "Olive groves",
        "Annual crops associated with permanent crops",
    ),
    "Natural grassland and sparsely vegetated areas": ("Natural grassland", "Sparsely vegetated areas"),
    "Moors, heathland and sclerophyllous vegetation": ("Moors and heathland", "Sclerophyllous vegetation"),
    "Transitional woodland, shrub": ("Transitional woodland/shrub",),
    "Inland wetlands": ("Inland marshes", "Peatbogs"),
    "Coastal wetlands": ("Salt marshes", "Salines"),
    "Inland waters": ("Water courses", "Water bodies"),
    "Marine waters": ("Coastal lagoons", "Estuaries", "Sea and ocean"),
}
TO_19: dict[str, str] = {name: name for name in BIGEARTHNET_43 if name in BIGEARTHNET_19} | {
    old: new for new, merged in _MERGED_CLASSES.items() for old in merged
}


def units(source: Source) -> Iterator[Unit]:
    """The metadata file of each patch, or each patch of the table of version 2."""
    nomenclature = choice_option(source, "labels", LABELS)
    if (table := table_of(source)) is not None:
        if nomenclature == "43":
            raise DataError("option labels: expected 19, since version 2 has no other classes, found '43'")
        link = external_link(table, source)
        yield from [link] if link is not None else listed_patches(table, source)
        return

    def patch_units(folder: Path, files: list[str]) -> Iterator[Unit]:
        for path in (folder / name for name in files if name.endswith(METADATA)):
            yield external_link(path, source) or Unit(relative(path, source), 1, str(path))

    yield from folder_units(source, patch_units, f"*{METADATA}")


def convert(unit: Unit, source: Source) -> Iterable[Row]:
    """The records and images of a patch; none if it has no folder, or no class in the nomenclature."""
    if unit.value is None:
        return
    if isinstance(unit.value, ListedPatch):
        patch = unit.value
        for folder in patch.folders:
            row = _row(relative(folder / folder.name, source), folder, patch.labels, "19", source)
            extra = {"country": patch.country} if patch.country else {}
            yield replace(row, example=replace(row.example, split=patch.split), extra=extra)
        return
    metadata = Path(unit.value)
    nomenclature = "19" if choice_option(source, "labels", LABELS) == "19" else "43"
    labels = _labels(read_single_object(metadata), nomenclature)
    if labels:
        yield _row(unit.file.removesuffix(METADATA), metadata.parent, labels, nomenclature, source)


def _row(name: str, folder: Path, labels: tuple[str, ...], nomenclature: str, source: Source) -> Row:
    """The record and the image of the bands in a folder."""
    bands = {path.stem.rpartition("_")[2]: path for path in sorted(folder.glob("*.tif"))}
    if bands.keys() >= {"B04", "B03", "B02"}:
        sensor, image = "Sentinel-2", _true_colour(bands, source)
    elif bands.keys() >= {"VV", "VH"}:
        sensor, image = "Sentinel-1", _false_colour(bands, source)
    else:
        raise DataError(f"expected bands B04, B03, B02 or VV, VH, found {', '.join(bands) or 'none'}")
    vocabulary = VOCABULARIES[nomenclature]
    example = Example(
        id=name,
        task="multilabel_classification",
        images=(f"images/{name}.png",),
        question=f"Which of these land-cover classes does the image show: {'; '.join(vocabulary)}?",
        target=labels,
        dataset="BigEarthNet",
        split=split_of_folder(folder, source),
        labels=vocabulary,
        sensor=sensor,
        gsd=GSD_METRES,
    )
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return Row(example, files={example.images[0]: content.getvalue()})


def _labels(metadata: Mapping[str, object], nomenclature: str) -> tuple[str, ...]:
    """The classes of a patch, in the order of its metadata."""
    names = field_of(metadata, "labels", list)
    unknown = [n for n in names if n not in BIGEARTHNET_43]
    if unknown or not names:
        raise DataError(
            f"labels: expected names of the 43 classes, found {short_repr(unknown[0] if unknown else names)}"
        )
    return tuple(names if nomenclature == "43" else dict.fromkeys(TO_19[n] for n in names if n in TO_19))


def _true_colour(bands: Mapping[str, Path], source: Source) -> np.ndarray:
    stack = _stack(bands, ("B04", "B03", "B02"), source)
    return (stack / WHITE_LEVEL * 255).clip(0, 255).astype(np.uint8)


def _false_colour(bands: Mapping[str, Path], source: Source) -> np.ndarray:
    vv, vh = np.moveaxis(_stack(bands, ("VV", "VH"), source).astype(np.float32), -1, 0)
    low, high = DECIBEL_RANGES.T
    with np.errstate(invalid="ignore"):
        scaled = (np.stack([vv, vh, vv - vh], axis=-1) - low) / (high - low)
    return (np.nan_to_num(scaled).clip(0, 1) * 255).astype(np.uint8)


def _stack(bands: Mapping[str, Path], names: tuple[str, ...], source: Source) -> np.ndarray:
    """Bands as [rows, columns, n]."""
    stack = [_band(bands[name], source) for name in names]
    if len({band.shape for band in stack}) > 1:
        sizes = ", ".join(f"{name} {band.shape}" for name, band in zip(names, stack, strict=True))
        raise DataError(f"expected bands of one size, found {sizes}")
    return np.stack(stack, axis=-1)


def _band(path: Path, source: Source) -> np.ndarray:
    """The values of a band, [rows, columns]."""
    if (link := external_link(path, source)) is not None:
        raise DataError(f"{path.name}: {link.problem}")
    width, height = image_size(str(path))
    if width * height > MAX_PATCH_PIXELS:
        raise DataError(f"{path.name}: expected a patch of at most {MAX_PATCH_PIXELS} pixels, found {width} x {height}")
    try:
        with path.open("rb") as file:
            raster = tiff.read_raster(file)
    except tiff.UNREADABLE as error:
        raise DataError(f"{path.name}: expected a TIFF that decodes, found: {str(error)[:300]}") from error
    if raster is None or raster.values.shape[2] != 1:
        found = "a colour image" if raster is None else f"{raster.values.shape[2]}"
        raise DataError(f"{path.name}: expected one band, found {found}")
    return raster.values[..., 0]


BIGEARTHNET = Format(
    "BigEarthNet, versions 1 and 2: Sentinel-1 and Sentinel-2 patches as RGB images; labels=auto, 43 or 19",
    units,
    convert,
    options={"labels": "auto"},
    stores_images=lambda source: True,
)

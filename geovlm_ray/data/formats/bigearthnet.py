"""BigEarthNet (Sumbul et al., 2019 and 2021): patches of Sentinel-1 or Sentinel-2 bands, as pictures in 8 bits.

A patch is a folder with a TIFF for each band and ``*_labels_metadata.json`` with the CORINE classes that it shows. Of
Sentinel-2 the picture is true colour: reflectance of the bands 4, 3 and 2, 0 to 0.2 (2000), as red, green and blue. Of
Sentinel-1 it is the usual false colour of two polarisations: backscatter in VV, in VH, and the difference of the two,
each over a fixed range of decibels, so that pictures can be compared. The pictures are written beside the records.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Example
from geovlm_ray.data import tiff
from geovlm_ray.data.formats.base import Converted, Format, Source, Unit, field_of, shown
from geovlm_ray.data.formats.files import chosen, folder_units, split_of_folder
from geovlm_ray.data.formats.streams import outside, read_object, relative
from geovlm_ray.data.images import image_size
from geovlm_ray.data.table import Row
from geovlm_ray.tasks.labels import BIGEARTHNET_19, BIGEARTHNET_43

VOCABULARIES = {"43": BIGEARTHNET_43, "19": BIGEARTHNET_19}
METADATA = "_labels_metadata.json"
METRES = 10.0
BRIGHTEST = 2000
"""Ten thousand times the reflectance that is shown white."""
DECIBELS = np.array([[-25.0, 0.0], [-30.0, -5.0], [0.0, 15.0]])
"""What is shown black and full, of VV, VH and VV - VH."""
LARGEST_PATCH = 2**22

# The nomenclature of 19 classes (Sumbul et al., 2021, BigEarthNet-MM); classes that stand nowhere here have no place
# in it, those of the same name map to themselves.
_MERGED = {
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
    old: new for new, merged in _MERGED.items() for old in merged
}


def units(source: Source) -> Iterator[Unit]:
    """The folders that hold labels.

    Raises:
        DataError: there is none.
    """
    chosen(source, "labels", tuple(VOCABULARIES))

    def of_folder(folder: Path, files: list[str]) -> Iterator[Unit]:
        for path in (folder / name for name in files if name.endswith(METADATA)):
            yield outside(path, source) or Unit(relative(path, source), 1, str(path))

    yield from folder_units(source, of_folder, f"*{METADATA}")


def convert(unit: Unit, source: Source) -> Iterable[Converted]:
    """The record of a patch and its picture; none where no class of the patch is in the nomenclature."""
    metadata = Path(unit.value)
    nomenclature = chosen(source, "labels", tuple(VOCABULARIES))
    labels = _labels(read_object(metadata), nomenclature)
    if not labels:
        return
    bands = {path.stem.rpartition("_")[2]: path for path in sorted(metadata.parent.glob("*.tif"))}
    if bands.keys() >= {"B04", "B03", "B02"}:
        sensor, picture = "Sentinel-2", _true_colour(bands, source)
    elif bands.keys() >= {"VV", "VH"}:
        sensor, picture = "Sentinel-1", _false_colour(bands, source)
    else:
        raise DataError(f"expected bands B04, B03, B02 or VV, VH, found {', '.join(bands) or 'none'}")
    vocabulary = VOCABULARIES[nomenclature]
    name = unit.file.removesuffix(METADATA)
    example = Example(
        id=name,
        task="multilabel_classification",
        images=(f"images/{name}.png",),
        question=f"Which of these land-cover classes does the image show: {'; '.join(vocabulary)}?",
        target=labels,
        dataset="BigEarthNet",
        split=split_of_folder(metadata.parent, source),
        labels=vocabulary,
        sensor=sensor,
        gsd=METRES,
    )
    yield Converted(Row(example), {f"images/{name}.png": _png(picture)})


def _labels(metadata: Mapping[str, object], nomenclature: str) -> tuple[str, ...]:
    """The classes of a patch, in its order.

    Raises:
        DataError: there are none, or one is not of the 43.
    """
    names = field_of(metadata, "labels", list)
    unknown = [n for n in names if n not in BIGEARTHNET_43]
    if unknown or not names:
        raise DataError(f"labels: expected names of the 43 classes, found {shown(unknown[0] if unknown else names)}")
    return tuple(names if nomenclature == "43" else dict.fromkeys(TO_19[n] for n in names if n in TO_19))


def _true_colour(bands: Mapping[str, Path], source: Source) -> np.ndarray:
    stack = _stack(bands, ("B04", "B03", "B02"), source)
    return (stack / BRIGHTEST * 255).clip(0, 255).astype(np.uint8)


def _false_colour(bands: Mapping[str, Path], source: Source) -> np.ndarray:
    vv, vh = np.moveaxis(_stack(bands, ("VV", "VH"), source).astype(np.float32), -1, 0)
    low, high = DECIBELS.T
    with np.errstate(invalid="ignore"):
        share = (np.stack([vv, vh, vv - vh], axis=-1) - low) / (high - low)
    return (np.nan_to_num(share).clip(0, 1) * 255).astype(np.uint8)


def _stack(bands: Mapping[str, Path], names: tuple[str, ...], source: Source) -> np.ndarray:
    """Bands as [rows, columns, n].

    Raises:
        DataError: one leads out of the source, does not decode, or is not of the size of the others.
    """
    stack = [_band(bands[name], source) for name in names]
    if len({band.shape for band in stack}) > 1:
        sizes = ", ".join(f"{name} {band.shape}" for name, band in zip(names, stack, strict=True))
        raise DataError(f"expected bands of one size, found {sizes}")
    return np.stack(stack, axis=-1)


def _band(path: Path, source: Source) -> np.ndarray:
    """The values of a band, [rows, columns]."""
    if (away := outside(path, source)) is not None:
        raise DataError(f"{path.name}: {away.problem}")
    width, height = image_size(str(path))
    if width * height > LARGEST_PATCH:
        raise DataError(f"{path.name}: expected a patch, found {width} x {height} pixels")
    try:
        raster = tiff.read_raster(path)
    except tiff.UNREADABLE as error:
        raise DataError(f"{path.name}: expected a TIFF that decodes, found: {str(error)[:300]}") from error
    if raster is None or raster.values.shape[2] != 1:
        found = "a picture" if raster is None else f"{raster.values.shape[2]}"
        raise DataError(f"{path.name}: expected one band, found {found}")
    return raster.values[..., 0]


def _png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


BIGEARTHNET = Format(
    "BigEarthNet: patches of Sentinel-1 and Sentinel-2 bands to pictures; labels=43 or 19",
    units,
    convert,
    options={"labels": "43"},
    stores_images=True,
)

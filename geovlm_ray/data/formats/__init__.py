"""The formats of the field, by the name that ``geovlm-ray data convert`` takes; a new one is a file and a line here."""

from __future__ import annotations

from geovlm_ray.data.formats.base import Format
from geovlm_ray.data.formats.samples import SAMPLES

FORMATS: dict[str, Format] = {
    "samples": SAMPLES,
}

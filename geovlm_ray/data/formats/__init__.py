"""Dataset formats by the name that ``geovlm-ray data convert`` takes; a new format is one module and one line here."""

from __future__ import annotations

from geovlm_ray.data.formats.base import Format
from geovlm_ray.data.formats.bigearthnet import BIGEARTHNET
from geovlm_ray.data.formats.caption_files import CAPTION_FILES
from geovlm_ray.data.formats.captions import CAPTIONS
from geovlm_ray.data.formats.chat import CHAT
from geovlm_ray.data.formats.coco import COCO
from geovlm_ray.data.formats.dota import DOTA
from geovlm_ray.data.formats.earthdial import EARTHDIAL
from geovlm_ray.data.formats.earthdial_results import EARTHDIAL_RESULTS
from geovlm_ray.data.formats.fmow import FMOW
from geovlm_ray.data.formats.folders import FOLDERS
from geovlm_ray.data.formats.geochat import GEOCHAT
from geovlm_ray.data.formats.geojson import GEOJSON
from geovlm_ray.data.formats.qa import QA
from geovlm_ray.data.formats.rsicap import RSICAP
from geovlm_ray.data.formats.rsvqa import RSVQA
from geovlm_ray.data.formats.samples import SAMPLES
from geovlm_ray.data.formats.teochat import TEOCHAT
from geovlm_ray.data.formats.voc import VOC
from geovlm_ray.data.formats.vrsbench import VRSBENCH
from geovlm_ray.data.formats.xbd import XBD
from geovlm_ray.data.formats.yolo import YOLO

FORMATS: dict[str, Format] = {
    "geochat": GEOCHAT,
    "earthdial": EARTHDIAL,
    "earthdial-results": EARTHDIAL_RESULTS,
    "vrsbench": VRSBENCH,
    "teochat": TEOCHAT,
    "rsvqa": RSVQA,
    "coco": COCO,
    "dota": DOTA,
    "voc": VOC,
    "yolo": YOLO,
    "geojson": GEOJSON,
    "captions": CAPTIONS,
    "caption-files": CAPTION_FILES,
    "rsicap": RSICAP,
    "bigearthnet": BIGEARTHNET,
    "xbd": XBD,
    "fmow": FMOW,
    "folders": FOLDERS,
    "chat": CHAT,
    "qa": QA,
    "samples": SAMPLES,
}

"""Recognition of a source's format, for ``data convert auto`` and for errors about files of another format.

A rule per format looks at the beginning of the source (`Evidence`) and says in a few words what it recognized. The
rules of published datasets are specific; those of chat records and of questions count if no published dataset of
records is recognized, and that of image folders if nothing else is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from geovlm_ray.core.errors import DataError
from geovlm_ray.data.formats import bigearthnet, earthdial_results, fmow, xbd
from geovlm_ray.data.formats.base import Source
from geovlm_ray.data.formats.chat import TURN_KEYS
from geovlm_ray.data.formats.evidence import Evidence, collect_evidence
from geovlm_ray.data.formats.files import SPLITS
from geovlm_ray.data.formats.prompts import sensor_of
from geovlm_ray.data.formats.qa import ANSWER_KEYS, QUESTION_KEYS, QUESTION_ROLES
from geovlm_ray.data.formats.record_fields import IMAGE_KEYS
from geovlm_ray.data.geo.layers import ENDINGS as LAYER_ENDINGS

LABEL_SHARE = 0.05
"""Least number of label files per image for a folder of images to be a detection dataset."""
NO_CLASSES = frozenset(("images", "image", "imgs", "img", "labels", "label", "masks", "a", "b", "jpegimages", *SPLITS))
"""Names of folders that do not name a class of images."""
LINE_FORMATS = ("dota", "yolo", "caption-files", "folders")
"""Formats whose readers cannot tell files of another format from their own."""

RECORD_FORMATS = frozenset(
    ("geochat", "earthdial", "earthdial-results", "vrsbench", "teochat", "rsvqa", "captions", "rsicap", "samples")
)
"""Specific formats of JSON records, which generic readers would also recognize."""

_GEOCHAT = re.compile(r"\[(?:refer|grounding|identify)\]|\{\s*<\d")
_VRSBENCH = re.compile(r"vrsbench", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d+(?:\.\d*)?(?:e-?\d+)?", re.IGNORECASE)
_LEAST_OF_YOLO = 5
"""Numbers of a line: class and box; more are a confidence, four corners or those of a segment."""
Rule = Callable[[Source, Evidence], str]


def recognize(source: Source) -> dict[str, str]:
    """The formats that a source looks like, each with what it was recognized by."""
    evidence = collect_evidence(source)
    found = {name: reason for name, rule in SPECIFIC.items() if (reason := rule(source, evidence))}
    if not found.keys() & RECORD_FORMATS:
        found |= {name: reason for name, rule in GENERIC.items() if (reason := rule(source, evidence))}
    if not found and (reason := _folders(source, evidence)):
        found["folders"] = reason
    return found


def recognized_format(source: Source) -> tuple[str, str]:
    """The one format that a source looks like, and what it was recognized by.

    Raises:
        DataError: the source looks like none or several.
    """
    if not source.path.exists():
        raise DataError(f"{source.path}: expected a file or folder, found none")
    found = recognize(source)
    if len(found) == 1:
        return next(iter(found.items()))
    if not found:
        evidence = collect_evidence(source)
        if not evidence.files:
            raise DataError(f"{source.path}: expected a source of a known format, found no files")
        endings = sorted({PurePosixPath(name).suffix or name for name in evidence.files})
        unreadable = "".join(f"; {problem}" for problem in evidence.problems[:3])
        raise DataError(
            f"{source.path}: expected a source of a known format, found files {', '.join(endings[:12])} that look like "
            f"none{unreadable}; give the format's name instead of auto (geovlm-ray data convert --help)"
        )
    candidates = "; ".join(f"{name} ({reason})" for name, reason in found.items())
    raise DataError(
        f"{source.path}: expected a source of one format, found signs of several: {candidates}; give one of their "
        "names instead of auto, or the part of the source to convert"
    )


def refuse_other_format(name: str, source: Source) -> None:
    """Reject a source that looks like another format, for readers that would misread it.

    Raises:
        DataError: the source looks like another format.
    """
    if name in LINE_FORMATS and (hint := other_format(name, source)):
        raise DataError(f"{source.path}: expected {name}, but {hint.removeprefix('; ')}")


def other_format(name: str, source: Source) -> str:
    """``; this looks like X: ...`` if a source looks like other formats, but not like the named one; else empty."""
    found = recognize(source)
    if not found or name in found:
        return ""
    return "; this looks like " + " or ".join(f"{other}: {reason}" for other, reason in found.items())


def _records(keys: Iterable[str], evidence: Evidence) -> list[Mapping[str, Any]]:
    """The first records that have all of the keys."""
    keys = tuple(keys)
    return [r for r in evidence.records if all(r.get(key) is not None for key in keys)]


def _texts(record: Mapping[str, Any]) -> str:
    """The texts of a conversation or question, joined."""
    turns = record.get("conversations")
    values = [t.get("value") for t in turns if isinstance(t, dict)] if isinstance(turns, list) else []
    values += [record.get(key) for key in ("question", "text")]
    return "\n".join(v for v in [*values, turns] if isinstance(v, str))


def _samples(source: Source, evidence: Evidence) -> str:
    return "records have task, images, prompt" if _records(("task", "images", "prompt"), evidence) else ""


def _vrsbench(source: Source, evidence: Evidence) -> str:
    questions = [r for r in evidence.records if "conversations" in r or "image_id" in r]
    if questions and any(map(_VRSBENCH.search, (source.path.name, *evidence.files))):
        return "question files named after VRSBench"
    if any(name.lower().startswith("annotations_") for name in evidence.with_suffix(".zip")):
        return "zipped annotations"
    described = [r for r in (*evidence.records, *evidence.members) if "image" in r and "qa_pairs" in r]
    if described:
        return "JSON files with image, caption, objects and qa_pairs"
    named = [r for r in _records(("image_id", "question", "ground_truth"), evidence) if "." in str(r["image_id"])]
    return "records have image_id, question, ground_truth" if named else ""


def _geochat(source: Source, evidence: Evidence) -> str:
    if _vrsbench(source, evidence):
        return ""
    bench = [r for r in _records(("question_id",), evidence) if ("image_id" in r or "text" in r)]
    if bench:
        return "records have question_id with image_id or text (GeoChat-Bench)"
    marked = [t for r in _records(("conversations",), evidence) if _GEOCHAT.search(t := _texts(r))]
    plain = [t for t in marked if sensor_of(t) == (None, None)]
    return "conversations with [refer], [grounding], [identify] or boxes {<..>}" if plain else ""


def _earthdial(source: Source, evidence: Evidence) -> str:
    if _earthdial_results(source, evidence):
        return ""
    marked = [r for r in evidence.records if sensor_of(_texts(r)) != (None, None)]
    return "questions have a sensor token such as [hr_rgb_0.5]" if marked else ""


def _earthdial_results(source: Source, evidence: Evidence) -> str:
    folders = {*earthdial_results.LAYOUTS, earthdial_results.CHANGE_FOLDER}
    names = {source.folder.resolve().name, *(part for name in evidence.files for part in name.split("/")[:-1])}
    answered = _records(("question",), evidence)
    return f"result files in {', '.join(sorted(folders & names))}" if answered and folders & names else ""


def _teochat(source: Source, evidence: Evidence) -> str:
    return "records have video and conversations" if _records(("video", "conversations"), evidence) else ""


def _rsvqa(source: Source, evidence: Evidence) -> str:
    keys = [m.keys() & {"questions", "answers"} for m in evidence.members]
    return "files with questions and answers by id" if {"questions", "answers"} <= set().union(*keys) else ""


def _coco(source: Source, evidence: Evidence) -> str:
    if any(_has(m, "images", "file_name") and _has(m, "annotations", "bbox") for m in evidence.members):
        return "images with file_name and annotations with bbox"
    tables = [m for m in evidence.members if _has(m, "images", "file_name") and len(m) > 1]
    return "images with file_name" if tables and not any("caption" in str(m) for m in tables) else ""


def _captions(source: Source, evidence: Evidence) -> str:
    listed = [m for m in evidence.members if _has(m, "images", "filename")]
    by_class = [m for m in evidence.members if any(_has(m, k, "filename") and _has(m, k, "raw") for k in m)]
    flat = [r for r in _records(("filename",), evidence) if "captions" in r or "sentences" in r]
    return "records have filename with sentences, captions or raw" if listed or by_class or flat else ""


def _rsicap(source: Source, evidence: Evidence) -> str:
    keys = ("text_output", "caption", "qa_pairs")
    tables = [m for m in evidence.members if any(_has(m, "annotations", key) for key in keys)]
    named = [m for m in tables if _has(m, "annotations", "filename")]
    return "annotations with filename and text_output, caption or qa_pairs" if named else ""


def _has(members: Mapping[str, Any], key: str, field: str) -> bool:
    value = members.get(key)
    return isinstance(value, dict) and field in value


def _dota(source: Source, evidence: Evidence) -> str:
    return _label_lines(evidence, _is_dota_line, "text files with x1 y1 ... x4 y4 class")


def _yolo(source: Source, evidence: Evidence) -> str:
    return _label_lines(evidence, _is_yolo_line, "text files with a class number and fractions")


def _label_lines(evidence: Evidence, is_line: Callable[[str], bool], reason: str) -> str:
    """The reason, if at least half of the text files have such a line, and there are enough of them."""
    read = [lines for lines in evidence.lines.values() if lines]
    labels = sum(any(map(is_line, lines)) for lines in read)
    files = len(evidence.with_suffix(".txt")) * labels / max(len(read), 1)
    return reason if 2 * labels >= len(read) > 0 and files >= LABEL_SHARE * len(evidence.images) else ""


def _is_dota_line(line: str) -> bool:
    words = line.split()
    numeric = [bool(_NUMBER.fullmatch(word)) for word in words]
    return len(words) >= 9 and all(numeric[:8]) and not numeric[8]


def _is_yolo_line(line: str) -> bool:
    words = line.split()
    if len(words) < _LEAST_OF_YOLO or not all(map(_NUMBER.fullmatch, words)) or not words[0].isdigit():
        return False
    return all(-0.5 <= float(word) <= 1.5 for word in words[1:])


def _caption_files(source: Source, evidence: Evidence) -> str:
    if any(name.endswith("_caps.txt") for name in evidence.files):
        return "text files *_caps.txt"
    stems = {PurePosixPath(name).stem for name in evidence.images}
    beside = [lines for name, lines in evidence.lines.items() if lines and PurePosixPath(name).stem in stems]
    captions = [lines for lines in beside if 2 * sum(map(_is_text, lines)) >= len(lines)]
    return "a text file of the same name as each image" if 2 * len(captions) > len(beside) else ""


def _is_text(line: str) -> bool:
    return sum(word.isalpha() for word in line.split()) >= 3


def _voc(source: Source, evidence: Evidence) -> str:
    if {"annotation", "object"} <= evidence.tags or "HRSC_Image" in evidence.tags:
        return "XML files with annotated objects"
    return ""


def _bigearthnet(source: Source, evidence: Evidence) -> str:
    if any(name.endswith(bigearthnet.METADATA) for name in evidence.files):
        return f"files *{bigearthnet.METADATA}"
    return "a metadata file with patch_id and labels" if _records(("patch_id", "labels"), evidence) else ""


def _xbd(source: Source, evidence: Evidence) -> str:
    return f"files *{xbd.POST}.json" if evidence.with_suffix(f"{xbd.POST}.json") else ""


def _fmow(source: Source, evidence: Evidence) -> str:
    return f"files *{fmow.METADATA_SUFFIXES[0]}" if evidence.with_suffix(*fmow.METADATA_SUFFIXES) else ""


def _geojson(source: Source, evidence: Evidence) -> str:
    layers = evidence.with_suffix(*LAYER_ENDINGS)
    return f"vector layers such as {layers[0]}" if layers else ""


def _chat(source: Source, evidence: Evidence) -> str:
    for key in TURN_KEYS:
        if any(not _is_question(record) for record in _records((key,), evidence)):
            return f"records have {key}"
    return "records have prompt and completion" if _records(("prompt", "completion"), evidence) else ""


def _is_question(record: Mapping[str, Any]) -> bool:
    """Whether a record's messages are a question, with the answer under a key of its own."""
    turns = record.get("messages")
    last = turns[-1] if isinstance(turns, list) and turns and isinstance(turns[-1], dict) else {}
    return last.get("role") in QUESTION_ROLES and any(record.get(key) is not None for key in ANSWER_KEYS)


def _qa(source: Source, evidence: Evidence) -> str:
    for record in (r for r in evidence.records if _is_question(r) or not any(key in r for key in TURN_KEYS)):
        question = next((key for key in QUESTION_KEYS if record.get(key) is not None), None)
        answer = next((key for key in (*ANSWER_KEYS, "reward_model") if record.get(key) is not None), None)
        image = next((key for key in IMAGE_KEYS if record.get(key) is not None), None)
        if question and answer and (image or isinstance(record[question], list)):
            return f"records have {question} and {answer}"
    return ""


def _folders(source: Source, evidence: Evidence) -> str:
    parents = {PurePosixPath(name).parent.name for name in evidence.images}
    classes = sorted(name for name in parents if name and name.lower() not in NO_CLASSES)
    return f"images in folders such as {', '.join(classes[:3])}" if len(classes) > 1 else ""


SPECIFIC: dict[str, Rule] = {
    "geochat": _geochat,
    "earthdial": _earthdial,
    "earthdial-results": _earthdial_results,
    "vrsbench": _vrsbench,
    "teochat": _teochat,
    "rsvqa": _rsvqa,
    "coco": _coco,
    "dota": _dota,
    "voc": _voc,
    "yolo": _yolo,
    "geojson": _geojson,
    "captions": _captions,
    "caption-files": _caption_files,
    "rsicap": _rsicap,
    "bigearthnet": _bigearthnet,
    "xbd": _xbd,
    "fmow": _fmow,
    "samples": _samples,
}
GENERIC: dict[str, Rule] = {"chat": _chat, "qa": _qa}

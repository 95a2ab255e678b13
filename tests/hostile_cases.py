"""Commands with hostile arguments and inputs: every argument and every file that a command reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from geovlm_ray.core.schema import Example
from geovlm_ray.data.formats import FORMATS
from geovlm_ray.model.loading import model_folder
from tests.hostile import CONTENTS, FILES, NAMES, STRINGS, place
from tests.hostile_arguments import ARGUMENTS, CHAT, ON_MAP, PREDICT, SCENE, TRAIN
from tests.unit.comparison import Model, make_run
from tests.unit.datasets import example, write_dataset, write_image, write_scenes_dataset
from tests.unit.test_plan import VALUES

Prepare = Callable[[Path], Any]


@dataclass(frozen=True)
class Case:
    """A command in a folder with copies of `materials`, after ``prepare`` has changed them."""

    label: str
    arguments: list[str]
    needs: tuple[str, ...] = ()
    prepare: Prepare = lambda folder: None
    stdin: bytes = b""


def write_materials(folder: Path) -> Path:
    """Valid inputs of all commands: runs, a dataset and its source, records, rates, an image and a model."""
    for name, skill in (("run", 0.4), ("other", 0.8)):
        run = make_run(folder / name, Model(skill, name), evaluated=(1, 3))
        (run / "actors").mkdir()
        shutil.copy(run / "summary.json", run / "summary.copy.json")
    write_scenes_dataset(folder / "data", each=1)
    write_image(folder / "scene.png", 0)
    record = {"id": 1, "task": "vqa", "response": "<think>a</think><answer>b</answer>", "target": "b"}
    (folder / "records.jsonl").write_text(json.dumps(record) + "\n")
    sample = {"id": 1, "task": "vqa", "images": ["scene.png"], "prompt": "what ?", "reference": "x"}
    (folder / "source.jsonl").write_text(json.dumps(sample) + "\n")
    shape = {"type": "Polygon", "coordinates": [[[1, 1], [30, 1], [30, 20], [1, 20], [1, 1]]]}
    feature = {"type": "Feature", "properties": {"label": "ship"}, "geometry": shape}
    (folder / "truth.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    (folder / "rates.json").write_text(json.dumps({"rates": VALUES}))
    shutil.copytree(model_folder("tiny"), folder / "model")
    return folder


"""By command: materials, and arguments with a placeholder for a hostile text."""

REPORTED = (
    *("config.yaml", "metrics.jsonl", "summary.json", "warnings.jsonl", "heldout_before.jsonl", "heldout_after.jsonl"),
    *("rollouts/step-000001.parquet", "evaluations/step-000003/results.json"),
)
COMPARED = (
    *("config.yaml", "metrics.jsonl", "summary.json", "evaluations/step-000003/results.json"),
    "evaluations/step-000003/predictions/drawn-vqa.parquet",
)
UNFINISHED = "x.csv.unfinished/settings.json"
"""Settings of an earlier, unfinished `predict`."""
WATCHED = ("config.yaml", "metrics.jsonl", "actors/driver.json")
"""Files of a run that report, compare and top read."""
MODEL_FILES = (
    *("config.json", "tokenizer.json", "tokenizer_config.json", "processor_config.json", "model.safetensors"),
    *("generation_config.json", "chat_template.jinja", "geovlm_ray.yaml", "adapter_config.json"),
)

INPUTS: dict[str, list[tuple[tuple[str, ...], tuple[str, ...], list[str]]]] = {
    "train": [
        ((), ("x.yaml",), ["train", "x.yaml", "--local", "--dry-run"]),
        (("model",), tuple(f"model/{name}" for name in MODEL_FILES), [*TRAIN, "model.path=model"]),
        (
            ("data",),
            ("data/part-00000.parquet", "data/dataset.json"),
            [*TRAIN, "data.source=parquet", "data.path=data"],
        ),
        (("scene.png",), ("source.jsonl",), [*TRAIN, "data.source=samples", "data.path=source.jsonl"]),
        ((), ("rates.json",), ["train", "demo", "--plan", "rates.json"]),
        ((), ("reward.py",), [*TRAIN, "reward=reward.py:f"]),
    ],
    "sft": [((), ("x.yaml",), ["sft", "x.yaml", "--out", "y"])],
    "evaluate": [
        ((), ("x.jsonl",), ["evaluate", "--predictions", "x.jsonl"]),
        ((), ("x.jsonl",), ["evaluate", "--predictions", "x.jsonl", "--task", "rs_detection", "--format", "earthdial"]),
        ((), ("x.jsonl",), ["evaluate", "tiny", "--local", "--benchmarks", "./x.jsonl"]),
        (("scene.png", "truth.geojson"), ("scene.png", "truth.geojson"), ON_MAP),
        (("scene.png",), ("x.gpkg",), ["evaluate", "x.gpkg", "--geo", "x.gpkg", "--scene", "scene.png"]),
    ],
    "compare": [
        (("run", "other"), tuple(f"run/{n}" for n in COMPARED), ["compare", "run", "other", "--draws", "100"]),
    ],
    "study": [((), ("x.yaml",), ["study", "kl", "--recipe", "x.yaml", "run.steps=0"])],
    "export": [
        (("model",), tuple(f"model/{name}" for name in MODEL_FILES), ["export", "model", "out"]),
        ((), ("evaluation/results.json",), ["export", "tiny", "out", "--evaluation", "evaluation"]),
    ],
    "chat": [
        ((), ("x.png",), ["chat", "tiny", "x.png", "--question", "?"]),
        (
            ("model", "scene.png"),
            tuple(f"model/{n}" for n in MODEL_FILES),
            ["chat", "model", "scene.png", "--question", "?"],
        ),
    ],
    "predict": [
        ((), ("x.tif",), ["predict", "tiny", "x.tif", "--local", *PREDICT]),
        (("scene.png",), (UNFINISHED,), [*SCENE, *PREDICT]),
    ],
    "score": [((), ("x.jsonl",), ["score", "x.jsonl"]), ((), ("x.jsonl",), ["score", "x.jsonl", "--probe"])],
    "top": [(("run",), tuple(f"run/{name}" for name in WATCHED), ["top", "run", "--once"])],
    "report": [(("run",), tuple(f"run/{name}" for name in REPORTED), ["report", "run"])],
    "data": [
        *((("scene.png",), ("x",), ["data", "convert", name, "x", "out"]) for name in ("auto", *FORMATS)),
        *((("scene.png",), ("x.json",), ["data", "convert", name, "x.json", "out"]) for name in ("auto", *FORMATS)),
        (("source.jsonl",), ("scene.png",), ["data", "convert", "samples", "source.jsonl", "out"]),
        *(
            (("data",), ("data/part-00000.parquet", "data/dataset.json", "data/quarantine.parquet"), ["data", *rest])
            for rest in (["validate", "data"], ["stats", "data"], ["preview", "data", "--out", "x.html", "--each", "1"])
        ),
        (("data",), ("data/vqa-0-0.png",), ["data", "validate", "data"]),
        (("data",), ("data/vqa-0-0.png",), ["data", "preview", "data", "--out", "x.html", "--each", "1"]),
        (("data",), ("data/dataset.json",), ["data", "export", "coco", "data", "out"]),
        (("data",), ("data/dataset.json",), ["data", "publish", "data"]),
        (("scene.png",), ("truth.geojson",), ["data", "convert", "geojson", ".", "out"]),
    ],
    "config": [((), ("x.yaml",), ["config", "x.yaml"])],
    "plan": [
        ((), ("rates.json",), ["plan", "rates.json", "--gpus", "4"]),
        (("run",), ("run/config.yaml", "run/metrics.jsonl"), ["plan", "run", "--gpus", "4"]),
    ],
}
"""By command: materials, files to replace by hostile ones, and arguments."""


def cases_of(command: str) -> Iterator[Case]:
    """All hostile cases of a command."""
    yield from argument_cases(command)
    yield from input_cases(command)
    yield from text_cases(command)
    if command == "chat":
        yield from stdin_cases()


def argument_cases(command: str) -> Iterator[Case]:
    """Every argument of a command, hostile."""
    for needs, arguments in ARGUMENTS[command]:
        for name, text in NAMES.items():
            filled = [a.format(text) if "{}" in a else a for a in arguments]
            yield Case(f"{' '.join(arguments)}, {name}", filled, needs)


def input_cases(command: str) -> Iterator[Case]:
    """Every file that a command reads, hostile."""
    for needs, files, arguments in INPUTS.get(command, []):
        for file in files:
            for kind in FILES:
                if (file, kind) == (UNFINISHED, "absent"):
                    continue  # Nothing is hostile then: an engine runs.
                prepare = partial(_place, file, kind)
                yield Case(f"{' '.join(arguments)}, {file}: {kind}", arguments, needs, prepare)


def text_cases(command: str) -> Iterator[Case]:
    """Hostile texts inside of valid inputs of a command."""
    for needs, write, arguments in TEXTS.get(command, []):
        for name, text in STRINGS.items():
            yield Case(f"{' '.join(arguments)}, {write.__name__}: {name}", arguments, needs, partial(write, text))


def stdin_cases() -> Iterator[Case]:
    """Hostile standard input of `chat`."""
    for name, content in {**CONTENTS, **{n: t.encode("utf-8", "surrogateescape") for n, t in STRINGS.items()}}.items():
        yield Case(f"chat, stdin: {name}", [*CHAT, "rollout.max_tokens=8"], ("scene.png",), stdin=content)


def _place(file: str, kind: str, folder: Path) -> None:
    place(folder / file, kind)


def hostile_records(text: str) -> list[Example]:
    """Records in which every text is hostile."""
    texts = {"id": text, "question": text, "dataset": text, "sensor": text, "reasoning": text, "split": text}
    return [
        example(1, ("a.png",), target=text, **texts),
        example(2, ("a.png",), **{**texts, "task": "scene_classification", "target": (text,), "labels": (text, "b")}),
        example(3, ("a.png",), **{**texts, "task": "image_captioning", "target": (text,)}),
    ]


def write_hostile_dataset(text: str, folder: Path) -> None:
    """A converted dataset with hostile texts."""
    text = text.encode("utf-8", "replace").decode()
    write_image(folder / "data" / "a.png", 0)
    write_dataset(folder / "data", hostile_records(text))


def write_hostile_source(text: str, folder: Path) -> None:
    """A source file with hostile texts and keys."""
    line = {"id": text, "task": "vqa", "images": ["scene.png"], "prompt": text, "reference": text, text: text}
    lines = [line, {**line, "task": text}, {**line, "images": [text]}, {**line, "split": text, "dataset": text}]
    (folder / "source.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in lines))


def write_hostile_scored(text: str, folder: Path) -> None:
    """Responses with hostile texts."""
    line = {"id": text, "task": "vqa", "response": f"<think>{text}</think><answer>{text}</answer>", "target": text}
    lines = [line, {**line, "task": text}, {**line, "task": "scene_classification", "target": [text], "labels": [text]}]
    (folder / "x.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in lines))


def _replaced(value: Any, text: str, keys: bool) -> Any:
    """A JSON value with a hostile text in place of all texts (``keys``: also in front of all keys of inner objects)."""
    if isinstance(value, dict):
        return {
            (f"{text}{k}" if keys and not isinstance(v, dict) else k): _replaced(v, text, keys)
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [_replaced(item, text, keys) for item in value]
    return text if isinstance(value, str) else value


def _numbers_replaced(value: Any, text: str) -> Any:
    if isinstance(value, dict):
        return {k: _numbers_replaced(v, text) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers_replaced(item, text) for item in value]
    return text


def _rewrite(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    path = folder / name
    texts = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    path.write_text("".join(f"{json.dumps(change(json.loads(text)))}\n" for text in texts))


RUN_TEXTS = (
    "summary.json",
    "heldout_after.jsonl",
    "heldout_before.jsonl",
    "metrics.jsonl",
    "evaluations/step-000003/results.json",
)


def hostile_heartbeat(text: str) -> dict[str, Any]:
    """A heartbeat with hostile texts."""
    return {
        **{"actor": text, "kind": "driver", "state": text, "since": 0, "weight_version": None, "queue": None},
        **{"rate": 1.0, "unit": text, "idle": 0.5, "memory_bytes": 1, "time": 0, "run": text},
    }


def write_hostile_values(text: str, folder: Path) -> None:
    """A run whose files have hostile texts in place of texts."""
    for name in RUN_TEXTS:
        _rewrite(folder / "run", name, lambda value: _replaced(value, text, False))
    warning = {"step": 1, "kind": text, "message": text}
    (folder / "run/warnings.jsonl").write_text(json.dumps(warning) + "\n")
    (folder / "run/actors/driver.json").write_text(json.dumps(hostile_heartbeat(text)))


def write_hostile_numbers(text: str, folder: Path) -> None:
    """A run whose summary has hostile texts in place of numbers."""
    _rewrite(folder / "run", "summary.json", lambda value: _numbers_replaced(value, text))


def write_hostile_keys(text: str, folder: Path) -> None:
    """A run with hostile names of metrics, tasks and benchmarks."""
    _rewrite(folder / "run", "metrics.jsonl", lambda row: {**row, f"task/{text}/reward": 1.0, f"seconds/{text}": 9.0})

    def renamed(summary: Any) -> Any:
        for name in ("constant", "majority", "most_common", "per_task"):
            values = summary["heldout"][name]
            if "vqa" in values:
                values[text] = values.pop("vqa")
        return summary

    _rewrite(folder / "run", "summary.json", renamed)
    for step in (1, 3):
        for run in ("run", "other"):
            if (folder / run).is_dir():
                _rewrite(
                    folder / run,
                    f"evaluations/step-{step:06d}/results.json",
                    lambda value: {
                        **value,
                        "benchmarks": {**value["benchmarks"], text: value["benchmarks"]["drawn-vqa"]},
                    },
                )


def write_hostile_config(text: str, folder: Path) -> None:
    """A run whose configuration has a hostile text."""
    import yaml

    path = folder / "run/config.yaml"
    config = yaml.safe_load(path.read_text())
    config["prompt"]["system"] = text
    config["data"]["path"] = text
    path.write_text(yaml.safe_dump(config))


WRITE_RUN = (write_hostile_values, write_hostile_numbers, write_hostile_keys, write_hostile_config)
TEXTS: dict[str, list[tuple[tuple[str, ...], Callable[[str, Path], None], list[str]]]] = {
    "report": [(("run",), write, ["report", "run"]) for write in WRITE_RUN],
    "top": [(("run",), write, ["top", "run", "--once"]) for write in WRITE_RUN],
    "compare": [
        (("run", "other"), write, ["compare", "run", "other", "--draws", "100", "--json", "x.json"])
        for write in WRITE_RUN
    ],
    "score": [
        ((), write_hostile_scored, ["score", "x.jsonl"]),
        ((), write_hostile_scored, ["score", "x.jsonl", "--probe"]),
    ],
    "evaluate": [
        ((), write_hostile_scored, ["evaluate", "--predictions", "x.jsonl"]),
        ((), write_hostile_scored, ["evaluate", "--predictions", "x.jsonl", "--task", "vqa"]),
    ],
    "data": [
        (("scene.png",), write_hostile_source, ["data", "convert", "samples", "source.jsonl", "out", "--max-bad", "1"]),
        (("scene.png",), write_hostile_source, ["data", "convert", "auto", "source.jsonl", "out", "--max-bad", "1"]),
        ((), write_hostile_dataset, ["data", "validate", "data", "--max-bad", "1"]),
        ((), write_hostile_dataset, ["data", "stats", "data", "--json", "x.json"]),
        ((), write_hostile_dataset, ["data", "preview", "data", "--out", "x.html", "--recipe", "demo"]),
    ],
    "train": [((), write_hostile_dataset, [*TRAIN, "data.source=parquet", "data.path=data", "data.stages=[]"])],
}
"""By command: materials, what writes hostile texts into valid files, and arguments."""

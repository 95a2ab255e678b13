"""What a run or an evaluation reads: files, and definitions of the package that affect its results."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from geovlm_ray import __version__
from geovlm_ray.config import Config
from geovlm_ray.core.contents import Inputs, identifier, python_files
from geovlm_ray.data.convert import CARD
from geovlm_ray.data.formats.files import HIDDEN_PREFIXES, IMAGE_ENDINGS
from geovlm_ray.evaluation.registry import find, is_path
from geovlm_ray.rewards.config import RewardConfig, is_function
from geovlm_ray.rewards.sbert import model_path
from geovlm_ray.rewards.score import needs_embedder
from geovlm_ray.tasks import TASKS

MODEL_FILES = (
    *("*.safetensors", "*.safetensors.index.json", "*config.json", "*token*.json", "vocab.*", "merges.txt"),
    *("chat_template.json", "*.jinja"),
)
"""Files of a model folder that a policy is loaded from: weights, tokenizer, image processor and chat template."""
BENCHMARK = "benchmark "
"""Beginning of the kinds of benchmarks, which end with the name of a benchmark's data."""


def run_inputs(config: Config, tasks: Iterable[str], model: Path | None, reward: RewardConfig | None) -> Inputs:
    """What a run on ``tasks`` reads; without ``model`` or ``reward`` it has no base weights or computes no rewards."""
    data, trained = config.data, [*tasks]
    return {
        **_common_inputs(config, trained, model, reward),
        **({} if data.source == "scenes" else {"data": dataset_files(Path(data.path), data.source == "parquet")}),
        **benchmark_inputs(_benchmark_data(config) if reward else {}),
    }


def evaluation_inputs(
    config: Config, tasks: Iterable[str], reward: RewardConfig, benchmarks: Mapping[str, Path]
) -> Inputs:
    """What an evaluation of ``config.model.path`` on the data of ``benchmarks``, by their names, reads."""
    return {**_common_inputs(config, [*tasks], Path(config.model.path), reward), **benchmark_inputs(benchmarks)}


def prediction_inputs(config: Config, task: str, scenes: Sequence[str]) -> Inputs:
    """What answers of ``config.model.path`` about raster files depend on."""
    files: dict[str, Path | str] = {path: Path(path) for path in scenes}
    return {**_common_inputs(config, [task], Path(config.model.path), None), "scene": files}


def benchmark_inputs(benchmarks: Mapping[str, Path]) -> dict[str, dict[str, Path | str]]:
    """The files of the benchmarks' data that exist."""
    return {f"{BENCHMARK}{name}": dataset_files(path) for name, path in benchmarks.items() if path.exists()}


def dataset_files(path: Path, converted: bool | None = None) -> dict[str, Path | str]:
    """Files of a dataset: the shards, card and quarantined records of ``data convert``, or those of a source.

    Images of a source, of which there may be hundreds of thousands, count with their names only. By default, a folder
    with a card is ``converted``.
    """
    if path.is_file():
        return {path.name: path}
    if (path / CARD).is_file() if converted is None else converted:
        shards = [*path.rglob("*.parquet")]
        cards = [folder / CARD for folder in {shard.parent for shard in shards} if (folder / CARD).is_file()]
        return {file.relative_to(path).as_posix(): file for file in sorted([*shards, *cards])}
    files, images = {}, []
    for top, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(HIDDEN_PREFIXES)]
        for name in names:
            file = Path(top) / name
            if name.lower().endswith(IMAGE_ENDINGS):
                images.append(file.relative_to(path).as_posix())
            elif not name.startswith(HIDDEN_PREFIXES) and file.is_file():
                files[file.relative_to(path).as_posix()] = file
    return {**dict(sorted(files.items())), "names of images": identifier("\n".join(sorted(images)))}


def _common_inputs(
    config: Config, tasks: list[str], model: Path | None, reward: RewardConfig | None
) -> dict[str, Mapping[str, Path | str]]:
    inputs: dict[str, Mapping[str, Path | str]] = {"geovlm_ray": {"version": __version__}}
    for plugin in config.plugins:
        inputs[f"plugin {plugin}"] = _plugin_files(plugin)
    for name in tasks:
        task = TASKS[name]
        score = {"reward": reward.form(name)} if reward and not is_function(reward.form(name)) else {}
        inputs[f"task {name}"] = {"target kind": task.target_kind, "instruction": task.instruction, **score}
    if model:
        files = {file.name: file for pattern in MODEL_FILES for file in model.glob(pattern) if file.is_file()}
        inputs["model"] = dict(sorted(files.items()))
    if reward:
        for form in filter(is_function, map(reward.form, tasks)):
            inputs[f"reward {form}"] = python_files(Path(form.rpartition(":")[0]))
        sbert = Path(model_path(reward.sbert.model))
        if any(needs_embedder(name, reward) for name in tasks) and sbert.is_dir():
            files = {file.relative_to(sbert).as_posix(): file for file in sbert.rglob("*") if file.is_file()}
            inputs["sbert"] = dict(sorted(files.items()))
    return inputs


def _plugin_files(plugin: str) -> dict[str, Path]:
    """Files of a plugin: a Python file with what it may import from its folder, or a module with its whole package."""
    if plugin.endswith(".py"):
        return python_files(Path(plugin))
    spec = importlib.util.find_spec(plugin.partition(".")[0])
    if spec and spec.submodule_search_locations:
        folders = [Path(folder) for folder in spec.submodule_search_locations]
        return {file.relative_to(folder).as_posix(): file for folder in folders for file in folder.rglob("*.py")}
    return {Path(spec.origin).name: Path(spec.origin)} if spec and spec.origin and Path(spec.origin).is_file() else {}


def _benchmark_data(config: Config) -> dict[str, Path]:
    """Data of the benchmarks that a run is evaluated on, by name."""
    settings = config.evaluation
    paths = [Path(name) for name in settings.benchmarks if is_path(name)]
    named = [b.name for b in find([name for name in settings.benchmarks if not is_path(name)]) if b.reader]
    return {path.stem: path for path in paths} | {name: Path(settings.data) / name for name in named if settings.data}

"""What can be known before anything heavy starts: model, data, memory, resources."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil

from geovlm_ray.config import Config
from geovlm_ray.core.errors import DataError, RunError, UserError
from geovlm_ray.core.files import read_object
from geovlm_ray.core.placement import GIB
from geovlm_ray.core.schema import Example
from geovlm_ray.data.image_cache import open_cache
from geovlm_ray.data.images import image_size
from geovlm_ray.data.sampler import RecordStream, Stream
from geovlm_ray.data.sources import open_stream
from geovlm_ray.model.config import check_attention
from geovlm_ray.model.loading import load_processor, model_folder
from geovlm_ray.model.prompts import MAX_IMAGES, PromptEncoder
from geovlm_ray.observability.wandb_log import load_wandb
from geovlm_ray.rewards.isolated import check_function
from geovlm_ray.training.checkpoint import open_mirror

RECORDS_READ = 20_000
RECORDS_DECODED = 2_000
T = TypeVar("T")


@dataclass(frozen=True)
class Ready:
    """A run whose model and data were found good."""

    model: Path
    stream: Stream
    tasks: tuple[str, ...]


def prepare(config: Config) -> Ready:
    """Check a run and return what was found.

    Raises:
        UserError: the first thing that is wrong.
    """
    check_directory(config.run.folder)
    check_outside(config)
    check_attention_here(config)
    model = model_folder(config.model.path)
    stream = open_stream(config.data)
    check_function(config.reward)
    check_context(config, model)
    check_memory(config, model)
    check_held_out(config, stream)
    check_records(config, model, stream)
    return Ready(model, stream, trained_tasks(config, stream))


def problems(config: Config) -> Iterable[tuple[str, str | None]]:
    """Every check by name, with what is wrong or None; for the dry run, which does not stop at the first.

    What needs a model or data that are wrong themselves is not checked.
    """
    model, model_problem = attempt(lambda: model_folder(config.model.path))
    stream, data_problem = attempt(lambda: open_stream(config.data))
    yield "run directory", attempt(lambda: check_directory(config.run.folder))[1]
    yield "copies and W&B", attempt(lambda: check_outside(config))[1]
    yield "model", model_problem
    yield "attention", attempt(lambda: check_attention_here(config))[1]
    yield "data", data_problem
    yield "reward", attempt(lambda: check_function(config.reward))[1]
    if model is not None:
        yield "context", attempt(lambda: check_context(config, model))[1]
        yield "memory", attempt(lambda: check_memory(config, model))[1]
    if stream is not None:
        yield "held-out examples", attempt(lambda: check_held_out(config, stream))[1]
    if model is not None and stream is not None:
        yield "records", attempt(lambda: check_records(config, model, stream))[1]


def check_outside(config: Config) -> None:
    """What a run needs besides this machine's own: where its checkpoints are copied to, and Weights & Biases.

    Raises:
        ConfigError: a package is missing, or no file system is known for a URL.
        RunError: the other side does not answer.
    """
    mirror = open_mirror(config.checkpoint.url, config.run.name)
    if mirror:
        mirror.names()
    if config.run.wandb:
        load_wandb(config.run.wandb)


def check_attention_here(config: Config) -> None:
    """Raise ConfigError where the learner will run on this machine, which lacks the package of ``model.attention``.

    On a cluster that RAY_ADDRESS names, the learner's node checks it.
    """
    if "RAY_ADDRESS" not in os.environ:
        check_attention(config.model)


def check_directory(folder: Path) -> None:
    """Raise RunError where a run directory cannot be made or written to."""
    found = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    if not found.is_dir() or not os.access(found, os.W_OK | os.X_OK):
        what = "a directory that may not be written to" if found.is_dir() else "a file"
        raise RunError(f"run directory {folder}: expected to write there, found that {found} is {what}")


def trained_tasks(config: Config, stream: Stream) -> tuple[str, ...]:
    """Tasks that the run draws prompts of."""
    staged = dict.fromkeys(task for stage in config.data.stages for task in stage.tasks)
    return tuple(staged) or stream.tasks


def check_memory(config: Config, model: Path) -> None:
    """Raise RunError where a KV cache cannot hold one sequence, or all of them exceed this machine's memory.

    Only where its size is set: what a GPU leaves is known to the engine alone, which then says so.
    """
    import torch

    on_gpu = torch.cuda.is_available()
    if on_gpu and not config.rollout.kv_cache_gb:
        return
    cache = int(max(config.rollout.kv_cache_gb, 0 if on_gpu else 1) * GIB)
    needed = kv_bytes_per_token(model, config.model.dtype) * config.rollout.max_model_len
    if needed > cache:
        raise RunError(
            f"rollout.kv_cache_gb: {cache / GIB:.2f} GiB do not hold one sequence of rollout.max_model_len="
            f"{config.rollout.max_model_len} tokens, which takes {needed / GIB:.2f} GiB; raise it or lower that"
        )
    free = psutil.virtual_memory().available
    engines = config.placement.rollout.actors
    if not on_gpu and cache * engines > free:
        raise RunError(
            f"rollout.kv_cache_gb: {engines} KV caches of {cache / GIB:.2f} GiB do not fit into "
            f"{free / GIB:.2f} GiB of free memory; lower rollout.kv_cache_gb or placement.rollout.actors"
        )


def check_context(config: Config, model: Path) -> None:
    """Raise RunError where the engine is asked for longer sequences than the model knows positions."""
    longest = _text_config(model).get("max_position_embeddings", config.rollout.max_model_len)
    if config.rollout.max_model_len > longest:
        raise RunError(
            f"rollout.max_model_len: expected at most {longest}, the positions of {model}, found "
            f"{config.rollout.max_model_len}"
        )


def kv_bytes_per_token(model: Path, dtype: str) -> int:
    """Size in the KV cache of one token."""
    text = _text_config(model)
    heads = text["num_attention_heads"]
    head_dim = text.get("head_dim") or text["hidden_size"] // heads
    width = 2 if dtype == "bfloat16" else 4
    return 2 * text["num_hidden_layers"] * text.get("num_key_value_heads", heads) * head_dim * width


def _text_config(model: Path) -> dict[str, Any]:
    values = read_object(model / "config.json")
    return {**values, **values.get("text_config", {})}


def check_held_out(config: Config, stream: Stream) -> None:
    """Raise DataError where held-out examples are asked for and there are none."""
    scenes, tasks = config.evaluation.num_examples, trained_tasks(config, stream)
    if scenes and not stream.held_out(tasks, scenes):
        raise DataError(
            f"evaluation.num_examples={scenes}: expected records of {', '.join(tasks)} in {config.data.path} "
            f"to hold out, of other splits than {', '.join(config.data.splits)} (data.splits), found none; "
            "set evaluation.num_examples=0 or add such a split"
        )


def check_records(config: Config, model: Path, stream: Stream) -> None:
    """Raise DataError where a record has no image, one is absent or broken, or a prompt is too long for the engine.

    Up to 20,000 records in equal parts of the tasks are looked at, and the images of up to 2,000 of them decoded;
    ``data validate`` looks at all.
    """
    encoder = PromptEncoder(load_processor(model), config.prompt, open_cache(config.data.image_cache_gb))
    for task in stream.tasks:
        for n, record in enumerate(_some_records(stream, task, RECORDS_READ // len(stream.tasks))):
            if not 1 <= len(record.images) <= MAX_IMAGES:
                raise DataError(f"record {record.id!r}: expected 1 to {MAX_IMAGES} images, found {len(record.images)}")
            try:
                if n < RECORDS_DECODED // len(stream.tasks):
                    encoder.images(record)
                else:
                    for image in record.images:
                        image_size(image)
            except DataError as error:
                raise DataError(f"record {record.id!r}: {error}") from error
            length = encoder.length(record)
            if length + config.rollout.max_tokens > config.rollout.max_model_len:
                raise DataError(
                    f"record {record.id!r}: its prompt of {length} tokens and rollout.max_tokens="
                    f"{config.rollout.max_tokens} exceed rollout.max_model_len={config.rollout.max_model_len}"
                )


def _some_records(stream: Stream, task: str, most: int) -> Iterator[Example]:
    """A task's records, of many an even choice; of drawn scenes one."""
    if not isinstance(stream, RecordStream):
        yield stream.of_task(task, 0)
        return
    count = stream.count(task)
    for i in np.linspace(0, count - 1, min(count, most)).astype(int):
        yield stream.record(task, int(i))


def attempt(check: Callable[[], T]) -> tuple[T | None, str | None]:
    """What a check returns, or what it says is wrong."""
    try:
        return check(), None
    except UserError as error:
        return None, str(error)

"""Checks before any engine or learner starts: model, data, memory, external services."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from geovlm_ray.config import Config
from geovlm_ray.core.cluster_address import cluster_address
from geovlm_ray.core.errors import ConfigError, DataError, RunError, UserError
from geovlm_ray.core.files import read_object
from geovlm_ray.core.placement import GIB
from geovlm_ray.core.schema import Example
from geovlm_ray.data.answer_format import AnswerFormat
from geovlm_ray.data.answers import answer_text
from geovlm_ray.data.image_cache import open_cache
from geovlm_ray.data.sampler import Stream
from geovlm_ray.data.sources import open_stream
from geovlm_ray.data.validation.before_training import RecordReport, check_stream
from geovlm_ray.model.answer_format import answer_format_of
from geovlm_ray.model.config import check_attention
from geovlm_ray.model.families import family_of_folder
from geovlm_ray.model.loading import load_processor, model_folder
from geovlm_ray.model.prompts import MAX_IMAGES, PromptEncoder
from geovlm_ray.observability.trackers import check_trackers
from geovlm_ray.rewards.config import is_function
from geovlm_ray.rewards.isolated import check_function, isolated
from geovlm_ray.rewards.score import check_wordnet
from geovlm_ray.tasks.answers.grammar import written_response
from geovlm_ray.training.benchmark_evaluation import check_benchmarks
from geovlm_ray.training.checkpoint import open_mirror
from geovlm_ray.training.gpu_memory import check_gpu_memory


@dataclass(frozen=True)
class Ready:
    """A checked run: its model folder, data stream and trained tasks, and what the user has to know about its data."""

    model: Path
    stream: Stream
    tasks: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """A check before a start: called with the configuration and what the checks that it ``needs`` returned.

    It raises UserError for a problem, and is skipped if one of the checks that it needs has failed.
    """

    name: str
    run: Callable[..., Any]
    needs: tuple[str, ...] = ()


def problems(
    config: Config, checks: Iterable[Check], results: dict[str, Any]
) -> Iterator[tuple[str, UserError | None]]:
    """Run checks in order; yields each name with its problem or None, and adds what it returned to ``results``."""
    for check in checks:
        if results.keys() >= set(check.needs):
            try:
                results[check.name] = check.run(config, *(results[name] for name in check.needs))
            except UserError as error:
                yield check.name, error
            else:
                yield check.name, None


def prepare(config: Config) -> Ready:
    """Check a run and return its model and data; raises UserError for the first problem."""
    results: dict[str, Any] = {}
    for _, problem in problems(config, CHECKS, results):
        if problem:
            raise problem
    notes = tuple(results["records"].lines)
    return Ready(results["model"], results["data"], trained_tasks(config, results["data"]), notes)


def check_external_services(config: Config) -> None:
    """Raise ConfigError for a missing package or an unknown mirror URL, RunError if the mirror is not reachable."""
    mirror = open_mirror(config.checkpoint.url, config.run.name)
    if mirror:
        mirror.names()
    check_trackers(config.run.trackers)


def check_local_attention(config: Config) -> None:
    """Raise ConfigError if the learner runs on this machine and the package for ``model.attention`` is missing.

    On a remote cluster (RAY_ADDRESS is set), the learner's node checks this.
    """
    if cluster_address() is None:
        check_attention(config.model)


def check_local_wordnet(config: Config, stream: Stream) -> None:
    """Raise WordNetMissing if rewards are computed on this machine, and one of them needs it.

    On a remote cluster (RAY_ADDRESS is set), the nodes of the reward actors check this.
    """
    if cluster_address() is None:
        check_wordnet(config.reward, trained_tasks(config, stream))


def check_directory(folder: Path) -> None:
    """Raise RunError if the run directory cannot be created or written to."""
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        found = "a directory without write permission" if existing.is_dir() else "a file"
        raise RunError(f"run directory {folder}: expected a writable location, found that {existing} is {found}")


def trained_tasks(config: Config, stream: Stream) -> tuple[str, ...]:
    """Tasks from which the run samples prompts."""
    staged = dict.fromkeys(task for stage in config.data.stages for task in stage.tasks)
    return tuple(staged) or stream.tasks


def check_memory(config: Config, model: Path) -> None:
    """Raise RunError if a KV cache cannot hold one sequence, or all KV caches exceed this machine's memory.

    On a GPU it checks only a size set by ``rollout.kv_cache_gb``; otherwise vLLM sizes and checks the cache itself.
    """
    import torch

    on_gpu = torch.cuda.is_available()
    if on_gpu and not config.rollout.kv_cache_gb:
        return
    cache = int(max(config.rollout.kv_cache_gb, 0 if on_gpu else 1) * GIB)
    needed = sequence_bytes(model, config.model.dtype, config.rollout.max_model_len)
    if needed > cache:
        raise RunError(
            f"rollout.kv_cache_gb: expected at least {needed / GIB:.2f} GiB for one sequence of rollout.max_model_len="
            f"{config.rollout.max_model_len} tokens, found {cache / GIB:.2f} GiB; raise the former or lower the latter"
        )
    free = psutil.virtual_memory().available
    engines = config.placement.rollout.actors
    if not on_gpu and cache * engines > free:
        raise RunError(
            f"rollout.kv_cache_gb: {engines} KV caches of {cache / GIB:.2f} GiB exceed the "
            f"{free / GIB:.2f} GiB of free memory; lower rollout.kv_cache_gb or placement.rollout.actors"
        )


def check_context(config: Config, model: Path) -> None:
    """Raise RunError if ``rollout.max_model_len`` exceeds the model's maximum number of positions."""
    max_positions = _text_config(model).get("max_position_embeddings", config.rollout.max_model_len)
    if config.rollout.max_model_len > max_positions:
        raise RunError(
            f"rollout.max_model_len: expected at most {max_positions}, the max_position_embeddings of {model}, found "
            f"{config.rollout.max_model_len}"
        )


def check_tensor_parallel(config: Config, model: Path) -> None:
    """Raise RunError if ``rollout.tensor_parallel`` workers cannot divide the heads and MLPs of the model."""
    workers = config.rollout.tensor_parallel
    text, vision = _text_config(model), read_object(model / "config.json").get("vision_config", {})
    sizes: dict[str, int] = {
        **{key: text[key] for key in ("num_attention_heads", "intermediate_size") if key in text},
        **{f"vision_config.{key}": vision[key] for key in ("num_heads", "intermediate_size") if key in vision},
    }
    if odd := [f"{name}={size}" for name, size in sizes.items() if size % workers]:
        raise RunError(
            f"rollout.tensor_parallel: expected a divisor of {', '.join(sizes)} of {model}, found {workers}, which "
            f"does not divide {', '.join(odd)}"
        )


def sequence_bytes(model: Path, dtype: str, tokens: int) -> int:
    """Bytes that an engine keeps of a sequence: keys and values of its tokens, and states of linear attention."""
    family = family_of_folder(model)
    text = family.model_class.config_class.from_pretrained(model).get_text_config()
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
    caching = sum(kind != "linear_attention" for kind in kinds)
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    width = 2 if dtype == "bfloat16" else 4
    return 2 * caching * text.num_key_value_heads * head * width * tokens + family.recurrent_state(text)


def _text_config(model: Path) -> dict[str, Any]:
    values = read_object(model / "config.json")
    return {**values, **values.get("text_config", {})}


def check_held_out(config: Config, stream: Stream) -> None:
    """Raise DataError if held-out evaluation is enabled and the data has no held-out record."""
    num_examples, tasks = config.evaluation.num_examples, trained_tasks(config, stream)
    if num_examples and not stream.held_out(tasks, num_examples):
        raise DataError(
            f"evaluation.num_examples={num_examples}: expected records of {', '.join(tasks)} in {config.data.path} "
            f"in splits other than {', '.join(config.data.splits)} (data.splits), found none; "
            "set evaluation.num_examples=0 or add such a split"
        )


def set_answer_format(config: Config, model: Path, stream: Stream) -> AnswerFormat:
    """Set how the stream writes boxes; raises ConfigError for an image size that the model's processor would change."""
    stream.answers = answer_format_of(config.data, config.prompt, model)
    return stream.answers


def check_records(config: Config, model: Path, stream: Stream, answers: AnswerFormat) -> RecordReport:
    """Check the records of a run, and set bad ones aside (`check_stream`).

    Raises:
        DataError: More than ``data.max_bad`` of the records that were checked are bad.
    """
    encoder = PromptEncoder(load_processor(model), config.prompt, open_cache(config.data.image_cache_gb))

    def check(example: Example) -> None:
        if len(example.images) > MAX_IMAGES:
            raise DataError(f"expected 1 to {MAX_IMAGES} images, found {len(example.images)}")
        encoder.images(example)
        length = encoder.length(example)
        if length + config.rollout.max_tokens > config.rollout.max_model_len:
            raise DataError(
                f"expected prompt plus completion within rollout.max_model_len={config.rollout.max_model_len}, found "
                f"{length} prompt tokens plus rollout.max_tokens={config.rollout.max_tokens}"
            )

    tasks, num_examples = trained_tasks(config, stream), config.evaluation.num_examples
    held_out = stream.held_out(tasks, num_examples) if num_examples else []
    return check_stream(stream, tasks, held_out, check, images=config.data.check_images)


def check_reward_of_records(config: Config, stream: Stream, report: RecordReport) -> None:
    """Call each user function with the reference answer of a checked record of every task that it scores.

    Raises:
        ConfigError: A function raises, or returns no number.
    """
    for task in trained_tasks(config, stream):
        form = config.reward.form(task)
        if is_function(form):
            example, response = _reference(config, stream, task)
            _, problem = isolated(form, config.reward).score(response, example)
            if problem:
                raise ConfigError(
                    f"reward function {form!r}: expected a number for the reference answer of record {example.id!r} "
                    f"of {task}, found: {problem}"
                )


def _reference(config: Config, stream: Stream, task: str) -> tuple[Example, str]:
    """A record of a task and its reference response; records without one are set aside."""
    reasoning = "" if config.reward.think == "required" else None
    confidence = None if config.reward.confidence == "none" else 1.0
    while True:
        example = stream.of_task(task, 0)
        try:
            answer = answer_text(example, rotated=config.reward.rotated)
            return example, written_response(answer, reasoning, confidence)
        except DataError as error:
            stream.set_aside(example, str(error))


CHECKS = (
    Check("run directory", lambda config: check_directory(config.run.folder)),
    Check("copies and trackers", check_external_services),
    Check("attention", check_local_attention),
    Check("benchmarks", check_benchmarks),
    Check("model", lambda config: model_folder(config.model.path)),
    Check("data", lambda config: open_stream(config.data)),
    Check("prompt", lambda config: config.reward.check_prompt(config.prompt.system)),
    Check("reward", lambda config: check_function(config.reward)),
    Check("WordNet", check_local_wordnet, needs=("data",)),
    Check("context", check_context, needs=("model",)),
    Check("tensor parallel", check_tensor_parallel, needs=("model",)),
    Check("memory", check_memory, needs=("model",)),
    Check("GPU memory", check_gpu_memory, needs=("model",)),
    Check("held-out examples", check_held_out, needs=("data",)),
    Check("answer format", set_answer_format, needs=("model", "data")),
    Check("records", check_records, needs=("model", "data", "answer format")),
    Check("reward of records", check_reward_of_records, needs=("data", "records")),
)
"""The checks of a training run, in order: the quick ones before a download of the model."""

"""Supervised fine-tuning from beginning to end: checks, resume, training, and the model folder that comes of it."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn
from transformers import ProcessorMixin

from geovlm_ray.config import Config, check_unchanged, to_yaml
from geovlm_ray.core.errors import ConfigError, RunError, UserError
from geovlm_ray.core.files import read_object, write_atomically
from geovlm_ray.core.interrupts import Interrupted, uninterrupted
from geovlm_ray.core.locks import locked
from geovlm_ray.core.schema import Prompt
from geovlm_ray.data.answers import THINK_MODES
from geovlm_ray.data.image_cache import open_cache
from geovlm_ray.data.sampler import PromptSampler
from geovlm_ray.data.scenes import SCENE_TASKS, demonstration, scene_example
from geovlm_ray.data.sources import open_stream
from geovlm_ray.learner.sft.batches import Batch, Teacher, read_batches
from geovlm_ray.learner.sft.trainer import SftTrainer
from geovlm_ray.model.config import check_attention
from geovlm_ray.model.loading import load_model, load_processor, model_folder, save_policy
from geovlm_ray.model.prompts import PromptEncoder
from geovlm_ray.model.tiny import build_model, build_processor
from geovlm_ray.training.checkpoint import CheckpointFolder, fill
from geovlm_ray.training.preflight import trained_tasks
from geovlm_ray.training.sft_log import SftLog, summarise

CONFIG_FILE = "sft.yaml"
SUMMARY_FILE = "sft_summary.json"
NAMES = ("output folder", "choose another --out")
MAY_CHANGE = ("checkpoint.keep", "sft.checkpoint_every", "sft.log_every", "sft.readers")
RECORDS_CHECKED = 2_000
CORPUS_SCENES_PER_TASK = 400


@dataclass(frozen=True)
class _Ready:
    """Processor, data and held-out examples that were found good; ``base`` is None for a model from scratch."""

    base: Path | None
    processor: ProcessorMixin
    teacher: Teacher
    sampler: PromptSampler
    held_out: list[Prompt]


def fine_tune(config: Config, out: Path, console: Console) -> dict[str, Any]:
    """Train, or go on with a training that was broken off, and return what ``sft_summary.json`` holds.

    ``out`` becomes a Hugging Face model folder, which `train` and vLLM take as ``model.path``. With an adapter it is
    the merged model, and the adapter itself lies in ``out/adapter``.

    Raises:
        UserError: it cannot start or go on; the message says why.
        Interrupted: a signal asked for the end.
    """
    _check_settings(config)
    _check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, *NAMES):
        check_unchanged(config, out / CONFIG_FILE, MAY_CHANGE, *NAMES)
        if (out / SUMMARY_FILE).is_file():
            console.print(f"{out} is finished; remove it or {NAMES[1]} to start anew", markup=False)
            return read_object(out / SUMMARY_FILE)
        checkpoints = CheckpointFolder(out / "checkpoints", config.checkpoint.keep)
        found = checkpoints.latest()
        console.print("Checking model and data ...")
        ready = _prepare(config, found[1] if found else None)
        write_atomically(out / CONFIG_FILE, to_yaml(config))
        trainer = SftTrainer(_model(config, ready), ready.processor, config.model, config.sft)
        log = SftLog(out, config.sft.steps, config.sft.log_every, console)
        if found:
            trainer.load(found[1])
            console.print(f"Resuming after step {found[0]} from {found[1]}", markup=False)
        log.rewind(trainer.done)
        if not ready.held_out and config.sft.eval_examples:
            console.print("No evaluation: all records are of a split that is trained on (data.splits)")
        _train(config, ready, trainer, checkpoints, log)
        log.write_page(out.resolve().name)
        _publish(config, trainer, out)
        summary = summarise(log.rows)
        write_atomically(out / SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
    return summary


def _train(config: Config, ready: _Ready, trainer: SftTrainer, checkpoints: CheckpointFolder, log: SftLog) -> None:
    """All steps that are still to do; an error of the user's, or a signal, leaves a checkpoint of what was learnt."""
    settings, saved = config.sft, trainer.done
    batches = read_batches(ready.sampler, ready.teacher, trainer.done, settings.steps, settings.readers)
    begun = time.perf_counter()
    try:
        for batch in batches:
            with uninterrupted():
                row = {"step": trainer.done + 1, **trainer.step(batch), "seconds": time.perf_counter() - begun}
                last = trainer.done == settings.steps
                if ready.held_out and (last or trainer.done % settings.eval_every == 0):
                    row |= trainer.evaluate(_held_out_batches(ready, settings.batch_size))
                log.add(row)
                if last or trainer.done % settings.checkpoint_every == 0:
                    checkpoints.save(trainer.done, trainer, {})
                    checkpoints.finish()
                    saved = trainer.done
            begun = time.perf_counter()
    except (UserError, Interrupted) as error:
        # A step whose evaluation failed has no line in the log, and is done again.
        logged = log.rows[-1]["step"] if log.rows else 0
        if logged == trainer.done > saved:
            checkpoints.save(trainer.done, trainer, {})
            checkpoints.finish()
        if isinstance(error, Interrupted):
            raise Interrupted(error.number, checkpoints.where_it_stands(settings.steps)) from error
        raise


def _held_out_batches(ready: _Ready, size: int) -> Iterator[Batch]:
    for start in range(0, len(ready.held_out), size):
        yield ready.teacher.batch(ready.held_out[start : start + size])


def _check_settings(config: Config) -> None:
    asked = THINK_MODES[config.sft.reasoning]
    if asked != config.reward.think:
        raise ConfigError(
            f"sft.reasoning={config.sft.reasoning} teaches responses of reward.think={asked}, found reward.think="
            f"{config.reward.think}: reinforcement learning would give them no reward; set both alike"
        )
    if config.sft.scratch and config.model.lora:
        raise ConfigError("sft.scratch: a new model has no base for an adapter; expected model.lora=null")
    for key, found in (("best", config.checkpoint.best), ("url", config.checkpoint.url)):
        if found is not None:
            raise ConfigError(
                f"checkpoint.{key}: expected null, `sft` keeps the newest ones in --out alone, found {found!r}"
            )


def _check_folder(out: Path) -> None:
    """Raise RunError where the output is no folder, or one that something else left."""
    if out.exists() and not out.is_dir():
        raise RunError(f"output folder {out}: expected none or an empty one, found a file")
    taken = out.is_dir() and not (out / CONFIG_FILE).is_file() and any(p.name != ".lock" for p in out.iterdir())
    if taken:
        raise RunError(f"output folder {out}: expected none or an empty one, found files in it; {NAMES[1]}")


def _prepare(config: Config, checkpoint: Path | None) -> _Ready:
    """Find and check model and data, the records as far as their text goes.

    Raises:
        UserError: the first thing that is wrong.
    """
    settings = config.sft
    check_attention(config.model)
    base = None if settings.scratch else model_folder(config.model.path)
    folder = checkpoint or base
    processor = (
        load_processor(folder)
        if folder
        else build_processor(_corpus(config.data.seed), image_size=config.prompt.image_size)
    )
    stream = open_stream(config.data)
    sampler = PromptSampler(stream, config.data, settings.batch_size)
    held_out = stream.held_out(trained_tasks(config, stream), settings.eval_examples) if settings.eval_examples else []
    # A drawn scene is seen once, so that keeping it would only cost.
    cache = None if config.data.source == "scenes" else open_cache(config.data.image_cache_gb)
    encoder = PromptEncoder(processor, config.prompt, cache)
    teacher = Teacher(encoder, settings.reasoning, settings.pack_tokens, rotated=config.reward.rotated)
    for k in range(min(RECORDS_CHECKED, settings.steps * settings.batch_size)):
        teacher.check(sampler.prompt(k).example, k)
    for example in held_out:
        teacher.check(example)
    return _Ready(base, processor, teacher, sampler, [Prompt(0, example) for example in held_out])


def _model(config: Config, ready: _Ready) -> nn.Module:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if ready.base is None:
        return build_model(ready.processor, seed=config.run.seed).to(device)
    return load_model(config.model, ready.base, device, config.run.seed)


def _corpus(seed: int) -> Iterator[str]:
    """The text of drawn scenes that a new tokenizer is learnt from."""
    for k in range(CORPUS_SCENES_PER_TASK * len(SCENE_TASKS)):
        example = scene_example(SCENE_TASKS[k % len(SCENE_TASKS)], seed, k // len(SCENE_TASKS))
        yield f"user\n{example.question}"
        yield demonstration(example)
        yield "assistant\n"


def _publish(config: Config, trainer: SftTrainer, out: Path) -> None:
    """Write the trained model into the output folder; its config.json, which makes it a model, comes last.

    Raises:
        RunError: the disk refused it.
    """
    model = trainer.model
    partial, adapter = out / ".partial", out / "adapter"
    dtype = getattr(torch, config.sft.save_dtype or config.model.dtype)
    try:
        if config.model.lora:
            fill(partial, model.save_pretrained)
            shutil.rmtree(adapter, ignore_errors=True)
            partial.rename(adapter)
            model = model.merge_and_unload()
        fill(partial, lambda folder: save_policy(model.to(dtype), trainer.processor, folder))
        for file in sorted(partial.iterdir(), key=lambda f: f.name == "config.json"):
            os.replace(file, out / file.name)
        partial.rmdir()
    except OSError as error:
        raise RunError(f"the model could not be written into {out}: {error}") from error

"""Supervised fine-tuning: checks, resume, training, and export of the model folder."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn
from transformers import ProcessorMixin

from geovlm_ray.config import Config, check_unchanged, to_yaml
from geovlm_ray.core.contents import FILE as CONTENTS_FILE
from geovlm_ray.core.contents import ContentRecord
from geovlm_ray.core.errors import ConfigError, RunError, UserError
from geovlm_ray.core.files import read_object, write_atomically
from geovlm_ray.core.interrupts import Interrupted, uninterrupted
from geovlm_ray.core.locks import locked
from geovlm_ray.core.schema import Prompt
from geovlm_ray.data.answers import THINK_MODES
from geovlm_ray.data.bad_records import FILE as BAD_RECORDS
from geovlm_ray.data.image_cache import open_cache
from geovlm_ray.data.sampler import PromptSampler
from geovlm_ray.data.scenes import SCENE_TASKS, demonstration, scene_example
from geovlm_ray.data.sources import open_stream
from geovlm_ray.data.validation.before_training import check_stream
from geovlm_ray.evaluation.contents import run_inputs
from geovlm_ray.learner.ranks import Ranks
from geovlm_ray.learner.sft.batches import Batch, SftCollator, read_batches
from geovlm_ray.learner.sft.trainer import SftTrainer
from geovlm_ray.model.answer_format import answer_format
from geovlm_ray.model.config import check_attention
from geovlm_ray.model.families import FAMILIES, family_of_folder
from geovlm_ray.model.loading import convert, load_model, load_processor, model_folder, restore_adapter, save_model
from geovlm_ray.model.prompts import PromptEncoder
from geovlm_ray.model.tiny import FAMILY, build_model, build_processor
from geovlm_ray.training.checkpoint import CheckpointFolder, fill
from geovlm_ray.training.preflight import trained_tasks
from geovlm_ray.training.sft_log import SftLog, sft_summary

CONFIG_FILE = "sft.yaml"
SUMMARY_FILE = "sft_summary.json"
PARTIAL = ".partial"
NAMES = ("output folder", "choose another --out")
MAY_CHANGE = (
    *("data.path", "model.path"),
    *("checkpoint.keep", "sft.checkpoint_every", "sft.log_every", "sft.readers"),
    *("data.check_images", "data.max_bad"),
)
CORPUS_SCENES_PER_TASK = 400


@dataclass(frozen=True)
class _Ready:
    """Checked processor, data and held-out examples; ``base`` is None for a model trained from scratch.

    ``notes`` are what the user has to know about the data.
    """

    base: Path | None
    processor: ProcessorMixin
    collator: SftCollator
    sampler: PromptSampler
    tasks: tuple[str, ...]
    held_out: list[Prompt]
    notes: list[str]


def fine_tune(config: Config, out: Path, console: Console, *, accept_changes: bool = False) -> dict[str, Any]:
    """Start or resume training and return the content of ``sft_summary.json``.

    With ``accept_changes``, training is resumed although files that it reads have changed.

    ``out`` becomes a Hugging Face model folder, which `train` and vLLM accept as ``model.path``. With a LoRA adapter it
    holds the merged model, and ``out/adapter`` the adapter. Processes that ``torchrun`` started train one sharded
    policy together; rank 0 writes.

    Raises:
        UserError: training cannot start or continue.
        Interrupted: a signal requested the end.
    """
    ranks = Ranks.from_environment()
    _check_settings(config, ranks)
    console.quiet = ranks.rank > 0
    if ranks.rank == 0:
        _check_folder(out)
        out.mkdir(parents=True, exist_ok=True)
    with locked(out, *NAMES) if ranks.rank == 0 else nullcontext():
        if ranks.rank == 0:
            check_unchanged(config, out / CONFIG_FILE, MAY_CHANGE, *NAMES)
        ranks.barrier()
        if (out / SUMMARY_FILE).is_file():
            console.print(f"{out} is finished; remove it or {NAMES[1]} to start a new training")
            return read_object(out / SUMMARY_FILE)
        # What a killed process has left of the model may fill the disk.
        shutil.rmtree(out / PARTIAL, ignore_errors=True)
        checkpoints = CheckpointFolder(out / "checkpoints", config.checkpoint.keep)
        latest = checkpoints.latest()
        console.print("Checking model and data ...")
        ready = _prepare(config, latest[1] if latest else None)
        if ranks.rank == 0:
            contents = _record_inputs(config, ready, out, latest[0] if latest else 0, accept_changes, console)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = _model(config, ready, device, ranks)
        trainer = SftTrainer(model, ready.processor, config.model, config.sft, device, ranks)
        if latest:
            trainer.load(latest[1])
            console.print(f"Resuming after step {latest[0]} from {latest[1]}")
        log = SftLog(out, config.sft.steps, config.sft.log_every, console)
        if ranks.rank == 0:
            log.rewind(trainer.steps)
        bad = ready.sampler.stream.bad
        bad.keep_in(out / BAD_RECORDS, rewrite=ranks.rank == 0)
        for line in filter(None, [bad.summary, *ready.notes]):
            console.print(line)
        if not ready.held_out and config.sft.eval_examples:
            console.print("No evaluation: all records belong to training splits (data.splits)")
        _train(config, ready, trainer, checkpoints, log)
        del trainer
        if ranks.rank == 0:
            log.write_page(out.resolve().name, [change.text for change in contents.changes])
            _publish(config, ready, checkpoints, out)
            changed = [change.step for change in contents.changes if change.step]
            write_atomically(out / SUMMARY_FILE, json.dumps(sft_summary(log.rows, changed), indent=2) + "\n")
        ranks.barrier()
    return read_object(out / SUMMARY_FILE)


def _train(config: Config, ready: _Ready, trainer: SftTrainer, checkpoints: CheckpointFolder, log: SftLog) -> None:
    """Train the remaining steps; a single process checkpoints the last step also on a UserError or an interrupt."""
    settings, ranks, saved = config.sft, trainer.ranks, trainer.steps
    shard = (ranks.rank, ranks.size)
    batches = read_batches(ready.sampler, ready.collator, trainer.steps, settings.steps, settings.readers, shard)
    begun = time.perf_counter()
    try:
        for batch in batches:
            with uninterrupted():
                row = {"step": trainer.steps + 1, **trainer.step(batch), "seconds": time.perf_counter() - begun}
                row["bad_records"] = len(ready.sampler.stream.bad)
                last = trainer.steps == settings.steps
                if last or trainer.steps % settings.eval_every == 0:
                    held_out = _held_out_batches(ready, settings.batch_size, trainer.steps)
                    row |= trainer.evaluate(held_out) if held_out else {}
                if ranks.rank == 0:
                    log.add(row)
                if last or trainer.steps % settings.checkpoint_every == 0:
                    _save(trainer, checkpoints)
                    saved = trainer.steps
            begun = time.perf_counter()
    except (UserError, Interrupted) as error:
        # A step whose evaluation failed was not logged; it is repeated after resuming. Other ranks would have to take
        # part in saving, but wait for this one in a step.
        logged = log.rows[-1]["step"] if log.rows else 0
        if ranks.size == 1 and logged == trainer.steps > saved:
            _save(trainer, checkpoints)
        if isinstance(error, Interrupted):
            raise Interrupted(error.number, checkpoints.describe_progress(settings.steps)) from error
        raise


def _held_out_batches(ready: _Ready, size: int, step: int) -> list[Batch]:
    """The held-out examples in batches; those that cannot be encoded are set aside and left out."""
    stream = ready.sampler.stream
    usable = [prompt for prompt in ready.held_out if prompt.example.origin not in stream.bad]
    parts = [usable[k : k + size] for k in range(0, len(usable), size)]
    batches = [ready.collator.batch(part, partial(stream.set_aside, step=step)) for part in parts]
    return [batch for batch in batches if batch.rows]


def _save(trainer: SftTrainer, checkpoints: CheckpointFolder) -> None:
    """Write a checkpoint on rank 0; the other ranks only take part in gathering the weights."""
    if trainer.ranks.rank == 0:
        checkpoints.save(trainer.steps, trainer, {})
        checkpoints.finish()
    else:
        trainer.save(checkpoints.folder)


def _record_inputs(
    config: Config, ready: _Ready, out: Path, reached: int, accept: bool, console: Console
) -> ContentRecord:
    """Write configuration and contents; raises RunError if something that is read has changed and is not accepted."""
    contents = ContentRecord(out / CONTENTS_FILE)
    change = contents.update(
        run_inputs(config, ready.tasks, ready.base, None),
        accept=accept,
        step=reached,
        description=NAMES[0],
        remedy=NAMES[1],
        announce=console.print,
    )
    if change:
        console.print(f"Resuming with changes that were accepted: {change.text}", markup=False)
    # The configuration is first, because a folder without it is not taken for one of `sft`.
    write_atomically(out / CONFIG_FILE, to_yaml(config))
    contents.write()
    return contents


def _check_settings(config: Config, ranks: Ranks) -> None:
    if config.sft.batch_size < ranks.size:
        raise ConfigError(
            f"sft.batch_size: expected at least one record for each of the {ranks.size} processes, found "
            f"{config.sft.batch_size}"
        )
    expected = THINK_MODES[config.sft.reasoning]
    if expected != config.reward.think:
        raise ConfigError(
            f"sft.reasoning={config.sft.reasoning} teaches responses for reward.think={expected}, found reward.think="
            f"{config.reward.think}: reinforcement learning would give them no reward; make the two settings match"
        )
    if config.sft.scratch and config.model.lora:
        raise ConfigError("sft.scratch: expected model.lora=null, since a new model has no base weights for an adapter")
    for key, found in (("best", config.checkpoint.best), ("url", config.checkpoint.url)):
        if found is not None:
            raise ConfigError(
                f"checkpoint.{key}: expected null for `sft`, which keeps only the latest checkpoints, found {found!r}"
            )


def _check_folder(out: Path) -> None:
    """Raise RunError if the output path is a file, or a folder with files of another origin."""
    if out.exists() and not out.is_dir():
        raise RunError(f"output folder {out}: expected no folder or an empty one, found a file")
    if out.is_dir() and not (out / CONFIG_FILE).is_file() and any(p.name[0] != "." for p in out.iterdir()):
        raise RunError(f"output folder {out}: expected no folder or an empty one, found files in it; {NAMES[1]}")


def _prepare(config: Config, checkpoint: Path | None) -> _Ready:
    """Load and check model and data; bad records are set aside."""
    settings = config.sft
    check_attention(config.model)
    base = None if settings.scratch else model_folder(config.model.path)
    folder = checkpoint or base
    if folder:
        processor = load_processor(folder)
    else:
        processor = build_processor(_corpus(config.data.seed), image_size=config.prompt.image_size)
    # Every generated scene is used once, so caching it is useless.
    cache = None if config.data.source == "scenes" else open_cache(config.data.image_cache_gb)
    encoder = PromptEncoder(processor, config.prompt, cache)
    # The checkpoint of an adapter does not say what it adapts.
    model = base or checkpoint
    family = family_of_folder(model) if model else FAMILIES[FAMILY]
    stream = open_stream(config.data)
    stream.answers = answer_format(config.data, family, encoder.resolution)
    sampler = PromptSampler(stream, config.data, settings.batch_size)
    tasks = trained_tasks(config, stream)
    held_out = partial(stream.held_out, tasks, settings.eval_examples) if settings.eval_examples else list
    collator = SftCollator(encoder, settings.reasoning, settings.pack_tokens, rotated=config.reward.rotated)
    report = check_stream(stream, tasks, held_out(), collator.check, images=config.data.check_images)
    return _Ready(
        base, processor, collator, sampler, tasks, [Prompt(0, example) for example in held_out()], report.lines
    )


def _model(config: Config, ready: _Ready, device: torch.device, ranks: Ranks) -> nn.Module:
    if ready.base is None:
        return build_model(ready.processor, seed=config.run.seed).to(device)
    return load_model(config.model, ready.base, device, config.run.seed, ranks.shard_rank(config.model))


def _corpus(seed: int) -> Iterator[str]:
    """Texts of generated scenes on which a new tokenizer is trained."""
    for k in range(CORPUS_SCENES_PER_TASK * len(SCENE_TASKS)):
        example = scene_example(SCENE_TASKS[k % len(SCENE_TASKS)], seed, k // len(SCENE_TASKS))
        yield f"user\n{example.question}"
        yield demonstration(example)
        yield "assistant\n"


def _publish(config: Config, ready: _Ready, checkpoints: CheckpointFolder, out: Path) -> None:
    """Write the model of the last checkpoint into the output folder; ``config.json`` comes last and completes it."""
    latest = checkpoints.latest()
    assert latest is not None
    cpu = torch.device("cpu")
    base = ready.base if config.model.lora else None
    model: Any = load_model(config.model, base or latest[1], cpu, config.run.seed)
    if config.model.lora:
        restore_adapter(model, latest[1])
    partial, adapter = out / PARTIAL, out / "adapter"
    dtype = getattr(torch, config.sft.save_dtype or config.model.dtype)
    try:
        if config.model.lora:
            fill(partial, model.save_pretrained)
            shutil.rmtree(adapter, ignore_errors=True)
            partial.rename(adapter)
            model = model.merge_and_unload()
        fill(partial, lambda folder: save_model(convert(model, dtype), ready.processor, folder))
        for file in sorted(partial.iterdir(), key=lambda f: f.name == "config.json"):
            os.replace(file, out / file.name)
        partial.rmdir()
    except OSError as error:
        raise RunError(f"the model could not be written to {out}: {error}") from error

"""The functions that are fuzzed: each reads arbitrary bytes, and may only succeed or raise a UserError."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.answers import ANSWERS, read_records
from geovlm_ray.config import load_config, to_yaml
from geovlm_ray.core.errors import UserError
from geovlm_ray.core.files import read_objects, write_atomically
from geovlm_ray.data.records import scoring_record
from geovlm_ray.model.loading import adapter_weights, load_state, save_state
from geovlm_ray.rewards import RewardConfig, needs_embedder, score_batch
from geovlm_ray.training.checkpoint import STATE_FILE, CheckpointFolder
from tests.unit.conversion import run_convert
from tests.unit.format_sources import SOURCES

STATUSES = ("ok", "unparseable", "too_long")


@dataclass(frozen=True)
class Target:
    """A fuzzed function, and inputs from which mutation starts."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]


def answers(folder: Path) -> Target:
    """Scoring of an answer to one of the judged questions, which the first two bytes choose."""
    config = RewardConfig()
    found = read_records(sorted(ANSWERS.glob("*.jsonl")))
    records = [
        scoring_record({"id": "", "task": task, **record}) for task, record in found if not needs_embedder(task, config)
    ]

    def run(data: bytes) -> None:
        example, _ = records[int.from_bytes(data[:2], "big") % len(records)]
        (score,) = score_batch([data[2:].decode("utf-8", "replace")], [example], config)
        assert score.status in STATUSES
        assert 0 <= score.accuracy <= 1
        assert 0 <= score.total <= 2

    def seeds() -> Iterator[bytes]:
        for number, (_, response) in enumerate(records):
            yield number.to_bytes(2, "big") + response.encode()

    return Target(run, seeds)


def readers(folder: Path) -> Target:
    """Conversion of a source with one file replaced; the first byte chooses format and file."""
    sources = {name: (form, write(folder / name)) for name, (form, write) in SOURCES.items()}
    choices = [
        (form, source, file)
        for form, source in sources.values()
        for file in ([source] if source.is_file() else sorted(source.rglob("*")))
        if file.is_file() and file.stat().st_size < 20_000
    ]

    def run(data: bytes) -> None:
        form, source, file = choices[data[0] % len(choices) if data else 0]
        content = file.read_bytes()
        out = folder / "out"
        try:
            file.write_bytes(data[1:])
            with suppress(UserError):
                run_convert(form, source, out)
        finally:
            file.write_bytes(content)
            shutil.rmtree(out, ignore_errors=True)

    def seeds() -> Iterator[bytes]:
        for number, (_, _, file) in enumerate(choices):
            yield bytes([number]) + file.read_bytes()

    return Target(run, seeds)


def configuration(folder: Path) -> Target:
    """A recipe file, and after a zero byte the overrides, one a line."""
    folder.mkdir()
    file = folder / "recipe.yaml"

    def run(data: bytes) -> None:
        text, _, overrides = data.partition(b"\0")
        file.write_bytes(text)
        with suppress(UserError):
            load_config(str(file), overrides.decode("utf-8", "replace").split("\n") if overrides else ())

    def seeds() -> Iterator[bytes]:
        for recipe in ("demo", "geovlm-r1", "debug-gpu", "tiny-sft"):
            yield to_yaml(load_config(recipe)).encode()
        yield b"run: {name: a}\n\0run.steps=3\nlearner.lr=1e-5\ndata.stages=[{tasks: [vqa], steps: 1}]"

    return Target(run, seeds)


class _Saver:
    """Writes a trainer state, an adapter and a metrics file, as small as they can be."""

    def save(self, path: str) -> None:
        """Write the files."""
        target = Path(path)
        save_state({"step": 1, "optimizer": {"state": torch.zeros(2)}}, target / "learner.pt")
        save_file({"lora_A.weight": torch.zeros(2)}, target / "adapter_model.safetensors")
        write_atomically(target / "metrics.jsonl", '{"step": 1, "reward/mean": 0.5}\n')

    def saved(self) -> bool:
        """Whether the files are written."""
        return True


def checkpoints(folder: Path) -> Target:
    """A run's checkpoints with one file replaced, which the first byte chooses."""
    original = folder / "original"
    written = CheckpointFolder(original, keep=2)
    for step in (1, 2):
        written.save(step, _Saver(), {})
        written.record_scores(step, {"vqa": 0.5})
    written.finish()
    names = sorted(str(file.relative_to(original)) for file in original.rglob("*") if file.is_file())

    def run(data: bytes) -> None:
        current = folder / "current"
        shutil.rmtree(current, ignore_errors=True)
        shutil.copytree(original, current)
        (current / names[data[0] % len(names) if data else 0]).write_bytes(data[1:])
        step = current / "step-000002"
        with suppress(UserError):
            CheckpointFolder(current, keep=2).latest()
        for read in (
            lambda: load_state(step / "learner.pt"),
            lambda: adapter_weights(step),
            lambda: read_objects(step / "metrics.jsonl"),
        ):
            with suppress(UserError):
                read()

    def seeds() -> Iterator[bytes]:
        for number, name in enumerate(names):
            yield bytes([number]) + (original / name).read_bytes()

    assert (original / "step-000002" / STATE_FILE).is_file()
    return Target(run, seeds)


TARGETS: dict[str, Callable[[Path], Target]] = {
    "answers": answers,
    "readers": readers,
    "configuration": configuration,
    "checkpoints": checkpoints,
}

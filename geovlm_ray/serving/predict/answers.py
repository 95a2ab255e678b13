"""Answers about every window of scenes, drawn by rollout engines and kept until the map is written."""

from __future__ import annotations

import json
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image
from transformers import PreTrainedTokenizerBase

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import read_objects, write_atomically, writing
from geovlm_ray.core.interfaces import RolloutPool
from geovlm_ray.core.schema import Example, Prompt
from geovlm_ray.data.answer_format import AnswerFormat
from geovlm_ray.data.geo.composites import Composite, Renderer
from geovlm_ray.data.geo.scene import Scene, Window
from geovlm_ray.data.geo.windows import covering_windows, number_of_windows
from geovlm_ray.data.records import frame_from_json, short_repr
from geovlm_ray.evaluation.confidence import mean_probability
from geovlm_ray.serving.predict.pairs import align
from geovlm_ray.serving.predict.settings import PredictSettings
from geovlm_ray.tasks.targets import plain_frame

BATCH = 256
"""Windows per batch."""
IN_FLIGHT = 2
"""Batches submitted at once."""


@dataclass(frozen=True)
class WindowAnswer:
    """The greedy response about a window, its confidence, and further responses, if they were asked for.

    ``frame`` is that of boxes in the responses, as JSON. Without data in the window, ``response`` is None.
    """

    source: int
    window: Window
    response: str | None
    confidence: float = 0.0
    frame: Any = "percent"
    samples: tuple[str, ...] = ()

    def line(self) -> bytes:
        """As a line of the file of answers."""
        window = [self.window.left, self.window.top, self.window.width, self.window.height]
        fields = {"source": self.source, "window": window, "response": self.response, "confidence": self.confidence}
        return json.dumps({**fields, "frame": self.frame, "samples": self.samples}).encode() + b"\n"

    @classmethod
    def of(cls, row: dict[str, Any], where: str) -> WindowAnswer:
        """From a line of the file of answers; ``where`` names it in the DataError for another content."""
        try:
            source, response, confidence = row["source"], row["response"], float(row["confidence"])
            window, samples = Window(*map(int, row["window"])), tuple(map(str, row["samples"]))
            if not isinstance(source, int) or not isinstance(response, str | None):
                raise TypeError
            frame_from_json(row["frame"])
        except (KeyError, TypeError, ValueError, DataError) as error:
            raise DataError(f"{where}: expected an answer about a window, found {short_repr(row)}") from error
        return cls(source, window, response, confidence, row["frame"], samples)


class Answers:
    """The file of answers in a folder; a run that was killed goes on after its last complete line."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "answers.jsonl"
        lines = read_objects(self._path) if self._path.is_file() else []
        self.rows = [WindowAnswer.of(row, f"{self._path}, line {n}") for n, row in enumerate(lines, 1)]
        self.done = {(row.source, row.window) for row in self.rows}
        self._file: BinaryIO | None = None

    def add(self, answers: Iterable[WindowAnswer]) -> None:
        """Append answers.

        Raises:
            DataError: the disk is full.
        """
        with writing(self._path):
            if self._file is None:
                whole = b"".join(row.line() for row in self.rows)
                write_atomically(self._path, whole)
                self._file = self._path.open("ab")
            for answer in answers:
                self._file.write(answer.line())
                self.rows.append(answer)
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


@dataclass(frozen=True)
class AskedWindow:
    """A window, its number and its pictures on disk; without an example it has no data."""

    number: int
    source: int
    window: Window
    example: Example | None = None
    files: tuple[Path, ...] = ()


class _Source:
    """One scene, or two of one area, and the renderers of their pictures."""

    def __init__(self, paths: Sequence[str], settings: PredictSettings) -> None:
        self.scenes = [Scene(path) for path in paths]
        for later in self.scenes[1:]:
            align(later, self.scenes[0])
        self.renderers = [
            Renderer(scene, composite, settings.percentiles, settings.value_range)
            for scene in self.scenes
            for composite in settings.composites or (Composite.default(scene),)
        ]

    def close(self) -> None:
        """Close the files."""
        for scene in self.scenes:
            scene.close()


def ask_about_windows(
    sources: Sequence[Sequence[str]],
    settings: PredictSettings,
    answer_format: AnswerFormat,
    tokenizer: PreTrainedTokenizerBase,
    rollouts: RolloutPool,
    answers: Answers,
    folder: Path,
    on_progress: Callable[[int, int], None],
) -> None:
    """Ask about every window without an answer; ``on_progress`` receives the windows done and their number.

    Pictures of a few batches of windows are in ``folder`` meanwhile; of each scene, one window at a time is in memory.

    Raises:
        DataError: a source cannot be read, or a prompt does not fit the engine.
    """
    pictures = folder / "pictures"
    shutil.rmtree(pictures, ignore_errors=True)
    pictures.mkdir(parents=True)
    total = sum(_number_of_windows(source[0], settings) for source in sources)
    windows = rendered_windows(sources, settings, answer_format, answers.done.copy(), pictures)
    running: deque[_Batch] = deque()
    with ThreadPoolExecutor(1) as reader:
        upcoming = reader.submit(_next_windows, windows)
        while True:
            while len(running) < IN_FLIGHT and (asked := upcoming.result()):
                upcoming = reader.submit(_next_windows, windows)
                running.append(_Batch(asked, rollouts, settings.samples))
            if not running:
                break
            batch = running.popleft()
            answers.add(batch.answers(tokenizer))
            for path in (path for asked in batch.asked for path in asked.files):
                path.unlink()
            on_progress(len(answers.rows), total)
    shutil.rmtree(pictures)


class _Batch:
    """Windows whose answers are being drawn."""

    def __init__(self, asked: Sequence[AskedWindow], rollouts: RolloutPool, samples: int) -> None:
        self.asked = asked
        prompts = [Prompt(a.number, a.example) for a in asked if a.example is not None]
        self._greedy = rollouts.submit(prompts, group_size=1, greedy=True) if prompts else ()
        self._samples = rollouts.submit(prompts, group_size=samples) if prompts and samples else ()

    def answers(self, tokenizer: PreTrainedTokenizerBase) -> Iterator[WindowAnswer]:
        """The answer about each window."""
        greedy, more = (
            {group.group_id: group for part in parts for group in part} for parts in (self._greedy, self._samples)
        )
        for asked in self.asked:
            if asked.example is None:
                yield WindowAnswer(asked.source, asked.window, None)
                continue
            group = greedy[asked.number]
            if group.problem:
                raise DataError(f"window {asked.window} of source {asked.source + 1}: {group.problem}")
            sample, frame = group.samples[0], plain_frame(asked.example.frame)
            samples = tuple(s.text for s in more[asked.number].samples) if more else ()
            confidence = mean_probability(sample, tokenizer)
            yield WindowAnswer(asked.source, asked.window, sample.text, confidence, frame, samples)


def windows_left(sources: Sequence[Sequence[str]], settings: PredictSettings, answers: Answers) -> int:
    """How many windows have no answer yet."""
    return sum(_number_of_windows(source[0], settings) for source in sources) - len(answers.rows)


def _number_of_windows(path: str, settings: PredictSettings) -> int:
    with Scene(path) as scene:
        return number_of_windows(scene.width, scene.height, settings.side, settings.overlap)


def _next_windows(windows: Iterator[AskedWindow]) -> list[AskedWindow]:
    return list(islice(windows, BATCH))


def rendered_windows(
    sources: Sequence[Sequence[str]],
    settings: PredictSettings,
    answer_format: AnswerFormat,
    done: set[tuple[int, Window]],
    folder: Path,
) -> Iterator[AskedWindow]:
    """The windows that are not done, with their pictures as files."""
    number = 0
    for k, paths in enumerate(sources):
        with closing(_Source(paths, settings)) as source:
            first = source.scenes[0]
            for window in covering_windows(first.width, first.height, settings.side, settings.overlap):
                number += 1
                if (k, window) not in done:
                    yield _asked(number, k, window, source.renderers, settings, answer_format, folder)


def _asked(
    number: int,
    source: int,
    window: Window,
    renderers: Sequence[Renderer],
    settings: PredictSettings,
    answer_format: AnswerFormat,
    folder: Path,
) -> AskedWindow:
    pictures = [renderer.render(window) for renderer in renderers]
    if not all(has_data for _, has_data in pictures):
        return AskedWindow(number, source, window)
    files = tuple(folder / f"{number:09d}-{i}.bmp" for i in range(len(pictures)))
    for file, (picture, _) in zip(files, pictures, strict=True):
        Image.fromarray(picture).save(file)
    example = Example(
        f"window {number}",
        settings.task,
        tuple(map(str, files)),
        settings.question,
        "",
        labels=settings.classes,
        rotated=settings.rotated,
    )
    return AskedWindow(number, source, window, answer_format.of(example), files)

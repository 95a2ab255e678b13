"""Evaluation of a model on benchmarks: draw, score, write down, and go on where an earlier try was ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from rich.console import Console

from geovlm_ray.config import Config, check_unchanged, to_yaml
from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import write_atomically
from geovlm_ray.core.interfaces import RewardPool, RolloutPool
from geovlm_ray.core.locks import locked
from geovlm_ray.data.convert import Counts
from geovlm_ray.evaluation.cases import Cases, dataset_cases, drawn_cases
from geovlm_ray.evaluation.datasets import converted_once, left_out
from geovlm_ray.evaluation.generate import generate_predictions
from geovlm_ray.evaluation.origin import check_origin, origin_of, write_origin
from geovlm_ray.evaluation.page import write_page
from geovlm_ray.evaluation.predictions import Predictions
from geovlm_ray.evaluation.reasoning import VARIANTS, prefills
from geovlm_ray.evaluation.registry import Benchmark
from geovlm_ray.evaluation.results import Results, result_of, write_results
from geovlm_ray.evaluation.tables import markdown
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.rewards.local import LocalRewards

NAMES = ("evaluation folder", "choose another --out")
BATCH = 256
"""Cases that an engine is sent together."""
MAY_CHANGE = (
    "model.path",
    "evaluation.data",
    "rollout.stall_s",
    "run.wait_for_nodes_s",
    "placement.rollout.actors",
    "placement.strategy",
)

OnProgress = Callable[[int, str], None]


@dataclass(frozen=True)
class Evaluated:
    """What is evaluated: a model by the name it was given, its benchmarks, and where their data is.

    With ``reasoning`` every answer is asked for again with the reasoning removed and swapped.
    """

    model: str
    benchmarks: Sequence[Benchmark]
    data: Path | None
    limit: int | None = None
    reasoning: bool = False


@dataclass(frozen=True)
class Found:
    """Benchmarks with their cases, why others are absent, and what datasets lack that were converted here."""

    there: list[tuple[Benchmark, Cases]]
    absent: dict[str, str]
    left_out: dict[str, str]


def find_cases(what: Evaluated, config: Config, out: Path, on_progress: OnProgress) -> Found:
    """The benchmarks whose data is there and can be read."""
    found = Found([], {}, {})
    for benchmark in what.benchmarks:
        if benchmark.reader is None:
            found.there.append((benchmark, drawn_cases(benchmark, what.limit)))
            continue
        data = benchmark.path or (what.data / benchmark.name if what.data else None)
        if data is None or not data.exists():
            found.absent[benchmark.name] = benchmark.where(what.data)
            continue
        told = partial(converted, on_progress, f"records of {benchmark.name} converted")
        options = benchmark.reader_options
        try:
            shards = benchmark.path or converted_once(benchmark.name, benchmark.reader, options, data, out, told)
            cases = dataset_cases(benchmark, data, shards, config.data.answer_frame, what.limit)
            lacks = left_out(shards) if shards.is_relative_to(out) else None
        except DataError as error:
            found.absent[benchmark.name] = str(error)
        else:
            found.there.append((benchmark, cases))
            if lacks:
                found.left_out[shards.name] = lacks
    return found


def evaluate(
    what: Evaluated,
    config: Config,
    out: Path,
    build: Callable[[Config], RolloutPool],
    console: Console,
    on_progress: OnProgress,
) -> Results:
    """Evaluate a model and write everything into ``out``.

    Args:
        config: how prompts are written and completions drawn; its model is the one that engines load.
        build: makes the engines; it is not called where all predictions are there.
        on_progress: is told how much of what is done.

    Raises:
        UserError: the evaluation cannot start or go on, or no benchmark can be answered; the message says why.
    """
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, *NAMES):
        origin = origin_of(what.model, Path(config.model.path), what.limit)
        check_origin(origin, out)
        check_unchanged(config, out / "config.yaml", MAY_CHANGE, *NAMES)
        found = find_cases(what, config, out, on_progress)
        for name, why in (found.absent | found.left_out).items():
            _warn(console, name, why)
        results = Results(what.model, absent=found.absent, left_out=found.left_out)
        if found.there:
            write_origin(origin, out)
            write_atomically(out / "config.yaml", to_yaml(config))
        rewards = LocalRewards(yardstick(config.reward))
        variants = tuple(VARIANTS) if what.reasoning else ()
        with ExitStack() as stack:
            start = cache(lambda: stack.enter_context(closing(build(config))))
            for benchmark, cases in found.there:
                try:
                    _draw(benchmark, cases, variants, start, rewards, config, out, on_progress)
                except DataError as error:
                    results.absent[benchmark.name] = str(error)
                    _warn(console, benchmark.name, str(error))
        answered = [benchmark for benchmark, _ in found.there if benchmark.name not in results.absent]
        if not answered:
            name, why = next(iter(results.absent.items()))
            raise DataError(f"none of {len(what.benchmarks)} benchmarks was evaluated; {name}: {why}")
        for benchmark in answered:
            on_progress(len(results.benchmarks), "benchmarks measured")
            rows, *others = (_predictions(out, benchmark, variant).rows() for variant in ("", *variants))
            again = dict(zip(variants, others, strict=True))
            results.benchmarks[benchmark.name] = result_of(benchmark, rows, rewards, again)
        write_results(results, out)
        write_atomically(out / "results.md", markdown(results))
        write_page(results, out)
    return results


def yardstick(config: RewardConfig) -> RewardConfig:
    """The reward whose accuracy is the score: the default forms, under the think mode of the model."""
    return RewardConfig(think=config.think, max_chars=config.max_chars, sbert=config.sbert)


def _warn(console: Console, name: str, why: str) -> None:
    console.print(f"{name}: {why}", style="yellow", markup=False, highlight=False)


def _predictions(out: Path, benchmark: Benchmark, variant: str = "") -> Predictions:
    """Predictions as they come, or with a variant of their reasoning."""
    return Predictions(out / "predictions", f"{benchmark.name}.{variant}" if variant else benchmark.name)


def _draw(
    benchmark: Benchmark,
    cases: Cases,
    variants: Sequence[str],
    start: Callable[[], RolloutPool],
    rewards: RewardPool,
    config: Config,
    out: Path,
    on_progress: OnProgress,
) -> None:
    """Draw what a benchmark lacks; engines are started where it lacks something."""
    own = _predictions(out, benchmark)
    for variant in ("", *variants):
        predictions = _predictions(out, benchmark, variant)
        if not predictions.complete:
            asked = prefills(own.rows(), variant) if variant else None
            text = f"of {len(cases if asked is None else asked):,} records of {predictions.file.stem} answered"
            batch = BATCH * config.placement.rollout.actors
            told = partial(_told, on_progress, text)
            generate_predictions(cases, predictions, start(), rewards, batch, told, asked)


def _told(on_progress: OnProgress, text: str, done: int) -> None:
    on_progress(done, text)


def converted(on_progress: OnProgress, text: str, counts: Counts) -> None:
    """Tell how many records are converted."""
    on_progress(counts.records, text)

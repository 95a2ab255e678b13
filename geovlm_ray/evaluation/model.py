"""Evaluate a model on benchmarks: generate and score predictions, write the results, resume an interrupted run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rich.console import Console

from geovlm_ray.config import Config, check_unchanged, to_yaml
from geovlm_ray.core.contents import FILE as CONTENTS_FILE
from geovlm_ray.core.contents import ContentRecord
from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import write_atomically
from geovlm_ray.core.interfaces import RewardPool, RolloutPool
from geovlm_ray.core.locks import locked
from geovlm_ray.data.answer_format import AnswerFormat
from geovlm_ray.evaluation.contents import BENCHMARK, evaluation_inputs
from geovlm_ray.evaluation.datasets import OnProgress, convert_once, has_predictions, left_out
from geovlm_ray.evaluation.examples import BenchmarkExamples, dataset_examples, synthetic_examples
from geovlm_ray.evaluation.generate import generate_predictions
from geovlm_ray.evaluation.metrics.sound import needs_embedder
from geovlm_ray.evaluation.origin import check_limit, write_origin
from geovlm_ray.evaluation.page import write_page
from geovlm_ray.evaluation.predictions import Predictions
from geovlm_ray.evaluation.reasoning import VARIANTS, variant_prefills
from geovlm_ray.evaluation.registry import Benchmark
from geovlm_ray.evaluation.results import Results, result_of, write_results
from geovlm_ray.evaluation.settings import MAY_CHANGE
from geovlm_ray.evaluation.tables import markdown
from geovlm_ray.model.answer_format import answer_format_of
from geovlm_ray.model.loading import load_processor
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.rewards.isolated import check_function
from geovlm_ray.rewards.local import LocalRewards
from geovlm_ray.rewards.text_metrics.wordnet import require_wordnet

FOLDER_AND_REMEDY = ("evaluation folder", "choose another --out")
"""For error messages: what ``out`` is, and what the user can do."""
BATCH = 256
"""Examples per batch and rollout actor."""


@dataclass(frozen=True)
class EvaluationSpec:
    """The model (its name as given), the benchmarks, the folder of their data, and the maximum records per benchmark.

    With ``reasoning``, every answer is generated again with the reasoning removed, and again with it swapped.
    """

    model: str
    benchmarks: Sequence[Benchmark]
    data: Path | None
    limit: int | None = None
    reasoning: bool = False


@dataclass(frozen=True)
class LoadedBenchmarks:
    """Benchmarks with their examples.

    ``absent`` gives the reason by benchmark that could not be loaded, ``left_out`` what was skipped or quarantined by
    dataset that was converted here, and what could not be shown by benchmark.
    """

    available: list[tuple[Benchmark, BenchmarkExamples]]
    absent: dict[str, str]
    left_out: dict[str, str]


def load_benchmarks(
    spec: EvaluationSpec, answers: AnswerFormat, out: Path, on_progress: OnProgress
) -> LoadedBenchmarks:
    """Load the benchmarks whose data exists and is readable; sources that are not converted yet are converted."""
    loaded = LoadedBenchmarks([], {}, {})
    for benchmark in spec.benchmarks:
        if benchmark.reader is None:
            loaded.available.append((benchmark, synthetic_examples(benchmark, answers, spec.limit)))
            continue
        data = benchmark.path or (spec.data / benchmark.name if spec.data else None)
        if data is None or not data.exists():
            loaded.absent[benchmark.name] = benchmark.missing_data_message(spec.data)
            continue
        options = benchmark.reader_options
        try:
            shards = benchmark.path or convert_once(benchmark.name, benchmark.reader, options, data, out, on_progress)
            examples = dataset_examples(benchmark, data, shards, answers, spec.limit)
            skipped = left_out(shards) if shards.is_relative_to(out) else None
        except DataError as error:
            loaded.absent[benchmark.name] = str(error)
        else:
            loaded.available.append((benchmark, examples))
            if skipped:
                loaded.left_out[shards.name] = skipped
    return loaded


def evaluate(
    spec: EvaluationSpec,
    config: Config,
    out: Path,
    build: Callable[[Config], RolloutPool],
    console: Console,
    on_progress: OnProgress,
    *,
    accept_changes: bool = False,
) -> Results:
    """Evaluate a model and write configuration, predictions and results into ``out``.

    ``build`` builds the engines, which load ``config.model.path``; it is only called if predictions are missing. With
    ``accept_changes``, an evaluation is resumed although files that it reads have changed; predictions are kept.

    Raises:
        UserError: the evaluation cannot start or resume, or no benchmark could be evaluated.
    """
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, *FOLDER_AND_REMEDY):
        check_limit(spec.limit, out)
        check_unchanged(config, out / "config.yaml", MAY_CHANGE, *FOLDER_AND_REMEDY)
        rewards = LocalRewards(default_reward_config(config.reward))
        contents = _checked_contents(spec, config, rewards.config, out, accept_changes, console)
        answers = answer_format_of(config.data, config.prompt, Path(config.model.path))
        loaded = load_benchmarks(spec, answers, out, on_progress)
        for name, reason in (loaded.absent | loaded.left_out).items():
            _warn(console, name, reason)
        changes = [change.text for change in contents.changes]
        results = Results(spec.model, absent=loaded.absent, left_out=loaded.left_out, changes=changes)
        if loaded.available:
            contents.write()
            write_origin(spec.model, spec.limit, out)
            write_atomically(out / "config.yaml", to_yaml(config))
        tasks = [benchmark.task for benchmark, _ in loaded.available]
        check_function(rewards.config, tasks)
        if any(map(needs_embedder, tasks)):
            require_wordnet()
        variants = tuple(VARIANTS) if spec.reasoning else ()
        for name, reason in _generate_all(loaded, variants, build, rewards, config, out, results, on_progress).items():
            _warn(console, name, reason)
        completed = [benchmark for benchmark, _ in loaded.available if benchmark.name not in results.absent]
        if not completed:
            name, reason = next(iter(results.absent.items()))
            raise DataError(f"none of {len(spec.benchmarks)} benchmarks was evaluated; {name}: {reason}")
        for benchmark in completed:
            on_progress(len(results.benchmarks), "benchmarks measured")
            rows, *variant_rows = (_predictions(out, benchmark, variant).rows() for variant in ("", *variants))
            by_variant = dict(zip(variants, variant_rows, strict=True))
            results.benchmarks[benchmark.name] = result_of(benchmark, rows, rewards, by_variant)
        write_results(results, out)
        write_atomically(out / "results.md", markdown(results))
        write_page(results, out)
    return results


def _checked_contents(
    spec: EvaluationSpec, config: Config, reward: RewardConfig, out: Path, accept: bool, console: Console
) -> ContentRecord:
    """The record of what the evaluation reads; raises RunError if something has changed under its predictions."""
    data = {b.origin.stem: b.origin for b in spec.benchmarks if b.origin}
    data |= {b.name: spec.data / b.name for b in spec.benchmarks if b.reader and not b.origin and spec.data}
    record = ContentRecord(out / CONTENTS_FILE)
    for kind in [kind for kind in record.contents if kind.startswith(BENCHMARK)]:
        if not has_predictions(kind.removeprefix(BENCHMARK), out):
            del record.contents[kind]
    inputs = evaluation_inputs(config, [benchmark.task for benchmark in spec.benchmarks], reward, data)
    description, remedy = FOLDER_AND_REMEDY
    change = record.update(
        inputs, accept=accept, step=None, description=description, remedy=remedy, announce=console.print
    )
    if change:
        console.print(f"Resuming with changes that were accepted: {change.text}", markup=False)
    return record


def default_reward_config(config: RewardConfig) -> RewardConfig:
    """The reward whose accuracy is the benchmark score: default reward functions, with the model's think mode."""
    kept = ("think", "confidence", "max_chars", "sbert", "time_limit_s", "memory_limit_gb", "environment")
    return RewardConfig(**{name: getattr(config, name) for name in kept})


def _warn(console: Console, name: str, reason: str) -> None:
    console.print(f"{name}: {reason}", style="yellow")


def _predictions(out: Path, benchmark: Benchmark, variant: str = "") -> Predictions:
    """Predictions with the model's own reasoning, or with a variant of it."""
    return Predictions(out / "predictions", f"{benchmark.name}.{variant}" if variant else benchmark.name)


def _generate_all(
    loaded: LoadedBenchmarks,
    variants: Sequence[str],
    build: Callable[[Config], RolloutPool],
    rewards: LocalRewards,
    config: Config,
    out: Path,
    results: Results,
    on_progress: OnProgress,
) -> dict[str, str]:
    """Generate the missing predictions of all benchmarks; ``results`` gets what cannot be evaluated, and why.

    Returns the problems that were found.
    """
    problems = {}
    with ExitStack() as stack:
        start = cache(lambda: stack.enter_context(closing(build(config))))
        for benchmark, examples in loaded.available:
            try:
                _generate_missing(benchmark, examples, variants, start, rewards, config, out, on_progress)
                bad = _predictions(out, benchmark).bad_records(len(examples), config.data.max_bad)
                if bad:
                    problems[benchmark.name] = results.left_out[benchmark.name] = bad.summary
            except DataError as error:
                problems[benchmark.name] = results.absent[benchmark.name] = str(error)
    return problems


def _generate_missing(
    benchmark: Benchmark,
    examples: BenchmarkExamples,
    variants: Sequence[str],
    start: Callable[[], RolloutPool],
    rewards: RewardPool,
    config: Config,
    out: Path,
    on_progress: OnProgress,
) -> None:
    """Generate the missing predictions of a benchmark; starts the engines only if some are missing."""
    original = _predictions(out, benchmark)
    for variant in ("", *variants):
        predictions = _predictions(out, benchmark, variant)
        if not predictions.complete:
            prefills = variant_prefills(original.rows(), variant) if variant else None
            total = len(examples if prefills is None else prefills)

            def report(done: int, text: str = f"of {total:,} {predictions.file.stem} records answered") -> None:
                on_progress(done, text)

            batch = BATCH * config.placement.rollout.actors
            max_bad = config.data.max_bad
            tokenizer = load_processor(Path(config.model.path)).tokenizer
            generate_predictions(examples, predictions, start(), rewards, batch, report, prefills, max_bad, tokenizer)

"""Speed of the rewards: against plain loops, against the bare encoder, on worst-case inputs, and in a pool.

``python -m benchmarks.rewards [--json OUT]``. All rates except the pool's are per second of CPU time of one thread.
Each round scores a new random batch, so that caches do not help. Contenders are interleaved; the best round of each
counts.
"""

from __future__ import annotations

import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
import shapely
import torch
from nltk.translate.meteor_score import single_meteor_score
from rouge_score.rouge_scorer import RougeScorer
from scipy.optimize import linear_sum_assignment

from actors.cluster import connect
from actors.reward import RayRewards
from benchmarks.common import Figure, at_least, at_most, pairs, parser, publish
from benchmarks.random_batches import GROUP, Batch, random_batch
from geovlm_ray.config import load_config
from geovlm_ray.core.schema import Box, Example, Prompt, Sample, SampleGroup
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.rewards import RewardConfig, needs_embedder, score_batch
from geovlm_ray.rewards.facts import fact_agreement
from geovlm_ray.rewards.registry import REWARDS
from geovlm_ray.rewards.sbert import SbertEmbedder
from geovlm_ray.rewards.text_metrics.lexical import meteor, rouge_f
from geovlm_ray.rewards.text_metrics.wordnet import open_wordnet
from geovlm_ray.tasks import TASKS

MIN_SPEEDUP = 5.0
MIN_ENCODER_RATIO = 0.95
MAX_GROWTH = 3.0
"""Limit of the time of an input over the time of one of half its length."""
RETRIES = 8
"""Repetitions if a growth looks too large, so that a pause of the machine does not count."""
RESOLUTION_S = 0.002
"""Shorter durations are too inaccurate to compare."""

WORST = (
    *("<", "[", "]", "{", " ", "\n", "9", "a", "1,", "a ", "a,b;", "and ", "\ud800", "İ", "<think></think><answer>"),
    *(
        "<answer>",
        "<box>",
        "<ref>a</ref>",
        "<box></box>",
        "<ref>ship</ref><box>[[1,2,3,4]]</box>",
        "[1,2,3,4]",
        "[1,2],",
    ),
    *("ship [[1,2,3,4], ", "{<1><2><3><4>|<9>}", "{<1>", '{"bbox_2d": [1,2,3,4], "label": "ship"},', '[{"a":', "nan,"),
    *("two red ships on the left of ", "no ", "arable land, ", "land and water and ", "a.b", "1.5.", "\x00", "- "),
)
"""Texts whose repetitions are the worst-case inputs."""


@dataclass(frozen=True)
class Scale:
    """Size of the benchmark.

    Args:
        batch: completions per batch.
        rounds: rounds per comparison.
        encoder_batch: completions per round of the encoder; divides ``batch``.
        size: characters of a worst-case input, which is compared with one of twice the length.
        units: texts of which worst-case inputs consist.
    """

    batch: int = 4096
    rounds: int = 3
    encoder_batch: int = 512
    size: int = 64 * 1024
    units: tuple[str, ...] = WORST

    def batches(self, task: str) -> list[Batch]:
        """A random batch of a task for each round."""
        return [self.one_batch(task, seed) for seed in range(self.rounds)]

    def one_batch(self, task: str, seed: int = 0) -> Batch:
        """A random batch of a task."""
        return random_batch(task, seed, self.batch // GROUP)


SMOKE = Scale(batch=64, rounds=1, encoder_batch=32, size=1024, units=WORST[::12])


def main() -> int:
    """Measure and publish."""
    options = parser(__doc__ or "").parse_args()
    silence_third_party_logs()
    torch.set_num_threads(1)
    scale = SMOKE if options.smoke else Scale()
    embedder = SbertEmbedder.from_config(RewardConfig().sbert)
    print("Against plain loops ...")
    figures = against_loops(scale)
    print("Each task ...")
    figures += each_task(scale)
    print("Against the bare encoder ...")
    figures += against_encoder(embedder, scale)
    print("Worst-case inputs ...")
    figures += worst_inputs(embedder, scale)
    print("Pool ...")
    figures += pool(scale)
    return publish("rewards", figures, options, batch=scale.batch, completions_per_prompt=GROUP)


def against_loops(scale: Scale) -> list[Figure]:
    """Rates of the metrics, and of loops over the reference implementations."""
    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=True)
    return [
        *versus_loop(
            scale,
            "ROUGE-1 and ROUGE-L",
            "image_captioning",
            lambda b: [rouge_f(b.pairs, "rouge1"), rouge_f(b.pairs, "rougeL")],
            lambda b: [scorer.score(reference, answer) for answer, reference in b.pairs],
            MIN_SPEEDUP,
        ),
        *versus_loop(
            scale,
            "Levenshtein",
            "image_captioning",
            lambda b: accuracies("levenshtein", b),
            lambda b: [plain_levenshtein(answer, reference) for answer, reference in b.pairs],
            MIN_SPEEDUP,
        ),
        *versus_loop(
            scale,
            "boxes",
            "object_detection",
            lambda b: accuracies("detection", b),
            lambda b: [plain_matched_iou(a, boxes) for a, boxes in zip(b.answers, b.boxes, strict=True)],
            MIN_SPEEDUP,
        ),
        *versus_loop(
            scale,
            "METEOR",
            "image_captioning",
            lambda b: meteor(b.pairs),
            lambda b: [single_meteor_score(r.split(), a.split(), wordnet=open_wordnet()) for a, r in b.pairs],
        ),
        Figure(
            "facts, completions/s",
            rate(scale, "image_captioning", lambda b: [fact_agreement(*pair) for pair in b.pairs]),
        ),
    ]


def versus_loop(
    scale: Scale,
    name: str,
    task: str,
    ours: Callable[[Batch], object],
    loop: Callable[[Batch], object],
    limit: float | None = None,
) -> list[Figure]:
    """Rates of both ways to score the same batches, interleaved, and their ratio."""
    our_s, loop_s = [], []
    for batch in scale.batches(task):
        our_s.append(cpu_seconds(ours, batch))
        loop_s.append(cpu_seconds(loop, batch))
    ratio = min(loop_s) / min(our_s)
    ratio_name = f"{name}, times the plain loop"
    return [
        Figure(f"{name}, completions/s", scale.batch / min(our_s)),
        Figure(f"{name}, plain loop, completions/s", scale.batch / min(loop_s)),
        at_least(ratio_name, ratio, limit) if limit else Figure(ratio_name, ratio),
    ]


def rate(scale: Scale, task: str, score: Callable[[Batch], object]) -> float:
    """Completions per second of the best round."""
    return scale.batch / min(cpu_seconds(score, batch) for batch in scale.batches(task))


def accuracies(reward: str, batch: Batch) -> object:
    """Accuracies of answers by a reward that needs no embedder."""
    return REWARDS[reward].score(batch.answers, batch.examples, RewardConfig(), None)


def plain_levenshtein(a: str, b: str) -> float:
    """1 - distance / length of the longer text, by textbook dynamic programming."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        last, row = row, [i]
        for j, right in enumerate(b, 1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (left != right)))
    return 1 - row[-1] / max(len(a), len(b), 1)


def plain_matched_iou(answer: str, truth: Sequence[Box]) -> float:
    """Matched IoU of one answer by shapely and scipy, pair by pair."""
    predicted = [shapely.box(*row) for row in json.loads(answer)]
    targets = [shapely.box(*box.coords) for box in truth]
    iou = np.array([[p.intersection(t).area / p.union(t).area for t in targets] for p in predicted])
    rows, columns = linear_sum_assignment(iou, maximize=True)
    return float(iou[rows, columns].sum() / max(len(predicted), len(targets)))


def each_task(scale: Scale) -> list[Figure]:
    """Rates of the default reward on complete responses, for every task that needs no embedder."""
    return [Figure(f"{task}, completions/s", rate(scale, task, default_reward)) for task in plain_tasks()]


def default_reward(batch: Batch, embedder: SbertEmbedder | None = None) -> object:
    """Scores of a batch with the default configuration."""
    return score_batch(batch.responses, batch.examples, RewardConfig(), embedder)


def against_encoder(embedder: SbertEmbedder, scale: Scale) -> list[Figure]:
    """Rate of the default SBERT reward over that of bare `encode` on the same answers, with cached references."""
    batch = scale.one_batch("region_captioning")
    embedder.encode([reference for _, reference in batch.pairs])
    bare_model, counted = embedder.model, CountingEncoder(embedder.model)
    ours, bare = [], []
    for start in range(0, scale.batch, scale.encoder_batch):
        part = slice(start, start + scale.encoder_batch)
        piece = Batch(batch.examples[part], batch.answers[part])
        embedder.model = bare_model
        bare.append(cpu_seconds(encode, embedder, piece.answers))
        embedder.model = counted
        ours.append(cpu_seconds(default_reward, piece, embedder))
    embedder.model = bare_model
    repeated = counted.texts - len(set(batch.answers))
    return [
        Figure("region_captioning, completions/s", scale.encoder_batch / min(ours)),
        Figure("bare encode, completions/s", scale.encoder_batch / min(bare)),
        at_least("region_captioning / bare encode", float(np.median(np.divide(bare, ours))), MIN_ENCODER_RATIO),
        Figure("references encoded again", repeated, "0", repeated == 0),
    ]


class CountingEncoder:
    """An encoder that counts the texts that it encodes."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.texts = 0

    def encode(self, texts: Sequence[str], **settings: Any) -> Any:
        """Embeddings of the wrapped model."""
        self.texts += len(texts)
        return self.model.encode(texts, **settings)


def encode(embedder: SbertEmbedder, texts: list[str]) -> object:
    """Embeddings of the bare model with the same settings."""
    return embedder.model.encode(
        texts, batch_size=embedder.batch_size, normalize_embeddings=True, show_progress_bar=False
    )


def worst_inputs(embedder: SbertEmbedder, scale: Scale) -> list[Figure]:
    """Largest growth of the time to score a response when its length doubles, over all tasks and dialects."""
    config = RewardConfig(max_chars=4 * scale.size)
    tasks = [t for t in TASKS if TASKS[t].default_reward not in ("referred_detection", "fbeta")]
    records = [random_batch(task, 0, prompts=1).examples[0] for task in [*tasks, "multilabel_classification"]]
    boxed = [r for r in records if TASKS[r.task].target_kind in ("boxes", "grounded")]
    cases = [(r, config) for r in records]
    cases += [(replace(r, dialect=d), config) for r in boxed for d in ("geochat", "tagged", "json", "polygons")]
    cases += [(r, config.model_copy(update={"rotated": True})) for r in boxed]
    growths, longest = [], 0.0
    for record, settings in cases:
        model = embedder if needs_embedder(record.task, settings) else None
        for unit in scale.units:
            growth, double = growth_of(functools.partial(time_of, unit, record, settings, model), scale.size)
            growths.append((growth, f"{record.task} ({record.dialect})", unit))
            longest = max(longest, double)
    growth, task, unit = max(growths)
    print(f"Largest growth: {task} on {unit!r}")
    kilobytes = scale.size // 1024
    return [
        at_most(f"worst input, time at {2 * kilobytes} KB / time at {kilobytes} KB", growth, MAX_GROWTH),
        Figure(f"worst input of {2 * kilobytes} KB, ms", 1e3 * longest),
    ]


def time_of(unit: str, record: Example, config: RewardConfig, embedder: SbertEmbedder | None, size: int) -> float:
    """Seconds to score repetitions of ``unit`` of ``size`` characters, as a bare response and inside answer tags."""
    answer = (unit * (size // len(unit) + 1))[:size]
    responses = [answer, f"<think></think><answer>{answer}</answer>"]
    return cpu_seconds(score_batch, responses, [record] * 2, config, embedder)


def growth_of(measure: Callable[[int], float], size: int) -> tuple[float, float]:
    """Time at twice the size over time at the size (median of several pairs if the first looks bad), and the former."""
    times = [(measure(size), measure(2 * size))]
    if times[0][1] > 0.8 * MAX_GROWTH * max(times[0][0], RESOLUTION_S):
        times += [(measure(size), measure(2 * size)) for _ in range(RETRIES)]
    return float(np.median([double / max(single, RESOLUTION_S) for single, double in times])), min(d for _, d in times)


def pool(scale: Scale) -> list[Figure]:
    """Wall-clock rates of one and two reward actors on a mixed batch of all tasks that need no embedder."""
    tasks = plain_tasks()
    parts = [scale.one_batch(task) for task in tasks]
    groups = [
        SampleGroup(
            Prompt(at // GROUP, parts[(at // GROUP) % len(tasks)].examples[at]),
            tuple(
                Sample((i,), (0.0,), parts[(at // GROUP) % len(tasks)].responses[i], "stop", 0)
                for i in range(at, at + GROUP)
            ),
        )
        for at in range(0, scale.batch, GROUP)
    ]
    connect()
    with tempfile.TemporaryDirectory(prefix="geovlm-ray-bench-") as folder:
        settings = [f"run.dir={folder}", "placement.reward.num_cpus=0"]
        one_actor, two_actors = (
            RayRewards(load_config("demo", [*settings, f"placement.reward.actors={n}"]), tasks) for n in (1, 2)
        )
        durations = pairs(lambda: one_actor.score(groups), lambda: two_actors.score(groups), scale.rounds)
        one_actor.close()
        two_actors.close()
        ray.shutdown()
    one, two = (scale.batch / min(values) for values in durations)
    return [
        Figure("pool of 1 actor, completions/s", one),
        Figure("pool of 2 actors, completions/s", two),
        Figure("pool of 2 actors / 1", two / one),
    ]


def plain_tasks() -> list[str]:
    """The tasks whose default reward needs no embedder."""
    return [task for task in TASKS if not needs_embedder(task, RewardConfig())]


def cpu_seconds(call: Callable[..., object], *arguments: Any) -> float:
    """CPU time of a call."""
    begun = time.process_time()
    call(*arguments)
    return time.process_time() - begun


if __name__ == "__main__":
    sys.exit(main())

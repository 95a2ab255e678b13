"""How fast the rewards score: against plain loops, against the bare encoder, on the worst inputs, in a pool.

``python -m benchmarks.rewards [--json OUT]``. All rates but the pool's are per second of CPU time of one thread. Each
round draws a new batch, so that no answer is known from the round before; what is compared takes turns and the best
round of each counts. Texts and boxes are drawn; a prompt has `GROUP` completions, which share its reference.
"""

from __future__ import annotations

import functools
import json
import random
import sys
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
from benchmarks.common import Figure, at_least, at_most, parser, publish
from geovlm_ray.config import load_config
from geovlm_ray.core.schema import TASK_NAMES, Box, Example, GroundedText, Prompt, Sample, SampleGroup, Target
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.data.answers import format_boxes
from geovlm_ray.rewards import RewardConfig, needs_embedder, score_batch
from geovlm_ray.rewards.facts import agreement
from geovlm_ray.rewards.registry import REWARDS
from geovlm_ray.rewards.sbert import SbertEmbedder
from geovlm_ray.rewards.text_metrics.lexical import meteor, rouge_f
from geovlm_ray.rewards.text_metrics.wordnet import open_wordnet
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.labels import BIGEARTHNET_19

BATCH = 4096
GROUP = 8
ROUNDS = 3
PIECE = 512
"""Completions of one turn of the encoder."""
FASTER = 5.0
ENCODER = 0.95
SIZE = 64 * 1024
LONGER = 3.0
"""Twice the length of an input may take so many times as long."""
RETRIES = 8
"""Pairs by which a growth that looks bad is measured again; a pause of the machine must not pass for it."""
TICK = 0.002
"""Seconds below which a duration says nothing."""

NUMBERS = ("two", "three", "four", "several", "many", "a few", "5", "12")
LOOKS = ("white", "red", "small", "large", "grey", "long", "blue", "round", "old", "dark green")
THINGS = ("ships", "buildings", "planes", "storage tanks", "vehicles", "trees", "houses", "tennis courts", "bridges")
VERBS = ("are parked", "can be seen", "lie", "stand", "are arranged in rows", "were built", "are scattered")
PLACES = (
    "on the left of",
    "on the right of",
    "near",
    "beside",
    "at the top of",
    "along",
    "between",
    "at the bottom of",
)
GROUNDS = ("the airport runway", "the river", "a wide road", "the forest", "bare farmland", "the harbour", "a car park")
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


@dataclass(frozen=True)
class Batch:
    """Completions of one task; ``answers`` are the insides of ``responses``."""

    examples: list[Example]
    answers: list[str]

    @property
    def responses(self) -> list[str]:
        """The answers in their tags."""
        return [f"<think>I look at the image.</think><answer>{answer}</answer>" for answer in self.answers]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Each answer and its caption."""
        return [(a, e.target[0]) for a, e in zip(self.answers, self.examples, strict=True)]  # type: ignore[index,misc]

    @property
    def boxes(self) -> list[tuple[Box, ...]]:
        """The target boxes of each answer."""
        return [e.target for e in self.examples]  # type: ignore[misc]


def main() -> int:
    """Measure and publish."""
    options = parser(__doc__ or "").parse_args()
    silence_third_party_logs()
    torch.set_num_threads(1)
    embedder = SbertEmbedder.from_config(RewardConfig().sbert)
    print("Against plain loops ...")
    figures = against_loops()
    print("Each task ...")
    figures += each_task()
    print("Against the bare encoder ...")
    figures += against_encoder(embedder)
    print("Worst inputs ...")
    figures += worst_inputs(embedder)
    print("Pool ...")
    figures += pool()
    return publish("rewards", figures, options.json, batch=BATCH, completions_per_prompt=GROUP)


def against_loops() -> list[Figure]:
    """Rates of our metrics and of loops over the packages that define them."""
    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=True)
    return [
        *duel(
            "ROUGE-1 and ROUGE-L",
            "image_captioning",
            lambda b: [rouge_f(b.pairs, "rouge1"), rouge_f(b.pairs, "rougeL")],
            lambda b: [scorer.score(reference, answer) for answer, reference in b.pairs],
            FASTER,
        ),
        *duel(
            "Levenshtein",
            "image_captioning",
            lambda b: judge("levenshtein", b),
            lambda b: [plain_levenshtein(answer, reference) for answer, reference in b.pairs],
            FASTER,
        ),
        *duel(
            "boxes",
            "object_detection",
            lambda b: judge("detection", b),
            lambda b: [plain_matched_iou(a, boxes) for a, boxes in zip(b.answers, b.boxes, strict=True)],
            FASTER,
        ),
        *duel(
            "METEOR",
            "image_captioning",
            lambda b: meteor(b.pairs),
            lambda b: [single_meteor_score(r.split(), a.split(), wordnet=open_wordnet()) for a, r in b.pairs],
        ),
        Figure("facts, completions/s", rate("image_captioning", lambda b: [agreement(*pair) for pair in b.pairs])),
    ]


def duel(
    name: str, task: str, ours: Callable[[Batch], object], loop: Callable[[Batch], object], limit: float | None = None
) -> list[Figure]:
    """Rates of two ways to score the same batches, in turns, and their ratio."""
    here, there = [], []
    for batch in rounds(task):
        here.append(seconds(ours, batch))
        there.append(seconds(loop, batch))
    ratio = min(there) / min(here)
    name_of_ratio = f"{name}, times the plain loop"
    return [
        Figure(f"{name}, completions/s", BATCH / min(here)),
        Figure(f"{name}, plain loop, completions/s", BATCH / min(there)),
        at_least(name_of_ratio, ratio, limit) if limit else Figure(name_of_ratio, ratio),
    ]


def rate(task: str, score: Callable[[Batch], object]) -> float:
    """Completions per second of the best round."""
    return BATCH / min(seconds(score, batch) for batch in rounds(task))


def rounds(task: str) -> list[Batch]:
    """A batch for each round."""
    return [random_batch(task, seed) for seed in range(ROUNDS)]


def judge(form: str, batch: Batch) -> object:
    """Accuracies of answers by a form that embeds nothing."""
    return REWARDS[form].score(batch.answers, batch.examples, RewardConfig(), None)


def plain_levenshtein(a: str, b: str) -> float:
    """1 - distance / length of the longer text, by the table of the definition."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        last, row = row, [i]
        for j, right in enumerate(b, 1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (left != right)))
    return 1 - row[-1] / max(len(a), len(b), 1)


def plain_matched_iou(answer: str, truth: Sequence[Box]) -> float:
    """Matched IoU of one answer by shapely and scipy, pair by pair."""
    found = [shapely.box(*row) for row in json.loads(answer)]
    wanted = [shapely.box(*box.coords) for box in truth]
    iou = np.array([[f.intersection(w).area / f.union(w).area for w in wanted] for f in found])
    rows, columns = linear_sum_assignment(iou, maximize=True)
    return float(iou[rows, columns].sum() / max(len(found), len(wanted)))


def each_task() -> list[Figure]:
    """Rates of whole responses by the default reward of every task that embeds nothing."""
    return [Figure(f"{task}, completions/s", rate(task, default_reward)) for task in plain_tasks()]


def default_reward(batch: Batch, embedder: SbertEmbedder | None = None) -> object:
    """Scores of a batch under the default configuration."""
    return score_batch(batch.responses, batch.examples, RewardConfig(), embedder)


def against_encoder(embedder: SbertEmbedder) -> list[Figure]:
    """Rate of the default SBERT reward over that of `encode` alone on the same answers, the references known."""
    batch = random_batch("region_captioning", 0)
    embedder.encode([reference for _, reference in batch.pairs])
    bare_model, counted = embedder.model, Counting(embedder.model)
    ours, bare = [], []
    for at in range(0, BATCH, PIECE):
        part = Batch(batch.examples[at : at + PIECE], batch.answers[at : at + PIECE])
        embedder.model = bare_model
        bare.append(seconds(encode, embedder, part.answers))
        embedder.model = counted
        ours.append(seconds(default_reward, part, embedder))
    embedder.model = bare_model
    again = counted.texts - len(set(batch.answers))
    return [
        Figure("region_captioning, completions/s", PIECE / min(ours)),
        Figure("bare encode, completions/s", PIECE / min(bare)),
        at_least("region_captioning / bare encode", float(np.median(np.divide(bare, ours))), ENCODER),
        Figure("references encoded again", again, "0", again == 0),
    ]


class Counting:
    """An encoder that counts the texts it is given."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.texts = 0

    def encode(self, texts: Sequence[str], **settings: Any) -> Any:
        """What the model gives."""
        self.texts += len(texts)
        return self.model.encode(texts, **settings)


def encode(embedder: SbertEmbedder, texts: list[str]) -> object:
    """The model alone, under the same settings."""
    return embedder.model.encode(
        texts, batch_size=embedder.batch_size, normalize_embeddings=True, show_progress_bar=False
    )


def worst_inputs(embedder: SbertEmbedder) -> list[Figure]:
    """The largest growth of the time of one response when it becomes twice as long, of every task and dialect."""
    config = RewardConfig(max_chars=4 * SIZE)
    tasks = [t for t in TASK_NAMES if TASKS[t].default_reward not in ("referred_detection", "fbeta")]
    records = [random_batch(task, 0, prompts=1).examples[0] for task in [*tasks, "multilabel_classification"]]
    boxed = [r for r in records if TASKS[r.task].target_kind in ("boxes", "grounded")]
    cases = [(r, config) for r in records]
    cases += [(replace(r, dialect=d), config) for r in boxed for d in ("geochat", "tagged", "json", "polygons")]
    cases += [(r, config.model_copy(update={"rotated": True})) for r in boxed]
    growths, longest = [], 0.0
    for record, settings in cases:
        model = embedder if needs_embedder(record.task, settings) else None
        for unit in WORST:
            growth, double = growth_of(functools.partial(time_of, unit, record, settings, model))
            growths.append((growth, f"{record.task} ({record.dialect})", unit))
            longest = max(longest, double)
    growth, task, unit = max(growths)
    print(f"The worst growth is that of {task} on {unit!r}.")
    return [
        at_most("worst input, time at 128 KB / time at 64 KB", growth, LONGER),
        Figure("worst input of 128 KB, ms", 1e3 * longest),
    ]


def time_of(unit: str, record: Example, config: RewardConfig, embedder: SbertEmbedder | None, size: int) -> float:
    """Seconds to score a text of so many characters, bare and as an answer."""
    answer = (unit * (size // len(unit) + 1))[:size]
    responses = [answer, f"<think></think><answer>{answer}</answer>"]
    return seconds(score_batch, responses, [record] * 2, config, embedder)


def growth_of(take: Callable[[int], float]) -> tuple[float, float]:
    """Time at twice the size over time at the size, and the former; the median of several pairs where one looks bad."""
    pairs = [(take(SIZE), take(2 * SIZE))]
    if pairs[0][1] > 0.8 * LONGER * max(pairs[0][0], TICK):
        pairs += [(take(SIZE), take(2 * SIZE)) for _ in range(RETRIES)]
    return float(np.median([double / max(single, TICK) for single, double in pairs])), min(d for _, d in pairs)


def pool() -> list[Figure]:
    """Rates of one and two reward actors on a batch of all tasks that embed nothing, by the clock."""
    tasks = plain_tasks()
    parts = [random_batch(task, 0) for task in tasks]
    groups = [
        SampleGroup(
            Prompt(at // GROUP, parts[(at // GROUP) % len(tasks)].examples[at]),
            tuple(
                Sample((i,), (0.0,), parts[(at // GROUP) % len(tasks)].responses[i], "stop", 0)
                for i in range(at, at + GROUP)
            ),
        )
        for at in range(0, BATCH, GROUP)
    ]
    connect()
    pools = {
        n: RayRewards(load_config("demo", [f"placement.reward.actors={n}", "placement.reward.num_cpus=0"]), tasks)
        for n in (1, 2)
    }
    rates: dict[int, list[float]] = {n: [] for n in pools}
    for _ in range(ROUNDS + 1):
        for n, rewards in pools.items():
            begun = time.perf_counter()
            rewards.score(groups)
            rates[n].append(BATCH / (time.perf_counter() - begun))
    for rewards in pools.values():
        rewards.close()
    ray.shutdown()
    one, two = max(rates[1][1:]), max(rates[2][1:])
    return [
        Figure("pool of 1 actor, completions/s", one),
        Figure("pool of 2 actors, completions/s", two),
        Figure("pool of 2 actors / 1", two / one),
    ]


def plain_tasks() -> list[str]:
    """The tasks whose default reward embeds nothing."""
    return [task for task in TASK_NAMES if not needs_embedder(task, RewardConfig())]


def random_batch(task: str, seed: int, prompts: int = BATCH // GROUP) -> Batch:
    """A batch of completions of a task, each its reference with accidents; the same for the same seed."""
    rng = random.Random(f"{task}{seed}")
    targets = [_target(task, rng) for _ in range(prompts)]
    examples = [Example(str(i), task, (), "", target) for i, target in enumerate(targets) for _ in range(GROUP)]
    return Batch(examples, [_answer(e.target, rng) for e in examples])


def _target(task: str, rng: random.Random) -> Target:
    kind = TASKS[task].target_kind
    if kind == "classes":
        return tuple(rng.sample(BIGEARTHNET_19, rng.randint(1, 5) if task.startswith("multi") else 1))
    if kind == "vqa":
        return f"{rng.choice(NUMBERS)} {rng.choice(THINGS)}"
    if kind == "captions":
        return (_caption(rng),)
    boxes = tuple(Box(_moved((x, y, x + rng.uniform(2, 20), y + rng.uniform(2, 20)), rng)) for x, y in _corners(rng))
    return GroundedText(_caption(rng), boxes) if kind == "grounded" else boxes


def _corners(rng: random.Random) -> list[tuple[float, float]]:
    return [(rng.uniform(1, 78), rng.uniform(1, 78)) for _ in range(rng.randint(1, 15))]


def _caption(rng: random.Random) -> str:
    parts = (NUMBERS, LOOKS, THINGS, VERBS, PLACES, GROUNDS)
    return " and ".join(" ".join(map(rng.choice, parts)) for _ in range(rng.randint(1, 3)))


def _answer(target: Target, rng: random.Random) -> str:
    if isinstance(target, GroundedText):
        return f"{_reworded(target.text, rng)} {_answer(target.boxes, rng)}"
    if isinstance(target, str):
        return _reworded(target, rng)
    boxes = [b for b in target if isinstance(b, Box)]
    if boxes:
        return format_boxes(
            [(_moved(b.coords, rng), None) for b in boxes if rng.random() > 0.1] or [((1, 2, 3, 4), None)]
        )
    return _reworded(", ".join(map(str, target)), rng)


def _reworded(text: str, rng: random.Random) -> str:
    words = [rng.choice(LOOKS) if rng.random() < 0.2 else w for w in text.split() if rng.random() > 0.1]
    return " ".join([*words, f"{rng.random():.4f}"])


def _moved(coords: Sequence[float], rng: random.Random) -> tuple[float, ...]:
    return tuple(round(c + rng.uniform(-0.9, 0.9), 1) for c in coords)


def seconds(call: Callable[..., object], *arguments: Any) -> float:
    """CPU time of one call."""
    begun = time.process_time()
    call(*arguments)
    return time.process_time() - begun


if __name__ == "__main__":
    sys.exit(main())

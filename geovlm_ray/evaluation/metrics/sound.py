"""The ``sound`` set: standard metrics with bootstrap 95% intervals.

Classes and short answers, read as the default rewards read them: accuracy and F1. Boxes: F1 and COCO average precision,
also by object size and for one or several true boxes. Texts: ROUGE, METEOR, BLEU, CIDEr and cosine of sentence
embeddings. Where confidences are known: the expected calibration error. All are in [0, 1] except CIDEr, in [0, 10].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from geovlm_ray.core.schema import Example, target_boxes, target_texts
from geovlm_ray.evaluation.metrics.bootstrap import Interval, grouped, intervals, means
from geovlm_ray.evaluation.metrics.cider import cider
from geovlm_ray.evaluation.metrics.classes import class_scores
from geovlm_ray.evaluation.metrics.detection import (
    AP_RESAMPLES,
    BoxRecord,
    average_precision,
    box_groups,
    f1,
    false_alarms,
    size_group,
)
from geovlm_ray.evaluation.metrics.text import best_cosine, best_meteor, corpus_bleu, over_references, tokens
from geovlm_ray.rewards import Embedder
from geovlm_ray.rewards.text_metrics.lexical import rouge_f
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.answers.box_dialects import BoxAnswer
from geovlm_ray.tasks.answers.box_labels import box_classes
from geovlm_ray.tasks.answers.box_reader import read_boxes, without_boxes
from geovlm_ray.tasks.answers.class_answers import class_reader
from geovlm_ray.tasks.answers.short_answers import answer_keys


@dataclass(frozen=True)
class AnsweredExample:
    """An example with the model's answer (without think and answer tags).

    ``group`` is the category of the record in its dataset: object size or question type. ``well_formed`` is False if
    the response broke the answer grammar, in which case the answer is empty. ``confidence`` in [0, 1] is stated, else
    by `geovlm_ray.evaluation.confidence.mean_probability`; None if it is not known.
    """

    answer: str
    example: Example
    group: str | None = None
    well_formed: bool = True
    confidence: float | None = None


Records = Sequence[AnsweredExample]
Intervals = dict[str, Interval]


def sound_metrics(records: Records, embedder: Embedder | None = None) -> Intervals:
    """The metrics of at least one record, all with the same kind of target; `needs_embedder` requires an embedder."""
    return _METRICS[TASKS[records[0].example.task].target_kind](records, embedder)


def needs_embedder(task: str) -> bool:
    """Whether the metrics of a task use sentence embeddings."""
    return TASKS[task].target_kind in ("captions", "grounded")


def answer_boxes(record: AnsweredExample) -> BoxAnswer:
    """The boxes of an answer in any notation, empty if it has none."""
    example = record.example
    names = box_classes(example)
    return read_boxes(record.answer, example.dialect, names, example.frame, example.question) or BoxAnswer((), ())


def _classes(records: Records, embedder: Embedder | None) -> Intervals:
    readers = [class_reader(record.example) for record in records]
    predicted = [frozenset(reader.keys(r.answer)) for reader, r in zip(readers, records, strict=True)]
    return intervals(class_scores(predicted, [reader.truth for reader in readers]), len(records))


def _questions(records: Records, embedder: Embedder | None) -> Intervals:
    """Answers as single classes, overall and by question type; an answer equivalent to the truth is its class."""
    truths = [str(r.example.target) for r in records]
    keys = [answer_keys(r.answer, truth, r.example.question) for r, truth in zip(records, truths, strict=True)]
    predicted, true = ([frozenset({key}) for key in side] for side in zip(*keys, strict=True))
    types = sorted({r.group for r in records if r.group})
    groups = {kind: np.array([r.group == kind for r in records]) for kind in types}
    metrics = intervals(grouped(class_scores(predicted, true), groups), len(records))
    # With one class per question, F1 samples and F1 micro equal the accuracy.
    return {name: interval for name, interval in metrics.items() if name.startswith(("accuracy", "F1 macro"))}


def _boxes(records: Records, embedder: Embedder | None) -> Intervals:
    boxes = []
    for record in records:
        truth = target_boxes(record.example.target)
        size = record.group or size_group(truth, record.example.frame)
        boxes.append(BoxRecord(answer_boxes(record), truth, size, box_classes(record.example)))
    groups = box_groups(boxes)
    f1_scores = intervals(grouped(f1(boxes), groups), len(boxes)) | intervals(false_alarms(boxes), len(boxes))
    return f1_scores | intervals(grouped(average_precision(boxes), groups), len(boxes), AP_RESAMPLES)


def _captions(records: Records, embedder: Embedder | None) -> Intervals:
    return _texts([r.answer for r in records], [target_texts(r.example.target) for r in records], embedder)


def _grounded(records: Records, embedder: Embedder | None) -> Intervals:
    references = [tuple(map(without_boxes, target_texts(r.example.target))) for r in records]
    return _boxes(records, embedder) | _texts([without_boxes(r.answer) for r in records], references, embedder)


def _texts(answers: Sequence[str], references: Sequence[Sequence[str]], embedder: Embedder | None) -> Intervals:
    """Scores against the best reference, for BLEU and CIDEr against all; records without a reference are skipped."""
    kept = [(a.strip(), [r.strip() for r in refs if r.strip()]) for a, refs in zip(answers, references, strict=True)]
    kept = [(answer, refs) for answer, refs in kept if refs]
    if not kept:
        return {}
    if embedder is None:
        raise ValueError("text metrics: expected an embedder, found None")
    kept_answers, kept_references = [answer for answer, _ in kept], [refs for _, refs in kept]
    pairs = [(answer, reference) for answer, refs in kept for reference in refs]
    counts = list(map(len, kept_references))
    columns = {
        "ROUGE-1": over_references(rouge_f(pairs, "rouge1"), counts, np.maximum),
        "ROUGE-L": over_references(rouge_f(pairs, "rougeL"), counts, np.maximum),
        "METEOR (nltk)": best_meteor(
            list(map(tokens, kept_answers)), [list(map(tokens, refs)) for refs in kept_references]
        ),
        "CIDEr": cider(kept_answers, kept_references),
        "SBERT": best_cosine(kept_answers, kept_references, embedder),
    }
    return intervals(means(columns), len(kept)) | intervals(corpus_bleu(kept_answers, kept_references), len(kept))


_METRICS: dict[str, Callable[[Records, Embedder | None], Intervals]] = {
    "classes": _classes,
    "vqa": _questions,
    "boxes": _boxes,
    "captions": _captions,
    "grounded": _grounded,
}

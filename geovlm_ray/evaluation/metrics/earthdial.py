"""The ``paper`` set: the evaluation behind the published tables, its oddities included.

Definitions of EarthDial (hiyamdebary/EarthDial at 92c1260, src/earthdial/eval), whose scripts GeoVLM-R1's tables
follow; the metric names are the ones that the scripts print. Each function takes n records in parallel
sequences and returns values in [0, 1]; a metric that no record defines is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from nltk.tokenize import word_tokenize

from geovlm_ray.evaluation.metrics.earthdial_boxes import BoxPairs, count_hits, pooled_precision
from geovlm_ray.evaluation.metrics.text import best_meteor, over_references, tokens
from geovlm_ray.rewards.text_metrics.lexical import rouge

SIZES = ("small", "medium", "large")
VQA_TYPES = ("comp", "presence", "rural_urban")
CROWDED = 50

_REF_TAGS = re.compile(r"</?ref>")
_BOX_LISTS = re.compile(r"<box>\[\[.*?\]\]</box>|\[\[.*?\]\]")


def token_recall(answer: str, reference: str) -> float:
    """What the scripts of classification and VQA call accuracy: the share of the reference's tokens in the answer.

    Both texts are lower-cased and lose *all* their spaces, so that a token is mostly a whole class name; nltk
    splits the rest at punctuation. The numerator counts distinct tokens, the denominator repeated ones too: a
    list of three classes or more never reaches 1, because its commas are tokens. Wrong classes cost nothing.
    """
    wanted, said = (word_tokenize(t.strip().lower().replace(" ", ""), preserve_line=True) for t in (reference, answer))
    common = set(wanted) & set(said)
    return len(common) / len(wanted) if common else 0.0


def classification(answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Mean of `token_recall`."""
    return _means({"Classification accuracy": np.array(list(map(token_recall, answers, references)))})


def vqa(answers: Sequence[str], references: Sequence[str], types: Sequence[str]) -> dict[str, float]:
    """Mean of `token_recall` for each of three types of question, 0 where there is none; counting is passed over."""
    scores: dict[str, list[float]] = {kind: [] for kind in VQA_TYPES}
    for answer, reference, kind in zip(answers, references, types, strict=True):
        if kind in scores:
            scores[kind].append(token_recall(answer, reference))
    return {f"{kind} Objects": float(np.mean(values)) if values else 0.0 for kind, values in scores.items()}


def captions(answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Image and change captions: F1 of ROUGE with stems and METEOR, means over records.

    ROUGE is the *mean* over a record's references, METEOR their *maximum*. Texts are split by nltk's word
    tokenizer first, which for ROUGE only parts words at apostrophes and the like. Records whose references are
    all empty are passed over; of several references each counts, an empty one as 0.
    """
    kept = [(answer, refs) for answer, refs in zip(answers, references, strict=True) if any(refs)]
    said = [tokens(answer) for answer, _ in kept]
    wanted = [[tokens(reference) for reference in refs] for _, refs in kept]
    pairs = [(" ".join(a), " ".join(r)) for a, refs in zip(said, wanted, strict=True) for r in refs]
    counts = [len(refs) for refs in wanted]
    return _means(
        {
            "ROUGE-1 Fmeasure": over_references(rouge(pairs, "rouge1")[:, 2], counts, np.add) / counts,
            "ROUGE-L Fmeasure": over_references(rouge(pairs, "rougeL")[:, 2], counts, np.add) / counts,
            "METEOR Score": best_meteor(said, wanted),
        }
    )


def region_captions(answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Region captions: ROUGE with stems and METEOR on ``str.split`` tokens, one reference a record."""
    pairs = list(zip(answers, references, strict=True))
    columns: dict[str, np.ndarray] = {}
    for name, kind in (("ROUGE-1", "rouge1"), ("ROUGE-L", "rougeL")):
        scores = rouge(pairs, kind)  # type: ignore[arg-type]
        columns |= {f"{name} {part}": scores[:, i] for i, part in enumerate(("Precision", "Recall", "F1 Score"))}
    said, wanted = ([tuple(text.split()) for text in texts] for texts in (answers, references))
    columns["METEOR Score"] = best_meteor(said, [[reference] for reference in wanted])
    return _means(columns)


def detection(boxes: BoxPairs, sizes: Sequence[str] | None = None) -> dict[str, float]:
    """Pooled precision at IoU 0.5, published as mAP@0.5, by object size and by the number of true boxes.

    No ranking, no recall, not one-to-one: see `hits` and `pooled_precision`. ``single`` is exactly one true box,
    ``multiple`` any other number, none included.

    Args:
        boxes: predicted and true boxes of each record.
        sizes: the size group of each record, where known.
    """
    counts = count_hits(boxes, 0.5)
    single = np.array([len(truth) == 1 for _, truth in boxes])
    groups = {size: np.array(sizes) == size for size in SIZES} if sizes is not None else {}
    groups |= {"single": single, "multiple": ~single}
    return {f"{name} Objects": pooled_precision(counts[members]) for name, members in groups.items()}


def change_detection(boxes: BoxPairs) -> dict[str, float]:
    """Pooled precision at IoU 0.25, whatever angle is predicted: it is set to 0, the truth's is kept.

    The published table calls it mAP@0.5; 0.25 is what the public script computes.
    """
    flat = [([(*box[:-1], 0.0) for box in predicted], truth) for predicted, truth in boxes]
    return {"Precision score": pooled_precision(count_hits(flat, 0.25))}


def grounding(boxes: BoxPairs) -> dict[str, float]:
    """Pooled precision at IoU 0.5 and 0.25 over records of fewer than 50 true boxes; absent below two hits."""
    kept = [pair for pair in boxes if len(pair[1]) < CROWDED]
    counted = {name: count_hits(kept, threshold) for name, threshold in (("0.5", 0.5), ("0.25", 0.25))}
    return {
        f"Precision @{name}": pooled_precision(counts) for name, counts in counted.items() if counts[:, 0].sum() > 1
    }


def description_words(text: str) -> str:
    """A grounded description without ref tags and box lists; what stood around them stays."""
    return "\n".join(map(_without_boxes, _REF_TAGS.sub("", text).split("\n")))


def _without_boxes(line: str) -> str:
    """Behind the last closing bracket nothing can match: cutting there keeps the time near linear."""
    end = line.rfind("]]") + len("]]</box>")
    return _BOX_LISTS.sub("", line[:end]) + line[end:]


def _means(columns: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in columns.items() if len(values)}

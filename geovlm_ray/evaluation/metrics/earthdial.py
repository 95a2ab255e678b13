"""The ``paper`` set: the metrics of the published tables, including their quirks.

Definitions are those of EarthDial (hiyamdebary/EarthDial at 92c1260, src/earthdial/eval), which GeoVLM-R1's tables
follow; metric names are those that the scripts print. Each function takes n records as parallel sequences and returns
values in [0, 1]; a metric that is undefined for all records is omitted.
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
GROUNDING_BOX_LIMIT = 50
"""Grounding skips records with this many true boxes or more."""

_REF_TAGS = re.compile(r"</?ref>")
_BOX_LISTS = re.compile(r"<box>\[\[.*?\]\]</box>|\[\[.*?\]\]")


def token_recall(answer: str, reference: str) -> float:
    """Recall of the reference's tokens, which the classification and VQA scripts call accuracy.

    Both texts are lower-cased and lose *all* spaces, so a token is usually a whole class name; nltk splits at
    punctuation. The numerator counts distinct tokens, the denominator all tokens: a list of three or more classes never
    reaches 1, because its commas are tokens. Wrong classes are not penalised.
    """
    expected, predicted = (
        word_tokenize(text.strip().lower().replace(" ", ""), preserve_line=True) for text in (reference, answer)
    )
    common = set(expected) & set(predicted)
    return len(common) / len(expected) if common else 0.0


def classification(answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Mean of `token_recall`."""
    return _means({"Classification accuracy": np.array(list(map(token_recall, answers, references)))})


def vqa(answers: Sequence[str], references: Sequence[str], types: Sequence[str]) -> dict[str, float]:
    """Mean `token_recall` by question type, 0 for a type without questions; counting questions are skipped."""
    recall = np.array(list(map(token_recall, answers, references)))
    members = {kind: [t == kind for t in types] for kind in VQA_TYPES}
    return {f"{kind} Objects": float(recall[of].mean()) if any(of) else 0.0 for kind, of in members.items()}


def captions(answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Image and change captions: mean ROUGE F1 (stemmed) and METEOR over records.

    ROUGE is the *mean* over a record's references, METEOR the *maximum*. Texts are tokenised with nltk's word tokenizer
    first, which for ROUGE only splits at apostrophes and similar. Records with only empty references are skipped; one
    empty reference among others scores 0.
    """
    kept = [
        (tokens(answer), list(map(tokens, refs))) for answer, refs in zip(answers, references, strict=True) if any(refs)
    ]
    pairs = [(" ".join(answer), " ".join(reference)) for answer, refs in kept for reference in refs]
    counts = [len(refs) for _, refs in kept]
    return _means(
        {
            "ROUGE-1 Fmeasure": over_references(rouge(pairs, "rouge1")[:, 2], counts, np.add) / counts,
            "ROUGE-L Fmeasure": over_references(rouge(pairs, "rougeL")[:, 2], counts, np.add) / counts,
            "METEOR Score": best_meteor([answer for answer, _ in kept], [refs for _, refs in kept]),
        }
    )


def region_captions(answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Region captions: ROUGE (stemmed) and METEOR on ``str.split`` tokens, one reference per record."""
    pairs = list(zip(answers, references, strict=True))
    columns: dict[str, np.ndarray] = {}
    for name, kind in (("ROUGE-1", "rouge1"), ("ROUGE-L", "rougeL")):
        scores = rouge(pairs, kind)  # type: ignore[arg-type]
        columns |= {f"{name} {part}": scores[:, i] for i, part in enumerate(("Precision", "Recall", "F1 Score"))}
    answer_tokens, reference_tokens = ([tuple(text.split()) for text in texts] for texts in (answers, references))
    columns["METEOR Score"] = best_meteor(answer_tokens, [[reference] for reference in reference_tokens])
    return _means(columns)


def detection(boxes: BoxPairs, sizes: Sequence[str] | None = None) -> dict[str, float]:
    """Pooled precision at IoU 0.5, published as mAP@0.5, by object size and by the number of true boxes.

    Without ranking, recall or one-to-one matching: see `hits` and `pooled_precision`. ``single`` is exactly one true
    box, ``multiple`` any other number including zero. ``sizes`` are the size groups of the records, if known.
    """
    counts = count_hits(boxes, 0.5)
    single = np.array([len(truth) == 1 for _, truth in boxes])
    groups = {size: np.array(sizes) == size for size in SIZES} if sizes is not None else {}
    groups |= {"single": single, "multiple": ~single}
    return {f"{name} Objects": pooled_precision(counts[members]) for name, members in groups.items()}


def change_detection(boxes: BoxPairs) -> dict[str, float]:
    """Pooled precision at IoU 0.25; predicted angles are set to 0, true angles are kept.

    The published table calls it mAP@0.5, but the public script uses 0.25.
    """
    without_angle = [([(*box[:-1], 0.0) for box in predicted], truth) for predicted, truth in boxes]
    return {"Precision score": pooled_precision(count_hits(without_angle, 0.25))}


def grounding(boxes: BoxPairs) -> dict[str, float]:
    """Pooled precision at IoU 0.5 and 0.25 over records with fewer than 50 true boxes; omitted below two hits."""
    kept = [pair for pair in boxes if len(pair[1]) < GROUNDING_BOX_LIMIT]
    counts_by_threshold = {name: count_hits(kept, threshold) for name, threshold in (("0.5", 0.5), ("0.25", 0.25))}
    return {
        f"Precision @{name}": pooled_precision(counts)
        for name, counts in counts_by_threshold.items()
        if counts[:, 0].sum() > 1
    }


def description_words(text: str) -> str:
    """A grounded description without ref tags and box lists; the surrounding text is unchanged."""
    return "\n".join(map(_without_boxes, _REF_TAGS.sub("", text).split("\n")))


def _without_boxes(line: str) -> str:
    """Search up to the last closing bracket only, because nothing matches after it; keeps the time nearly linear."""
    end = line.rfind("]]") + len("]]</box>")
    return _BOX_LISTS.sub("", line[:end]) + line[end:]


def _means(columns: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in columns.items() if len(values)}

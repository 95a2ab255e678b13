"""Export: merged weights, settings and model card, verified by comparing log-probs with the source policy."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from geovlm_ray.core.errors import ModelError
from geovlm_ray.core.files import write_atomically
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.model.answer_format import answer_format
from geovlm_ray.model.families import family_of
from geovlm_ray.model.logprobs import RowLogprobs
from geovlm_ray.model.prompts import EncodedPrompt, PromptEncoder
from geovlm_ray.model.rows import Completion, GroupRow
from geovlm_ray.serving.export.card import CARD, CURVE, card, reward_curve
from geovlm_ray.serving.export.merge import (
    generate_greedy,
    is_merged_from,
    load_for_inference,
    processor_of,
    write_merged,
)
from geovlm_ray.serving.export.prompting import carried_settings
from geovlm_ray.serving.export.sources import own_evaluation, provenance_of, read_evaluation
from geovlm_ray.serving.model_ref import SETTINGS_FILE, ModelRef

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5}
"""Maximum absolute difference of token log-probs that is attributed to rounding, by dtype."""
PROBE_SCENE = ("vqa", 1_000_000_007, 0)
"""Synthetic scene (task, seed, index) for the comparison; the seed is not used in training."""
PROBE_TOKENS = 16


def export(ref: ModelRef, name: str, out: Path, dtype: str, evaluations: Sequence[Path] = ()) -> float:
    """Export a model to ``out`` and return the maximum absolute log-prob difference to the source policy.

    If ``out`` is already an export of the same weights, only its settings and card are rewritten.

    Args:
        name: the MODEL argument as the user gave it.
        dtype: ``float32`` or ``bfloat16``.
        evaluations: folders of `geovlm-ray evaluate` to include in the card, in addition to the run's own evaluation.

    Raises:
        ModelError: the model does not load, ``out`` has other content or is not writable, or the log-prob difference
            exceeds the tolerance of the dtype.
        DataError: a file of the run or of an evaluation is invalid.
    """
    out = out.absolute()
    is_update = out.is_dir() and is_merged_from(out, ref, dtype)
    if not is_update and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise ModelError(
            f"{out}: expected no such folder, an empty one, or an export of the same model, found other content"
        )
    encoder = PromptEncoder(processor_of(ref), ref.config.prompt)
    provenance = provenance_of(ref, name)
    own = own_evaluation(ref, provenance.step)
    results = [read_evaluation(folder) for folder in ([own] if own else []) + list(evaluations)]
    prompt = encoder.encode(scene_example(*PROBE_SCENE))
    source = load_for_inference(ref, (ref.trained or ref.config).model.dtype)
    family = family_of(source)
    answers = answer_format(ref.config.data, family, encoder.resolution)
    ids = generate_greedy(source, prompt, PROBE_TOKENS)
    expected = _logprobs(source, prompt, ids)
    # The weights of one model at a time are in memory; its modules are in reference cycles.
    del source
    gc.collect()
    folder = out if is_update else out.with_name(f".{out.name}.partial")
    try:
        if not is_update:
            folder.parent.mkdir(parents=True, exist_ok=True)
            write_merged(ref, dtype, folder)
        gc.collect()
        exported = load_for_inference(ModelRef(folder, False, None, ref.config, None), dtype)
        difference = float((_logprobs(exported, prompt, ids) - expected).abs().max())
        if not difference <= TOLERANCE[dtype]:
            raise ModelError(
                f"{out}: expected log-probs within {TOLERANCE[dtype]} of those of {ref.path}, "
                f"found a difference of {difference:.2g}"
            )
        write_atomically(folder / SETTINGS_FILE, carried_settings(ref.config, dtype))
        write_atomically(folder / CARD, card(ref, provenance, family, encoder, answers, out.name, dtype, results))
        if svg := reward_curve(provenance):
            write_atomically(folder / CURVE, svg)
        if not is_update:
            folder.rename(out)
    finally:
        if not is_update:
            shutil.rmtree(folder, ignore_errors=True)
    return difference


def _logprobs(model: nn.Module, prompt: EncodedPrompt, ids: list[int]) -> torch.Tensor:
    """Log-probs [n] of the completion tokens."""
    row = GroupRow.of([prompt], [[Completion(ids)]])
    with torch.no_grad():
        return RowLogprobs(model, torch.tensor([], dtype=torch.long))(row)

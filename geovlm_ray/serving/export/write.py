"""A model written out: whole weights, the settings that go with them, a card, and the proof that they are the same."""

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
from geovlm_ray.model.forward import Pack, packed_logits
from geovlm_ray.model.prompts import EncodedPrompt, PromptEncoder
from geovlm_ray.serving.export.card import CARD, CURVE, card, reward_curve
from geovlm_ray.serving.export.merge import generate_greedy, is_made_of, load_located, processor_of, write_whole
from geovlm_ray.serving.export.prompting import carried_settings
from geovlm_ray.serving.export.sources import own_evaluation, past_of, read_evaluation
from geovlm_ray.serving.model_ref import SETTINGS_FILE, ModelRef

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5}
"""Largest difference of a token's log-prob that the type's rounding explains."""
CHECKED = ("vqa", 1_000_000_007, 0)
"""The drawn scene on which models are compared, of a seed that is not trained on."""
CHECKED_TOKENS = 16


def export(ref: ModelRef, named: str, out: Path, dtype: str, evaluations: Sequence[Path] = ()) -> float:
    """Write a model into ``out`` and return the largest difference of a log-prob to the policy that it was made of.

    Where ``out`` is an export of the same weights, its settings and card are written anew.

    Args:
        named: how the user named the model.
        dtype: ``float32`` or ``bfloat16``.
        evaluations: folders of `geovlm-ray evaluate` whose tables go into the card, beside the run's own.

    Raises:
        ModelError: the model does not load, ``out`` holds something else or cannot be written, or the difference is
            larger than the type's rounding explains.
        DataError: a file of the run or of an evaluation does not hold what it should.
    """
    out = out.absolute()
    again = out.is_dir() and is_made_of(out, ref, dtype)
    if not again and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise ModelError(f"{out}: expected no such folder, an empty one, or an export of the same model, found another")
    encoder = PromptEncoder(processor_of(ref), ref.config.prompt)
    past = past_of(ref, named)
    own = own_evaluation(ref, past.step)
    results = [read_evaluation(folder) for folder in ([own] if own else []) + list(evaluations)]
    prompt = encoder.encode(scene_example(*CHECKED))
    ids, before = _drawn(ref, prompt, (ref.trained or ref.config).model.dtype)
    folder = out if again else out.with_name(f".{out.name}.partial")
    try:
        if not again:
            folder.parent.mkdir(parents=True, exist_ok=True)
            write_whole(ref, dtype, folder)
        difference = _difference(ModelRef(folder, False, None, ref.config, None), dtype, prompt, ids, before)
        if not difference <= TOLERANCE[dtype]:
            raise ModelError(
                f"{out}: expected log-probs that differ by at most {TOLERANCE[dtype]} from those of {ref.path}, "
                f"found {difference:.2g}"
            )
        write_atomically(folder / SETTINGS_FILE, carried_settings(ref.config, dtype))
        write_atomically(folder / CARD, card(ref, past, encoder, out.name, dtype, results))
        if svg := reward_curve(past):
            write_atomically(folder / CURVE, svg)
        if not again:
            folder.rename(out)
    finally:
        if not again:
            shutil.rmtree(folder, ignore_errors=True)
    return difference


def _drawn(ref: ModelRef, prompt: EncodedPrompt, dtype: str) -> tuple[list[int], torch.Tensor]:
    """Tokens [n] that a policy draws greedily, and their log-probs."""
    model = load_located(ref, dtype)
    ids = generate_greedy(model, prompt, CHECKED_TOKENS)
    return ids, _logprobs(model, prompt, ids)


def _difference(ref: ModelRef, dtype: str, prompt: EncodedPrompt, ids: list[int], before: torch.Tensor) -> float:
    # Two models of billions of weights need not be in memory at once.
    gc.collect()
    return float((_logprobs(load_located(ref, dtype), prompt, ids) - before).abs().max())


def _logprobs(model: nn.Module, prompt: EncodedPrompt, ids: list[int]) -> torch.Tensor:
    """Log-probs [n] of the tokens of a completion."""
    with torch.no_grad():
        logits = packed_logits(model, Pack.of([(prompt, ids)])).float()
    return logits.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0]

"""The model card: description, training method, data, rewards, scores and usage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from pydantic import BaseModel, TypeAdapter

from geovlm_ray import __version__
from geovlm_ray.config import Config
from geovlm_ray.core.validation import validated
from geovlm_ray.data.answer_format import AnswerFormat
from geovlm_ray.evaluation.results import Results
from geovlm_ray.evaluation.tables import header, lines
from geovlm_ray.model.config import PACKAGED
from geovlm_ray.model.families.base import ModelFamily
from geovlm_ray.model.prompts import PromptEncoder
from geovlm_ray.report.curves import curve
from geovlm_ray.report.held_out import COLUMNS, held_out_results
from geovlm_ray.report.page import code, escape_markdown, render
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.serving.export.prompting import usage_section
from geovlm_ray.serving.export.sources import Provenance, is_rl
from geovlm_ray.serving.model_ref import ModelRef

CARD = "README.md"
CURVE = "reward.svg"


def card(
    ref: ModelRef,
    provenance: Provenance,
    family: ModelFamily,
    encoder: PromptEncoder,
    answers: AnswerFormat,
    name: str,
    dtype: str,
    evaluations: Sequence[Results],
) -> str:
    """The card of a model of a family exported to the folder ``name``: Markdown with YAML metadata.

    Held-out rewards are shown if the run's summary is for this checkpoint.

    Raises:
        DataError: the summary of the run has an invalid entry.
    """
    trained, rl, summary = ref.trained, is_rl(ref), provenance.summary
    is_final = rl and summary.get("steps") == provenance.step
    records = sorted((provenance.records or {}).items())
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        base_model=provenance.hub,
        tags=["remote-sensing", "earth-observation", "geovlm-ray", family.model_type],
    )
    text = render(
        "model_card.md",
        name=name,
        version=__version__,
        family=family.title,
        dtype=dtype,
        trained=trained,
        rl=rl,
        provenance=provenance,
        base=_base(provenance, family),
        is_tiny=provenance.base in ("", *PACKAGED),
        settings=_settings(provenance, trained, rl) if trained else {},
        curve=CURVE if rl and provenance.metrics else "",
        data_name=Path(trained.data.path).name if trained else "",
        records=[(dataset, task, f"{n:,}", licence or "not stated") for (dataset, task, licence), n in records],
        formula=_formula(trained.reward) if trained else "",
        rewards={t: _reward_name(trained.reward.form(t)) for t in provenance.tasks} if trained and rl else None,
        held_out=held_out_results(summary) if is_final else [],
        held_out_columns=COLUMNS,
        sft_evaluation=None if rl else _sft_evaluation(summary),
        evaluations=[
            (
                Path(r.model).name,
                list(map(escape_markdown, header(r))),
                [line.cells for line in lines(r, include_subsets=False)],
            )
            for r in evaluations
        ],
        usage=usage_section(ref.config, encoder, answers, name, provenance.tasks),
    )
    return str(ModelCard(f"---\n{metadata}\n---\n\n{text}"))


def reward_curve(provenance: Provenance) -> str | None:
    """The reward curve up to the model's step as SVG; None without metrics."""
    rows = [row for row in provenance.metrics if provenance.step is None or row["step"] <= provenance.step]
    return curve(rows, {"reward/mean": "reward"}, "Sampled reward", "mean reward") if rows else None


class _SftEvaluation(BaseModel):
    loss: float
    token_accuracy: float


class _SftSummary(BaseModel):
    """The field of ``sft_summary.json`` that the card uses."""

    evaluation: dict[str, _SftEvaluation] | None = None


def _sft_evaluation(summary: Mapping[str, Any]) -> _SftEvaluation | None:
    """The last evaluation of a fine-tuning."""
    evaluations = validated(TypeAdapter(_SftSummary), summary, "sft_summary.json").evaluation or {}
    return evaluations.get("last")


def _base(provenance: Provenance, family: ModelFamily) -> str:
    """The initial model as Markdown."""
    if not provenance.base:
        return f"a small randomly initialized {family.title}"
    if provenance.base in PACKAGED:
        return f"the policy `{provenance.base}` of geovlm_ray, a {family.title} with 1.7 million parameters"
    hub = provenance.hub
    return f"[{hub}](https://huggingface.co/{hub})" if hub else code(provenance.base)


def _settings(provenance: Provenance, trained: Config, rl: bool) -> dict[str, Any]:
    """The training settings that the card shows."""
    lora, sft, step = trained.model.lora, trained.sft, provenance.step
    weights = f"LoRA, rank {lora.rank}, alpha {lora.alpha:g}, {lora.targets} layers" if lora else "all"
    shared = {"trained weights": weights, "dtype": trained.model.dtype, "seed": trained.run.seed}
    if not rl:
        steps = step or provenance.summary.get("steps", sft.steps)
        own = {"records per step": sft.batch_size, "learning rate": sft.lr, "optimizer": sft.optimizer}
        return {"steps": steps, **own, **shared}
    warm = provenance.sft.sft if provenance.sft else None
    learner, rollout = trained.learner, trained.rollout
    return {
        "warm-up": f"supervised fine-tuning, {warm.steps} steps of {warm.batch_size} records" if warm else "none",
        "objective": learner.objective,
        "steps": f"{step} of {trained.run.steps}" if step is not None else trained.run.steps,
        "prompts per step": rollout.prompts_per_step,
        "completions per prompt (G)": rollout.group_size,
        "KL coefficient (reference policy)": f"{learner.kl_beta:g}" if learner.kl_beta else "none",
        "clip range": f"{learner.clip.low:g} below, {learner.clip.high:g} above",
        "learning rate": learner.lr,
        "sampling temperature": rollout.temperature,
        "max completion length": f"{rollout.max_tokens} tokens",
        "max staleness (steps)": trained.loop.max_staleness,
        **shared,
    }


def _formula(reward: RewardConfig) -> str:
    formulas = {"sum": "format + accuracy", "gated": "format x accuracy"}
    weighted = f"{reward.format_weight:g} x format + {1 - reward.format_weight:g} x accuracy"
    return formulas.get(reward.combine, weighted)


def _reward_name(form: str) -> str:
    path, colon, function = form.rpartition(":")
    return f"custom function {Path(path).name}:{function}" if colon else form

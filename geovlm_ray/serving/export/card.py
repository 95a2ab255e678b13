"""The model card: description, training method, data, rewards, scores and usage."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from geovlm_ray import __version__
from geovlm_ray.config import Config
from geovlm_ray.evaluation.results import Results
from geovlm_ray.evaluation.tables import header, lines
from geovlm_ray.model.config import TINY
from geovlm_ray.model.prompts import PromptEncoder
from geovlm_ray.report.curves import curve
from geovlm_ray.serving.export.prompting import usage_section
from geovlm_ray.serving.export.sources import Provenance, is_rl
from geovlm_ray.serving.model_ref import ModelRef

CARD = "README.md"
CURVE = "reward.svg"
LIMITS = (
    "- The reasoning may be unfaithful: the answer does not necessarily follow from it.",
    "- Scores hold for the data above; expect lower ones on other sensors, resolutions, regions and questions.",
    "- Counts, boxes and damage levels are estimates; do not base decisions about people or property on them.",
)


def card(
    ref: ModelRef, provenance: Provenance, encoder: PromptEncoder, name: str, dtype: str, evaluations: Sequence[Results]
) -> str:
    """The card of a model exported to the folder ``name``: Markdown with YAML metadata."""
    config, trained = ref.config, ref.trained
    sections = [
        _metadata(provenance),
        f"# {_plain(name)}",
        _description(provenance, trained, is_rl(ref), dtype),
        *(_method(provenance, trained, is_rl(ref)) if trained else ()),
        *(_data(provenance, trained) if trained else ()),
        *(_rewards(provenance, trained) if trained and is_rl(ref) else ()),
        *_scores(ref, provenance, evaluations),
        "## Usage",
        usage_section(config, encoder, name, provenance.tasks),
        "## Limitations",
        "\n".join([*_origin_limits(provenance, trained), *LIMITS]),
        "## Licence",
        _licence(provenance),
    ]
    return "\n\n".join(sections) + "\n"


def reward_curve(provenance: Provenance) -> str | None:
    """The reward curve up to the model's step as SVG; None without metrics."""
    rows = [row for row in provenance.metrics if provenance.step is None or row["step"] <= provenance.step]
    return curve(rows, {"reward/mean": "reward"}, "Sampled reward", "mean reward") if rows else None


def _metadata(provenance: Provenance) -> str:
    values = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        **({"base_model": provenance.hub} if provenance.hub else {}),
        "tags": ["remote-sensing", "earth-observation", "geovlm-ray", "qwen2_5_vl"],
    }
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---"


def _description(provenance: Provenance, trained: Config | None, rl: bool, dtype: str) -> str:
    base = _base(provenance)
    if trained is None:
        text = f"A vision-language model of the Qwen2.5-VL architecture, based on {base}. Its training is unknown."
    else:
        how = "reinforcement fine-tuning (GRPO) with verifiable rewards" if rl else "supervised fine-tuning"
        text = f"A vision-language model for remote-sensing images, trained from {base} by {how}."
    return f"{text} Exported by geovlm_ray {__version__} in {dtype}, with any adapter merged."


def _base(provenance: Provenance) -> str:
    if not provenance.base:
        return "a small randomly initialized Qwen2.5-VL"
    if provenance.base == TINY:
        return "the tiny policy of geovlm_ray, a Qwen2.5-VL with 1.7 million parameters"
    hub = provenance.hub
    return f"[{hub}](https://huggingface.co/{hub})" if hub else f"`{_plain(provenance.base)}`"


def _method(provenance: Provenance, trained: Config, rl: bool) -> list[str]:
    """Training settings as a table."""
    lora, sft, step = trained.model.lora, trained.sft, provenance.step
    weights = f"LoRA, rank {lora.rank}, alpha {lora.alpha:g}, {lora.targets} layers" if lora else "all"
    shared = {"trained weights": weights, "dtype": trained.model.dtype, "seed": trained.run.seed}
    warm = provenance.sft.sft if provenance.sft else None
    warm_up = f"supervised fine-tuning, {warm.steps} steps of {warm.batch_size} records" if warm else "none"
    if not rl:
        steps = step or provenance.summary.get("steps", sft.steps)
        facts: dict[str, Any] = {"steps": steps, "records per step": sft.batch_size, "learning rate": sft.lr}
        facts["optimizer"] = sft.optimizer
        return ["## Method", "Supervised fine-tuning; the loss covers response tokens only.", _facts(facts | shared)]
    learner, rollout = trained.learner, trained.rollout
    facts = {
        "warm-up": warm_up,
        "objective": learner.objective,
        "steps": f"{step} of {trained.run.steps}" if step is not None else trained.run.steps,
        "prompts per step": rollout.prompts_per_step,
        "completions per prompt (G)": rollout.group_size,
        "KL coefficient (reference policy)": f"{learner.kl_beta:g}" if learner.kl_beta else "none",
        "clip range": f"{learner.clip_low:g} below, {learner.clip_high:g} above",
        "learning rate": learner.lr,
        "sampling temperature": rollout.temperature,
        "max completion length": f"{rollout.max_tokens} tokens",
        "max staleness (steps)": trained.loop.max_staleness,
    }
    text = (
        "Group relative policy optimization: G completions of every prompt are sampled and scored, and those above "
        "their group's mean become more likely."
    )
    figure = [f"![Mean reward of the sampled completions over the steps]({CURVE})"] if provenance.metrics else []
    return ["## Method", text, _facts(facts | shared), *figure]


def _data(provenance: Provenance, trained: Config) -> list[str]:
    """Training data: source, tasks, mixture, and records with their licences."""
    data = trained.data
    if data.source == "scenes":
        text = "Synthetic scenes rendered by geovlm_ray: simple shapes for land covers, ships, planes and buildings."
    else:
        file_format = "converted to Parquet" if data.source == "parquet" else f"format {data.source}"
        text = f"`{_plain(Path(data.path).name)}`, {file_format}, splits {_plain(', '.join(data.splits))}."
    facts = [f"Tasks: {', '.join(provenance.tasks)}."] if provenance.tasks else []
    temperature = f" (temperature {data.temperature:g})" if data.mixture == "temperature" else ""
    facts.append(f"Task mixture: {data.mixture}{temperature}.")
    stages = [f"{stage.steps} steps of {', '.join(stage.tasks)}" for stage in data.stages]
    if len(stages) > 1:
        facts.append(f"Stages: {'; '.join(stages)}.")
    parts = ["## Data", " ".join([text, *facts])]
    if provenance.records:
        rows = [(*key, f"{n:,}") for key, n in sorted(provenance.records.items())]
        cells = [(dataset, task, n, licence or "not stated") for dataset, task, licence, n in rows]
        parts.append(_table(("dataset", "task", "records", "licence"), cells))
    elif data.source != "scenes":
        parts.append("The licences of its records are unknown; see the data sources.")
    return parts


def _rewards(provenance: Provenance, trained: Config) -> list[str]:
    reward = trained.reward
    formulas = {"sum": "format + accuracy", "gated": "format x accuracy"}
    weighted = f"{reward.format_weight:g} x format + {1 - reward.format_weight:g} x accuracy"
    response_format = "<answer>...</answer>" if reward.think == "none" else "<think>...</think><answer>...</answer>"
    formula = formulas.get(reward.combine, weighted)
    text = f"Reward: {formula}. Response format: `{response_format}`. Accuracy reward by task:"
    names = {task: _reward_name(reward.form(task)) for task in provenance.tasks}
    return ["## Rewards", text, _table(("task", "reward"), list(names.items()))]


def _reward_name(form: str) -> str:
    path, colon, function = form.rpartition(":")
    return f"custom function {Path(path).name}:{function}" if colon else form


def _scores(ref: ModelRef, provenance: Provenance, evaluations: Sequence[Results]) -> list[str]:
    parts = _held_out(provenance) if is_rl(ref) else _sft_loss(provenance)
    for results in evaluations:
        rows = [line.cells for line in lines(results, include_subsets=False)]
        name = _plain(Path(results.model).name)
        parts += [f"Benchmark results of {name}, in percent:", _table(header(results), rows)]
    return ["## Scores", *(parts or ["Not evaluated."])]


def _held_out(provenance: Provenance) -> list[str]:
    """Held-out rewards, if the run's summary is for this checkpoint."""
    held_out = provenance.summary.get("heldout")
    # Summaries of earlier versions have no paired changes.
    if not held_out or "constant" not in held_out or provenance.summary["steps"] != provenance.step:
        return []
    modes = ("sampled", "greedy")
    rows = [("all", mode, *_before_after(held_out[mode])) for mode in modes]
    rows += [
        (task, mode, *_before_after(pairs[mode])) for task, pairs in held_out["per_task"].items() for mode in modes
    ]
    text = (
        "Mean reward ± standard error on held-out records before and after training, one completion per record, and "
        "the paired difference:"
    )
    return [text, _table(("task", "decoding", "records", "before", "after", "change"), rows)]


def _sft_loss(provenance: Provenance) -> list[str]:
    last = (provenance.summary.get("evaluation") or {}).get("last")
    if not last:
        return []
    return [f"Held-out records: loss {last['loss']:.4f}, token accuracy {last['token_accuracy']:.3f}."]


def _before_after(pair: Mapping[str, Mapping[str, float]]) -> tuple[str, str, str, str]:
    before, after = (f"{pair[when]['mean']:.3f} ± {pair[when]['se']:.3f}" for when in ("before", "after"))
    return f"{pair['after']['n']}", before, after, f"{pair['change']['mean']:+.3f} ± {pair['change']['se']:.3f}"


def _origin_limits(provenance: Provenance, trained: Config | None) -> list[str]:
    limits = []
    if provenance.base in ("", TINY):
        limits.append("- This is a tiny model for testing on two CPU cores; its answers are often wrong.")
    if trained and trained.data.source == "scenes":
        limits.append("- Trained on synthetic scenes only; its scores do not transfer to real imagery.")
    return limits


def _licence(provenance: Provenance) -> str:
    stated = f"`{_plain(provenance.licence)}`" if provenance.licence else "see its model card"
    of_base = (
        f"Base model {_base(provenance)}: {stated}." if provenance.base else "The weights were trained from scratch."
    )
    return f"{of_base} Licences of the training data, where known, are listed above and may also apply to this model."


def _facts(facts: Mapping[str, Any]) -> str:
    return _table(("setting", "value"), list(facts.items()))


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    body = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_plain(str(cell)) for cell in row) + " |" for row in body)


def _plain(text: str) -> str:
    """Escape a text for Markdown and HTML, on one line."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{c}" if c in "\\|[]" else "'" if c == "`" else c for c in escaped)

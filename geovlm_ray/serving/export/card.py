"""The model card: what a model is, how it came about, what it scores, and how to ask it."""

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
from geovlm_ray.serving.export.prompting import asking
from geovlm_ray.serving.export.sources import Past, is_rl
from geovlm_ray.serving.model_ref import ModelRef

CARD = "README.md"
CURVE = "reward.svg"
LIMITS = (
    "- The reasoning is what earned reward beside the answer; that the answer follows from it is not shown.",
    "- Scores are those of the data above; on other sensors, resolutions, regions and questions expect less.",
    "- Counts, boxes and damage are estimates by a model and no basis for decisions about people or property.",
)


def card(
    ref: ModelRef, past: Past, encoder: PromptEncoder, name: str, dtype: str, evaluations: Sequence[Results]
) -> str:
    """The card as Markdown with its YAML head, for a model that is exported as the folder ``name``."""
    config, trained = ref.config, ref.trained
    sections = [
        _head(past),
        f"# {_plain(name)}",
        _what(past, trained, is_rl(ref), dtype),
        *(_method(past, trained, is_rl(ref)) if trained else ()),
        *(_data(past, trained) if trained else ()),
        *(_rewards(past, trained) if trained and is_rl(ref) else ()),
        *_scores(ref, past, evaluations),
        "## How to ask it",
        asking(config, encoder, name, past.tasks),
        "## Limitations",
        "\n".join([*_origin_limits(past, trained), *LIMITS]),
        "## Licence",
        _licence(past),
    ]
    return "\n\n".join(sections) + "\n"


def reward_curve(past: Past) -> str | None:
    """The curve of the reward as SVG; None where there was none."""
    rows = [row for row in past.metrics if past.step is None or row["step"] <= past.step]
    return curve(rows, {"reward/mean": "reward"}, "Sampled reward", "mean reward") if rows else None


def _head(past: Past) -> str:
    values = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        **({"base_model": past.hub} if past.hub else {}),
        "tags": ["remote-sensing", "earth-observation", "geovlm-ray", "qwen2_5_vl"],
    }
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---"


def _what(past: Past, trained: Config | None, rl: bool, dtype: str) -> str:
    base = _base(past)
    if trained is None:
        text = (
            f"A vision-language model of the Qwen2.5-VL architecture, made of {base}. Of its training nothing is known."
        )
    else:
        how = "reinforcement fine-tuning (GRPO) with verifiable rewards" if rl else "supervised fine-tuning"
        text = f"A vision-language model for questions about remote-sensing images, made of {base} by {how}."
    return f"{text} Written by geovlm_ray {__version__} as {dtype}, any adapter merged."


def _base(past: Past) -> str:
    if not past.base:
        return "a small Qwen2.5-VL from random weights"
    if past.base == TINY:
        return "the tiny policy of geovlm_ray, a Qwen2.5-VL of 1.7 million weights"
    return f"[{past.hub}](https://huggingface.co/{past.hub})" if past.hub else f"`{_plain(past.base)}`"


def _method(past: Past, trained: Config, rl: bool) -> list[str]:
    """What was done, as a table."""
    lora, sft, step = trained.model.lora, trained.sft, past.step
    weights = f"LoRA, rank {lora.rank}, alpha {lora.alpha:g}, {lora.targets} layers" if lora else "all"
    shared = {"weights trained": weights, "computation": trained.model.dtype, "seed": trained.run.seed}
    warm = past.warmed.sft if past.warmed else None
    if not rl:
        done = step or past.summary.get("steps", sft.steps)
        facts: dict[str, Any] = {"steps": done, "records a step": sft.batch_size, "learning rate": sft.lr}
        facts["optimizer"] = sft.optimizer
        return ["## Method", "Supervised fine-tuning, the loss on the response alone.", _facts(facts | shared)]
    learner, rollout = trained.learner, trained.rollout
    facts = {
        "warm-up": f"supervised fine-tuning, {warm.steps} steps of {warm.batch_size} records" if warm else "none",
        "objective": learner.objective,
        "steps": f"{step} of {trained.run.steps}" if step is not None else trained.run.steps,
        "prompts a step": rollout.prompts_per_step,
        "completions a prompt (G)": rollout.group_size,
        "KL to the reference": f"{learner.kl_beta:g}" if learner.kl_beta else "none",
        "clip": f"{learner.clip_low:g} below, {learner.clip_high:g} above",
        "learning rate": learner.lr,
        "sampling temperature": rollout.temperature,
        "longest completion": f"{rollout.max_tokens} tokens",
        "staleness at most": trained.loop.max_staleness,
    }
    text = (
        "Group relative policy optimization: G completions of every prompt are sampled and scored, and those above "
        "their group's mean become more likely."
    )
    picture = [f"![Mean reward of the sampled completions over the steps]({CURVE})"] if past.metrics else []
    return ["## Method", text, _facts(facts | shared), *picture]


def _data(past: Past, trained: Config) -> list[str]:
    """Where prompts came from."""
    data = trained.data
    if data.source == "scenes":
        text = "Scenes that geovlm_ray draws: simple shapes that stand for land covers, ships, planes and buildings."
    else:
        form = "converted to Parquet" if data.source == "parquet" else f"in the format {data.source}"
        text = f"`{_plain(Path(data.path).name)}`, {form}, splits {_plain(', '.join(data.splits))}."
    facts = [f"Tasks: {', '.join(past.tasks)}."] if past.tasks else []
    by = f" (temperature {data.temperature:g})" if data.mixture == "temperature" else ""
    facts.append(f"Mixture of tasks: {data.mixture}{by}.")
    stages = [f"{stage.steps} steps of {', '.join(stage.tasks)}" for stage in data.stages]
    if len(stages) > 1:
        facts.append(f"Stages: {'; '.join(stages)}.")
    parts = ["## Data", " ".join([text, *facts])]
    if past.records:
        rows = [(*key, f"{n:,}") for key, n in sorted(past.records.items())]
        named = [(dataset, task, n, licence or "not stated") for dataset, task, licence, n in rows]
        parts.append(_table(("dataset", "task", "records", "licence"), named))
    elif data.source != "scenes":
        parts.append("The licences of its records are not known here; see the sources of the data.")
    return parts


def _rewards(past: Past, trained: Config) -> list[str]:
    reward = trained.reward
    combined = {"sum": "format + accuracy", "gated": "format x accuracy"}
    weighted = f"{reward.format_weight:g} x format + {1 - reward.format_weight:g} x accuracy"
    form = "<answer>...</answer>" if reward.think == "none" else "<think>...</think><answer>...</answer>"
    text = f"Reward: {combined.get(reward.combine, weighted)}. The format is `{form}`; the accuracy goes by the task:"
    names = {task: _function(reward.form(task)) for task in past.tasks}
    return ["## Rewards", text, _table(("task", "form"), list(names.items()))]


def _function(form: str) -> str:
    path, colon, function = form.rpartition(":")
    return f"a function of the makers', {Path(path).name}:{function}" if colon else form


def _scores(ref: ModelRef, past: Past, evaluations: Sequence[Results]) -> list[str]:
    parts = _held_out(past) if is_rl(ref) else _sft_loss(past)
    for results in evaluations:
        rows = [line.cells for line in lines(results, whole=False)]
        name = _plain(Path(results.model).name)
        parts += [f"Benchmarks, in percent, of the model called {name}:", _table(header(results), rows)]
    return ["## Scores", *(parts or ["Not evaluated."])]


def _held_out(past: Past) -> list[str]:
    """Rewards of held-out records, if they are of this checkpoint."""
    held_out = past.summary.get("heldout")
    # Earlier versions wrote no paired changes.
    if not held_out or "constant" not in held_out or past.summary["steps"] != past.step:
        return []
    both = ("sampled", "greedy")
    rows = [("all", mode, *_before_after(held_out[mode])) for mode in both]
    rows += [(task, mode, *_before_after(modes[mode])) for task, modes in held_out["per_task"].items() for mode in both]
    text = (
        "Mean reward ± standard error on held-out records, before and after training, one completion a record, and the "
        "paired change:"
    )
    return [text, _table(("task", "decoding", "records", "before", "after", "change"), rows)]


def _sft_loss(past: Past) -> list[str]:
    last = (past.summary.get("evaluation") or {}).get("last")
    if not last:
        return []
    return [f"Held-out records: loss {last['loss']:.4f}, token accuracy {last['token_accuracy']:.3f}."]


def _before_after(pair: Mapping[str, Mapping[str, float]]) -> tuple[str, str, str, str]:
    before, after = (f"{pair[when]['mean']:.3f} ± {pair[when]['se']:.3f}" for when in ("before", "after"))
    return f"{pair['after']['n']}", before, after, f"{pair['change']['mean']:+.3f} ± {pair['change']['se']:.3f}"


def _origin_limits(past: Past, trained: Config | None) -> list[str]:
    limits = []
    if past.base in ("", TINY):
        limits.append("- It is small enough for two cores and made to try things out: it is often wrong.")
    if trained and trained.data.source == "scenes":
        limits.append("- It was trained on drawn scenes alone, which tells nothing of real imagery.")
    return limits


def _licence(past: Past) -> str:
    stated = f"its folder says `{_plain(past.licence)}`" if past.licence else "see the base model"
    of_base = f"Of the base model, {_base(past)}: {stated}." if past.base else "The weights are of your own making."
    return f"{of_base} The licences of the data, where they are known, stand above; they may bind this model too."


def _facts(facts: Mapping[str, Any]) -> str:
    return _table(("setting", "value"), list(facts.items()))


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    body = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_plain(str(cell)) for cell in row) + " |" for row in body)


def _plain(text: str) -> str:
    """A text without what Markdown or HTML would make of it, in one line."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{c}" if c in "\\|[]" else "'" if c == "`" else c for c in escaped)

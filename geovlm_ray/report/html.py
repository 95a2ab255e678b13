"""Self-contained HTML report of a run."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geovlm_ray.config import Config, load_config
from geovlm_ray.core.errors import RunError
from geovlm_ray.core.files import read_object, read_objects, read_text, write_atomically
from geovlm_ray.report.boxes import PREDICTED_COLOUR, TRUE_COLOUR
from geovlm_ray.report.curves import curve
from geovlm_ray.report.gallery import gallery
from geovlm_ray.report.page import page

MODES = ("sampled", "greedy")
RUN_STYLE = """
table + table { margin-top: 1rem; }
.group { margin: 1.2rem 0; } .group h4 { margin: 0; } .group p { margin: .3rem 0; }
.samples { display: grid; grid-template-columns: repeat(auto-fit, minmax(280px, 1fr)); gap: .8rem; }
.sample { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .7rem; }
.pictures { display: flex; gap: 4px; } .pictures img { min-width: 0; flex: 1; max-width: 320px; border-radius: 4px; }
"""


def write_report(folder: Path) -> Path:
    """Write ``report.html`` from the files of a run directory, and return its path.

    Raises:
        RunError: the folder is not a run directory.
        DataError: an image of a shown completion does not exist.
    """
    config_file = folder / "config.yaml"
    if not config_file.is_file():
        raise RunError(f"{folder}: expected a run directory with a config.yaml, found none")
    config = load_config(str(config_file))
    rows = _rows(folder / "metrics.jsonl")
    summary_file = folder / "summary.json"
    summary = read_object(summary_file) if summary_file.is_file() else {}
    body = [
        f"<h1>{html.escape(config.run.name)} <small>GRPO on {html.escape(config.model.path)}</small></h1>",
        _facts(config, rows, summary),
        _held_out(summary.get("heldout")),
        '<h2>Curves</h2><div class="charts">' + "".join(_charts(rows) + _benchmarks(folder / "evaluations")) + "</div>",
        f'<h2>Completions</h2><p class="note">The best, median and worst completion of one group per task, at the '
        f'first, middle and last step. <span class="key" style="border-color:{TRUE_COLOUR}"></span> true boxes, '
        f'<span class="key" style="border-color:{PREDICTED_COLOUR}"></span> predicted boxes.</p>',
        gallery(folder / "rollouts"),
        f"<h2>Configuration</h2><details><summary>config.yaml</summary><pre>{html.escape(read_text(config_file))}</pre></details>",
    ]
    target = folder / "report.html"
    write_atomically(target, page(config.run.name, "".join(body), RUN_STYLE))
    return target


def _rows(path: Path) -> list[dict[str, float]]:
    return read_objects(path) if path.is_file() else []


def _facts(config: Config, rows: Sequence[Mapping[str, float]], summary: Mapping[str, Any]) -> str:
    facts = {
        "steps": f"{int(rows[-1]['step']) if rows else 0} of {config.run.steps}",
        "prompts × completions per step": f"{config.rollout.prompts_per_step} × {config.rollout.group_size}",
        "maximum staleness": str(config.loop.max_staleness),
        "rewards": f"{config.reward.preset} forms, combined by {config.reward.combine}",
    }
    if summary:
        facts["duration"] = f"{summary['seconds']:.0f} s"
        facts["maximum log-prob difference between engine and learner"] = f"{summary['parity_max_abs']:.2g}"
    cells = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in facts.items())
    return f"<table>{cells}</table>"


def _held_out(heldout: Mapping[str, Any] | None) -> str:
    # Summaries of earlier versions have no constant answers.
    if not heldout or "constant" not in heldout:
        return ""
    rows = [("all", mode, heldout[mode]) for mode in MODES]
    rows += [(task, mode, modes[mode]) for task, modes in heldout["per_task"].items() for mode in MODES]
    cells = "".join(
        f"<tr><td>{html.escape(task)}</td><td>{mode}</td><td>{pair['before']['n']}</td>"
        f"<td>{heldout['constant'][task]['mean']:.3f}</td><td>{_value(pair['before'])}</td>"
        f"<td>{_value(pair['after'])}</td><td>{pair['change']['mean']:+.3f} ± {pair['change']['se']:.3f}</td></tr>"
        for task, mode, pair in rows
    )
    answers = "".join(
        f"<tr><td>{html.escape(task)}</td><td>{html.escape(heldout['constant'][task]['answer'])}</td>"
        f"<td>{html.escape(common['answer'])}</td><td>{common['share']:.1%}</td></tr>"
        for task, common in heldout["most_common"].items()
    )
    return (
        '<h2>Held-out examples</h2><p class="note">Mean reward ± standard error of one completion per held-out '
        "example, sampled at the training temperature or greedy. The change is paired by example. The best constant "
        "answer ignores the image; it is selected on training examples.</p>"
        "<table><tr><th>task</th><th>decoding</th><th>examples</th>"
        f"<th>best constant</th><th>before</th><th>after</th><th>change</th></tr>{cells}</table>"
        "<table><tr><th>task</th><th>best constant answer</th><th>most common greedy answer after training</th>"
        f"<th>share</th></tr>{answers}</table>"
    )


def _value(statistics: Mapping[str, float]) -> str:
    return f"{statistics['mean']:.3f} ± {statistics['se']:.3f}"


def _benchmarks(evaluations: Path) -> list[str]:
    """A chart of the evaluations during training; empty without any."""
    rows = []
    for file in sorted(evaluations.glob("step-*/results.json")):
        scores = {name: result["score"]["value"] for name, result in read_object(file)["benchmarks"].items()}
        rows.append({"step": int(file.parent.name.removeprefix("step-")), **scores})
    if not rows:
        return []
    names = {name: name for row in rows for name in row if name != "step"}
    return [curve(rows, names, "Benchmarks during training", "mean score")]


def _charts(rows: Sequence[Mapping[str, float]]) -> list[str]:
    tasks = {
        name: name.removeprefix("task/").removesuffix("/reward")
        for name in (rows[-1] if rows else {})
        if name.startswith("task/") and name.endswith("/reward")
    }
    return [
        curve(rows, {"reward/mean": "reward"}, "Sampled reward", "mean reward"),
        curve(
            rows, {"reward/format": "format", "reward/accuracy": "accuracy"}, "Format and accuracy", "mean in [0, 1]"
        ),
        curve(rows, tasks, "Sampled reward by task", "mean reward"),
        curve(rows, {"completion/length_mean": "length"}, "Completion length", "tokens"),
        curve(
            rows,
            {f"seconds/{part}": part for part in ("rollout", "resample", "learner", "sync")},
            "Step time by phase",
            "seconds",
        ),
        curve(rows, {"loss/kl_to_sampler": "KL"}, "KL from the rollout policy", "nats per token"),
        curve(rows, {"grad_norm": "norm"}, "Gradient norm before clipping", "norm"),
        curve(
            rows,
            {"parity/max_abs": "difference"},
            "Engine-learner parity after weight sync",
            "maximum log-prob difference",
        ),
    ]

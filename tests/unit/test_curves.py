"""Charts: text alternatives, moving averages, levels, and which charts a run has."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from geovlm_ray.config import load_config
from geovlm_ray.report.curves import Level, Line, chart, curve, description, smoothed
from geovlm_ray.report.run_charts import run_charts

NAN = math.nan


def test_moving_average_keeps_a_straight_line() -> None:
    points = [(float(k), 3.0 * k) for k in range(40)]
    found = smoothed(points)
    assert np.array(found) == pytest.approx(np.array(points[2:38]))


def test_moving_average_begins_at_the_level_of_the_values() -> None:
    assert {value for _, value in smoothed([(k, 1.5) for k in range(8)])} == {1.5}


def test_description_states_ends_range_and_levels() -> None:
    line = Line("reward", [(1, 1.0), (2, 0.5), (3, 1.75)])
    assert description([line, Line("none", [])], "Reward", "mean", [Level("maximum", 2)]) == (
        "Chart, Reward, mean by step: reward 1 at step 1, 1.75 at step 3, between 0.5 and 1.75; maximum 2."
    )
    assert description([], "Reward", "mean") == "Chart, Reward, mean by step: no values."


def test_chart_is_an_image_with_an_escaped_text_alternative_and_its_levels() -> None:
    svg = chart([Line('"<b>', [(1, 1.0), (2, 1.5)])], "Reward", "mean", [Level("maximum", 2)])
    assert svg.startswith("<svg")
    assert 'role="img" aria-label="Chart, Reward, mean by step: &#34;&lt;b&gt; 1 at step 1' in svg
    assert ">maximum 2</text>" in svg


def test_values_that_are_not_finite_are_left_out() -> None:
    rows = [{"step": k, "entropy": NAN if k == 2 else k / 10} for k in range(1, 4)]
    assert "entropy 0.1 at step 1, 0.3 at step 3, between 0.1 and 0.3" in curve(
        rows, {"entropy": "entropy"}, "Entropy", "nats"
    )


# --- the charts of a run


def titles(rows: list[dict[str, float]], folder: Path, *overrides: str) -> str:
    charts = run_charts(rows, load_config("demo", overrides), {"vqa": 1.25}, folder)
    return "\n".join(svg for drawn in charts.values() for svg in drawn)


def test_charts_without_two_finite_values_are_left_out(tmp_path: Path) -> None:
    rows = [
        {"step": 1, "reward/mean": 1.0, "entropy/sampled": NAN, "loss/kl": 0.0, "grad_norm": 1.0},
        {"step": 2, "reward/mean": 1.5, "entropy/sampled": NAN, "loss/kl": 0.0, "grad_norm": NAN},
    ]
    charts = run_charts(rows, load_config("demo"), {}, tmp_path)
    assert {subject: len(drawn) for subject, drawn in charts.items()} == {"Reward": 1}
    assert run_charts(rows[:1], load_config("demo"), {}, tmp_path) == {}


@pytest.mark.parametrize(("combine", "maximum"), [("sum", 2), ("gated", 1), ("weighted", 1)])
def test_reward_charts_state_the_maximum_and_the_best_constant_answer(
    combine: str, maximum: int, tmp_path: Path
) -> None:
    rows = [{"step": k, "reward/mean": 0.5, "task/vqa/reward": 0.5, "task/other/reward": 0.5} for k in (1, 2)]
    svgs = titles(rows, tmp_path, f"reward.combine={combine}")
    assert f"Sampled reward, at most {maximum}" in svgs
    assert svgs.count(f">maximum {maximum}</text>") == 3
    assert svgs.count(">best constant answer 1.25</text>") == 1


def test_update_and_time_charts_have_a_line_for_each_part(tmp_path: Path) -> None:
    row = {
        **{"grad_norm": 0.5, "grad_norm/vision": 0.1, "grad_norm/language": 0.4, "loss/kl": 0.01},
        **{"loss/clipped_low": 0.02, "loss/clipped_high": 0.03, "loss/kl_to_sampler": 0.001},
        **{"seconds/step": 10.0, "seconds/learner": 9.0, "seconds/other": 0.001, "parity/max_abs": 1e-6},
    }
    svgs = titles([{"step": k, **row} for k in (1, 2, 3)], tmp_path)
    for legend in ("vision 0.1", "language 0.4", "lower bound 0.02", "upper bound 0.03", "learner 9"):
        assert f"{legend} at step" in svgs
    assert "KL to the reference policy" in svgs
    assert "KL to the rollout policy" in svgs
    assert "other 0.001" not in svgs, "less than a hundredth of the step"
    assert "learner 9 at step 2" in svgs, "step 1 is warm-up"


def test_benchmarks_during_training_are_a_chart(tmp_path: Path) -> None:
    for step, score in ((0, 0.25), (10, 0.5)):
        folder = tmp_path / f"step-{step:06d}"
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps({"benchmarks": {"aid": {"score": {"value": score}}}}))
    assert "aid 0.25 at step 0, 0.5 at step 10" in titles([], tmp_path)

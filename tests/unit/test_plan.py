"""Planner: rates from files, predicted step times against closed forms and the loop, and the search over splits."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geovlm_ray.cli import main
from geovlm_ray.config import load_config, to_yaml
from geovlm_ray.core.errors import DataError
from geovlm_ray.training.plan.compare import compare_with_plan
from geovlm_ray.training.plan.planner import Assumed, plans, predict
from geovlm_ray.training.plan.rates import LengthDistribution, Rates, Setup, rates_from_values, read_rates

BENCH = Path(__file__).parents[2] / "benchmarks" / "results" / "throughput.json"
KINDS = ("rollout", "reward", "learner")
CONSTANT = [[100] * 4]
rng = np.random.default_rng(5)
VARIED = [[int(n) for n in np.clip(rng.gamma(2, 50, 8), 1, 400)] for _ in range(60)]
VALUES: dict[str, Any] = {
    "prompts_per_step": 24, "group_size": 4, "max_staleness": 1, "in_flight": False,
    "rollout_actors": 1, "reward_actors": 1, "learner_gpus": 1,
    "prefill_s_per_prompt": 0.02, "decode_s_per_step": 0.01, "decode_s_per_token": 0.0002,
    "learner_s_per_group": 0.01, "learner_s_per_token": 0.0003, "reward_s_per_completion": 0.001,
    "sync_s": 0.3, "probe_s": 0.05, "parity_s": 0.02, "overhead_s": 0.01, "completion_tokens": CONSTANT,
}  # fmt: skip


def rates(**changed: Any) -> Rates:
    return rates_from_values({**VALUES, **changed}, "test")


def setup(**changed: Any) -> Setup:
    values = {"rollout_actors": 3, "learner_gpus": 2, "reward_actors": 1, "prompts_per_step": 24, "group_size": 4}
    return Setup(**{**values, "max_staleness": 0, "in_flight": False, **changed})


def stage_seconds(r: Rates, s: Setup) -> tuple[float, float, float, float]:
    """Closed-form seconds of rollout, scoring, learner, and sync with probe, for completions of 100 tokens each."""
    groups = s.prompts_per_step // s.rollout_actors
    rollout = groups * 0.02 + 100 * (0.01 + groups * s.group_size * 0.0002)
    score = -(-s.prompts_per_step // s.reward_actors) * s.group_size * r.reward_s_per_completion
    learner = (s.prompts_per_step * 0.01 + s.prompts_per_step * s.group_size * 100 * 0.0003) / s.learner_gpus
    sync = r.sync_s * (1 + 0.1 * np.log2(s.rollout_actors)) + 0.05
    return rollout, score, learner / 0.95 ** np.log2(s.learner_gpus), sync


def loop_step_seconds(r: Rates, s: Setup, steps: int = 200) -> float:
    """Mean step time of a loop with drained syncs, computed event by event for lengths drawn from the measured groups.

    Engines take batches and weights in order of submission; the learner waits for scored batches.
    """
    draws = np.random.default_rng(0)
    lengths = np.array(r.completion_tokens)
    engine = np.arange(s.prompts_per_step) % s.rollout_actors
    free, scored, tokens, ends = np.zeros(s.rollout_actors), [0.0], [], [0.0]
    sync_s = r.sync_s * (1 + 0.1 * np.log2(s.rollout_actors / r.rollout_actors))
    learner_speed = s.learner_gpus * 0.95 ** np.log2(s.learner_gpus)
    for step in range(steps):
        now = ends[-1]
        while len(tokens) <= step + s.max_staleness:
            groups = lengths[draws.integers(0, len(lengths), (s.prompts_per_step, 1)), draws.integers(
                0, lengths.shape[1], (s.prompts_per_step, s.group_size))]  # fmt: skip
            longest = np.zeros(s.rollout_actors)
            np.maximum.at(longest, engine, groups.max(1))
            work = np.bincount(engine) * r.prefill_s_per_prompt + longest * r.decode_s_per_step
            free = np.maximum(free, now) + work + np.bincount(engine, groups.sum(1)) * r.decode_s_per_token
            reward = s.prompts_per_step * s.group_size * r.reward_s_per_completion / s.reward_actors
            scored.append(max(scored[-1], free.max()) + reward)
            tokens.append(groups.sum())
        learner = s.prompts_per_step * r.learner_s_per_group + tokens[step] * r.learner_s_per_token
        learned = max(now + s.rollout_actors * r.parity_s, scored[step + 1]) + learner / learner_speed
        free = np.maximum(free, learned) + sync_s
        ends.append(free.max() + r.probe_s + r.overhead_s)
    return (ends[-1] - ends[10]) / (steps - 10)


def test_on_policy_step_time_is_the_sum_of_its_stages() -> None:
    s = setup()
    rollout, score, learner, sync = stage_seconds(rates(), s)
    found = predict(rates(), s)
    assert found.step_s == pytest.approx(rollout + score + learner + sync + 0.01)
    assert found.samples_per_s == pytest.approx(96 / found.step_s)
    assert found.idle["rollout"] == pytest.approx(1 - rollout / found.step_s)
    assert found.idle["reward"] == pytest.approx(1 - score / found.step_s)
    assert found.idle["learner"] == pytest.approx(1 - learner / found.step_s)
    assert found.idle["gpu"] == pytest.approx(1 - (3 * rollout + 2 * learner) / (5 * found.step_s))


@pytest.mark.parametrize("learner_s_per_token", [0.00005, 0.005])
@pytest.mark.parametrize("max_staleness", [1, 2, 5])
def test_off_policy_step_time_is_the_maximum_of_rollout_and_learner(
    max_staleness: int, learner_s_per_token: float
) -> None:
    r, s = rates(learner_s_per_token=learner_s_per_token), setup(max_staleness=max_staleness)
    rollout, _, _, sync = stage_seconds(r, s)
    learner = predict(r, s).busy_s["learner"]
    assert (rollout > learner) == (learner_s_per_token < 0.001)
    assert predict(r, s).step_s == pytest.approx(max(rollout, 3 * 0.02 + learner) + sync + 0.01)


def test_slow_rewards_limit_the_throughput_of_an_off_policy_loop() -> None:
    r, s = rates(reward_s_per_completion=0.5), setup(max_staleness=3, in_flight=True, reward_actors=2)
    found = predict(r, s)
    assert found.step_s == pytest.approx(stage_seconds(r, s)[1])
    assert found.idle["reward"] == pytest.approx(0)


@pytest.mark.parametrize("max_staleness", [0, 1])
@pytest.mark.parametrize(("engines", "learner_gpus"), [(1, 1), (3, 1), (1, 3), (6, 2), (4, 4), (24, 8)])
@pytest.mark.parametrize("fixed_costs", [True, False])
def test_prediction_agrees_with_the_loop_for_varied_lengths(
    engines: int, learner_gpus: int, max_staleness: int, fixed_costs: bool
) -> None:
    no_fixed_costs = dict.fromkeys(("prefill_s_per_prompt", "decode_s_per_step", "learner_s_per_group"), 0.0)
    r = rates(completion_tokens=VARIED, group_size=8, **({} if fixed_costs else no_fixed_costs))
    s = setup(rollout_actors=engines, learner_gpus=learner_gpus, group_size=8, max_staleness=max_staleness)
    assert predict(r, s).step_s == pytest.approx(loop_step_seconds(r, s), rel=0.08)


def test_syncs_in_flight_hide_stragglers_and_no_step_gets_longer_with_staleness() -> None:
    r = rates(completion_tokens=VARIED)
    constant = rates(completion_tokens=[[round(float(np.mean(VARIED)))]])
    drained = [predict(r, setup(max_staleness=k)).step_s for k in range(4)]
    in_flight = [predict(r, setup(max_staleness=k, in_flight=True)).step_s for k in range(4)]
    assert drained == sorted(drained, reverse=True)
    assert in_flight == sorted(in_flight, reverse=True)
    assert drained[1] > 1.1 * predict(constant, setup(max_staleness=1)).step_s
    assert in_flight[2] < 0.9 * drained[2]
    assert in_flight[0] == drained[0]


def test_rollout_time_falls_with_the_engines_to_the_time_of_the_longest_group() -> None:
    r = rates(completion_tokens=VARIED, reward_s_per_completion=0.0, parity_s=0.0, sync_s=0.0)
    steps = [predict(r, setup(rollout_actors=n)).step_s for n in (1, 2, 4, 8, 24, 48)]
    assert all(more < less for less, more in itertools.pairwise(steps[:-1]))
    assert steps[-1] == pytest.approx(steps[-2])
    longest = max(max(group) for group in VARIED)
    assert steps[-1] > predict(r, setup()).busy_s["learner"] + 0.7 * longest * 0.01
    assert predict(r, setup(rollout_actors=48)).idle["rollout"] > predict(r, setup(rollout_actors=24)).idle["rollout"]


def test_expected_longest_and_busiest_agree_with_draws() -> None:
    lengths = np.array(VARIED)
    distribution = LengthDistribution(VARIED)
    draws = lengths[np.random.default_rng(1).integers(0, len(lengths), (4000, 24))]
    assert distribution.longest(24) == pytest.approx(draws.max((1, 2)).mean(), rel=0.01)
    busiest = draws.sum(2).reshape(4000, 6, 4).sum(2).max(1).mean()
    assert distribution.busiest(24, 8, 6) == pytest.approx(busiest, rel=0.02)
    assert distribution.busiest(24, 8, 1) == pytest.approx(24 * 8 * lengths.mean())
    assert distribution.busiest(24, 8, 100) == distribution.busiest(24, 8, 24)


def test_step_predicted_from_components_is_within_a_quarter_of_the_measured_loop() -> None:
    r = read_rates(BENCH)
    measured = json.loads(BENCH.read_text())["rates"]["loop"]["step_s"]
    assert predict(r, r).step_s == pytest.approx(measured, rel=0.25)


@pytest.mark.parametrize("gpus", [2, 8, 33])
def test_plans_are_sorted_by_throughput_and_their_overrides_are_valid(gpus: int) -> None:
    found = plans(rates(completion_tokens=VARIED), gpus)
    speeds = [plan.samples_per_s for plan in found]
    ties = [speed >= 0.95 * max(speeds) for speed in speeds]
    assert ties == sorted(ties, reverse=True)
    rest = speeds[sum(ties) :]
    assert rest == sorted(rest, reverse=True)
    stale = [plan.setup.max_staleness for plan in found[: sum(ties)]]
    assert stale == sorted(stale)
    assert {plan.setup.max_staleness for plan in found} == {0, 1, 2, 3}
    assert all(plan.setup.rollout_actors + plan.setup.learner_gpus == gpus for plan in found)
    for plan in found:
        assert Setup.of(load_config("demo", plan.setup.overrides)) == plan.setup


def test_plan_is_the_fastest_split() -> None:
    r = rates(completion_tokens=VARIED)
    for plan in plans(r, 8, Assumed(learner_efficiency=0.9), prompts_per_step=48):
        splits = [plan.setup.model_copy(update={"rollout_actors": n, "learner_gpus": 8 - n}) for n in range(1, 8)]
        assert plan.setup.prompts_per_step == 48
        assert plan.step_s == min(predict(r, split, Assumed(learner_efficiency=0.9)).step_s for split in splits)


def test_more_gpus_increase_throughput() -> None:
    r = rates(completion_tokens=VARIED)
    speeds = [plans(r, gpus)[0].samples_per_s for gpus in (2, 4, 16)]
    assert all(more > 1.3 * less for less, more in itertools.pairwise(speeds))


def write_run(folder: Path, steps: int = 6, staleness: int = 0, **metrics: Any) -> Path:
    folder.mkdir(parents=True)
    settings = (f"loop.max_staleness={staleness}", "rollout.prompts_per_step=4", "placement.rollout.actors=2")
    config = load_config("demo", settings)
    (folder / "config.yaml").write_text(to_yaml(config))
    row = {
        "seconds/step": 3.0, "seconds/rollout": 0.8, "seconds/resample": 0.04, "seconds/learner": 1.5,
        "seconds/sync": 0.4, "seconds/parity": 0.2, "rollout/tokens": 1000.0, **metrics,
    }  # fmt: skip
    rows = [{"step": 1, **row, "seconds/rollout": 50.0, "seconds/step": 60.0}]
    rows += [{"step": step, **row} for step in range(2, steps + 1)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in rows))
    return folder


def test_rates_of_a_run_exclude_its_first_step_and_list_unmeasured_ones(tmp_path: Path) -> None:
    found = read_rates(write_run(tmp_path / "run"))
    assert found.decode_s_per_token == pytest.approx(2 * 1.0 / (4 * 8 * 31))
    assert found.learner_s_per_token == pytest.approx(1.5 / (4 * 8 * 31))
    assert (found.sync_s, found.overhead_s) == (0.4, pytest.approx(0.1))
    assert found.completion_tokens == ((31,), (31,))
    assert any("per token, so that more engines gain less" in gap for gap in found.unmeasured)
    assert read_rates(write_run(tmp_path / "two_steps", steps=2)) == found


def test_prediction_for_the_setup_of_a_run_is_its_step_time(tmp_path: Path) -> None:
    found = read_rates(write_run(tmp_path / "run"))
    assert predict(found, found).step_s == pytest.approx(3.0)


def test_spread_of_lengths_is_estimated_from_the_tokens_of_successive_steps(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=300)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    draws = np.random.default_rng(2)
    for n, row in enumerate(rows):
        # Groups of 8 completions with a mean length of 100 to 400 over the run and a standard deviation of 30.
        row["rollout/tokens"] = float(8 * draws.normal(100 + n, 30, 4).sum())
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = read_rates(folder)
    assert found.lengths.std == pytest.approx(30, rel=0.1)
    assert found.lengths.mean == pytest.approx(250, rel=0.05)
    assert predict(found, found).step_s == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"staleness": 1}, r"expected a run with loop.max_staleness=0, found 1"),
        ({"steps": 1}, r"metrics\.jsonl: expected at least 2 steps.*found 1"),
        ({"seconds/learner": None}, r"step 2: seconds/learner: expected a positive number, found None"),
        ({"rollout/tokens": float("nan")}, r"step 2: rollout/tokens: expected a positive number, found nan"),
        ({"seconds/step": "3"}, r"step 2: seconds/step: .*found '3'"),
        ({"seconds/step": 9.0}, r"found 6\.06 of 9 s in none of them, as in runs with --local"),
        ({"seconds/rollout": 0.0}, r"seconds/rollout: expected a positive number, found 0\.0"),
    ],
)
def test_run_without_usable_rates_is_rejected(tmp_path: Path, run: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_rates(write_run(tmp_path / "run", **run))


def test_missing_or_corrupt_run_file_is_named_in_the_error(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "metrics.jsonl").write_text("[]\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 1: expected a JSON object, found list"):
        read_rates(folder)
    (folder / "metrics.jsonl").unlink()
    with pytest.raises(DataError, match=r"its metrics\.jsonl, found no such file"):
        read_rates(folder)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sync_s": None}, r"rates\.sync_s: expected a valid number, found None"),
        ({"sync_s": -1}, r"rates\.sync_s: expected greater than or equal to 0, found -1"),
        ({"sync_s": float("inf")}, r"rates\.sync_s: .*found inf"),
        ({"decode_s_per_token": 0}, r"rates\.decode_s_per_token: expected greater than or equal to .*, found 0"),
        ({"group_size": "8"}, r"rates\.group_size: expected a valid integer, found '8'"),
        ({"group_size": True}, r"rates\.group_size: .*found True"),
        ({"completion_tokens": [[10**12]]}, r"rates\.completion_tokens\.0\.0: .*found 1000000000000"),
        ({"prompts_per_step": 10**9}, r"rates\.prompts_per_step: .*found 1000000000"),
        ({"completion_tokens": []}, r"rates\.completion_tokens"),
        ({"completion_tokens": [[3], []]}, r"rates\.completion_tokens\.1"),
        ({"completion_tokens": [[3, 0]]}, r"rates\.completion_tokens\.0\.1: .*found 0"),
    ],
)
def test_invalid_rate_is_named_in_the_error(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    file = tmp_path / "bench.json"
    file.write_text(json.dumps({"rates": {**VALUES, **changed}}))
    with pytest.raises(DataError, match=message):
        read_rates(file)


def test_missing_rate_is_named_in_the_error(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    file.write_text(json.dumps({"rates": {k: v for k, v in VALUES.items() if k != "parity_s"}}))
    with pytest.raises(DataError, match=r"rates\.parity_s: expected a value, found nothing"):
        read_rates(file)
    file.write_text(json.dumps({"figures": []}))
    with pytest.raises(DataError, match=r"expected an object 'rates', .*benchmarks\.throughput.*, found NoneType"):
        read_rates(file)
    with pytest.raises(DataError, match="found nothing"):
        read_rates(tmp_path / "absent.json")


def test_command_prints_plans_measurements_and_assumptions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "bench.json", tmp_path / "plan.json"
    file.write_text(json.dumps({"rates": VALUES}))
    assert main(["plan", str(file), "--gpus", "4", "--json", str(out), "--learner-efficiency", "0.8"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for text in (
        "Plans for 4 GPUs",
        "Overrides of the best plan: placement.rollout.actors=",
        "Measured (",
        "learner efficiency is 80%",
        "Extrapolated: all plans but the measured setup",
    ):
        assert text in printed
    written = json.loads(out.read_text())
    assert written["assumed"]["learner_efficiency"] == 0.8
    assert written["plans"][0]["overrides"][0].startswith("placement.rollout.actors=")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpus", "1"], "--gpus: expected 2 to 4096, found 1"),
        (["--gpus", "2", "--prompts-per-step", "0"], "--prompts-per-step: expected 1 to 65536, found 0"),
        (["--gpus", "2", "--learner-efficiency", "1.5"], "--learner-efficiency: expected 0.01 to 1, found 1.5"),
        (["--gpus", "2", "--sync-growth", "nan"], "--sync-growth: expected 0 to 10, found nan"),
        (["--gpus", "2", "--json", "/nowhere/plan.json"], "/nowhere"),
    ],
)
def test_invalid_argument_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    file = tmp_path / "bench.json"
    file.write_text(json.dumps({"rates": VALUES}))
    assert main(["plan", str(file), *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("max_staleness", [0, 1])
def test_run_is_compared_with_its_plan(max_staleness: int) -> None:
    s = setup(rollout_actors=1, learner_gpus=1, max_staleness=max_staleness)
    planned = predict(rates(), s)
    row = {
        "seconds/step": 2 * planned.step_s, "seconds/rollout": 0.9, "seconds/parity": 0.1, "seconds/sync": 0.1,
        "seconds/resample": 0.01, "seconds/learner": planned.step_s, "rollout/tokens": 9600,
    }  # fmt: skip
    rows = [{"step": i, **row} for i in range(4)]
    lines = compare_with_plan(rates(), s, rows, "metrics").splitlines()
    assert lines[1].endswith("planned / measured 0.50")
    rollout, reward, learner = (next(line for line in lines if line.startswith(f"{kind} idle")) for kind in KINDS)
    assert "50%" in learner
    assert reward.endswith("estimated from rates")
    assert rollout.endswith("estimated from rates") == bool(max_staleness)
    busy = planned.busy_s["rollout"] if max_staleness else 1.0
    assert f"{1 - busy / (2 * planned.step_s):.0%}" in rollout
    with pytest.raises(DataError, match="metrics: expected at least 2 steps"):
        compare_with_plan(rates(), s, rows[:1], "metrics")


def test_training_does_not_start_with_an_unreadable_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["train", "demo", f"run.dir={tmp_path}", "--plan", str(tmp_path / "absent.json")]
    assert main(run) == 1
    assert "absent.json" in capsys.readouterr().err
    assert main([*run, "run.steps=1"]) == 1
    assert "run.steps of at least 2" in capsys.readouterr().err

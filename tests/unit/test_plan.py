"""Planner: rates from files, simulated loop against closed forms, and search over setups."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geovlm_ray.cli import main
from geovlm_ray.config import load_config, to_yaml
from geovlm_ray.core.errors import ConfigError, DataError
from geovlm_ray.training.plan.compare import compare
from geovlm_ray.training.plan.planner import best_split, estimate, overrides, plans
from geovlm_ray.training.plan.rates import Rates, rates_from_values, read_rates
from geovlm_ray.training.plan.simulate import (
    Assumed,
    Lengths,
    Setup,
    learner_seconds,
    reward_seconds,
    simulate,
    sync_seconds,
)

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
    values = {"rollout_actors": 3, "learner_gpus": 2, "prompts_per_step": 24, "group_size": 4, "max_staleness": 0}
    return Setup(**{**values, **changed})


def stage_seconds(r: Rates, s: Setup) -> tuple[float, float, float, float]:
    """Closed-form seconds of rollout, scoring, learner, and sync with probe, for completions of 100 tokens each."""
    groups = s.prompts_per_step // s.rollout_actors
    rollout = groups * 0.02 + 100 * (0.01 + groups * s.group_size * 0.0002)
    score = -(-s.prompts_per_step // s.reward_actors) * s.group_size * r.reward_s_per_completion
    learner = (s.prompts_per_step * 0.01 + s.prompts_per_step * s.group_size * 100 * 0.0003) / s.learner_gpus
    sync = r.sync_s * (1 + 0.1 * np.log2(s.rollout_actors)) + 0.05
    return rollout, score, learner / 0.95 ** np.log2(s.learner_gpus), sync


def test_on_policy_step_time_is_the_sum_of_its_stages() -> None:
    s = setup()
    rollout, score, learner, sync = stage_seconds(rates(), s)
    found = simulate(rates(), s)
    assert found.step_s == pytest.approx(rollout + score + learner + sync + 0.01)
    assert found.samples_per_s == pytest.approx(96 / found.step_s)
    assert found.idle["rollout"] == pytest.approx(1 - rollout / found.step_s)
    assert found.idle["reward"] == pytest.approx(1 - score / found.step_s)
    assert found.idle["learner"] == pytest.approx(1 - learner / found.step_s)
    assert found.idle["gpu"] == pytest.approx(1 - (3 * rollout + 2 * learner) / (5 * found.step_s))
    assert found.staleness == {0: 50 * 96}


@pytest.mark.parametrize("learner_s_per_token", [0.00005, 0.005])
@pytest.mark.parametrize("max_staleness", [1, 2, 5])
def test_off_policy_step_time_is_the_maximum_of_rollout_and_learner(
    max_staleness: int, learner_s_per_token: float
) -> None:
    r, s = rates(learner_s_per_token=learner_s_per_token), setup(max_staleness=max_staleness)
    rollout, _, _, sync = stage_seconds(r, s)
    learner = learner_seconds(r, s, Assumed(), 24 * 4 * 100)
    assert (rollout > learner) == (learner_s_per_token < 0.001)
    found = simulate(r, s)
    assert found.step_s == pytest.approx(max(rollout, 3 * 0.02 + learner) + sync + 0.01)
    assert max(found.staleness, key=lambda age: found.staleness[age]) == max_staleness


def test_in_flight_updates_never_idle_the_engines() -> None:
    s = setup(max_staleness=2, in_flight=True)
    rollout, _, learner, _ = stage_seconds(rates(), s)
    assert rollout > learner
    found = simulate(rates(), s)
    assert found.step_s == pytest.approx(rollout + sync_seconds(rates(), s, Assumed()), rel=0.02)
    assert found.step_s < simulate(rates(), setup(max_staleness=2)).step_s


def test_slow_learner_limits_throughput_with_in_flight_updates() -> None:
    r, s = rates(learner_s_per_token=0.005), setup(max_staleness=1, in_flight=True)
    learner = learner_seconds(r, s, Assumed(), 24 * 4 * 100)
    assert simulate(r, s).step_s == pytest.approx(3 * 0.02 + learner + stage_seconds(r, s)[3] + 0.01)


def test_slow_rewards_limit_the_throughput_of_an_off_policy_loop() -> None:
    r, s = rates(reward_s_per_completion=0.5), setup(max_staleness=3, in_flight=True, reward_actors=2)
    found = simulate(r, s)
    assert found.step_s == pytest.approx(reward_seconds(r, s), rel=0.01)
    assert found.idle["reward"] == pytest.approx(0, abs=0.02)


def test_colocated_rollout_and_learner_alternate() -> None:
    s = setup(rollout_actors=4, learner_gpus=4, colocated=True)
    rollout, score, learner, sync = stage_seconds(rates(), s)
    found = simulate(rates(), s, Assumed(switch_s=0.7))
    assert found.step_s == pytest.approx(rollout + score + learner + sync + 1.4 + 0.01)
    assert found.idle["gpu"] == pytest.approx(1 - (rollout + learner) / found.step_s)
    with pytest.raises(ValueError, match="colocated"):
        setup(rollout_actors=4, learner_gpus=4, colocated=True, max_staleness=1)


def test_rollout_time_depends_on_total_tokens_and_longest_completion() -> None:
    r, s = rates(completion_tokens=VARIED, group_size=8), setup(rollout_actors=1, group_size=8)
    lengths = [Lengths(r, 0).batch(i, 24, 8) for i in range(50)]
    rollouts = [24 * 0.02 + n.max() * 0.01 + n.sum() * 0.0002 for n in lengths]
    learner_steps = [learner_seconds(r, s, Assumed(), n.sum()) for n in lengths]
    rest = sync_seconds(r, s, Assumed()) + 0.05 + 0.01
    no_scoring = r.model_copy(update={"reward_s_per_completion": 0.0})
    assert simulate(no_scoring, s).step_s == pytest.approx(np.mean(np.add(rollouts, learner_steps)[1:]) + rest)


def test_engine_at_capacity_generates_in_waves() -> None:
    s = setup(rollout_actors=1, prompts_per_step=6)
    r = rates(reward_s_per_completion=0.0)
    one_wave, three_waves = (simulate(r, s, Assumed(sequences=n)).step_s for n in (24, 8))
    assert three_waves - one_wave == pytest.approx(2 * 100 * 0.01)


@pytest.mark.parametrize(("max_staleness", "in_flight"), [(0, False), (1, False), (1, True), (4, False), (4, True)])
def test_every_group_is_trained_or_in_flight_exactly_once(max_staleness: int, in_flight: bool) -> None:
    s = setup(rollout_actors=5, prompts_per_step=17, max_staleness=max_staleness, in_flight=in_flight)
    found = simulate(rates(completion_tokens=VARIED), s, steps=20)
    assert found.trained == tuple(range(20 * 17))
    assert found.in_flight == tuple(range(20 * 17, (20 + max_staleness) * 17))
    assert sum(found.staleness.values()) == 20 * 17 * 4
    assert max(found.staleness) <= max_staleness
    assert all(0 <= fraction <= 1 for fraction in found.idle.values())


def test_stragglers_slow_a_step_and_in_flight_updates_hide_part_of_it() -> None:
    constant = rates(completion_tokens=[[round(float(np.mean([n for group in VARIED for n in group])))]])
    varied = rates(completion_tokens=VARIED)
    drained, in_flight = setup(max_staleness=2), setup(max_staleness=2, in_flight=True)
    assert simulate(varied, drained).step_s > 1.1 * simulate(constant, drained).step_s
    assert simulate(varied, in_flight).step_s < 0.9 * simulate(varied, drained).step_s


def test_simulation_is_deterministic_for_a_seed() -> None:
    r, s = rates(completion_tokens=VARIED), setup(max_staleness=2, in_flight=True)
    assert simulate(r, s, seed=1) == simulate(r, s, seed=1)
    assert simulate(r, s, seed=1).step_s != simulate(r, s, seed=2).step_s


def test_excess_engines_are_idle() -> None:
    found = simulate(rates(), setup(rollout_actors=40, prompts_per_step=10))
    assert found.idle["rollout"] > 0.75


def test_simulating_hundreds_of_gpus_takes_seconds() -> None:
    started = time.perf_counter()
    simulate(rates(completion_tokens=VARIED), setup(rollout_actors=384, learner_gpus=128, prompts_per_step=1024))
    assert time.perf_counter() - started < 20


def test_too_few_steps_to_fill_the_pipeline_are_rejected() -> None:
    with pytest.raises(ValueError, match="at least 8 steps"):
        simulate(rates(), setup(max_staleness=5), steps=7)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"max_staleness": 1},
        {"max_staleness": 3},
        {"rollout_actors": 6, "learner_gpus": 6, "colocated": True},
        {"rollout_actors": 24, "learner_gpus": 7},
    ],
)
def test_estimate_is_exact_for_constant_lengths(changed: dict[str, Any]) -> None:
    s = setup(**changed)
    batch = Lengths(rates(), 0).batch(0, s.prompts_per_step, s.group_size)
    assert estimate(rates(), s, Assumed(), batch) == pytest.approx(simulate(rates(), s).step_s)


@pytest.mark.parametrize("gpus", [2, 3, 8, 100])
@pytest.mark.parametrize("max_staleness", [0, 1])
def test_best_split_equals_exhaustive_search(gpus: int, max_staleness: int) -> None:
    r = rates(completion_tokens=VARIED, prompts_per_step=200)
    shape = setup(rollout_actors=gpus - 1, learner_gpus=1, prompts_per_step=200, max_staleness=max_staleness)
    batch = Lengths(r, 0).batch(0, 200, 4)
    splits = (
        setup(rollout_actors=n, learner_gpus=gpus - n, prompts_per_step=200, max_staleness=max_staleness)
        for n in range(1, gpus)
    )
    optimum = min(estimate(r, split, Assumed(), batch) for split in splits)
    found, split = best_split(r, shape, Assumed())
    assert split.gpus == gpus
    assert found <= optimum * (1.001 if gpus <= 33 else 1.03)


@pytest.mark.parametrize("gpus", [1, 2, 8, 33])
def test_plans_are_sorted_by_throughput_and_their_overrides_are_valid(gpus: int) -> None:
    r = rates(completion_tokens=VARIED)
    found = plans(r, gpus)
    top = max(plan.result.samples_per_s for plan in found)
    speeds = [plan.result.samples_per_s for plan in found]
    ties = [speed >= 0.95 * top for speed in speeds]
    assert ties == sorted(ties, reverse=True)
    rest = speeds[sum(ties) :]
    assert rest == sorted(rest, reverse=True)
    assert len({plan.result.setup for plan in found}) == len(found)
    assert all(plan.result.setup.gpus == gpus for plan in found)
    for plan in found:
        config = load_config("demo", plan.overrides)
        assert (config.placement.rollout.actors, config.rollout.group_size) == (
            plan.result.setup.rollout_actors,
            plan.result.setup.group_size,
        )
    as_measured = [p for p in found if (p.result.setup.prompts_per_step, p.result.setup.group_size) == (24, 4)]
    assert as_measured


def test_kept_settings_are_fixed_and_infeasible_ones_are_an_error() -> None:
    found = plans(rates(), 8, keep=("prompts_per_step", "group_size", "max_staleness", "in_flight"))
    assert [plan.result.setup for plan in found] == [found[0].result.setup]
    assert found[0].overrides == overrides(found[0].result.setup)
    assert f"placement.rollout.actors={found[0].result.setup.rollout_actors}" in found[0].overrides
    with pytest.raises(ConfigError, match=r"max_staleness.*found the measured 1"):
        plans(rates(), 1, keep=("max_staleness",))
    with pytest.raises(ConfigError, match="expected 1 to 4096, found 0"):
        plans(rates(), 0)


def test_more_gpus_increase_throughput() -> None:
    r = rates(completion_tokens=VARIED)
    speeds = [max(plan.result.samples_per_s for plan in plans(r, gpus)) for gpus in (2, 4, 16)]
    assert all(more > 1.3 * less for less, more in itertools.pairwise(speeds))


def write_run(folder: Path, steps: int = 6, staleness: int = 0, lengths: bool = True, **metrics: Any) -> Path:
    (folder / "rollouts").mkdir(parents=True)
    settings = (f"loop.max_staleness={staleness}", "rollout.prompts_per_step=4", "placement.rollout.actors=2")
    config = load_config("demo", settings)
    (folder / "config.yaml").write_text(to_yaml(config))
    row = {
        "seconds/step": 3.0, "seconds/rollout": 0.8, "seconds/resample": 0.04, "seconds/learner": 1.5,
        "seconds/sync": 0.4, "seconds/parity": 0.2,
        "rollout/tokens": 1000.0, "completion/length_mean": 31.2, **metrics,
    }  # fmt: skip
    rows = [{"step": 1, **row, "seconds/rollout": 50.0, "seconds/step": 60.0}]
    rows += [{"step": step, **row} for step in range(2, steps + 1)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in rows))
    if lengths:
        columns = {"group_id": [7, 7, 8, 8], "token_ids": [[1], [1, 2, 3], [1] * 60, [2] * 5]}
        pq.write_table(pa.table(columns), folder / "rollouts" / "step-000001.parquet")
    return folder


def test_rates_of_a_run_exclude_its_first_step_and_list_unmeasured_ones(tmp_path: Path) -> None:
    found = read_rates(write_run(tmp_path / "run"))
    assert found.decode_s_per_token == pytest.approx(2 * 1.0 / 1000)
    assert found.learner_s_per_token == pytest.approx(1.5 / 1000)
    assert (found.sync_s, found.overhead_s) == (0.4, pytest.approx(0.1))
    assert found.completion_tokens == ((1, 3), (60, 5))
    assert any("fixed costs" in gap for gap in found.unmeasured)
    without_lengths = read_rates(write_run(tmp_path / "without_lengths", lengths=False))
    assert without_lengths.completion_tokens == ((31,),)
    assert any("spread" in gap for gap in without_lengths.unmeasured)


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
    (folder / "rollouts" / "step-000002.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"step-000002\.parquet: expected Parquet"):
        read_rates(folder)
    pq.write_table(pa.table({"group_id": [1], "token_ids": ["a"]}), folder / "rollouts" / "step-000002.parquet")
    with pytest.raises(DataError, match=r"step-000002\.parquet: .*token_ids \(lists\)"):
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
    with pytest.raises(DataError, match=r"expected an object 'rates', found NoneType; .*benchmarks\.throughput"):
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
    ):
        assert text in printed
    written = json.loads(out.read_text())
    assert written["assumed"]["learner_efficiency"] == 0.8
    assert written["plans"][0]["overrides"][0].startswith("placement.rollout.actors=")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpus", "0"], "GPUs: expected 1 to 4096, found 0"),
        (["--gpus", "2", "--learner-efficiency", "1.5"], "--learner-efficiency: expected less than or equal to 1"),
        (["--gpus", "2", "--seed", "-1"], "seed: expected at least 0, found -1"),
        (["--gpus", "2", "--sequences", "no"], "--sequences: expected a valid integer"),
        (["--gpus", "2", "--switch-s", "nan"], "--switch-s: expected a finite number"),
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


def test_run_is_compared_with_its_plan() -> None:
    s = setup(rollout_actors=1, learner_gpus=1)
    planned = simulate(rates(), s)
    row = {
        "seconds/step": 2 * planned.step_s, "seconds/rollout": 0.9, "seconds/parity": 0.1,
        "seconds/learner": planned.step_s,
    }  # fmt: skip
    rows = [{"step": i, **row, "rollout/tokens": 9600} for i in range(4)]
    lines = compare(rates(), s, rows, "metrics").splitlines()
    assert lines[1].endswith("planned / measured 0.50")
    assert "50%" in next(line for line in lines if line.startswith("learner idle"))
    with pytest.raises(DataError, match="metrics: expected at least 2 steps"):
        compare(rates(), s, rows[:1], "metrics")


def test_training_does_not_start_with_an_unreadable_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["train", "demo", f"run.dir={tmp_path}", "--plan", str(tmp_path / "absent.json")]
    assert main(run) == 1
    assert "absent.json" in capsys.readouterr().err
    assert main([*run, "run.steps=1"]) == 1
    assert "run.steps of at least 2" in capsys.readouterr().err

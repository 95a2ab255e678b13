"""Files of one Ray run: all tasks, two engines of which one is killed, evaluation during training."""

from __future__ import annotations

import json
from typing import Any

import pytest

from geovlm_ray.observability.heartbeat import read_heartbeats
from geovlm_ray.tasks import TASKS
from tests.system.golden import BENCHMARKS, STEPS, GoldenRun, top
from tests.system.runs import PROMPTS, check_samples, metrics, samples

pytestmark = pytest.mark.slow
ACTOR_KINDS = {"driver", "learner", "reward", "rollout", "sbert"}
"""The replacement of the killed rollout actor may still be loading its engine when the run ends."""


def kinds(names: set[str]) -> set[str]:
    return {name.rpartition("-")[0] or name for name in names}


def test_killed_engine_is_replaced_without_losing_or_repeating_samples(golden: GoldenRun) -> None:
    check_samples(golden.folder, STEPS, 2 * PROMPTS)
    assert set(samples(golden.folder)["task"].to_pylist()) == set(TASKS)
    assert "starting a replacement" in golden.output


def test_logprobs_agree_and_staleness_is_bounded(golden: GoldenRun) -> None:
    rows = metrics(golden.folder)
    assert all(row["parity/max_abs"] <= 1e-3 for row in rows)
    assert [row["staleness/max"] for row in rows] == [0, *[1] * (STEPS - 1)]
    assert json.loads((golden.folder / "summary.json").read_text())["parity_max_abs"] <= 1e-3


def test_cluster_of_the_run_rejects_clients_without_its_token(golden: GoldenRun) -> None:
    code, output = golden.authorized
    assert code == 0, output[-2000:]
    assert "code ran" in output
    for code, output in golden.unauthorized:
        assert code != 0
        assert "code ran" not in output
        assert "InvalidAuthToken" in output, output[-2000:]


def test_run_listens_on_the_loopback_interface_only_and_refuses_calls_without_its_token(golden: GoldenRun) -> None:
    assert {host for host, _ in golden.sockets} == {"127.0.0.1"}
    assert all("OK" not in without for without, _ in golden.sockets.values())
    carried_out = [address for address, (_, authorized) in golden.sockets.items() if "OK" in authorized]
    assert len(carried_out) > len(ACTOR_KINDS), golden.sockets


def test_benchmarks_are_evaluated_and_best_checkpoints_are_kept(golden: GoldenRun) -> None:
    results = {
        step: json.loads((golden.folder / "evaluations" / f"step-{step:06d}" / "results.json").read_text())
        for step in range(0, STEPS + 1, 2)
    }
    best = json.loads((golden.folder / "checkpoints" / "best.json").read_text())
    assert set(best) == {*BENCHMARKS, "overall"}
    for name in BENCHMARKS:
        scores = {step: result["benchmarks"][name]["score"]["value"] for step, result in results.items() if step}
        assert best[name]["value"] == scores[best[name]["step"]] == max(scores.values())
        assert (golden.folder / "checkpoints" / f"step-{best[name]['step']:06d}").is_dir()
    assert [row["evaluation/step"] for row in metrics(golden.folder) if "evaluation/step" in row]


def test_every_actor_has_a_heartbeat(golden: GoldenRun) -> None:
    heartbeats = {heartbeat["actor"]: heartbeat for heartbeat in read_heartbeats(golden.folder)}
    assert kinds(set(heartbeats)) == ACTOR_KINDS
    assert len({heartbeat["pid"] for heartbeat in heartbeats.values()}) == len(heartbeats)
    assert all(heartbeat["run"] == "golden" and heartbeat["memory_bytes"] > 2**20 for heartbeat in heartbeats.values())
    assert heartbeats["driver"]["state"] == "ended"
    learner = heartbeats["learner-0"]
    assert 0 < learner["weight_version"] <= STEPS
    assert 0 < learner["idle"] < 1
    assert learner["rate"] > 0


def test_every_log_line_has_run_step_and_actor(golden: GoldenRun) -> None:
    logs = {file.stem: [json.loads(line) for line in file.open()] for file in (golden.folder / "logs").iterdir()}
    assert kinds(set(logs)) == ACTOR_KINDS
    for actor, lines in logs.items():
        assert all((line["run"], line["actor"]) == ("golden", actor) and "step" in line for line in lines)
    versions = [line["step"] for line in logs["learner-0"] if "version" in line["message"] and line["level"] == "DEBUG"]
    assert versions == list(range(STEPS + 1))
    assert {line["step"] for line in logs["reward-0"][1:]} == set(range(STEPS))
    assert logs["driver"][-1]["step"] == STEPS


def test_trace_contains_driver_phases_and_actor_calls(golden: GoldenRun) -> None:
    trace = json.loads((golden.folder / "trace-step-000002.json").read_text())["traceEvents"]
    names = {event["pid"]: event["args"]["name"] for event in trace if event["ph"] == "M"}
    spans: dict[str, dict[str, Any]] = {actor: {} for actor in names.values()}
    for event in (event for event in trace if event["ph"] == "X"):
        spans[names[event["pid"]]][event["name"]] = event
    step, phase, call = spans["driver"]["step 2"], spans["driver"]["learner"], spans["learner-0"]["step"]
    assert step["ts"] <= phase["ts"] <= call["ts"]
    assert call["ts"] + call["dur"] <= phase["ts"] + phase["dur"] <= step["ts"] + step["dur"]
    assert any({"stream", "receive"} <= set(calls) for actor, calls in spans.items() if actor.startswith("rollout"))
    assert "score" in spans["reward-0"]


def test_top_lists_all_actors(golden: GoldenRun) -> None:
    lines = top(golden.folder)
    assert lines[0].startswith(f"golden  step {STEPS}/{STEPS}  reward ")
    assert lines[0].endswith("  ended")
    actors = {line.split()[0] for line in lines[2:] if line.strip()}
    assert kinds(actors) == ACTOR_KINDS


def test_report_contains_the_benchmarks(golden: GoldenRun) -> None:
    report = (golden.folder / "report.html").read_text()
    assert all(name in report for name in BENCHMARKS)

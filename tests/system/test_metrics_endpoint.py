"""Prometheus metrics of a run."""

from __future__ import annotations

import time
import urllib.request

import pytest
import ray

from actors.heartbeat_metrics import HeartbeatGauges
from actors.metrics import RayMetrics, gauge_name
from geovlm_ray.observability.heartbeat import Heartbeat

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("seconds/step", ("geovlm_step_seconds", "")),
        ("task/vqa/reward", ("geovlm_task_reward", "vqa")),
        ("throughput/tokens_per_s", ("geovlm_throughput_tokens_per_s", "")),
        ("grad_norm", ("geovlm_grad_norm", "")),
    ],
)
def test_metric_names_end_in_their_unit_and_tasks_become_labels(key: str, expected: tuple[str, str]) -> None:
    assert gauge_name(key) == expected


def test_step_metrics_are_exported(cluster: None) -> None:
    RayMetrics("first")({"step": 7, "reward/mean": 1.25, "task/vqa/reward": 0.5})
    expected = {"ray_geovlm_step": 7.0, "ray_geovlm_reward_mean": 1.25, "ray_geovlm_task_reward": 0.5}
    found = scrape(set(expected))
    assert {name: value for name, (_, value) in found.items()} == expected
    assert all('run="first"' in labels for labels, _ in found.values())
    assert 'task="vqa"' in found["ray_geovlm_task_reward"][0]


def test_actor_heartbeats_are_exported(cluster: None) -> None:
    heartbeat = Heartbeat()
    heartbeat._identity = {"actor": "rollout-0", "kind": "rollout", "run": "first"}
    heartbeat.weight_version = 7
    with heartbeat.busy("stream", queue=16):
        HeartbeatGauges()(heartbeat.snapshot())
    names = ("idle_ratio", "memory_bytes", "busy_seconds", "queue", "weight_version", "tokens_per_second")
    found = scrape({f"ray_geovlm_actor_{name}" for name in names})
    assert all('run="first"' in labels and 'actor="rollout-0"' in labels for labels, _ in found.values())
    assert found["ray_geovlm_actor_queue"][1] == 16
    assert found["ray_geovlm_actor_weight_version"][1] == 7
    assert found["ray_geovlm_actor_memory_bytes"][1] > 2**20


def scrape(expected: set[str]) -> dict[str, tuple[str, float]]:
    """Labels and values of the named metrics, once all of them are exported."""
    node = ray.nodes()[0]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    found: dict[str, tuple[str, float]] = {}
    deadline = time.monotonic() + 60
    while set(found) != expected:
        assert time.monotonic() < deadline, (expected, set(found))
        time.sleep(1)
        lines = urllib.request.urlopen(url, timeout=10).read().decode().splitlines()
        samples = [line.rpartition(" ") for line in lines if line.startswith("ray_geovlm_")]
        exported = {labels.partition("{")[0]: (labels, float(value)) for labels, _, value in samples}
        found = {name: exported[name] for name in expected & set(exported)}
    return found

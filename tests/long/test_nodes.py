"""Multi-node runs: job submission, and recovery from node failures."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from benchmarks.node import Node
from benchmarks.nodes import Nodes, available
from tests.system.jobs import JobClient, check_failed_and_stopped
from tests.system.runs import MINUTES, arguments, check_samples, metrics, samples, wait_for_step

pytestmark = pytest.mark.slow
README = Path(__file__).parents[2] / "README.md"
STEPS, LONG = 8, 24


def needs(redis: bool = False) -> pytest.MarkDecorator:
    """Skip a test where multi-node clusters are not available."""
    reason = available(redis)
    return pytest.mark.skipif(reason is not None, reason=str(reason))


def readme(command: str) -> list[str]:
    """Arguments of the README command with this prefix."""
    lines = README.read_text().replace("\\\n", "").splitlines()
    return next(shlex.split(line) for line in lines if line.strip().startswith(command))


def job_client(nodes: Nodes) -> JobClient:
    return JobClient(nodes.environment())


def actor_nodes(nodes: Nodes) -> dict[str, list[Node]]:
    """Nodes of the live actors by class, from the Ray state API."""

    def listed(what: str) -> list[dict[str, str]]:
        return json.loads(job_client(nodes).ray("list", what, "--format=json").stdout)

    by_address = {node.address: node for node in [nodes.head, *nodes.workers]}
    by_id = {node["node_id"]: by_address[node["node_ip"]] for node in listed("nodes")}
    actor_nodes_by_class: dict[str, list[Node]] = {}
    for actor in listed("actors"):
        if actor["state"] == "ALIVE":
            actor_nodes_by_class.setdefault(actor["class_name"], []).append(by_id[actor["node_id"]])
    return actor_nodes_by_class


@needs()
def test_submitted_run_survives_node_failures(tmp_path: Path) -> None:
    """First on the remaining engine; after its node dies too, on a new node."""
    working_dir, run, log = tmp_path / "mine", tmp_path / "first", tmp_path / "log"
    working_dir.mkdir()
    (working_dir / "reward.py").write_text("def half(response, target):\n    return 0.5\n")
    with Nodes(workers=3, cpus=1, token="5e1f" * 16) as nodes:
        submit = readme("ray job submit --submission-id=first")
        options = submit[: submit.index("--") + 1]
        assert "--working-dir=mine" in options
        run_arguments = arguments(
            tmp_path, "first", STEPS, "placement.rollout.actors=2", "reward.function=reward.py:half"
        )
        with log.open("w") as output:
            command = [*options, "geovlm-ray", *run_arguments[1:]]
            job = nodes.command(None, command, cwd=tmp_path, stdout=output, stderr=output)
        wait_for_step(run, 2, job, log)
        nodes_by_actor = actor_nodes(nodes)
        first, second = nodes_by_actor["RolloutActor"]
        (learner,) = nodes_by_actor["LearnerActor"]
        assert len({first.address, second.address, learner.address}) == 3
        nodes.kill(first)
        wait_for_step(run, 5, job, log)
        nodes.kill(second)
        nodes.add()
        assert job.wait(10 * MINUTES) == 0, log.read_text()[-4000:]
        for words, expected in (("ray job logs first", f"{STEPS} steps in"), ("ray job status first", "succeeded")):
            result = subprocess.run(readme(words), env=nodes.environment(), capture_output=True, text=True, check=True)
            assert expected in result.stdout
        check_failed_and_stopped(job_client(nodes))
    assert "a rollout actor died: The actor died because its node has died" in log.read_text()
    check_samples(run, STEPS)
    assert all(row["parity/max_abs"] <= 1e-3 for row in metrics(run))
    assert set(samples(run)["accuracy"].to_pylist()) <= {0.0, 0.5}


@needs(redis=True)
def test_run_survives_a_restart_of_the_head(tmp_path: Path) -> None:
    """Redis stores the state of the head, and the driver runs on another node."""
    run, log = tmp_path / "kept", tmp_path / "log"
    slow = tmp_path / "reward.py"
    slow.write_text("import time\n\ndef half(response, target):\n    time.sleep(0.05)\n    return 0.5\n")
    with Nodes(workers=1, cpus=1, redis=True) as nodes:
        nodes.add(resources={"driver": 1})
        options = ["--submission-id=kept", "--entrypoint-resources", json.dumps({"driver": 1})]
        train = arguments(tmp_path, "kept", LONG, f"reward.function={slow}:half")
        with log.open("w") as output:
            job = nodes.command(None, ["ray", "job", "submit", *options, "--", *train], stdout=output, stderr=output)
        wait_for_step(run, 2, job, log)
        nodes.kill(nodes.head)
        nodes.restart_head()
        assert len(metrics(run)) < LONG, "the run ended before the head restarted"
        job_client(nodes).wait_for("SUCCEEDED", "kept", 10 * MINUTES)
    check_samples(run, LONG)

"""Runs on several nodes: submitted from a laptop, and going on when a node dies."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from benchmarks.node import Node
from benchmarks.nodes import Nodes, available
from tests.system.jobs import Laptop, check_failed_and_stopped
from tests.system.runs import MINUTES, arguments, check_samples, metrics, samples, wait_for_step

pytestmark = pytest.mark.slow
README = Path(__file__).parents[2] / "README.md"
STEPS, LONG = 8, 24


def needs(redis: bool = False) -> pytest.MarkDecorator:
    """Skip a test where such a cluster cannot be made."""
    reason = available(redis)
    return pytest.mark.skipif(reason is not None, reason=str(reason))


def readme(command: str) -> list[str]:
    """The words of the README's command that begins so."""
    lines = README.read_text().replace("\\\n", "").splitlines()
    return next(shlex.split(line) for line in lines if line.strip().startswith(command))


def laptop(nodes: Nodes) -> Laptop:
    return Laptop(nodes.environment())


def places(nodes: Nodes) -> dict[str, list[Node]]:
    """The workers on which the living actors of each class stand, as Ray tells."""

    def listed(what: str) -> list[dict[str, str]]:
        return json.loads(laptop(nodes).ray("list", what, "--format=json").stdout)

    by_address = {node.address: node for node in [nodes.head, *nodes.workers]}
    by_id = {node["node_id"]: by_address[node["node_ip"]] for node in listed("nodes")}
    found: dict[str, list[Node]] = {}
    for actor in listed("actors"):
        if actor["state"] == "ALIVE":
            found.setdefault(actor["class_name"], []).append(by_id[actor["node_id"]])
    return found


@needs()
def test_a_submitted_run_goes_on_when_nodes_die(tmp_path: Path) -> None:
    """First on the engine that is left; when that one dies too, on a node that joins."""
    mine, run, log = tmp_path / "mine", tmp_path / "first", tmp_path / "log"
    mine.mkdir()
    (mine / "reward.py").write_text("def half(response, target):\n    return 0.5\n")
    with Nodes(workers=3, cpus=1, token="5e1f" * 16) as nodes:
        submit = readme("ray job submit --submission-id=first")
        options = submit[: submit.index("--") + 1]
        assert "--working-dir=mine" in options
        ours = arguments(tmp_path, "first", STEPS, "placement.rollout.actors=2", "reward.function=reward.py:half")
        with log.open("w") as output:
            command = [*options, "geovlm-ray", *ours[1:]]
            job = nodes.command(None, command, cwd=tmp_path, stdout=output, stderr=output)
        wait_for_step(run, 2, job, log)
        at = places(nodes)
        first, second = at["RolloutActor"]
        (learner,) = at["LearnerActor"]
        assert len({first.address, second.address, learner.address}) == 3
        nodes.kill(first)
        wait_for_step(run, 5, job, log)
        nodes.kill(second)
        nodes.add()
        assert job.wait(10 * MINUTES) == 0, log.read_text()[-4000:]
        for words, expected in (("ray job logs first", f"{STEPS} steps in"), ("ray job status first", "succeeded")):
            done = subprocess.run(readme(words), env=nodes.environment(), capture_output=True, text=True, check=True)
            assert expected in done.stdout
        check_failed_and_stopped(laptop(nodes))
    assert "a rollout actor died: The actor died because its node has died" in log.read_text()
    check_samples(run, STEPS)
    assert all(row["parity/max_abs"] <= 1e-3 for row in metrics(run))
    assert set(samples(run)["accuracy"].to_pylist()) <= {0.0, 0.5}


@needs(redis=True)
def test_a_run_outlives_the_head(tmp_path: Path) -> None:
    """Where Redis keeps what the head knows, and the driver stands on another node."""
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
        assert len(metrics(run)) < LONG, "the run was over before the head was back"
        laptop(nodes).wait_for("SUCCEEDED", "kept", 10 * MINUTES)
    check_samples(run, LONG)

"""The cluster that a run starts for itself answers its own process alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import ray

from tests.system.runs import environment

pytestmark = pytest.mark.slow
CODE = """
import sys, ray
ray.init(address=sys.argv[1], logging_level="ERROR")
print(ray.get(ray.remote(lambda: "code ran").options(num_cpus=0).remote()))
"""


def join(settings: dict[str, str]) -> subprocess.Popen[str]:
    """Another process that knows the address, and asks the cluster to run a task."""
    command = [sys.executable, "-c", CODE, ray.get_runtime_context().gcs_address]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env={**environment(), **settings}, stdout=pipe, stderr=pipe, text=True)


def test_strangers_are_turned_away(cluster: None) -> None:
    owner = join({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.environ["RAY_AUTH_TOKEN"]})
    strangers = [join({"RAY_AUTH_MODE": "disabled"}), join({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64})]
    assert "code ran" in owner.communicate(timeout=180)[0]
    for stranger in strangers:
        printed, errors = stranger.communicate(timeout=180)
        assert stranger.returncode != 0
        assert "code ran" not in printed
        assert "InvalidAuthToken" in errors, errors[-2000:]

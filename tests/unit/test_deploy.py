"""`deploy/` and `docker-compose.yml`: valid for their schemas, never started without a token, able to hold a run."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator
from yamllint.config import YamlLintConfig
from yamllint.linter import run as lint

from geovlm_ray import __version__
from geovlm_ray.cli import COMMANDS
from geovlm_ray.config import load_config
from geovlm_ray.training.capacity import check_fits
from tests.unit.test_loop import run as run_loop

# Ray's own command line, which is imported here, warns of itself.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
TOP = Path(__file__).parents[2]
DEPLOY = TOP / "deploy"
COMPOSE = TOP / "docker-compose.yml"
KUBERAY = DEPLOY / "kuberay"
YAML_FILES = [COMPOSE, *sorted(DEPLOY.rglob("*.y*ml"))]
PINNED = dict(
    line.split("==") for line in (TOP / "requirements/gpu.txt").read_text().split() if re.fullmatch(r"\S+==\S+", line)
)

COUNT = {"type": "integer", "minimum": 0}
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}


def closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    """The schema of an object without other properties."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


GROUP = {"rayStartParams": STRINGS, "template": {"type": "object"}}
CLUSTER_SPEC = closed(
    {
        "rayVersion": {"type": "string"},
        "authOptions": closed({"mode": {"enum": ["token", "disabled"]}, "secretName": {"type": "string"}}, "mode"),
        "enableInTreeAutoscaling": {"type": "boolean"},
        "autoscalerOptions": closed(
            {"idleTimeoutSeconds": COUNT, "upscalingMode": {"enum": ["Default", "Aggressive", "Conservative"]}}
        ),
        "headGroupSpec": closed(GROUP, "template"),
        "workerGroupSpecs": {
            "type": "array",
            "items": closed(
                {
                    "groupName": {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"},
                    "replicas": COUNT,
                    "minReplicas": COUNT,
                    "maxReplicas": COUNT,
                    **GROUP,
                },
                *("groupName", "minReplicas", "maxReplicas", "template"),
            ),
        },
    },
    "headGroupSpec",
)
JOB_SPEC = closed(
    {
        "entrypoint": {"type": "string"},
        "shutdownAfterJobFinishes": {"type": "boolean"},
        "ttlSecondsAfterFinished": COUNT,
        "rayClusterSpec": CLUSTER_SPEC,
    },
    *("entrypoint", "rayClusterSpec"),
)
SPECS = {"RayCluster": CLUSTER_SPEC, "RayJob": JOB_SPEC}
"""The fields of KubeRay's API (ray.io/v1, KubeRay 1.6) that our manifests use; pods are checked as Kubernetes pods."""


def read(file: Path) -> Any:
    """The one document of a YAML file."""
    return yaml.safe_load(file.read_text())


def compose() -> dict[str, Any]:
    """The compose file with its variables as they are without an environment, for the profile ``gpu``."""
    text = re.sub(r"\$\{COMPOSE_PROFILES(:\?[^}]*)?\}", "gpu", COMPOSE.read_text())
    return yaml.safe_load(re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", text))


def cluster_specs() -> list[dict[str, Any]]:
    """The cluster of each KubeRay manifest."""
    return [read(KUBERAY / "raycluster.yaml")["spec"], read(KUBERAY / "rayjob.yaml")["spec"]["rayClusterSpec"]]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """The pods of a cluster, with the names of their groups."""
    spec = cluster_specs()[0]
    yield "head", spec["headGroupSpec"]["template"]
    for group in spec["workerGroupSpecs"]:
        yield group["groupName"], group["template"]


def ray_commands() -> Iterator[list[str]]:
    """Every `ray` command line of the deployments, README's among them, in words."""
    for service in compose()["services"].values():
        command = service.get("command", [])
        yield command if isinstance(command, list) else shlex.split(command)
    launcher = read(DEPLOY / "ray-cluster.yaml")
    for line in launcher["head_start_ray_commands"] + launcher["worker_start_ray_commands"]:
        yield [Path(word).name if word.endswith("/ray") else word for word in shlex.split(line) if "AUTH" not in word]
    for params, head in [(g["rayStartParams"], False) for g in cluster_specs()[0]["workerGroupSpecs"]] + [
        (cluster_specs()[0]["headGroupSpec"]["rayStartParams"], True)
    ]:
        yield ["ray", "start", *(["--head"] * head), *(f"--{name}={value}" for name, value in params.items())]
    for file in ("README.md", "docker-compose.yml", "deploy/ray-cluster.yaml"):
        for line in re.findall(r"^(?: {4}|# {2,})(ray .*)$", (TOP / file).read_text().replace("\\\n", " "), re.M):
            for command in re.split(r" {2,}(?=ray )", line):
                yield shlex.split(command, comments=True)


def geovlm_ray_commands() -> Iterator[list[str]]:
    """Every `geovlm-ray` command line that a deployment runs, in words."""
    yield shlex.split(read(KUBERAY / "rayjob.yaml")["spec"]["entrypoint"])
    for command in ray_commands():
        if "geovlm-ray" in command:
            yield command[command.index("geovlm-ray") :]


@pytest.mark.parametrize("file", YAML_FILES, ids=lambda f: str(f.relative_to(TOP)))
def test_yaml_is_clean(file: Path) -> None:
    """No doubled keys, no values that YAML 1.1 takes for something else, lines of bounded length."""
    rules = "{extends: default, rules: {document-start: disable, braces: disable, line-length: {max: 130}}}"
    assert not [str(problem) for problem in lint(file.read_text(), YamlLintConfig(rules), str(file))]


def test_compose_file_fits_the_compose_specification() -> None:
    command = [str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(COMPOSE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_core_kubernetes_objects_fit_their_schemas() -> None:
    documents = list(yaml.safe_load_all((KUBERAY / "common.yaml").read_text()))
    assert [d["kind"] for d in documents] == ["PersistentVolumeClaim", "NetworkPolicy"]
    for document in documents:
        kubernetes_validate.validate(document, "1.34", strict=True)


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_kuberay_objects_fit_the_fields_of_their_api(name: str) -> None:
    document = read(KUBERAY / f"{name}.yaml")
    assert document["apiVersion"] == "ray.io/v1"
    schema = Draft202012Validator(SPECS[document["kind"]])
    assert not [f"{e.json_path}: {e.message}" for e in schema.iter_errors(document["spec"])]
    assert document["kind"].lower() == name


def test_a_mistyped_field_of_a_kuberay_object_is_noticed() -> None:
    spec = cluster_specs()[0]
    spec["workerGroupSpecs"][0]["rayStartParams"] = {"num-cpus": 4}
    spec["autoScalerOptions"] = spec.pop("autoscalerOptions")
    assert len(list(Draft202012Validator(CLUSTER_SPEC).iter_errors(spec))) == 2


@pytest.mark.parametrize(("group", "template"), list(pods()), ids=[name for name, _ in pods()])
def test_pods_fit_their_schema_and_run_without_rights(group: str, template: dict[str, Any]) -> None:
    metadata = {"name": group, **template["metadata"]}
    kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", **template, "metadata": metadata}, "1.34", True)
    (policy,) = (d for d in yaml.safe_load_all((KUBERAY / "common.yaml").read_text()) if d["kind"] == "NetworkPolicy")
    assert metadata["labels"].items() >= policy["spec"]["podSelector"]["matchLabels"].items()
    (container,) = template["spec"]["containers"]
    assert template["spec"]["securityContext"]["runAsNonRoot"]
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_the_job_has_the_cluster_of_the_cluster_manifest() -> None:
    cluster, job = cluster_specs()
    assert cluster == job
    assert cluster["rayVersion"] == PINNED["ray"]
    assert all(g["minReplicas"] <= g["replicas"] <= g["maxReplicas"] for g in cluster["workerGroupSpecs"])
    (rollout,) = (g for g in cluster["workerGroupSpecs"] if g["groupName"] == "rollout")
    assert cluster["enableInTreeAutoscaling"]
    assert rollout["minReplicas"] < rollout["maxReplicas"]


def test_the_nodes_hold_the_papers_run() -> None:
    config = load_config("geovlm-r1")
    nodes = []
    for group in cluster_specs()[0]["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        pod = {"CPU": float(limits["cpu"]), "GPU": float(limits.get("nvidia.com/gpu", 0))}
        nodes += [pod] * group["minReplicas"]
    check_fits(config, nodes)
    commands = [compose()["services"][name]["command"] for name in ("gpu-worker", "reward-worker")]
    gpu, cpu = (float(re.findall(r"--num-cpus=\D*(\d+)", command)[0]) for command in commands)
    check_fits(config, [{"CPU": gpu, "GPU": 5}, {"CPU": cpu}])


def test_the_cluster_launcher_takes_its_file() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = read(DEPLOY / "ray-cluster.yaml")
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["max_workers"] == len(config["provider"]["worker_ips"])


@pytest.mark.parametrize("words", [c for c in ray_commands() if c[:1] == ["ray"]], ids=" ".join)
def test_ray_commands_parse(words: list[str]) -> None:
    from ray.scripts.scripts import cli

    command: click.Command = cli
    names: list[str] = []
    rest = words[1:]
    while isinstance(command, click.Group):
        names, rest = [*names, rest[0]], rest[1:]
        found = command.get_command(click.Context(command), names[-1])
        assert found is not None, f"ray has no command {' '.join(names)}"
        command = found
    command.make_context(" ".join(names), rest)


@pytest.mark.parametrize("words", list(geovlm_ray_commands()), ids=" ".join)
def test_geovlm_ray_commands_parse(words: list[str]) -> None:
    assert words[1] in COMMANDS
    parser = argparse.ArgumentParser(exit_on_error=False)
    import_module(f"geovlm_ray.commands.{words[1]}").add_arguments(parser)
    args = parser.parse_args(words[2:])
    if words[1] == "train" and not args.recipe.endswith(".yaml"):
        load_config(args.recipe, args.overrides)


def test_no_node_of_the_compose_file_starts_without_a_token() -> None:
    services = compose()["services"]
    nodes = {name: s for name, s in services.items() if s["image"].startswith("geovlm-ray:")}
    assert set(nodes) == {"head", "gpu-worker", "cpu-worker", "reward-worker"}
    for service in nodes.values():
        assert service["environment"] == {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/run/secrets/ray-token"}
        assert service["secrets"] == ["ray-token"]
    scraped = read(DEPLOY / "prometheus.yml")["scrape_configs"][0]["dns_sd_configs"][0]
    assert set(scraped["names"]) == set(nodes)
    assert all(f"--metrics-export-port={scraped['port']}" in str(s["command"]) for s in nodes.values())


def test_no_deployment_starts_ray_without_a_token() -> None:
    assert all(spec["authOptions"]["mode"] == "token" for spec in cluster_specs())
    launcher = read(DEPLOY / "ray-cluster.yaml")
    starts = launcher["head_start_ray_commands"][1:] + launcher["worker_start_ray_commands"][1:]
    assert all(line.startswith("RAY_AUTH_MODE=token ") for line in starts)
    assert launcher["file_mounts"]["~/.ray/auth_token"] == "deploy/secrets/ray-token"


def test_ports_of_the_compose_file_are_bound_to_the_loopback_address() -> None:
    services = compose()["services"]
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert all(s["networks"] == ["cluster"] and "network_mode" not in s for s in services.values())


def test_images_and_versions_are_pinned() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    images = [s["image"] for s in compose()["services"].values()]
    images += [pod["spec"]["containers"][0]["image"] for _, pod in pods()]
    images += [i for i in re.findall(r"^FROM (\S+)", dockerfile, re.M) if "$" not in i]
    assert all(re.search(r":v?\d+\.\d+", image) for image in images), images
    assert all(i.startswith(f"geovlm-ray:{__version__}-") for i in images if "geovlm-ray" in i)
    makefile = (TOP / "Makefile").read_text()
    (uv,) = re.findall(r"^UV_VERSION := (\S+)", makefile, re.M)
    assert f"ARG UV_VERSION={uv}\n" in dockerfile
    assert f"uv=={uv}" in (DEPLOY / "ray-cluster.yaml").read_text()


def test_the_image_is_built_in_layers_and_runs_as_nobody_special() -> None:
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    steps = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    assert [value for name, value in steps if name == "USER"] == ["1000"]
    copied = [value for name, value in steps if name == "COPY"]
    assert copied[0].startswith("requirements/${BACKEND}.txt"), "requirements are a layer below the source"
    assert "." not in {word for line in copied for word in line.split()}
    assert not [line for line in steps if line[0] == "ADD"]
    assert not re.search(r"token|password|secret|api_key", " ".join(v for n, v in steps if n in ("ENV", "ARG")), re.I)
    for source in (word for line in copied for word in line.split()[:-1]):
        assert list(TOP.glob(source.replace("${BACKEND}", "*"))), source
    ignored = (TOP / ".dockerignore").read_text().split()
    assert {f"!{word.split('/')[0]}" for line in copied for word in line.split()[:-1]} <= set(ignored)


def test_no_file_holds_a_secret() -> None:
    ignored = subprocess.run(["git", "check-ignore", "--quiet", "deploy/secrets/ray-token"], cwd=TOP, check=False)
    assert ignored.returncode == 0, "the folder of secrets is not ignored"
    assert all(secret["file"].startswith("./deploy/secrets/") for secret in compose()["secrets"].values())
    for service in compose()["services"].values():
        for name, value in service.get("environment", {}).items():
            assert value.startswith("/run/secrets/") or not re.search("TOKEN|PASSWORD|SECRET", name), name
    assert "kind: Secret" not in "".join(file.read_text() for file in KUBERAY.glob("*.yaml"))


def test_dashboards_ask_for_metrics_that_ray_or_a_run_has() -> None:
    from ray.dashboard.modules.metrics.dashboards import default_dashboard_panels

    from actors.heartbeat_metrics import DESCRIPTIONS
    from actors.metrics import PREFIX, gauge_name

    known = set(re.findall(r"ray_[a-z_]+", Path(default_dashboard_panels.__file__).read_text()))
    known |= {f"ray_{gauge_name(key)[0]}" for key in (*run_loop()[0].rows[0], "grad_norm")}
    known |= {f"ray_{PREFIX}_actor_{name}" for name in DESCRIPTIONS}
    (source,) = read(DEPLOY / "grafana/provisioning/datasources/prometheus.yml")["datasources"]
    for file in (DEPLOY / "grafana/dashboards").glob("*.json"):
        panels = json.loads(file.read_text())["panels"]
        assert {p["datasource"]["uid"] for p in panels} == {source["uid"]}
        asked = {m for p in panels for t in p["targets"] for m in re.findall(r"ray_[a-z_]+", t["expr"])}
        assert asked <= known, asked - known

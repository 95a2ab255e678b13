"""`deploy/` and `docker-compose.yml`: valid schemas, token authentication, enough resources for a run."""

from __future__ import annotations

import argparse
import inspect
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

from geovlm_ray.cli import COMMANDS
from geovlm_ray.config import load_config
from geovlm_ray.training.capacity import check_fits
from tests.unit.test_loop import run as run_loop

# Importing Ray's command line raises deprecation warnings.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
TOP = Path(__file__).parents[2]
DEPLOY = TOP / "deploy"
COMPOSE = TOP / "docker-compose.yml"
KUBERAY = DEPLOY / "kuberay"
YAML_FILES = [COMPOSE, *sorted(DEPLOY.rglob("*.y*ml"))]
PINNED = dict(
    word.split("==") for word in (TOP / "requirements/gpu.txt").read_text().split() if re.fullmatch(r"\S+==\S+", word)
)

COUNT = {"type": "integer", "minimum": 0}
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}


def closed_object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    """JSON schema of an object without additional properties."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


GROUP = {"rayStartParams": STRINGS, "template": {"type": "object"}}
CLUSTER_SPEC = closed_object(
    {
        "rayVersion": {"type": "string"},
        "authOptions": closed_object(
            {"mode": {"enum": ["token", "disabled"]}, "secretName": {"type": "string"}}, "mode"
        ),
        "enableInTreeAutoscaling": {"type": "boolean"},
        "autoscalerOptions": closed_object(
            {
                "idleTimeoutSeconds": COUNT,
                "upscalingMode": {"enum": ["Default", "Aggressive", "Conservative"]},
                "resources": {"type": "object"},
                "securityContext": {"type": "object"},
                "volumeMounts": {"type": "array"},
            }
        ),
        "headGroupSpec": closed_object(GROUP, "template"),
        "workerGroupSpecs": {
            "type": "array",
            "items": closed_object(
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
JOB_SPEC = closed_object(
    {
        "entrypoint": {"type": "string"},
        "shutdownAfterJobFinishes": {"type": "boolean"},
        "ttlSecondsAfterFinished": COUNT,
        "rayClusterSpec": CLUSTER_SPEC,
        "submitterPodTemplate": {"type": "object"},
    },
    *("entrypoint", "rayClusterSpec"),
)
SPECS = {"RayCluster": CLUSTER_SPEC, "RayJob": JOB_SPEC}
"""Fields of KubeRay's API (ray.io/v1, KubeRay 1.6) that our manifests use; pods are validated as Kubernetes pods."""
AUTOSCALER = "autoscaler"


def read(file: Path) -> Any:
    """Parse a YAML file with one document."""
    return yaml.safe_load(file.read_text())


def compose() -> dict[str, Any]:
    """The compose file with its variables set to their defaults, for the profile ``gpu``."""
    text = re.sub(r"\$\{COMPOSE_PROFILES(:\?[^}]*)?\}", "gpu", COMPOSE.read_text())
    return yaml.safe_load(re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", text))


def cluster_specs() -> list[dict[str, Any]]:
    """Cluster spec of each KubeRay manifest."""
    return [read(KUBERAY / "raycluster.yaml")["spec"], read(KUBERAY / "rayjob.yaml")["spec"]["rayClusterSpec"]]


def kubernetes_objects() -> list[dict[str, Any]]:
    """Kubernetes's own objects in the manifests."""
    files = sorted(KUBERAY.glob("*.yaml"))
    documents = [document for file in files for document in yaml.safe_load_all(file.read_text())]
    return [document for document in documents if document["kind"] not in SPECS]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and template of every pod: node groups, the head's with the autoscaler's container, and the submitter."""
    spec = cluster_specs()[0]
    head = spec["headGroupSpec"]["template"]
    options = {key: spec["autoscalerOptions"][key] for key in ("resources", "securityContext", "volumeMounts")}
    autoscaler = {"name": AUTOSCALER, "image": head["spec"]["containers"][0]["image"], **options}
    yield "head", {**head, "spec": {**head["spec"], "containers": [*head["spec"]["containers"], autoscaler]}}
    for group in spec["workerGroupSpecs"]:
        yield group["groupName"], group["template"]
    yield "submitter", read(KUBERAY / "rayjob.yaml")["spec"]["submitterPodTemplate"]


def ray_commands() -> Iterator[list[str]]:
    """Words of every `ray` command line in the deployments and the README."""
    for service in compose()["services"].values():
        command = service.get("command", [])
        yield command if isinstance(command, list) else shlex.split(command)
    launcher = read(DEPLOY / "ray-cluster.yaml")
    for line in launcher["head_start_ray_commands"] + launcher["worker_start_ray_commands"]:
        words = [Path(word).name if word.endswith("/ray") else word for word in shlex.split(line)]
        yield words[words.index("ray") :]
    for params, head in [(g["rayStartParams"], False) for g in cluster_specs()[0]["workerGroupSpecs"]] + [
        (cluster_specs()[0]["headGroupSpec"]["rayStartParams"], True)
    ]:
        yield ["ray", "start", *(["--head"] * head), *(f"--{name}={value}" for name, value in params.items())]
    for file in ("README.md", "docker-compose.yml", "deploy/ray-cluster.yaml"):
        for line in re.findall(r"^(?: {4}|# {2,})(ray .*)$", (TOP / file).read_text().replace("\\\n", " "), re.M):
            for command in re.split(r" {2,}(?=ray )", line):
                yield shlex.split(command, comments=True)


def geovlm_ray_commands() -> Iterator[list[str]]:
    """Words of every `geovlm-ray` command line in the deployments."""
    yield shlex.split(read(KUBERAY / "rayjob.yaml")["spec"]["entrypoint"])
    for command in ray_commands():
        if "geovlm-ray" in command:
            yield command[command.index("geovlm-ray") :]


@pytest.mark.parametrize("file", YAML_FILES, ids=lambda f: str(f.relative_to(TOP)))
def test_yaml_passes_yamllint(file: Path) -> None:
    """No duplicate keys, no ambiguous YAML 1.1 values, bounded line length."""
    rules = "{extends: default, rules: {document-start: disable, braces: disable, line-length: {max: 130}}}"
    assert not [str(problem) for problem in lint(file.read_text(), YamlLintConfig(rules), str(file))]


def test_compose_file_matches_the_compose_specification() -> None:
    command = [str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", "vendor.compose-spec"]
    process = subprocess.run([*command, str(COMPOSE)], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout


def test_kubernetes_objects_match_their_schemas() -> None:
    for document in kubernetes_objects():
        kubernetes_validate.validate(document, "1.34", strict=True)


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_kuberay_objects_match_the_fields_of_their_api(name: str) -> None:
    document = read(KUBERAY / f"{name}.yaml")
    assert document["apiVersion"] == "ray.io/v1"
    schema = Draft202012Validator(SPECS[document["kind"]])
    assert not [f"{e.json_path}: {e.message}" for e in schema.iter_errors(document["spec"])]
    assert document["kind"].lower() == name


def test_misspelt_field_of_a_kuberay_object_is_rejected() -> None:
    spec = cluster_specs()[0]
    spec["workerGroupSpecs"][0]["rayStartParams"] = {"num-cpus": 4}
    spec["autoScalerOptions"] = spec.pop("autoscalerOptions")
    assert len(list(Draft202012Validator(CLUSTER_SPEC).iter_errors(spec))) == 2


@pytest.mark.parametrize(("group", "template"), list(pods()), ids=[name for name, _ in pods()])
def test_pods_match_their_schema(group: str, template: dict[str, Any]) -> None:
    metadata = {"name": group, **template["metadata"]}
    kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", **template, "metadata": metadata}, "1.34", True)


def test_rayjob_and_raycluster_have_the_same_cluster_spec() -> None:
    cluster, job = cluster_specs()
    assert cluster == job
    assert cluster["rayVersion"] == PINNED["ray"]
    assert all(g["minReplicas"] <= g["replicas"] <= g["maxReplicas"] for g in cluster["workerGroupSpecs"])
    (rollout,) = (g for g in cluster["workerGroupSpecs"] if g["groupName"] == "rollout")
    assert cluster["enableInTreeAutoscaling"]
    assert rollout["minReplicas"] < rollout["maxReplicas"]


def test_nodes_have_enough_resources_for_the_paper_recipe() -> None:
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


def test_cluster_launcher_accepts_its_file() -> None:
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


def test_every_compose_node_requires_a_token() -> None:
    services = compose()["services"]
    nodes = {name: s for name, s in services.items() if s["image"].startswith("geovlm-ray:")}
    assert set(nodes) == {"head", "gpu-worker", "cpu-worker", "reward-worker"}
    for service in nodes.values():
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/run/secrets/ray-token"}
        assert token.items() <= service["environment"].items()
        assert service["secrets"] == ["ray-token"]
    scraped = read(DEPLOY / "prometheus.yml")["scrape_configs"][0]["dns_sd_configs"][0]
    assert set(scraped["names"]) == set(nodes)
    assert all(f"--metrics-export-port={scraped['port']}" in str(s["command"]) for s in nodes.values())


def test_every_deployment_starts_ray_with_token_authentication() -> None:
    assert all(spec["authOptions"]["mode"] == "token" for spec in cluster_specs())
    launcher = read(DEPLOY / "ray-cluster.yaml")
    starts = launcher["head_start_ray_commands"][1:] + launcher["worker_start_ray_commands"][1:]
    assert all(line.startswith("RAY_AUTH_MODE=token ") for line in starts)
    assert launcher["file_mounts"]["~/.ray/auth_token"] == "deploy/secrets/ray-token"


def test_stopped_jobs_have_time_to_save_wherever_ray_takes_jobs() -> None:
    from ray.dashboard.modules.job import job_supervisor

    name, seconds = "RAY_JOB_STOP_WAIT_TIME_S", 600
    assert name in inspect.getsource(job_supervisor), "read by the actor on the head that starts a job"
    assert compose()["services"]["head"]["environment"][name] == str(seconds)
    for spec in cluster_specs():
        (head,) = spec["headGroupSpec"]["template"]["spec"]["containers"]
        assert head["env"] == [{"name": name, "value": str(seconds)}]
    assert f"{name}={seconds}" in shlex.split(read(DEPLOY / "ray-cluster.yaml")["head_start_ray_commands"][-1])
    assert f"export {name}={seconds}" in (TOP / "docs/cluster.md").read_text()
    for file in ("slurm.sh", "skypilot.yaml"):
        assert "--include-dashboard=false" in (DEPLOY / file).read_text(), "without one, there are no jobs"


def test_compose_ports_are_bound_to_the_loopback_address() -> None:
    services = compose()["services"]
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert all(s["networks"] == ["cluster"] and "network_mode" not in s for s in services.values())


def test_image_installs_requirements_in_their_own_layer_and_runs_as_non_root() -> None:
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    steps = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    assert [value for name, value in steps if name == "USER"] == ["1000"]
    copied = [value for name, value in steps if name == "COPY"]
    assert copied[0].startswith("requirements/"), "requirements must be a layer below the source"
    assert "." not in {word for line in copied for word in line.split()}
    assert not [line for line in steps if line[0] == "ADD"]
    assert not re.search(r"token|password|secret|api_key", " ".join(v for n, v in steps if n in ("ENV", "ARG")), re.I)
    for source in (word for line in copied for word in line.split()[:-1]):
        assert list(TOP.glob(source.replace("${BACKEND}", "*"))), source
    ignored = (TOP / ".dockerignore").read_text().split()
    assert {f"!{word.split('/')[0]}" for line in copied for word in line.split()[:-1]} <= set(ignored)


def test_no_file_contains_a_secret() -> None:
    ignored = subprocess.run(["git", "check-ignore", "--quiet", "deploy/secrets/ray-token"], cwd=TOP, check=False)
    assert ignored.returncode == 0, "git must ignore the folder of secrets"
    assert all(secret["file"].startswith("./deploy/secrets/") for secret in compose()["secrets"].values())
    for service in compose()["services"].values():
        for name, value in service.get("environment", {}).items():
            assert value.startswith("/run/secrets/") or not re.search("TOKEN|PASSWORD|SECRET", name), name
    assert "kind: Secret" not in "".join(file.read_text() for file in KUBERAY.glob("*.yaml"))


def test_dashboards_query_metrics_that_exist() -> None:
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
        queried = {m for p in panels for t in p["targets"] for m in re.findall(r"ray_[a-z_]+", t["expr"])}
        assert queried <= known, queried - known

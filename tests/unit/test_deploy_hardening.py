"""What containers of the deployments may do: privileges, files, resources, network, evictions; their secrets."""

from __future__ import annotations

import copy
import ipaddress
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_deploy import AUTOSCALER, COMPOSE, DEPLOY, TOP, cluster_specs, compose, kubernetes_objects, pods

HOME = "/home/geovlm"
TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
PODS = dict(pods())
SERVICES = compose()["services"]
OBJECTS = kubernetes_objects()


def pod_problems(template: dict[str, Any]) -> list[str]:
    """Rules that a pod breaks."""
    spec, mounted = template["spec"], set()
    user = spec.get("securityContext", {})
    rules = {
        "runs as root": user.get("runAsNonRoot") and min(user.get("runAsUser", 0), user.get("runAsGroup", 0)) >= 1000,
        "no seccomp profile": user.get("seccompProfile", {}).get("type") == "RuntimeDefault",
        "mounts the API token": spec.get("automountServiceAccountToken") is False,
        "shares a namespace with its node": not {"hostNetwork", "hostPID", "hostIPC"} & set(spec),
    }
    for container in spec["containers"]:
        context, resources = container.get("securityContext", {}), container.get("resources", {})
        mounts = {mount["mountPath"]: mount for mount in container.get("volumeMounts", [])}
        mounted |= {mount["name"] for mount in mounts.values()}
        name = container["name"]
        sizes = [resources.get(key, {}).get(kind) for key in ("requests", "limits") for kind in ("cpu", "memory")]
        rules |= {
            f"{name}: may gain privileges": context.get("allowPrivilegeEscalation") is False,
            f"{name}: has capabilities": context.get("capabilities") == {"drop": ["ALL"]},
            f"{name}: overrides the pod's user": set(context)
            == {
                *("allowPrivilegeEscalation", "capabilities", "readOnlyRootFilesystem"),
            },
            f"{name}: writes to its root": context.get("readOnlyRootFilesystem") is True,
            f"{name}: has no /tmp": "/tmp" in mounts,
            f"{name}: lacks requests or limits": all(sizes),
            f"{name}: memory is overcommitted": sizes[1] == sizes[3],
            f"{name}: reads the API token": name == AUTOSCALER or TOKEN_FOLDER not in mounts,
        }
    for volume in spec["volumes"]:
        (kind,) = set(volume) - {"name"}
        rules[f"volume {volume['name']}: {kind}"] = kind in ("emptyDir", "persistentVolumeClaim", "projected")
        rules[f"volume {volume['name']}: no size"] = kind != "emptyDir" or "sizeLimit" in volume["emptyDir"]
    rules["volumes are not those of the mounts"] = mounted == {volume["name"] for volume in spec["volumes"]}
    return [problem for problem, kept in rules.items() if not kept]


def service_problems(service: dict[str, Any]) -> list[str]:
    """Rules that a service of the compose file breaks."""
    writable = {v.split(":")[-1] for v in service["volumes"] if not v.endswith(":ro")} | set(service.get("tmpfs", []))
    ours = service["image"].startswith("geovlm-ray:")
    rules = {
        "runs as root": ours or int(service.get("user", "0").split(":")[0]) > 0,
        "has capabilities": service.get("cap_drop") == ["ALL"] and "cap_add" not in service,
        "may gain privileges": service.get("security_opt") == ["no-new-privileges:true"],
        "is privileged": not {"privileged", "pid", "ipc", "network_mode", "devices"} & set(service),
        "writes to its root": service.get("read_only") is True,
        "has no place for temporary files": not ours or {"/tmp", HOME} <= writable,
        "has no limit of CPUs": service.get("cpu_quota", 0) >= 100_000,
        "has no limit of memory": re.fullmatch(r"\d+g", service.get("mem_limit", "")),
        "has no limit of processes": 0 < service.get("pids_limit", 0) <= 16384,
        "mounts a folder of the host": all(
            v.startswith("./deploy/") for v in service["volumes"] if v[0] in "./~" and ":" in v
        ),
        "controls Docker": "docker.sock" not in str(service),
    }
    return [problem for problem, kept in rules.items() if not kept]


@pytest.mark.parametrize("name", PODS)
def test_pods_keep_the_rules(name: str) -> None:
    template = PODS[name]
    assert not pod_problems(template)
    assert name == "submitter" or {"/tmp", HOME, "/shared"} <= {
        mount["mountPath"] for mount in template["spec"]["containers"][0]["volumeMounts"]
    }


@pytest.mark.parametrize("name", SERVICES)
def test_services_keep_the_rules(name: str) -> None:
    assert not service_problems(SERVICES[name])


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one key of nested dictionaries and lists; a value of None removes it."""

    def change(document: Any) -> None:
        *parents, last = path.split(".")
        for key in parents:
            document = document[int(key) if key.isdigit() else key]
        if value is None:
            del document[last]
        else:
            document[int(last) if last.isdigit() else last] = value

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_set("spec.securityContext.runAsNonRoot", None), "runs as root"),
        (_set("spec.securityContext.runAsGroup", 0), "runs as root"),
        (_set("spec.securityContext.seccompProfile", None), "no seccomp profile"),
        (_set("spec.automountServiceAccountToken", None), "mounts the API token"),
        (_set("spec.hostNetwork", True), "shares a namespace with its node"),
        (_set("spec.containers.0.securityContext.allowPrivilegeEscalation", None), "ray-head: may gain privileges"),
        (_set("spec.containers.0.securityContext.capabilities.add", ["SYS_ADMIN"]), "ray-head: has capabilities"),
        (_set("spec.containers.0.securityContext.runAsUser", 0), "ray-head: overrides the pod's user"),
        (_set("spec.containers.1.securityContext.readOnlyRootFilesystem", False), "autoscaler: writes to its root"),
        (_set("spec.containers.0.resources.limits.memory", None), "ray-head: lacks requests or limits"),
        (_set("spec.containers.0.resources.requests.memory", "1Gi"), "ray-head: memory is overcommitted"),
        (_set("spec.containers.0.volumeMounts.0.mountPath", TOKEN_FOLDER), "ray-head: reads the API token"),
        (_set("spec.containers.0.volumeMounts.0.mountPath", "/temporary"), "ray-head: has no /tmp"),
        (_set("spec.volumes.0.emptyDir", {}), "volume tmp: no size"),
        (_set("spec.volumes.0", {"name": "tmp", "hostPath": {"path": "/"}}), "volume tmp: hostPath"),
    ],
)
def test_a_pod_that_breaks_a_rule_is_found(change: Callable[[dict[str, Any]], None], problem: str) -> None:
    template = copy.deepcopy(PODS["head"])
    change(template)
    assert problem in pod_problems(template)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_set("user", None), "runs as root"),
        (_set("cap_add", ["NET_ADMIN"]), "has capabilities"),
        (_set("security_opt", []), "may gain privileges"),
        (_set("network_mode", "host"), "is privileged"),
        (_set("read_only", None), "writes to its root"),
        (_set("cpu_quota", None), "has no limit of CPUs"),
        (_set("mem_limit", None), "has no limit of memory"),
        (_set("pids_limit", -1), "has no limit of processes"),
        (_set("volumes", ["/:/host"]), "mounts a folder of the host"),
        (_set("volumes", ["/var/run/docker.sock:/docker.sock"]), "controls Docker"),
    ],
)
def test_a_service_that_breaks_a_rule_is_found(change: Callable[[dict[str, Any]], None], problem: str) -> None:
    service = copy.deepcopy(SERVICES["prometheus"])
    assert not service_problems(service)
    change(service)
    assert problem in service_problems(service)


def test_workers_of_compose_may_use_the_cpus_that_they_offer() -> None:
    for name in ("gpu-worker", "cpu-worker", "reward-worker"):
        (cpus,) = re.findall(r"--num-cpus=(\d+)", SERVICES[name]["command"])
        assert SERVICES[name]["cpu_quota"] == 100_000 * int(cpus)
        assert int(SERVICES[name]["shm_size"][:-2]) < int(SERVICES[name]["mem_limit"][:-1])


def test_only_the_autoscaler_gets_the_api_token() -> None:
    head = PODS["head"]["spec"]
    (autoscaler,) = (container for container in head["containers"] if container["name"] == AUTOSCALER)
    (mount,) = (mount for mount in autoscaler["volumeMounts"] if mount["mountPath"] == TOKEN_FOLDER)
    assert mount["readOnly"]
    (volume,) = (volume for volume in head["volumes"] if volume["name"] == mount["name"])
    token, authority = volume["projected"]["sources"]
    assert token["serviceAccountToken"]["path"] == "token"
    assert authority["configMap"] == {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    from ray.autoscaler._private.kuberay import node_provider

    assert {node_provider.IN_CLUSTER_TOKEN_PATH, node_provider.IN_CLUSTER_CA_CERT_PATH} == {
        f"{TOKEN_FOLDER}/token",
        f"{TOKEN_FOLDER}/ca.crt",
    }


def kuberay_labels(group: str) -> dict[str, str]:
    """Labels of a group's pods, including those that KubeRay adds."""
    labels = dict(PODS[group]["metadata"]["labels"])
    if group != "submitter":
        node = "head" if group == "head" else "worker"
        labels |= {"ray.io/node-type": node, "ray.io/group": "headgroup" if node == "head" else group}
    return labels


def selecting(kind: str, selector: str, group: str, optional: bool = False) -> list[dict[str, Any]]:
    """Specs of the objects of a kind that select a group's pods; the file internet.yaml is optional."""
    specs = [
        document["spec"]
        for document in OBJECTS
        if document["kind"] == kind and (optional or document["metadata"]["name"] != "geovlm-ray-internet")
    ]
    return [spec for spec in specs if spec[selector]["matchLabels"].items() <= kuberay_labels(group).items()]


def egress_blocks(group: str, optional: bool = False) -> Iterator[tuple[dict[str, Any], set[int]]]:
    """Address blocks outside the cluster that a group's pods may connect to, and the ports."""
    for spec in selecting("NetworkPolicy", "podSelector", group, optional):
        for rule in spec.get("egress", []):
            for peer in rule["to"]:
                if "ipBlock" in peer:
                    yield peer["ipBlock"], {port["port"] for port in rule["ports"]}


@pytest.mark.parametrize("group", PODS)
def test_every_pod_is_isolated_in_both_directions(group: str) -> None:
    policies = selecting("NetworkPolicy", "podSelector", group)
    assert {direction for policy in policies for direction in policy["policyTypes"]} == {"Ingress", "Egress"}
    peers = [peer for policy in policies for rule in policy.get("egress", []) for peer in rule["to"]]
    nodes = [peer for peer in peers if "podSelector" in peer]
    assert nodes
    assert all(peer["podSelector"]["matchLabels"].items() <= kuberay_labels("learner").items() for peer in nodes)
    assert bool(list(egress_blocks(group))) == (group == "head"), "only the autoscaler needs the API server"


def test_the_head_reaches_the_api_server_at_private_addresses_alone() -> None:
    for block, ports in egress_blocks("head"):
        assert ipaddress.ip_network(block["cidr"]).is_private
        assert ports == {443, 6443}


def test_the_optional_policy_opens_https_to_public_addresses_alone() -> None:
    ((block, ports),) = egress_blocks("learner", optional=True)
    assert ports == {443}
    closed = [ipaddress.ip_network(network) for network in block["except"]]
    for address in ("10.0.0.1", "172.31.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254"):
        assert any(ipaddress.ip_address(address) in network for network in closed), address


def test_disruption_budgets_keep_what_a_run_cannot_replace() -> None:
    replicas = {g["groupName"]: g["minReplicas"] for g in cluster_specs()[0]["workerGroupSpecs"]} | {"head": 1}
    evictable = {}
    for group, count in replicas.items():
        budgets = selecting("PodDisruptionBudget", "selector", group)
        # For pods without a controller that can be scaled, Kubernetes accepts this form only.
        assert all(
            isinstance(spec["minAvailable"], int) and set(spec) == {"minAvailable", "selector"} for spec in budgets
        )
        evictable[group] = count - sum(spec["minAvailable"] for spec in budgets)
    assert evictable == {"head": 0, "learner": 0, "rollout": 1, "reward": 1}


def test_documented_commands_create_secrets_that_only_their_owner_reads(tmp_path: Path) -> None:
    lines = re.findall(r"^ {4}(.*deploy/secrets.*)$", (TOP / "README.md").read_text(), re.M)
    create, chown = lines[:2], lines[2]
    assert create[0].startswith("mkdir")
    (tmp_path / "deploy").mkdir()
    umask = os.umask(0o022)
    try:
        subprocess.run(["sh", "-euc", "\n".join(create)], cwd=tmp_path, check=True)
    finally:
        os.umask(umask)
    folder = tmp_path / "deploy" / "secrets"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in folder.iterdir()} == {Path(s["file"]).name for s in compose()["secrets"].values()}
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert re.fullmatch(r"[0-9a-f]{64}", path.read_text())
    owners = dict(reversed(pair) for pair in re.findall(r"chown (\d+) deploy/secrets/([\w-]+)", chown))
    (image_user,) = re.findall(r"^USER (\d+)$", (DEPLOY / "Dockerfile").read_text(), re.M)
    for service in SERVICES.values():
        user = image_user if service["image"].startswith("geovlm-ray:") else service["user"].split(":")[0]
        assert all(owners[secret] == user for secret in service.get("secrets", []))
    assert "README's commands" in COMPOSE.read_text()

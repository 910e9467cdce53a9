"""Cluster files are what Ray and KubeRay accept, keep ports closed and hold no secret."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CLUSTERS = ROOT / "experiments" / "clusters"
AWS, GCP, KUBERAY = ROOT / "cluster.yaml", CLUSTERS / "gcp.yaml", CLUSTERS / "kuberay.yaml"
LAUNCHED = [AWS, GCP]
PACKAGES = Path(yaml.__file__).parents[1]
DOCKERFILE = CLUSTERS / "Dockerfile"
SECRETS = re.compile(
    r"AKIA[0-9A-Z]{16}|AIza[\w-]{35}|-----BEGIN|aws_secret|password|private_key"
    r"|token: *[A-Za-z0-9_-]{16,}",
    re.IGNORECASE,
)
pytestmark = pytest.mark.filterwarnings("ignore")


def loaded(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    return config


@pytest.mark.parametrize("path", LAUNCHED, ids=lambda p: p.name)
def test_ray_accepts_the_file(path: Path) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(loaded(path))
    validate_config(prepared)
    assert prepared["max_workers"] == 16


@pytest.mark.parametrize("path", LAUNCHED, ids=lambda p: p.name)
def test_ray_refuses_a_misspelt_key(path: Path) -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises((ValidationError, ValueError)):
        validate_config(prepare_config({**loaded(path), "max_wokers": 3}))


def is_spot(node: dict[str, Any]) -> bool:
    config = node["node_config"]
    if "machineType" in config:
        return bool(config["scheduling"]["provisioningModel"] == "SPOT")
    return bool(config["InstanceMarketOptions"]["MarketType"] == "spot")


@pytest.mark.parametrize("path", LAUNCHED, ids=lambda p: p.name)
def test_workers_are_spot_machines_that_scale_from_zero(path: Path) -> None:
    config = loaded(path)
    types = dict(config["available_node_types"])
    head = types.pop(config["head_node_type"])
    assert head["resources"]["CPU"] == 0
    assert len(types) == 2
    for node in types.values():
        assert node["min_workers"] == 0
        assert is_spot(node)
    assert sum(node["max_workers"] for node in types.values()) <= config["max_workers"]


def filled(config: dict[str, Any]) -> dict[str, Any]:
    """A cluster's description with what Ray finds out of its machines: on Google's cloud nothing.

    There it fills in TPUs alone, and wants Google's client for that.
    """
    from ray.autoscaler._private.providers import _get_node_provider_cls

    if config["provider"]["type"] == "gcp":
        return config
    pytest.importorskip("boto3")
    with pytest.importorskip("moto").mock_aws():
        provider = _get_node_provider_cls(config["provider"])
        made: dict[str, Any] = provider.fillout_available_node_types_resources(config)
        return made


@pytest.mark.parametrize("path", LAUNCHED, ids=lambda p: p.name)
def test_ray_starts_workers_for_parts_of_a_gpu(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.autoscaler._private import resource_demand_scheduler as scheduler
    from ray.autoscaler._private.util import prepare_config

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    config = filled(prepare_config(loaded(path)))
    types, head = config["available_node_types"], config["head_node_type"]
    room = scheduler.NodeAvailabilitySummary(node_availabilities={})
    fits = functools.partial(scheduler._default_utilization_scorer, node_availability_summary=room)
    asked = [{"CPU": 1.0, "GPU": 0.25}] * 5
    started, unmet = scheduler.get_nodes_for(types, {}, head, config["max_workers"], asked, fits)
    assert unmet == []
    assert started == {"gpu_small": 2}


def test_every_machine_on_google_may_open_the_store() -> None:
    """Ray gives its account to the head alone; workers had none, and so no credentials."""
    pieces = (PACKAGES / "ray/autoscaler/_private/gcp/config.py").read_text()
    assert 'RAY = "ray-autoscaler"' in pieces
    assert 'DEFAULT_SERVICE_ACCOUNT_ID = RAY + "-sa-" + VERSION' in pieces
    assert 'VERSION = "v1"' in pieces
    (granted,) = re.findall(r"DEFAULT_SERVICE_ACCOUNT_ROLES = \[(.*?)\]", pieces, re.DOTALL)
    roles = re.findall(r'"roles/(.+)"', granted)
    assert "storage.objectAdmin" in roles
    head_of_file = GCP.read_text().partition("cluster_name:")[0]
    assert [role for role in roles if f"`{role}`" not in head_of_file] == []
    config = loaded(GCP)
    types = dict(config["available_node_types"])
    assert "serviceAccounts" not in types.pop(config["head_node_type"])["node_config"]
    project = config["provider"]["project_id"]
    for node in types.values():
        assert node["node_config"]["serviceAccounts"] == [
            {
                "email": f"ray-autoscaler-sa-v1@{project}.iam.gserviceaccount.com",
                "scopes": ["https://www.googleapis.com/auth/cloud-platform"],
            }
        ]


def test_the_image_on_google_has_a_driver_for_the_wheel_of_torch() -> None:
    """The wheel brings CUDA 13, which begins with driver 580."""
    (driver,) = set(re.findall(r"common-cu\d+-ubuntu-2204-nvidia-(\d+)$", GCP.read_text(), re.M))
    assert int(driver) >= 580
    assert "580 or newer" in (ROOT / "docs" / "install.md").read_text()


@pytest.mark.parametrize("path", LAUNCHED, ids=lambda p: p.name)
def test_services_answer_on_the_head_alone(path: Path) -> None:
    text = path.read_text()
    assert "--dashboard-host=127.0.0.1" in text
    assert "mlflow server --host 127.0.0.1" in text
    config = loaded(path)
    started = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    asks = [line for line in started if "ray start" in line or "notice" in line]
    assert len(asks) == 3
    assert all("RAY_AUTH_MODE=token" in line for line in asks)


@pytest.mark.parametrize("path", LAUNCHED, ids=lambda p: p.name)
def test_the_head_has_the_papers_data_where_its_jobs_look(path: Path) -> None:
    """Every scale but `quick` ended at once: `data/` of the person is not sent."""
    config = loaded(path)
    assert (
        "~/env/bin/raygrid download cifar10 --data ~/data || true" in config["head_setup_commands"]
    )
    (start,) = (line for line in config["head_start_ray_commands"] if "ray start" in line)
    assert "RAYGRID_DATA=$HOME/data ~/env/bin/ray start --head" in start


def test_the_pod_of_the_head_has_the_papers_data_where_its_jobs_look() -> None:
    pod = documents()["RayCluster"]["spec"]["headGroupSpec"]["template"]["spec"]
    (fetch,) = pod["initContainers"]
    assert fetch["command"][-1] == "raygrid download cifar10 --data /data || true"
    assert fetch["securityContext"]["allowPrivilegeEscalation"] is False
    head = pod["containers"][0]
    assert {"name": "RAYGRID_DATA", "value": "/data"} in head["env"]
    for mounted in (fetch, head):
        assert {"name": "data", "mountPath": "/data"} in mounted["volumeMounts"]
    assert "data" in {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("path", LAUNCHED, ids=lambda p: p.name)
def test_metrics_are_at_one_port_of_every_node(path: Path) -> None:
    config = loaded(path)
    started = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    starts = [line for line in started if "ray start" in line]
    assert len(starts) == 2
    assert all("--metrics-export-port=8080" in line for line in starts)
    assert "port 8080" in (ROOT / "docs" / "clusters.md").read_text()


@pytest.mark.parametrize("path", LAUNCHED, ids=lambda p: p.name)
def test_a_clouds_notice_is_passed_on(path: Path) -> None:
    import importlib.util

    assert "-m raygrid.engine.ray.preemption" in loaded(path)["worker_start_ray_commands"][-1]
    assert importlib.util.find_spec("raygrid.engine.ray.preemption")


@pytest.mark.parametrize("path", [*LAUNCHED, KUBERAY, DOCKERFILE], ids=lambda p: p.name)
def test_nothing_is_open_to_the_world_and_there_are_no_secrets(path: Path) -> None:
    text = path.read_text()
    assert not SECRETS.search(text)
    for word in ("0.0.0.0", "LoadBalancer", "NodePort", "Ingress\n", "hostNetwork", "privileged:"):
        assert word not in text


# KubeRay: the fields of RayCluster, ray.io/v1, by the reference of its API.

SPEC = {"rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions"}
SPEC |= {"headGroupSpec", "workerGroupSpecs", "headServiceAnnotations", "suspend", "managedBy"}
SPEC |= {"gcsFaultToleranceOptions"}
AUTOSCALER = {"resources", "image", "imagePullPolicy", "securityContext", "env", "envFrom"}
AUTOSCALER |= {"idleTimeoutSeconds", "upscalingMode", "version", "volumeMounts"}
HEAD = {"template", "headService", "enableIngress", "resources", "labels", "rayStartParams"}
HEAD |= {"serviceType"}
WORKERS = {"groupName", "replicas", "minReplicas", "maxReplicas", "idleTimeoutSeconds", "suspend"}
WORKERS |= {"numOfHosts", "resources", "labels", "rayStartParams", "template", "scaleStrategy"}


def documents() -> dict[str, dict[str, Any]]:
    return {d["kind"]: d for d in yaml.safe_load_all(KUBERAY.read_text())}


def test_kuberay_knows_every_field() -> None:
    cluster = documents()["RayCluster"]
    assert cluster["apiVersion"] == "ray.io/v1"
    spec = cluster["spec"]
    assert set(spec) <= SPEC
    assert set(spec["autoscalerOptions"]) <= AUTOSCALER
    assert spec["autoscalerOptions"]["upscalingMode"] in ("Default", "Aggressive", "Conservative")
    assert spec["autoscalerOptions"]["version"] == "v2"
    assert set(spec["headGroupSpec"]) <= HEAD
    for group in spec["workerGroupSpecs"]:
        assert set(group) <= WORKERS
        assert {"groupName", "template", "maxReplicas", "minReplicas"} <= set(group)
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_kuberay_workers_hold_one_gpu_and_scale_from_zero() -> None:
    (group,) = documents()["RayCluster"]["spec"]["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"]) == (0, 0)
    (container,) = group["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["resources"]["limits"] == container["resources"]["requests"]
    drain = next(e for e in container["env"] if e["name"].startswith("RAY_GRACEFUL"))
    assert int(drain["value"]) < group["template"]["spec"]["terminationGracePeriodSeconds"]


def test_a_grid_on_kubernetes_asks_for_gpus_that_are_not_there_yet(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from raygrid.engine.ray.resources import promised

    pod = documents()["RayCluster"]["spec"]["headGroupSpec"]["template"]["spec"]
    monkeypatch.delenv("RAYGRID_GPUS", raising=False)
    assert promised(tmp_path / "none") == {}
    for word in pod["containers"][0]["env"]:
        monkeypatch.setenv(word["name"], word["value"])
    assert promised(tmp_path / "none") == {"GPU": 1.0}


def test_kuberay_is_closed() -> None:
    parts = documents()
    spec = parts["RayCluster"]["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert spec["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "127.0.0.1"
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    policy = parts["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"]["ray.io/cluster"] == "raygrid"
    assert all(source.get("podSelector") for source in policy["ingress"][0]["from"])
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
    mlflow = spec["headGroupSpec"]["template"]["spec"]["containers"][1]
    assert mlflow["command"][:4] == ["mlflow", "server", "--host", "127.0.0.1"]


def test_the_image_has_the_ray_that_the_files_and_the_project_name() -> None:
    (version,) = re.findall(r"^FROM rayproject/ray:([\d.]+)-", DOCKERFILE.read_text(), re.M)
    assert documents()["RayCluster"]["spec"]["rayVersion"] == version
    assert f'"ray=={version}"' in (ROOT / "pyproject.toml").read_text()
    copied = re.findall(r"^COPY --chown=ray:users (.+) \S+$", DOCKERFILE.read_text(), re.M)
    for name in " ".join(copied).split():
        assert (ROOT / name).exists()

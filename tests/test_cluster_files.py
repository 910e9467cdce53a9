"""cluster.yaml is what Ray's launcher accepts, keeps ports closed and holds no secret."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return loaded


def test_ray_accepts_the_file(config: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["max_workers"] == 16


def test_ray_refuses_a_misspelt_key(config: dict[str, Any]) -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises((ValidationError, ValueError)):
        validate_config(prepare_config({**config, "max_wokers": 3}))


def test_workers_are_spot_machines_that_scale_from_zero(config: dict[str, Any]) -> None:
    types = dict(config["available_node_types"])
    head = types.pop(config["head_node_type"])
    assert head["resources"]["CPU"] == 0
    assert len(types) == 2
    for node in types.values():
        assert node["min_workers"] == 0
        assert node["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert sum(node["max_workers"] for node in types.values()) <= config["max_workers"]


def test_ports_are_closed_and_there_are_no_secrets() -> None:
    text = (ROOT / "cluster.yaml").read_text()
    assert "0.0.0.0" not in text
    assert "--dashboard-host=127.0.0.1" in text
    assert "--host 127.0.0.1" in text
    assert "RAY_AUTH_MODE=token" in text
    assert not re.search(r"AKIA[0-9A-Z]{16}|aws_secret|password", text, re.IGNORECASE)

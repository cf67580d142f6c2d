"""The files of docs/scale are valid, and their services are closed to other machines and unknown users."""

from pathlib import Path
from typing import Any

import pytest
import yaml

SCALE = Path(__file__).parents[1] / "docs" / "scale"


def load_yaml(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((SCALE / name).read_text("utf-8"))
    return document


def test_milvus_listens_on_this_machine_only() -> None:
    """One local port, with a login, in a version without known vulnerabilities; no password is in the file."""
    services = load_yaml("milvus-compose.yaml")["services"]
    ports = {name: service.get("ports", []) for name, service in services.items()}
    assert ports == {"etcd": [], "minio": [], "milvus": ["127.0.0.1:19530:19530"]}
    version = tuple(int(part) for part in services["milvus"]["image"].partition(":v")[2].split("."))
    assert version >= (2, 6, 10)
    environment = services["milvus"]["environment"]
    assert environment["COMMON_SECURITY_AUTHORIZATIONENABLED"] == "true"
    secrets = [
        value
        for service in services.values()
        for name, value in service["environment"].items()
        if "PASSWORD" in name or "SECRET" in name
    ]
    assert len(secrets) == 3 and all(value.startswith("${") and ":?" in value for value in secrets)
    assert services["etcd"]["networks"] == services["minio"]["networks"] == ["inside"]


def test_ray_accepts_the_cluster_file() -> None:
    """By Ray's own check; the dashboard is off, and every machine requires a token."""
    util = pytest.importorskip("ray.autoscaler._private.util")
    config = load_yaml("ray-cluster.yaml")
    util.validate_config(util.prepare_config(dict(config)))
    starts = [
        line
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for line in config[key]
        if "ray start" in line
    ]
    assert len(starts) == 2 and all(
        "RAY_AUTH_MODE=token" in line and "RAY_USAGE_STATS_ENABLED=0" in line for line in starts
    )
    assert "--include-dashboard=false" in starts[0]

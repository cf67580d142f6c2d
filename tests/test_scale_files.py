"""The files of docs/scale: read as their tools read them, with the settings that keep strangers out."""

from pathlib import Path
from typing import Any

import pytest
import yaml

SCALE = Path(__file__).parents[1] / "docs" / "scale"


def loaded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((SCALE / name).read_text("utf-8"))
    return found


def test_milvus_is_open_to_this_machine_alone() -> None:
    """One port, with a login, of a version past the known holes; no password is written down."""
    services = loaded("milvus-compose.yaml")["services"]
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


def test_the_cluster_file_is_one_of_ray() -> None:
    """By Ray's own check; the dashboard is off and a token is asked for on every machine."""
    util = pytest.importorskip("ray.autoscaler._private.util")
    config = loaded("ray-cluster.yaml")
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

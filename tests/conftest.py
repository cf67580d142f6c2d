"""Fixtures for all tests: each runs offline and without access to the user's own files."""

import ipaddress
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Tests run in parallel: threads of torch that wait for each other would be a hundred times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"  # huggingface_hub reads it when it is imported, before any fixture runs

import tests.few_words  # noqa: E402, F401

USER_FOLDER_VARIABLES = (
    "HOME",
    "USERPROFILE",
    "APPDATA",
    "LOCALAPPDATA",
    "XDG_DATA_HOME",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "HF_HOME",
)


@pytest.fixture(autouse=True)
def isolated_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.mktemp("home")
    for name in USER_FOLDER_VARIABLES:
        monkeypatch.setenv(name, str(home))
    for name in ("LORADEX_ZOO", "LORADEX_ENCODER", "LORADEX_BASES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")


def is_local(host: object) -> bool:
    """Whether the host is this machine; False for names other than localhost, which may resolve to any address."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(str(host))
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def guard(connect: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6) and not is_local(address[0]):
                raise AssertionError(f"a test opened a network connection: {address}")
            return connect(self, address)

        return guarded

    monkeypatch.setattr(socket.socket, "connect", guard(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guard(socket.socket.connect_ex))


@pytest.fixture
def shared_loras() -> Path:
    folder = Path(__file__).parents[2] / "shared" / "loras"
    if not folder.is_dir():
        pytest.skip("the folder shared/loras with real LoRA files is not beside this checkout")
    return folder

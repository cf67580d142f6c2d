"""The address comes from ComfyUI's settings; the login only from where no browser reads, and goes nowhere else."""

from importlib import import_module
from types import ModuleType

import pytest

from tests.integrations.comfyui.stand_ins import ComfyUI


@pytest.fixture
def settings(pack: ModuleType) -> ModuleType:
    return import_module(f"{pack.__name__}.settings")


def test_the_address(settings: ModuleType, comfyui: ComfyUI, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.server_address() == "http://127.0.0.1:7860"
    comfyui.set_address(" http://other:8000/ ")
    comfyui.set_address("http://hers", "her_1")
    assert settings.server_address() == "http://other:8000"
    assert settings.server_address("her_1") == "http://hers"
    assert settings.server_address("../default") == "http://127.0.0.1:7860"
    monkeypatch.setenv("LORADEX_SERVER", "https://named")
    assert settings.server_address() == "https://named"


@pytest.mark.parametrize(
    "written", ["ftp://x", "x", "http://", "http://x:99999", "http://a b", "http://x/?q", "file:///etc", "http://ü"]
)
def test_no_address(settings: ModuleType, comfyui: ComfyUI, written: str) -> None:
    comfyui.set_address(written)
    with pytest.raises(settings.LoradexError, match="expected an address such as"):
        settings.server_address()


def test_an_address_with_a_login_is_refused_without_showing_it(settings: ModuleType, comfyui: ComfyUI) -> None:
    comfyui.set_address("http://name:secret@host")
    with pytest.raises(settings.LoradexError, match="without a login") as caught:
        settings.server_address()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("broken", ["{", "[]", "[" * 100_000])
def test_broken_settings_are_none(settings: ModuleType, comfyui: ComfyUI, broken: str) -> None:
    comfyui.set_address("http://x")
    (comfyui.user / "default" / "comfy.settings.json").write_text(broken)
    assert settings.server_address() == "http://127.0.0.1:7860"


def test_the_login_goes_to_this_machine_and_to_its_own_address_alone(settings: ModuleType, comfyui: ComfyUI) -> None:
    local, far = "http://127.0.0.1:7860", "https://far:1"
    assert settings.login_for(local) is None
    (comfyui.user / "__loradex").mkdir(parents=True)
    (file := comfyui.user / "__loradex" / "login.txt").write_text("name:secret\r\n")
    assert settings.login_for(local) == "name:secret"
    assert settings.login_for(far) is None
    file.write_text("name:secret\nhttps://far:1/\n")
    assert settings.login_for(far) == "name:secret"
    assert settings.login_for("https://far:2") is None
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(settings.LoradexError, match="expected a line name:password"):
        settings.login_for(local)


def test_the_login_of_the_environment(settings: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORADEX_LOGIN", "name:secret")
    assert settings.login_for("http://localhost:1") == "name:secret"
    assert settings.login_for("http://far") is None
    monkeypatch.setenv("LORADEX_SERVER", "http://far")
    assert settings.login_for("http://far") == "name:secret"

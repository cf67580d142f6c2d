"""The node pack in folders that look like ComfyUI's."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loradex.app import comfyui
from loradex.app.comfyui import PACK, ComfyUIError, install_pack
from loradex.app.commands.main import app


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder of a ComfyUI."""
    (folder := tmp_path / "Comfy UI" / "custom_nodes").mkdir(parents=True)
    for name in ("main.py", "nodes.py", "folder_paths.py"):
        (folder.parent / name).touch()
    return folder.parent


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_linked_then_copied_then_linked(home: Path) -> None:
    folder = home / "custom_nodes" / "loradex"
    first = install_pack(home)
    assert (first.folder, first.linked, first.updated) == (folder, True, False)
    assert folder.is_symlink() and folder.resolve() == PACK
    copied = install_pack(home, copy=True)
    assert (copied.linked, copied.updated) == (False, True)
    assert not folder.is_symlink() and files(folder) == files(PACK)
    (folder / "old.py").touch()
    (folder / "__init__.py").write_bytes((folder / "__init__.py").read_bytes() + b"\n# an older version")
    assert install_pack(home, copy=True).updated and files(folder) == files(PACK)
    assert install_pack(home).linked and folder.is_symlink()
    assert [path.name for path in (home / "custom_nodes").iterdir()] == ["loradex"]
    assert files(PACK)  # a link was removed, not what it leads to


def test_where_links_cannot_be_made_it_is_copied(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(1314, "a required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    installed = install_pack(home)
    assert not installed.linked and files(installed.folder) == files(PACK)


def test_what_is_not_ours_stays(home: Path) -> None:
    (folder := home / "custom_nodes" / "loradex").mkdir()
    (folder / "__init__.py").write_text("mine = True")
    with pytest.raises(ComfyUIError, match="found something else"):
        install_pack(home)
    assert (folder / "__init__.py").read_text() == "mine = True"


def test_a_link_to_nowhere_is_replaced(home: Path) -> None:
    (home / "custom_nodes" / "loradex").symlink_to("/gone")
    assert install_pack(home).folder.resolve() == PACK


def test_the_folders_that_are_a_comfyui(home: Path, tmp_path: Path) -> None:
    portable = tmp_path / "ComfyUI_windows_portable"
    portable.mkdir()
    home.rename(portable / "ComfyUI")
    assert comfyui.find_comfyui(portable) == portable / "ComfyUI"
    assert comfyui.find_comfyui(portable / "ComfyUI" / "custom_nodes") == portable / "ComfyUI"
    for name in ("custom_nodes", "models", "user"):
        (tmp_path / "desktop" / name).mkdir(parents=True)
    assert comfyui.find_comfyui(tmp_path / "desktop") == tmp_path / "desktop"
    for other in (tmp_path, tmp_path / "gone"):
        with pytest.raises(ComfyUIError, match="expected the folder of ComfyUI"):
            comfyui.find_comfyui(other)


def test_the_command(home: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["comfyui", "install", str(home), "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["folder"] == str(home / "custom_nodes" / "loradex") and document["linked"]
    assert document["next"][:2] == [f"loradex index '{home}/models/loras'", "loradex serve --api"]
    table = CliRunner().invoke(app, ["comfyui", "install", str(home)])
    assert table.exit_code == 0 and "updated" in table.output and "loradex serve --api" in table.output
    assert isinstance(CliRunner().invoke(app, ["comfyui", "install", str(tmp_path)]).exception, ComfyUIError)

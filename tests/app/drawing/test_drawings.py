"""The folder of drawings: bounded, and nothing that happens to it matters."""

import os
from pathlib import Path

import pytest
from PIL import Image

from loradex.app.drawing.cache import Drawings

RED = Image.new("RGB", (8, 8), "red")


def noise(seed: int) -> Image.Image:
    return Image.frombytes("RGB", (32, 32), bytes((seed * 7 + i * i) % 256 for i in range(3072)))


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    drawings = Drawings(tmp_path / "new" / "folder")
    assert drawings.find("a") is None
    drawings.keep("a", RED)
    found = drawings.find("a")
    assert found is not None and found.tobytes() == RED.tobytes()
    assert [path.name for path in drawings.folder.iterdir()] == ["a.png"]
    assert str(Drawings().folder).startswith(os.environ["XDG_CACHE_HOME"])


@pytest.mark.parametrize("damage", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", None])
def test_damage_is_no_drawing(tmp_path: Path, damage: bytes | None) -> None:
    drawings = Drawings(tmp_path)
    drawings.keep("a", noise(1))
    whole = drawings.path("a").read_bytes()
    drawings.path("a").write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert drawings.find("a") is None
    drawings.keep("a", noise(1))
    assert drawings.path("a").read_bytes() == whole


def test_those_used_last_stay(tmp_path: Path) -> None:
    drawings = Drawings(tmp_path)
    drawings.keep("0", noise(0))
    bounded = Drawings(tmp_path, most=4 * drawings.path("0").stat().st_size + 600)
    (tmp_path / "notes.txt").write_bytes(bytes(100_000))
    (tmp_path / ".left.png.1.2.part").write_bytes(bytes(10))
    os.utime(tmp_path / ".left.png.1.2.part", (1, 1))
    for number in range(1, 8):
        os.utime(bounded.path("0"), (2, 2))
        assert bounded.find("0") is not None
        for path in tmp_path.glob("*.png"):
            about = path.stat()
            os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns - 10**9))
        bounded.keep(str(number), noise(number))
    left = {path.name for path in tmp_path.iterdir()}
    assert {"0.png", "7.png", "6.png", "notes.txt"} <= left
    assert not left & {"1.png", "2.png", ".left.png.1.2.part"}
    assert sum(path.stat().st_size for path in tmp_path.glob("*.png")) <= bounded.most
    Drawings(tmp_path, most=1).keep("one", RED)
    assert {path.name for path in tmp_path.iterdir()} == {"one.png", "notes.txt"}

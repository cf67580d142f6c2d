"""The cache of drawings: bounded, and robust against whatever happens to its files."""

import os
from pathlib import Path

import pytest
from PIL import Image

from loradex.app.drawing.cache import DrawingCache

RED = Image.new("RGB", (8, 8), "red")


def noise(seed: int) -> Image.Image:
    return Image.frombytes("RGB", (32, 32), bytes((seed * 7 + i * i) % 256 for i in range(3072)))


def test_put_and_get(tmp_path: Path) -> None:
    cache = DrawingCache(tmp_path / "new" / "folder")
    assert cache.get("a") is None
    cache.put("a", RED)
    image = cache.get("a")
    assert image is not None and image.tobytes() == RED.tobytes()
    assert [path.name for path in cache.folder.iterdir()] == ["a.png"]
    assert str(DrawingCache().folder).startswith(os.environ["XDG_CACHE_HOME"])


@pytest.mark.parametrize("damage", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", None])
def test_damaged_files_are_not_returned(tmp_path: Path, damage: bytes | None) -> None:
    cache = DrawingCache(tmp_path)
    cache.put("a", noise(1))
    content = cache.path("a").read_bytes()
    cache.path("a").write_bytes(content[: len(content) // 2] if damage is None else damage)
    assert cache.get("a") is None
    cache.put("a", noise(1))
    assert cache.path("a").read_bytes() == content


def test_the_least_recently_used_drawings_are_deleted(tmp_path: Path) -> None:
    cache = DrawingCache(tmp_path)
    cache.put("0", noise(0))
    bounded = DrawingCache(tmp_path, max_bytes=4 * cache.path("0").stat().st_size + 600)
    (tmp_path / "notes.txt").write_bytes(bytes(100_000))
    (tmp_path / ".left.png.1.2.part").write_bytes(bytes(10))
    os.utime(tmp_path / ".left.png.1.2.part", (1, 1))
    for number in range(1, 8):
        os.utime(bounded.path("0"), (2, 2))
        assert bounded.get("0") is not None
        for path in tmp_path.glob("*.png"):
            stat = path.stat()
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - 10**9))
        bounded.put(str(number), noise(number))
    remaining = {path.name for path in tmp_path.iterdir()}
    assert {"0.png", "7.png", "6.png", "notes.txt"} <= remaining
    assert not remaining & {"1.png", "2.png", ".left.png.1.2.part"}
    assert sum(path.stat().st_size for path in tmp_path.glob("*.png")) <= bounded.max_bytes
    DrawingCache(tmp_path, max_bytes=1).put("one", RED)
    assert {path.name for path in tmp_path.iterdir()} == {"one.png", "notes.txt"}

"""Pictures beside LoRA files: whose they are, what changes, and which cannot be used."""

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loradex.app import pictures
from loradex.app.pictures import (
    MAX_PICTURES,
    BadPicture,
    PictureFinder,
    picture_beside,
    pictures_beside,
    read_picture,
    signature,
)

SHA = "0123456789abcdef" * 4


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def found(path: Path) -> list[str]:
    """The names of a LoRA's pictures."""
    return [os.path.relpath(picture.path, path.parent) for picture in PictureFinder().of(str(path))]


def test_names_that_people_and_tools_give(tmp_path: Path) -> None:
    touch(tmp_path, "cat.safetensors", "cat.json", "cat.txt", "catalogue.png", ".cat.png", "cat.gif")
    ordered = ["cat.preview.png", "cat.png", "cat.JPG", "cat.preview.jpeg", "cat.webp"]
    numbered = ["cat.example.0.jpeg", "cat_1.png", "cat.2.png", "cat (3).webp", "cat-10.png"]
    touch(tmp_path, *ordered)
    assert found(tmp_path / "cat.safetensors") == ordered
    for name in ordered:
        (tmp_path / name).unlink()
    touch(tmp_path, *numbered, "cat.preview.11.png")
    assert found(tmp_path / "cat.safetensors") == [*numbered, "cat.preview.11.png"]
    touch(tmp_path, *(f"cat.{number}.jpg" for number in range(20, 40)))
    assert len(found(tmp_path / "cat.safetensors")) == MAX_PICTURES


def test_a_picture_belongs_to_the_file_with_the_longest_name(tmp_path: Path) -> None:
    touch(tmp_path, "style.safetensors", "style_2.safetensors", "style_3.ckpt", "v1.2.safetensors", "v1.SAFETENSORS")
    touch(tmp_path, "style_1.png", "style_2.png", "style_2.1.png", "style_3.png", "v1.2.png", "v1.3.png")
    assert found(tmp_path / "style.safetensors") == ["style_1.png"]
    assert found(tmp_path / "style_2.safetensors") == ["style_2.png", "style_2.1.png"]
    assert found(tmp_path / "v1.2.safetensors") == ["v1.2.png"]
    assert found(tmp_path / "v1.SAFETENSORS") == ["v1.3.png"]


def test_example_images_of_lora_manager(tmp_path: Path) -> None:
    """In ``example_images/SHA256`` beside the LoRAs or above them, also of one of several libraries."""
    lora = tmp_path / "models" / "loras" / "cat.safetensors"
    touch(lora.parent, "cat.safetensors")
    names = ["image_2.png", "image_10.webp", "custom_x1.jpg"]
    touch(tmp_path / "example_images", *(f"{SHA}/{name}" for name in (*names, "image_3.mp4")))
    assert found(lora) == []  # nothing says which of the folders is that of this LoRA
    lora.with_name("cat.metadata.json").write_text(f'{{"sha256": "{SHA.upper()}"}}')
    assert found(lora) == [f"../../example_images/{SHA}/{name}" for name in names]
    (tmp_path / "example_images" / SHA).rename(tmp_path / "moved")
    (tmp_path / "example_images" / "my_library").mkdir()
    (tmp_path / "moved").rename(tmp_path / "example_images" / "my_library" / SHA)
    assert [Path(name).name for name in found(lora)] == names
    for text in ("[]", '{"sha256": "../.."}', '{"sha256": 1}', "{"):
        lora.with_name("cat.metadata.json").write_text(text)
        assert found(lora) == []


def test_a_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *(f"{number}.safetensors" for number in range(50)), "7.png")
    listed: list[str] = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(str(path)) or listdir(path))
    finder = PictureFinder()
    counts = [len(finder.of(str(tmp_path / f"{number}.safetensors"))) for number in range(50)]
    assert counts == [int(number == 7) for number in range(50)]
    assert listed.count(str(tmp_path)) == 1


def test_the_signature_follows_names_sizes_and_times(tmp_path: Path) -> None:
    touch(tmp_path, "cat.safetensors")
    seen = set()

    def look() -> str:
        text = signature(PictureFinder().of(str(tmp_path / "cat.safetensors")))
        seen.add(text)
        return text

    assert look() == ""
    touch(tmp_path, "cat.png")
    os.utime(tmp_path / "cat.png", ns=(1, 1))
    assert look() == look() != ""
    os.utime(tmp_path / "cat.png", ns=(2, 2))
    look()
    (tmp_path / "cat.png").write_bytes(b"x")
    os.utime(tmp_path / "cat.png", ns=(2, 2))
    look()
    (tmp_path / "cat.png").rename(tmp_path / "cat.webp")
    look()
    assert len(seen) == 5


def test_only_regular_files_are_pictures(tmp_path: Path) -> None:
    touch(tmp_path, "cat.safetensors")
    (tmp_path / "cat.png").mkdir()
    (tmp_path / "cat.jpg").symlink_to(tmp_path / "nowhere")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "cat.webp")
    assert found(tmp_path / "cat.safetensors") == []
    assert list(pictures_beside(tmp_path / "cat.safetensors")) == []


def test_pictures_are_read_small_and_in_three_colours(tmp_path: Path) -> None:
    wide = Image.linear_gradient("L").resize((900, 300)).convert("P")
    wide.save(tmp_path / "wide.png")
    read = read_picture(str(tmp_path / "wide.png"))
    assert (read.mode, read.size) == ("RGB", (384, 128))
    Image.new("RGB", (20, 10), (9, 99, 199)).save(tmp_path / "small.webp", lossless=True)
    assert read_picture(str(tmp_path / "small.webp")).getcolors() == [(200, (9, 99, 199))]


def test_grey_of_16_bits_keeps_its_tones_and_what_is_transparent_is_white(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(0, 65_535, 256, dtype=np.uint16)[None].repeat(4, 0)).save(tmp_path / "grey.png")
    read = np.asarray(read_picture(str(tmp_path / "grey.png")))
    assert np.array_equal(read[0], np.arange(256)[:, None].repeat(3, 1))
    seen = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    seen.putpixel((0, 0), (255, 0, 0, 255))
    seen.putpixel((1, 0), (255, 0, 0, 51))
    for picture, name in ((seen, "seen.png"), (seen.quantize(), "palette.png")):
        picture.save(tmp_path / name)
        read = np.asarray(read_picture(str(tmp_path / name)))
        assert read[0, :3].tolist() == [[255, 0, 0], [255, 204, 204], [255, 255, 255]]


def test_nothing_but_pixels_is_taken_from_a_picture(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "cat.jpg", icc_profile=bytes(1000), comment=b"hello")
    assert read_picture(str(tmp_path / "cat.jpg")).info == {}


def test_bad_pictures_are_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_PICTURE_BYTES", 2**20)
    (tmp_path / "page.png").write_text("<!DOCTYPE html>\n")
    Image.effect_noise((64, 64), 50).save(tmp_path / "half.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "half.png").read_bytes()[:800])
    (tmp_path / "heavy.jpg").write_bytes(bytes(2**20 + 1))
    Image.new("1", (9000, 9000)).save(tmp_path / "huge.png")
    forged = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"\x7f\xff\xff\xff" * 2 + b"\x08\x02\0\0\0") + chunk(b"IDAT", b"")
    (tmp_path / "forged.png").write_bytes(forged)
    (tmp_path / "svg.png").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    expected = {
        "page": "found none",
        "half": "found none",
        "heavy": "at most 1 MiB",
        "huge": "80,000,000 pixels",
        "forged": "expected",
        "svg": "found none",
        "absent": "cannot be read",
    }
    for stem, text in expected.items():
        path = next(tmp_path.glob(f"{stem}.*"), tmp_path / f"{stem}.png")
        with pytest.raises(BadPicture, match=text) as raised:
            read_picture(str(path))
        assert str(raised.value).startswith(str(path))
        assert "\n" not in str(raised.value)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def test_the_first_readable_picture_counts(tmp_path: Path) -> None:
    touch(tmp_path, "cat.safetensors", "cat.preview.png")
    assert picture_beside(tmp_path / "cat.safetensors") is None
    Image.new("RGB", (8, 8), "red").save(tmp_path / "cat.png")
    picture = picture_beside(tmp_path / "cat.safetensors")
    assert picture is not None
    assert picture.size == (8, 8)

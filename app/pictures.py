"""Pictures beside LoRA files: which belong to which file, and reading them safely.

Names are those of A1111, Civitai Helper (``scripts/ch_lib/model.py``: ``NAME.preview.png``, ``NAME.example.0.jpeg``),
StabilityMatrix (``NAME.preview.jpeg``) and ComfyUI-Lora-Manager (``py/utils/file_utils.py``); the folders of example
images are Lora-Manager's (``py/utils/example_images_paths.py``).
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Final

from PIL import Image, UnidentifiedImageError

from loradex.retrieval.errors import FileMissing
from loradex.retrieval.lora.facts import read_json_object
from loradex.retrieval.lora.regular_file import is_regular_file, open_regular_file

PICTURE_SUFFIXES: Final = (
    ".preview.png",
    ".png",
    ".preview.jpg",
    ".jpg",
    ".preview.jpeg",
    ".jpeg",
    ".preview.webp",
    ".webp",
)  # in order of preference
IMAGE_FORMATS: Final = ("PNG", "JPEG", "WEBP")
PICTURE_EXTENSIONS: Final = tuple(suffix for suffix in PICTURE_SUFFIXES if suffix.count(".") == 1)
WEIGHTS_EXTENSIONS: Final = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin")  # a picture may be of any of them
MARK: Final = re.compile(r"\.(preview|example)$", re.IGNORECASE)
NUMBER: Final = re.compile(r"(?:[._-](\d{1,3})| \((\d{1,3})\))$")
EXAMPLE_IMAGES: Final = "example_images"  # as Lora-Manager suggests to call the folder of its example images
LORA_MANAGER_SIDE_CAR: Final = ".metadata.json"
SHA256: Final = re.compile(r"[0-9a-f]{64}")
MAX_PICTURES: Final = 8  # of one LoRA
MAX_PICTURE_BYTES: Final = 32 * 2**20  # of one file
MAX_PIXELS: Final = 80_000_000  # of one picture; Pillow warns of more than 89 million
SMALL_SIDE: Final = 384  # the longer side, in pixels, to which pictures are scaled down: more than most CLIPs see
SMALL_SIZE: Final = (SMALL_SIDE, SMALL_SIDE)
MAX_LISTED: Final = 64  # folders that are kept
MAX_PARENTS: Final = 4  # folders in which Lora-Manager's folder is looked for, that of the LoRA included


class BadPicture(Exception):
    """A picture cannot be used; the message is one line."""


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A picture on the disk."""

    path: str
    size: int  # bytes
    mtime_ns: int


class PictureFinder:
    """Finds the pictures of LoRA files; a folder is listed once, so a finder serves one run."""

    def __init__(self) -> None:
        """Nothing is listed yet."""
        self._pictures = lru_cache(MAX_LISTED)(pictures_by_stem)
        self._example_folders = lru_cache(MAX_LISTED)(example_folders)

    def of(self, path: str) -> tuple[PictureFile, ...]:
        """Return the pictures of a LoRA file, the likeliest first; at most ``MAX_PICTURES``."""
        folder, name = os.path.split(path)
        stem = os.path.splitext(name)[0]  # noqa: PTH122
        found = [os.path.join(folder, picture) for picture in self._pictures(folder).get(stem, ())]  # noqa: PTH118
        found += self._examples(folder, stem)
        return tuple(filter(None, map(status_of, found[:MAX_PICTURES])))

    def _examples(self, folder: str, stem: str) -> list[str]:
        """Return paths of the example images that Lora-Manager keeps, in a folder named by the SHA-256 of the LoRA."""
        folders = self._example_folders(folder)
        if not folders:
            return []
        side_car = Path(folder, stem + LORA_MANAGER_SIDE_CAR)
        sha256 = str((read_json_object(side_car) or {}).get("sha256", "")).lower()
        if not SHA256.fullmatch(sha256):
            return []
        for examples in folders:
            directory = os.path.join(examples, sha256)  # noqa: PTH118
            if names := sorted(filter(is_picture_name, list_names(directory)), key=natural_order):
                return [os.path.join(directory, name) for name in names]  # noqa: PTH118
        return []


def signature(pictures: tuple[PictureFile, ...]) -> str:
    """Return a digest of the names, sizes and times of a LoRA's pictures; empty if there are none."""
    if not pictures:
        return ""
    digest = blake2b(digest_size=6)
    for picture in pictures:
        digest.update(os.fsencode(picture.path) + f"\0{picture.size}\0{picture.mtime_ns}\0".encode())
    return digest.hexdigest()


def pictures_beside(path: Path) -> Iterator[Path]:
    """Iterate over the existing files beside a LoRA file that have its name without a number, most likely first."""
    return (
        picture
        for picture in (path.with_name(path.stem + suffix) for suffix in PICTURE_SUFFIXES)
        if is_regular_file(picture)
    )


def picture_beside(path: Path) -> Image.Image | None:
    """Return the first readable picture of ``pictures_beside``, scaled down; None if there is none."""
    for picture in pictures_beside(path):
        try:
            return read_picture(str(picture))
        except BadPicture:
            continue
    return None


def read_picture(path: str) -> Image.Image:
    """Read a picture as RGB on white, scaled down to sides of at most ``SMALL_SIDE`` pixels.

    Raises:
        BadPicture: it cannot be read, is no picture of a known format, or is too large.
    """
    try:
        with open_regular_file(Path(path)) as file:
            raw = file.read(MAX_PICTURE_BYTES + 1)
    except FileMissing as error:
        raise BadPicture(str(error)) from None
    if len(raw) > MAX_PICTURE_BYTES:
        raise BadPicture(
            f"{path}: expected a picture of at most {MAX_PICTURE_BYTES >> 20} MiB, found a larger one; scale it down"
        )
    try:
        with Image.open(BytesIO(raw), formats=IMAGE_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadPicture(
                    f"{path}: expected at most {MAX_PIXELS:,} pixels, found {image.width} x {image.height}; scale it down"
                )
            image.draft("RGB", SMALL_SIZE)
            if image.mode.startswith("I"):  # grey of 16 bits, which ``convert`` would clip at 255
                picture = image.point(lambda value: value / 256).convert("L").convert("RGB")
            else:
                picture = image.convert("RGBA" if image.has_transparency_data else "RGB")
            picture.thumbnail(SMALL_SIZE)
    except BadPicture:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files
        found = "" if isinstance(error, UnidentifiedImageError) else f" ({' '.join(str(error).split())[:200]})"
        raise BadPicture(
            f"{path}: expected a picture in {', '.join(IMAGE_FORMATS)}, found none that can be read{found}; replace it"
        ) from None
    picture.info.clear()  # colour profiles and comments, which Pillow would copy into what is saved
    if picture.mode == "RGB":
        return picture
    on_white = Image.new("RGBA", picture.size, "white")
    on_white.alpha_composite(picture)
    return on_white.convert("RGB")


def pictures_by_stem(folder: str) -> dict[str, list[str]]:
    """Return the names of the pictures in a folder by the stem of the weights file that they belong to.

    A picture belongs to the file with the longest stem that begins its name, so ``style_2.png`` is that of
    ``style_2.safetensors`` if there is one, and the second of ``style.safetensors`` if not.
    """
    names = list_names(folder)
    stems = {os.path.splitext(name)[0] for name in names if name.lower().endswith(WEIGHTS_EXTENSIONS)}  # noqa: PTH122
    found: dict[str, list[tuple[tuple[int, int, str], str]]] = {}
    for name in filter(is_picture_name, names):
        for stem, number in possible_stems(name):
            if stem in stems:
                suffix = name[len(stem) :].lower()
                preference = PICTURE_SUFFIXES.index(suffix) if suffix in PICTURE_SUFFIXES else len(PICTURE_SUFFIXES)
                found.setdefault(stem, []).append(((preference, number, name), name))
                break
    return {stem: [name for _, name in sorted(pictures)] for stem, pictures in found.items()}


def possible_stems(name: str) -> Iterator[tuple[str, int]]:
    """Yield the stems that a picture of this name may belong to, the longest first, each with the picture's number."""
    base = os.path.splitext(name)[0]  # noqa: PTH122
    yield base, 0
    if mark := MARK.search(base):
        yield base[: mark.start()], 0
    if match := NUMBER.search(base):
        number, rest = int(match[1] or match[2]), base[: match.start()]
        yield rest, number
        if mark := MARK.search(rest):
            yield rest[: mark.start()], number


def example_folders(folder: str) -> list[str]:
    """Return the folders of example images in a folder and in those above it, with those of each library in them."""
    found = []
    for _ in range(MAX_PARENTS):
        examples = os.path.join(folder, EXAMPLE_IMAGES)  # noqa: PTH118
        if names := list_names(examples):
            libraries = [name for name in names if not SHA256.fullmatch(name) and not name.startswith(".")]
            found += [examples, *(os.path.join(examples, name) for name in sorted(libraries)[:MAX_PICTURES])]  # noqa: PTH118
        folder = os.path.dirname(folder)  # noqa: PTH120
    return found


def list_names(folder: str) -> list[str]:
    """Return the names in a folder; none if it cannot be listed."""
    try:
        return os.listdir(folder or ".")  # noqa: PTH208
    except (OSError, ValueError):
        return []


def is_picture_name(name: str) -> bool:
    """Whether a file of this name should be a picture of a known format."""
    return name.lower().endswith(PICTURE_EXTENSIONS) and not name.startswith(".")


def natural_order(name: str) -> tuple[int, str]:
    """Sort ``image_2.png`` before ``image_10.png``, and both before ``custom_a.png``."""
    number = NUMBER.search(os.path.splitext(name)[0])  # noqa: PTH122
    return (int(number[1] or number[2]) if number else 1000, name)


def status_of(path: str) -> PictureFile | None:
    """Return the size and time of a picture; None unless it is a regular file, or a link to one."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return PictureFile(path, status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None

"""The build folder and the settings that all steps share."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

SEED = 20261123
PICTURE_SIZE = 64  # pixels a side
TEMPLATES = ("{}", "an icon of a {}", "a picture of a {}", "an emoji of a {}", "a drawing of a {}")

# Packages @iconify-json/<name> of the npm registry, and their versions.
TRAINING_SETS = {
    "noto": "1.2.9",
    "noto-v1": "1.2.5",
    "fxemoji": "1.2.2",
    "twemoji": "1.2.5",
    "emojione": "1.2.3",
    "fluent-emoji": "1.2.7",
    "fluent-emoji-flat": "1.2.6",
}
UNSEEN_SETS = {
    "openmoji": "1.2.29",
    "emojione-v1": "1.2.3",
}  # share-alike licences: used to test the mini-CLIP, never to train what ships

log = logging.getLogger("miniature")


@dataclass(frozen=True, slots=True)
class Build:
    """The folder of a build. Each step writes its result there and is skipped if it exists."""

    root: Path

    def __truediv__(self, name: str) -> Path:
        """A path inside the build folder."""
        return self.root / name


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, and move it to ``path`` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    yield temporary
    temporary.replace(path)


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Log the start of a block and how long it took."""
    started = perf_counter()
    log.info("%s: begins", name)
    yield
    log.info("%s: done in %.1f s", name, perf_counter() - started)

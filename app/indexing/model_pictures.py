"""The pictures that place a model with several files."""

from collections.abc import Iterable, Mapping
from typing import Final

from loradex.app.indexing.evidence.preview import small_copies
from loradex.app.indexing.picture_mark import has_pictures
from loradex.app.pictures import PictureFinder
from loradex.index import KnownFile

NOTHING_READ: Final[Mapping[str, tuple[bytes, ...]]] = {}


def pictures_of_model(
    row: str | None,
    files: Iterable[KnownFile],
    finder: PictureFinder,
    read: Mapping[str, tuple[bytes, ...]] = NOTHING_READ,
) -> tuple[bytes, ...]:
    """Return small copies of the pictures of the file that gives a model's row, else of the first other with some.

    Args:
        row: the path of that file.
        files: all files of the model, with the marks of their pictures.
        finder: finds the pictures of files that are not in ``read``.
        read: the pictures of files that were just read, by path.
    """
    for file in sorted(files, key=lambda file: (file.path != row, file.path)):
        if has_pictures(file.reader):
            found = read.get(file.path)
            copies = small_copies([each.path for each in finder.of(file.path)])[0] if found is None else found
            if copies:
                return copies
    return ()

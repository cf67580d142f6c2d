"""One named base model, as the list of them keeps it."""

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from loradex.app.bases.errors import NoBase
from loradex.index.shell import quote_path
from loradex.retrieval.base_model import BaseModel
from loradex.retrieval.errors import FileError

READY: Final = "ready"
MISSING: Final = "moved or deleted"
CHANGED: Final = "changed"
UNREADABLE: Final = "unreadable"


@dataclass(frozen=True, slots=True)
class Entry:
    """A named base model.

    Attributes:
        path: absolute.
        family, kind, parts, fingerprint, size: as they were when it was added; size in bytes.
        added: when, in seconds since 1970.
    """

    path: str
    family: str
    kind: str
    parts: tuple[str, ...]
    size: int
    fingerprint: str
    added: float

    @classmethod
    def of(cls, base: BaseModel) -> "Entry":
        """The entry of a base model that is added now."""
        parts = tuple(sorted(base.parts))
        return cls(str(base.path), base.family, base.kind, parts, base.size, base.fingerprint, time.time())

    @classmethod
    def parse(cls, value: Any) -> "Entry":
        """Read an entry from JSON; unknown members are ignored.

        Raises:
            ValueError: it has another form.
        """
        match value:
            case {
                "path": str(path),
                "family": str(family),
                "kind": "folder" | "file" as kind,
                "parts": [*parts],
                "size": int(size),
                "fingerprint": str(fingerprint),
                "added": int(added) | float(added),
            } if path and "\0" not in path and all(isinstance(part, str) for part in parts):
                return cls(path, family, kind, tuple(parts), size, fingerprint, float(added))
        raise ValueError(f"no base model: {str(value)[:80]}")

    def document(self) -> dict[str, Any]:
        """The entry as JSON."""
        return asdict(self)

    def open(self) -> BaseModel:
        """Open the base model, if it is still the one that was added.

        Raises:
            NoBase: it has moved or changed, or cannot be read.
        """
        state, reason, base = self.check()
        if base is None or state != READY:
            raise NoBase(reason)
        return base

    def check(self) -> tuple[str, str, BaseModel | None]:
        """Its state, one line that says what to do if that is not ``READY``, and the base model if it can be opened."""
        path = Path(self.path)
        try:
            if not os.path.exists(path):  # noqa: PTH110 - also False for impossible names
                mend = f"`loradex base add NEWPATH`, or `loradex base remove {quote_path(self.path)}`"
                return MISSING, f"base model of {self.family}: moved or deleted: {self.path}; {mend}", None
            base = BaseModel.open(path)
        except (FileError, OSError) as error:
            return UNREADABLE, f"base model of {self.family}: {error}", None
        if (base.fingerprint, base.family) != (self.fingerprint, self.family):
            found = "" if base.family == self.family else f" and is of family {base.family} now"
            mend = f"`loradex base add {quote_path(self.path)}` takes it as it is now"
            return (
                CHANGED,
                f"base model of {self.family}: {self.path} has changed since it was added{found}; {mend}",
                base,
            )
        return READY, "", base

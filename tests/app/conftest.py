"""Tests of the app run over the miniature; until it is built and committed they say so and are skipped."""

from collections.abc import Sequence

import pytest

from app.places import SHIPPED_ZOO


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    if not SHIPPED_ZOO.exists():
        for item in items:
            if "tests/app/" in item.path.as_posix():
                item.add_marker(pytest.mark.skip(reason="the miniature is not built in this checkout"))

"""Repositories of a hub on loopback: pinned commits, and servers whose listings are wrong."""

import shutil

import pytest

from loradex.retrieval.errors import FetchError
from loradex.retrieval.remote import HubRepository, hub_listing, hub_repository
from tests.hub import SHA, Hub
from tests.retrieval.remote.hub_loras import NAME, SHIPPED, assert_one_line, open_repository


@pytest.mark.parametrize("revision", ["", "@main", "@v1.0", "@refs/pr/1", f"@{SHA}"])
def test_a_revision_is_resolved_to_its_commit(hub: Hub, revision: str) -> None:
    repository = open_repository(hub, f"hf://{NAME}{revision}")
    assert repository.address == f"hf://{NAME}@{SHA}"
    assert [(file.name, file.size, file.path) for file in repository.files] == [
        (f"icons/{number}.safetensors", path.stat().st_size, f"hf://{NAME}@{SHA}/icons/{number}.safetensors")
        for number, path in enumerate(SHIPPED)
    ]


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("hf://someone/nothing", "expected a repository of models"),
        (f"hf://{NAME}@v2", "expected a revision 'v2'"),
        (f"hf://{NAME}@{'0' * 40}", f"expected a revision '{'0' * 40}'"),
        ("hf://someone", "expected hf://owner/name or"),
        ("hf://datasets/someone/pictures", "expected hf://owner/name or"),
        ("hf://../..", "expected hf://owner/name or"),
        (f"hf://{NAME}@a b\n", "expected hf://owner/name or"),
        (f"hf://{NAME}@{'x' * 999}", "expected hf://owner/name or"),
    ],
)
def test_what_is_not_on_the_hub_is_named(hub: Hub, address: str, reason: str) -> None:
    with pytest.raises(FetchError) as caught:
        open_repository(hub, address)
    assert_one_line(caught.value, reason)


def test_names_that_the_hub_refuses_and_unreachable_hubs_end_in_one_line(hub: Hub) -> None:
    for address, endpoint in (("hf://some--one/a..b", hub.url), (f"hf://{NAME}", "http://127.0.0.1:9")):
        with pytest.raises(FetchError, match="cannot be listed") as caught:
            HubRepository.open(address, endpoint)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("commit", ["", "main", "../../x", 7, None, "f" * 40])
def test_a_commit_that_is_invalid_or_not_the_pinned_one_is_refused(hub: Hub, commit: str) -> None:
    hub.stated_commit = commit
    with pytest.raises(FetchError) as caught:
        open_repository(hub, f"hf://{NAME}@{SHA}")
    assert_one_line(caught.value, "expected a commit")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("icons/../../x.safetensors", "leads out of it"),
        ("/x.safetensors", "leads out of it"),
        ("..\\x.safetensors", "leads out of it"),
        ("C:/x.safetensors", "leads out of it"),
        ("a\nb.safetensors", "printable characters"),
        (f"{'x' * 1000}.safetensors", "printable characters"),
    ],
)
def test_unsafe_paths_are_refused(hub: Hub, name: str, reason: str) -> None:
    hub.extra_entries = [{"type": "file", "path": name, "oid": SHA, "size": 10}]
    with pytest.raises(FetchError) as caught:
        open_repository(hub)
    assert_one_line(caught.value, reason)


@pytest.mark.parametrize(
    "entry",
    [
        {"size": "10"},
        {"size": -1},
        {"size": 2**64},
        {"size": None},
        {"path": 7},
        {"lfs": {"size": 1}},
        {"lfs": "x"},
        {"type": None, "oid": 0},
    ],
)
def test_invalid_entries_are_refused(hub: Hub, entry: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    bad = {"type": "file", "path": "x.safetensors", "oid": SHA, "size": 10} | entry
    bad = {name: value for name, value in bad.items() if value != 0}
    monkeypatch.setattr(hub, "listing", lambda folder: [bad])
    with pytest.raises(FetchError) as caught:
        open_repository(hub)
    assert str(caught.value).isprintable()


def test_too_many_files_are_refused(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_repository, "MAX_FILES", 2)
    with pytest.raises(FetchError) as caught:
        open_repository(hub)
    assert_one_line(caught.value, "expected at most 2 .safetensors files")
    monkeypatch.setattr(hub_listing, "MAX_ENTRIES", 2)
    with pytest.raises(FetchError) as caught:
        open_repository(hub)
    assert_one_line(caught.value, "expected at most 2 files")


def test_a_repository_without_loras_is_refused(hub: Hub) -> None:
    shutil.rmtree(hub.folder / "icons")
    with pytest.raises(FetchError) as caught:
        open_repository(hub)
    assert_one_line(caught.value, "expected .safetensors files, found none")

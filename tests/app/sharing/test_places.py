"""Where shared experts come from: files, folders, and repositories of a hub, here one on loopback."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from loradex.app.paths import MINIATURE, user_encoder, user_zoo
from loradex.app.sharing import places
from loradex.app.sharing.adding import add_expert
from loradex.app.sharing.places import ADDRESS, local_file
from loradex.retrieval.errors import CheckpointError, FetchError, FileCorrupt, LoradexError
from tests.app.sharing.small_experts import small_expert
from tests.hub import SHA, Hub, cut_connection, serve, too_many_bytes, wrong_range

NAME = "somebody/experts"
LORA = next(MINIATURE.glob("models/mini-a/test_holdout/*/*.safetensors"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with an expert in a folder, a LoRA and a model card."""
    hub = Hub(tmp_path / "hub", NAME, ("main", "v1.0", "refs/pr/1"))
    (hub.folder / "for-b").mkdir(parents=True)
    small_expert().write(hub.folder / "for-b" / "expert.safetensors")
    (hub.folder / "lora.safetensors").write_bytes(LORA.read_bytes())
    (hub.folder / "README.md").write_text("card")
    with serve(hub, monkeypatch):
        yield hub


def fetched(place: str) -> bytes:
    with local_file(place) as path:
        content = path.read_bytes()
    assert not path.exists()
    return content


@pytest.mark.parametrize(
    "place",
    [
        f"hf://{NAME}",
        f"hf://{NAME}@v1.0",
        f"hf://{NAME}@refs/pr/1",
        f"hf://{NAME}@{SHA}",
        f"hf://{NAME}/for-b/expert.safetensors",
        f"hf://{NAME}@v1.0/for-b/expert.safetensors",
        f"hf://{NAME}@refs/pr/1/for-b/expert.safetensors",
    ],
)
def test_an_expert_of_a_repository(hub: Hub, place: str) -> None:
    assert fetched(place) == (hub.folder / "for-b" / "expert.safetensors").read_bytes()
    assert "hf_secret" not in str(hub.cdn_tokens)


def test_it_is_added_whole_and_in_parts(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "PART_BYTES", 50_000)
    steps: list[tuple[int, int]] = []
    answer = add_expert(
        f"hf://{NAME}", user_encoder(), user_zoo(), progress=lambda done, total, name: steps.append((done, total))
    )
    assert answer.id == small_expert().id and answer.source == f"hf://{NAME}"
    assert (
        len(steps) > 3 and steps[-1][0] < steps[-1][1] == (hub.folder / "for-b" / "expert.safetensors").stat().st_size
    )


def test_a_connection_that_is_cut_is_taken_up_again(hub: Hub) -> None:
    hub.fault = cut_connection(2, 5000)
    assert fetched(f"hf://{NAME}") == (hub.folder / "for-b" / "expert.safetensors").read_bytes()


@pytest.mark.parametrize("fault", [wrong_range, too_many_bytes])
def test_servers_that_send_other_bytes(hub: Hub, fault: object) -> None:
    hub.fault = fault  # type: ignore[assignment]
    with pytest.raises(FetchError):
        fetched(f"hf://{NAME}/for-b/expert.safetensors")


def test_what_is_not_there(hub: Hub) -> None:
    for place, message in (
        ("hf://nobody/nothing", "expected a repository"),
        (f"hf://{NAME}@v9", "expected a revision 'v9'"),
        (f"hf://{NAME}/nothing.safetensors", "expected a file 'nothing.safetensors', found 2 others"),
        (f"hf://{NAME}/../../x.safetensors", "expected a file"),
        ("hf://", "expected hf://owner/name"),
        ("hf://a b/c", "expected hf://owner/name"),
        ("s3://bucket/expert.safetensors", "expected a path or hf://owner/name"),
        ("https://example.org/expert.safetensors", "expected a path or hf://owner/name"),
    ):
        with pytest.raises(LoradexError) as caught:
            fetched(place)
        assert message in str(caught.value), place
    with pytest.raises(CheckpointError, match="expected a shared expert"):
        add_expert(f"hf://{NAME}/lora.safetensors", user_encoder(), user_zoo())
    assert not user_encoder().exists()


def test_several_none_and_too_many(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    small_expert("other").write(hub.folder / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"found for-b/expert\.safetensors, other\.safetensors; name one"):
        fetched(f"hf://{NAME}")
    monkeypatch.setattr(places, "MAX_REMOTE_CANDIDATES", 2)
    with pytest.raises(CheckpointError, match="expected at most 2 .safetensors files to choose from, found 3"):
        fetched(f"hf://{NAME}")
    assert fetched(f"hf://{NAME}/other.safetensors")
    (hub.folder / "other.safetensors").unlink()
    (hub.folder / "for-b" / "expert.safetensors").unlink()
    with pytest.raises(CheckpointError, match="found none among 1 .safetensors files"):
        fetched(f"hf://{NAME}")


def test_a_repository_with_an_endless_file(hub: Hub) -> None:
    hub.listed_sizes = {"for-b/expert.safetensors": 2**40}
    with pytest.raises((CheckpointError, FetchError, FileCorrupt)):
        fetched(f"hf://{NAME}/for-b/expert.safetensors")


def test_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FetchError) as caught:
        fetched(f"hf://{NAME}")
    assert len(str(caught.value).splitlines()) == 1


def test_folders(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "lora.safetensors").write_bytes(LORA.read_bytes())
    (folder / "broken.safetensors").write_bytes(b"nothing")
    small_expert().write(folder / "expert.safetensors")
    with local_file(str(folder)) as path:
        assert path == folder / "expert.safetensors"
    assert path.exists()
    small_expert("other").write(folder / "other.safetensors")
    with (
        pytest.raises(CheckpointError, match="found expert.safetensors, other.safetensors; name one"),
        local_file(str(folder)),
    ):
        pass


def test_addresses() -> None:
    parsed = {
        "hf://a/b": ("hf://a/b", None),
        "hf://a/b@c": ("hf://a/b@c", None),
        "hf://a/b/c/d.safetensors": ("hf://a/b", "c/d.safetensors"),
        "hf://a/b@c/d.safetensors": ("hf://a/b@c", "d.safetensors"),
        "hf://a/b@refs/pr/1": ("hf://a/b@refs/pr/1", None),
        "hf://a/b@refs/pr/1/d.safetensors": ("hf://a/b@refs/pr/1", "d.safetensors"),
    }
    assert {place: found.groups() for place in parsed if (found := ADDRESS.fullmatch(place))} == parsed

"""Export to Parquet and import of the same content; refusal of damaged and hostile files."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loradex.index import (
    AnyZoo,
    BadModel,
    DiskRefused,
    Evidence,
    KnownFile,
    Model,
    Position,
    SpaceMismatch,
    Zoo,
    ZooError,
)
from loradex.index.parquet import export_zoo, import_zoo, layout
from tests.index.zoo_oracle import DIM, SPACE, model, models, nearest, random_vectors, same

QUERY = random_vectors(1, seed=9)[0]
ODD = Model(
    "odd",
    "名\ud800\0<b>",
    "unknown",
    "/a\udcff\n",
    None,
    None,
    {"n": [1.5, None, "\udc80"], "": {}},
    added=12345,
)


@pytest.fixture
def exported(folder: Path, tmp_path: Path) -> Path:
    """The exported file of a zoo of 1,501 models, two batches."""
    with Zoo.create(folder, SPACE, DIM) as zoo:
        ids = [f"m{i:04}" for i in range(1500)]
        zoo.add(
            [
                replace(model(id), added=int(id[1:]), preview=f"previews/{id}.png" if id < "m0009" else None)
                for id in ids
            ],
            random_vectors(1500),
            {id: id.encode() for id in ids[:50]},
        )
        zoo.add([ODD], [None])
        zoo.note_files(
            [
                KnownFile("/a\udcff", 1, 2**60, "odd", reader="r\u00e9"),
                KnownFile("/b", 0, -1, "m0003", name="名\ud800", facts={"tags": ["Zebra"], "n": [1.5, "\udc80"]}),
                KnownFile("/c", 5, 5, "m0003"),
                KnownFile("/bad", 1, 1, None, "no"),
            ]
        )
        (folder / "previews").mkdir()
        for id in ids[:9]:
            (folder / "previews" / f"{id}.png").write_bytes(id.encode())
        assert export_zoo(zoo, tmp_path / "zoo.parquet") == 1501
    return tmp_path / "zoo.parquet"


def position_bytes(zoo: AnyZoo, ids: list[str]) -> dict[str, object]:
    """The positions of some models, to the bit."""
    return {
        id: {kind: (place.vector.tobytes(), place.scale, place.bias) for kind, place in positions.items()}
        for id, positions in zoo.positions_by_id(ids).items()
    }


def test_round_trip(folder: Path, exported: Path, tmp_path: Path) -> None:
    """All data of models comes back, vectors to the last bit; files that were refused are not exported."""
    steps: list[tuple[int, int]] = []
    assert import_zoo(exported, tmp_path / "back", lambda done, total: steps.append((done, total))) == 1501
    assert steps[-1] == (1501, 1501)
    with Zoo.open(folder, read_only=True) as before, Zoo.open(tmp_path / "back", read_only=True) as after:
        ids = [each.id for each in before.models()]
        assert (after.space, after.dim) == (SPACE, DIM)
        assert list(after.models()) == list(before.models())
        assert [each.added for each in after.models()] == [each.added for each in before.models()]
        assert position_bytes(after, ids) == position_bytes(before, ids)
        assert position_bytes(after, ["odd"]) == {} and len(position_bytes(after, ids)) == 1500
        assert after.fingerprints() == before.fingerprints()
        assert after.known_files() == {path: file for path, file in before.known_files().items() if file.model_id}
        assert after.search(QUERY, 2000) == before.search(QUERY, 2000)
        assert after.verify() == []
    for number in range(9):
        assert (tmp_path / "back" / "previews" / f"m{number:04}.png").read_bytes() == f"m{number:04}".encode()
    assert import_zoo(exported, tmp_path / "back") == 1501
    with Zoo.open(tmp_path / "back", read_only=True) as after:
        assert len(after) == 1501
    assert not list(tmp_path.glob("*.part"))


def test_several_kinds_of_evidence(zoo: AnyZoo, tmp_path: Path) -> None:
    """Each position comes back to the bit, from either store."""
    vectors = dict(zip(Evidence, random_vectors(3), strict=False))
    places = {kind: Position(vector, 1 / 3 + i, -i / 7) for i, (kind, vector) in enumerate(vectors.items())}
    words = {Evidence.WORDS: Position(random_vectors(1, seed=4)[0], 1e-6, 1e6)}
    zoo.add(models(["all", "none", "words"]), [places, None, words])
    export_zoo(zoo, tmp_path / "zoo.parquet")
    table = pq.read_table(tmp_path / "zoo.parquet")
    assert table["found_by"].to_pylist() == ["picture", "metadata", "words"]
    assert table["preview_scale"].to_pylist() == [7 / 3, None, None]
    assert import_zoo(tmp_path / "zoo.parquet", tmp_path / "back") == 3
    with Zoo.open(tmp_path / "back", read_only=True) as back:
        assert position_bytes(back, ["all", "none", "words"]) == position_bytes(zoo, ["all", "none", "words"])
        assert [each.evidence for each in back.models()] == [each.evidence for each in zoo.models()]
        assert back.search(QUERY, 9) == zoo.search(QUERY, 9)


def test_version_1(tmp_path: Path) -> None:
    """A vector becomes the position of a picture with its cosine for a score; files have no names."""
    vector = random_vectors(1)[0]
    exact = {"texts": TEXTS | {"id": "odd", "name": "\ud800", "found_by": "metadata"}, "files": ["/\udcff"]}
    old_file = {"path": "/?", "size": 1, "mtime_ns": 2, "reader": "r"}
    rows = [
        row(id="a", found_by="weights", vector=vector.tolist()),
        row(id="odd", name="?", found_by="metadata", exact=json.dumps(exact), files=[old_file]),
    ]
    write(tmp_path / "x.parquet", *rows, schema=layout(SPACE, DIM, 1))
    assert import_zoo(tmp_path / "x.parquet", tmp_path / "zoo") == 2
    with Zoo.open(tmp_path / "zoo", read_only=True) as zoo:
        assert same(zoo.search(QUERY, 5), nearest({"a": vector}, QUERY, 5))
        assert [(each.id, each.name, each.found_by) for each in zoo.models()] == [
            ("a", "A", Evidence.PICTURE),
            ("odd", "\ud800", Evidence.METADATA),
        ]
        assert zoo.known_files() == {"/\udcff": KnownFile("/\udcff", 1, 2, "odd", None, "r")}


def test_import_into_a_zoo_with_models(exported: Path, tmp_path: Path) -> None:
    """Its models stay; those with an imported id are replaced."""
    own = random_vectors(2, seed=3)
    with Zoo.create(tmp_path / "mine", SPACE, DIM) as zoo:
        zoo.add([model("mine"), replace(model("m0000"), name="old")], own)
    import_zoo(exported, tmp_path / "mine")
    state = {"mine": own[0], **dict(zip((f"m{i:04}" for i in range(1500)), random_vectors(1500), strict=True))}
    with Zoo.open(tmp_path / "mine", read_only=True) as zoo:
        assert same(zoo.search(QUERY, 2000), nearest(state, QUERY, 2000))
        assert zoo.get("m0000").name == "a LoRA"


def test_columns(exported: Path) -> None:
    """Columns have plain types, and rows are in order of id."""
    table = pq.read_table(exported)
    assert table["id"].to_pylist() == [*(f"m{i:04}" for i in range(1500)), "odd"]
    assert table["picture_vector"].type == pa.list_(pa.float32(), DIM)
    assert table["path"].to_pylist()[-1] == "/a?\n"


@pytest.mark.parametrize(("space", "dim"), [("pictures-2", DIM), (SPACE, DIM + 1)])
def test_another_space(exported: Path, tmp_path: Path, space: str, dim: int) -> None:
    """It is refused with both names or dims, and nothing is imported."""
    Zoo.create(tmp_path / "other", space, dim).close()
    with pytest.raises(SpaceMismatch, match=f"'{SPACE}'.*'pictures-2'" if dim == DIM else f"{DIM} .*{DIM + 1}"):
        import_zoo(exported, tmp_path / "other")
    with Zoo.open(tmp_path / "other") as zoo:
        assert len(zoo) == 0


def test_preview_outside_of_the_zoo(zoo: Zoo, tmp_path: Path) -> None:
    """A zoo from a stranger cannot have other files of this machine exported."""
    (tmp_path / "secret").write_bytes(b"secret")
    (zoo.folder / "link").symlink_to(tmp_path / "secret")
    names = [str(tmp_path / "secret"), "../secret", "link", ".", "", "\0", "x" * 5000]
    zoo.add(
        [replace(model(f"m{number}"), preview=name) for number, name in enumerate(names)], random_vectors(len(names))
    )
    export_zoo(zoo, tmp_path / "zoo.parquet")
    assert set(pq.read_table(tmp_path / "zoo.parquet")["preview_image"].to_pylist()) == {None}


def row(**changed: Any) -> dict[str, Any]:
    """A row of an exported file, with some columns changed."""
    texts = {
        "id": "a",
        "name": "A",
        "family": "sd-1.5",
        "found_by": "picture",
        "path": "/a",
        "concept": None,
        "preview": None,
        "facts": "{}",
    }
    return (
        texts
        | {
            "added": 5,
            "picture_vector": random_vectors(1)[0].tolist(),
            "picture_scale": 1.0,
            "picture_bias": 0.0,
            "fingerprint": b"f",
            "preview_image": None,
            "files": [],
            "exact": None,
        }
        | changed
    )


def write(path: Path, *rows: dict[str, Any], schema: pa.Schema | None = None) -> None:
    """Write a file of some rows."""
    pq.write_table(pa.Table.from_pylist(list(rows), schema or layout(SPACE, DIM)), path)


def file(**changed: Any) -> dict[str, Any]:
    """A model's file."""
    return {"path": "/a", "size": 1, "mtime_ns": 1, "reader": "", "name": None, "facts": None} | changed


TEXTS = {"id": "a", "name": "A", "family": "f", "path": None, "concept": None, "preview": None}
HOSTILE = [
    row(picture_vector=[float("nan")] * DIM),
    row(picture_vector=[float("inf")] * DIM),
    row(picture_vector=[0.0] * DIM),
    row(picture_vector=[None] * DIM),
    row(picture_scale=None),
    row(picture_scale=0.0),
    row(picture_scale=-1.0),
    row(picture_scale=1e7),
    row(picture_scale=float("nan")),
    row(picture_bias=None),
    row(picture_bias=float("-inf")),
    row(picture_bias=1e7),
    row(preview_vector=[1.0] * DIM),
    row(id=""),
    row(id=None),
    row(name=None),
    row(family=None),
    row(facts=None),
    row(facts=""),
    row(facts="{"),
    row(facts="[]"),
    row(facts="{'a': 1}"),
    row(facts='{"a": NaN}'),
    row(facts="[" * 100_000),
    row(facts='{"a": ' + "[" * 5000 + "]" * 5000 + "}"),
    row(facts='{"a": ' + "1" * 5000 + "}"),
    row(added=-1),
    row(added=2**62),
    row(exact="["),
    row(exact="[]"),
    row(exact="{}"),
    row(exact=json.dumps({"texts": TEXTS | {"id": 5}, "files": []})),
    row(exact=json.dumps({"texts": TEXTS | {"id": "\ud800"}, "files": []})),
    row(exact=json.dumps({"texts": TEXTS | {"name": ["x"]}, "files": []})),
    row(exact=json.dumps({"texts": TEXTS | {"path": {}}, "files": []})),
    row(exact=json.dumps({"texts": [], "files": []})),
    row(exact=json.dumps({"texts": TEXTS, "files": ["/b"]})),
    row(exact=json.dumps({"texts": TEXTS, "files": [5]}), files=[file()]),
    row(exact=json.dumps({"texts": TEXTS, "files": None})),
    row(files=[None]),
    row(files=[file(path=None)]),
    row(files=[file(size=None)]),
    row(files=[file(mtime_ns=None)]),
    row(files=[file(reader=None)]),
    row(files=[file(facts="{")]),
    row(files=[file(facts="[]")]),
    row(files=[file(facts='{"a": NaN}')]),
    row(files=[file(facts="[" * 100_000)]),
    row(exact=json.dumps({"texts": TEXTS, "files": [{"path": "/b"}]}), files=[file()]),
    row(exact=json.dumps({"texts": TEXTS, "files": [{"path": "/b", "name": ["x"]}]}), files=[file()]),
    row(exact=json.dumps({"texts": TEXTS, "files": [{"path": None, "name": "x"}]}), files=[file()]),
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_rows(tmp_path: Path, number: int) -> None:
    """The error is one line, and nothing of the batch is stored."""
    write(tmp_path / "x.parquet", row(id="good"), HOSTILE[number])
    with pytest.raises(ZooError, match=r"^[^\n]*x\.parquet: [^\n]*expected [^\n]*found[^\n]*$"):
        import_zoo(tmp_path / "x.parquet", tmp_path / "zoo")
    with Zoo.open(tmp_path / "zoo") as zoo:
        assert len(zoo) == 0 and zoo.verify() == []


def test_odd_rows(tmp_path: Path) -> None:
    """Ids that look like paths write no file outside of the zoo; deep facts and missing values are imported."""
    deep = '{"a": ' + "[" * 300 + "]" * 300 + "}"
    image = b"png"
    ids = ["../../x", "/etc/x", "a/b", "a\0b", "x" * 300, "é", ".", "CON"]
    rows = [row(id=id, preview="previews/../../y.png", preview_image=image) for id in ids[:4] + ids[5:]]
    write(
        tmp_path / "x.parquet",
        *rows,
        row(id="deep", facts=deep),
        row(id="none", files=None, fingerprint=None, added=None),
    )
    assert import_zoo(tmp_path / "x.parquet", tmp_path / "zoo") == len(rows) + 2
    with Zoo.open(tmp_path / "zoo", read_only=True) as zoo:
        assert {each.id for each in zoo.models()} == {*ids[:4], *ids[5:], "deep", "none"}
        assert zoo.get("deep").facts == json.loads(deep)
        previews = {each.preview for each in zoo.models()}
        assert zoo.verify() == []
    assert previews == {None, "previews/é.png", "previews/CON.png"}
    assert sorted(path.name for path in (tmp_path / "zoo" / "previews").iterdir()) == ["CON.png", "é.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.parquet", "zoo"]
    write(tmp_path / "x.parquet", row(id=ids[4], preview_image=image))
    with pytest.raises(DiskRefused):  # a name that no disk takes
        import_zoo(tmp_path / "x.parquet", tmp_path / "zoo")


def with_metadata(**changed: Any) -> Callable[[Path], None]:
    """Return a function that writes a file with changed metadata."""
    metadata = {"version": 2, "space": SPACE, "dim": DIM} | changed
    return lambda path: write(path, row(), schema=layout(SPACE, DIM).with_metadata({"loradex": json.dumps(metadata)}))


NOT_ZOOS: list[Callable[[Path], object]] = [
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(b"PAR1"),
    lambda path: path.write_bytes(b"PAR1" + b"\xff" * 1000 + b"PAR1"),
    lambda path: path.write_bytes(b"PAR1" + b"\0" * 100 + (2**31).to_bytes(4, "little") + b"PAR1"),
    lambda path: path.write_bytes(b"<!DOCTYPE html>" * 100),
    lambda path: path.mkdir(),
    lambda path: None,
    lambda path: pq.write_table(pa.table({"id": ["a"]}), path),
    lambda path: write(path, row(), schema=layout(SPACE, DIM).remove_metadata()),
    lambda path: write(path, row(), schema=layout(SPACE, DIM).with_metadata({"loradex": b"{"})),
    lambda path: write(path, row(), schema=layout(SPACE, DIM).with_metadata({"loradex": b"\xff"})),
    lambda path: write(path, row(), schema=layout(SPACE, DIM).with_metadata({"loradex": b"[" * 100_000})),
    with_metadata(version=1),
    with_metadata(version=3),
    with_metadata(version=True),
    with_metadata(dim=11),
    with_metadata(dim=-1),
    with_metadata(dim=0),
    with_metadata(dim=2**40),
    with_metadata(dim=None),
    with_metadata(dim=1e400),
    with_metadata(dim=[12]),
    lambda path: write(path, row(), schema=layout(SPACE, DIM).remove(0)),
    lambda path: write(path, schema=layout("", DIM)),
    lambda path: pq.write_table(
        pa.Table.from_pylist([], layout(SPACE, DIM)).rename_columns(["ID", *layout(SPACE, DIM).names[1:]]), path
    ),
]


@pytest.mark.parametrize("number", range(len(NOT_ZOOS)))
def test_files_that_are_not_a_zoo(tmp_path: Path, number: int) -> None:
    """The error is one line, and no zoo is created."""
    NOT_ZOOS[number](tmp_path / "x.parquet")
    with pytest.raises(ZooError, match=r"^[^\n]*expected [^\n]*found[^\n]*$"):
        import_zoo(tmp_path / "x.parquet", tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_invalid_text(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 in a column of text are refused."""
    table = pa.Table.from_pylist([row()], layout(SPACE, DIM))
    bad = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xff\xfe")]
    )
    pq.write_table(table.set_column(1, table.schema.field(1), bad), tmp_path / "x.parquet")
    with pytest.raises(BadModel, match=r"x\.parquet: expected sound rows, found: [^\n]*$"):
        import_zoo(tmp_path / "x.parquet", tmp_path / "zoo")


def test_damaged_files(zoo: Zoo, tmp_path: Path) -> None:
    """A file that is cut or has a bit flipped gives an error of one line, or models; the zoo stays sound."""
    zoo.add(models(f"m{i}" for i in range(60)), random_vectors(60), {f"m{i}": b"print" for i in range(9)})
    export_zoo(zoo, tmp_path / "zoo.parquet")
    content = (tmp_path / "zoo.parquet").read_bytes()
    rng = np.random.default_rng(3)
    cuts = [content[:size] for size in rng.integers(0, len(content), 6)]
    flips = [
        content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :]
        for at in [*rng.integers(0, len(content), 15).tolist(), *range(len(content) - 3000, len(content), 100)]
    ]
    for damaged in cuts + flips:
        (tmp_path / "x.parquet").write_bytes(damaged)
        try:
            import_zoo(tmp_path / "x.parquet", tmp_path / "back")
        except ZooError as error:
            assert "\n" not in str(error)
    with Zoo.open_or_create(tmp_path / "back", SPACE, DIM) as back:
        assert back.verify() == []


def test_export_to_a_path_that_cannot_be_written(zoo: Zoo, tmp_path: Path) -> None:
    """The file that was there before is not changed."""
    zoo.add(models("a"), random_vectors(1))
    with pytest.raises(DiskRefused):
        export_zoo(zoo, tmp_path / "nowhere" / "zoo.parquet")
    (tmp_path / "zoo.parquet").write_bytes(b"old")
    (tmp_path / ".zoo.parquet.part").mkdir()
    with pytest.raises(DiskRefused):
        export_zoo(zoo, tmp_path / "zoo.parquet")
    assert (tmp_path / "zoo.parquet").read_bytes() == b"old"

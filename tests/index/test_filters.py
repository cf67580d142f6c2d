"""Filters, alone and combined, against the same conditions in Python on random models."""

import random
from dataclasses import replace

import numpy as np
import pytest

from loradex.index import BadQuery, Evidence, Filter, KnownFile, Model, Position, Positions, Zoo
from tests.index.zoo_oracle import KINDS, agree, model, nearest, random_positions, random_vectors, same

FAMILIES = ["sd-1.5", "sdxl", "flux", "Ünknown\udcff", "it's", '"; DROP TABLE models; --', "a\0b", "%", ""]
FORMATS = ["kohya", "diffusers", "peft\ud800", None, 5, ["kohya"]]
TAGS = ["Dog", "dog", "DOG ", "red  dog", "Straße", "STRASSE", "ÉTÉ", "x\0y", "\udcff", "%", "_", "'", "", "名前"]
PATHS = [
    "/loras/a.safetensors",
    "/loras/sub/b.safetensors",
    "/loras2/c.safetensors",
    "/loras",
    "/lo/ras/d",
    "C:\\loras\\e.safetensors",
    "C:\\loras2\\f",
    "D:\\loras\\sub\\g",
    "/bad\udcff/h",
    "/bad\udcff/sub/i",
    "/bad\ud800/j",
    "/名/k",
    "/a'b/l",
    "/per%cent/m",
    "/NUL\0/n",
    None,
]
FOLDERS = [
    "/loras",
    "/loras/",
    "/loras/sub",
    "/lo",
    "/",
    "C:\\loras",
    "C:\\loras\\",
    "C:\\",
    "D:\\loras",
    "/bad\udcff",
    "/bad\ud800",
    "/bad",
    "/名",
    "/a'b",
    "/per%cent",
    "/NUL\0",
    "/%",
    "nowhere",
]
N_MODELS = 250


def random_model(number: int, chance: random.Random) -> Model:
    """A model with facts of many kinds."""
    facts: dict[str, object] = {
        "tags": chance.sample(TAGS, 2),
        "trigger_words": chance.choice([[], "ohwx", ["sks", 5, None]]),
        "ranks": chance.choice([[4, 8], 16, [], [True, "4", -1, 2**40], [0], [128, 2]]),
        "format": chance.choice(FORMATS),
    }
    path = chance.choice(PATHS)
    return replace(
        model(f"m{number:03}"),
        family=chance.choice(FAMILIES),
        path=path,
        facts=facts,
        added=chance.randrange(20),
    )


def normalized(tag: str) -> str:
    """A tag as it is compared: without case and extra spaces, and with ``?`` for what is not Unicode."""
    return "".join("?" if "\ud800" <= letter <= "\udfff" else letter for letter in " ".join(tag.casefold().split()))


def tags_of(model: Model) -> set[str]:
    """Tags and trigger words."""
    words = model.facts["trigger_words"]
    return {
        normalized(tag)
        for tag in [*model.facts["tags"], *([words] if isinstance(words, str) else words)]
        if isinstance(tag, str)
    }


def rank_of(model: Model) -> int | None:
    """The highest rank."""
    ranks = model.facts["ranks"]
    return max(
        (rank for rank in (ranks if isinstance(ranks, list) else [ranks]) if type(rank) is int and 0 <= rank < 2**31),
        default=None,
    )


def lies_in(path: str | None, folder: str) -> bool:
    """Whether a path is below a folder."""
    separator = "\\" if "\\" in folder and "/" not in folder else "/"
    return path is not None and path.startswith(folder.rstrip("/\\") + separator)


def passes(where: Filter, model: Model, files: dict[str, list[str]], positions: Positions) -> bool:
    """Whether a model with some positions passes a filter."""
    rank, added = rank_of(model), model.added or 0
    return (
        (not where.families or model.family in where.families)
        and (not where.formats or model.facts["format"] in where.formats)
        and {normalized(tag) for tag in where.tags} <= tags_of(model)
        and (where.lowest_rank is None or (rank is not None and rank >= where.lowest_rank))
        and (where.highest_rank is None or (rank is not None and rank <= where.highest_rank))
        and (
            where.folder is None or any(lies_in(path, where.folder) for path in [model.path, *files.get(model.id, [])])
        )
        and (where.added_from is None or added >= where.added_from)
        and (where.added_before is None or added < where.added_before)
        and (not where.found_by or bool(set(where.found_by) & set(positions or [Evidence.METADATA])))
    )


SINGLE_FILTERS = [
    *(Filter(families=(family,)) for family in FAMILIES),
    *(Filter(families=tuple(FAMILIES[at:])) for at in (0, 4)),
    *(Filter(formats=(each,)) for each in FORMATS if isinstance(each, str)),
    Filter(formats=("kohya", "none", "diffusers")),
    *(
        Filter(tags=(tag,))
        for tag in [*TAGS, " dog\t", "red dog", "ohwx", "OHWX", "sks", "do", "dog OR cat", "' OR 1=1 --"]
    ),
    Filter(tags=("dog", "strasse")),
    Filter(tags=("dog", "never")),
    *(Filter(lowest_rank=rank) for rank in (-5, 0, 1, 8, 16, 2**61)),
    *(Filter(highest_rank=rank) for rank in (-5, 0, 8, 2**61)),
    Filter(lowest_rank=5, highest_rank=16),
    *(Filter(folder=folder) for folder in FOLDERS),
    Filter(added_from=7),
    Filter(added_before=7),
    Filter(added_from=3, added_before=4),
    *(Filter(found_by=(each,)) for each in Evidence),
    Filter(found_by=(Evidence.METADATA, Evidence.WORDS)),
    Filter(found_by=(Evidence.PREVIEW, Evidence.PICTURE)),
]


def test_every_filter(zoo: Zoo) -> None:
    """Alone and combined, in listing, vector search and full-text search."""
    chance = random.Random(1)  # noqa: S311
    added = [random_model(number, chance) for number in range(N_MODELS)]
    positions = dict(zip((each.id for each in added), random_positions(N_MODELS), strict=True))
    positions |= {each.id: {} for each in added[::9]}
    zoo.add(added, list(positions.values()))
    files: dict[str, list[str]] = {}
    for number, path in enumerate(path for path in PATHS if path):
        files.setdefault(added[number * 3 % N_MODELS].id, []).append(path)
    zoo.note_files(
        [
            *(KnownFile(path, 1, 1, id) for id, paths in files.items() for path in paths),
            KnownFile("/loras/refused", 1, 1, None, "no"),
        ]
    )
    combined = []
    for _ in range(150):
        first, second, third = chance.sample(SINGLE_FILTERS, 3)
        fields = [field for field in Filter.__slots__]
        merged = {
            field: next(
                (
                    value
                    for each in (first, second, third)
                    if (value := getattr(each, field)) != getattr(Filter(), field)
                ),
                getattr(Filter(), field),
            )
            for field in fields
        }
        combined.append(Filter(**merged))
    matched = 0  # filters that a model passes
    for where in [Filter(), *SINGLE_FILTERS, *combined]:
        expected = [each for each in added if passes(where, each, files, positions[each.id])]
        assert list(zoo.models(where)) == expected, where
        assert sorted(each.id for each in zoo.find(["a LoRA"], N_MODELS, where)) == [each.id for each in expected]
        query = random_vectors(1, seed=matched)[0]
        for k in (1, 7, N_MODELS):
            state, hits = {each.id: positions[each.id] for each in expected}, zoo.search(query, k, where)
            assert same(hits, nearest(state, query, k, where.kinds)), where
            assert agree(hits, state, query, where.kinds), where
        matched += bool(expected)
    assert matched > len(SINGLE_FILTERS)


def test_a_filter_after_a_change(zoo: Zoo) -> None:
    """The models that pass it are cached for one state only."""
    vectors = random_vectors(3)
    where, query = Filter(tags=("cat",)), vectors[0]
    zoo.add(
        [replace(model(id), facts={"tags": tags}) for id, tags in (("a", ["cat"]), ("b", ["dog"]), ("c", []))], vectors
    )
    for _ in range(2):
        assert same(zoo.search(query, 9, where), nearest({"a": vectors[0]}, query, 9))
    zoo.add([replace(model("b"), facts={"tags": "CAT"})], vectors[1:2])
    assert same(zoo.search(query, 9, where), nearest({"a": vectors[0], "b": vectors[1]}, query, 9))
    zoo.remove(["a"])
    assert same(zoo.search(query, 9, where), nearest({"b": vectors[1]}, query, 9))
    zoo.note_files([KnownFile("/z/b", 1, 1, "b")])
    assert [hit.model.id for hit in zoo.search(query, 9, Filter(folder="/z"))] == ["b"]
    zoo.note_files([KnownFile("/z/c", 1, 1, "c")], forget=["/z/b"])
    assert [hit.model.id for hit in zoo.search(query, 9, Filter(folder="/z"))] == ["c"]


def test_more_filters_than_are_cached(zoo: Zoo) -> None:
    """Each has its own result."""
    vectors = random_vectors(100)
    zoo.add([replace(model(f"m{i:02}"), facts={"ranks": [i]}) for i in range(100)], vectors)
    for _ in range(2):
        for i in range(100):
            assert [hit.model.id for hit in zoo.search(vectors[0], 3, Filter(lowest_rank=i, highest_rank=i))] == [
                f"m{i:02}"
            ]


@pytest.mark.parametrize(
    "where",
    [
        Filter(families=("x",) * 101),
        Filter(tags=("x" * 5000,)),
        Filter(tags=("x" * 10**6,)),
        Filter(folder="/" * 5000),
        Filter(families=(None,)),  # type: ignore[arg-type]
        Filter(tags=(b"x",)),  # type: ignore[arg-type]
        Filter(folder=5),  # type: ignore[arg-type]
        Filter(lowest_rank=2**62),
        Filter(highest_rank=-(2**70)),
        Filter(added_from=1.5),  # type: ignore[arg-type]
        Filter(added_before=True),
        Filter(lowest_rank=np.int64(3)),  # type: ignore[arg-type]
        Filter(found_by=("\ud800",)),  # type: ignore[arg-type]
        Filter(found_by="words"),  # type: ignore[arg-type]
        Filter(found_by=None),  # type: ignore[arg-type]
    ],
)
def test_invalid_filters(zoo: Zoo, where: Filter) -> None:
    """They are refused with a message of one line, wherever they are used."""
    zoo.add([model("a")], random_vectors(1))
    for use in (
        lambda: list(zoo.models(where)),
        lambda: zoo.search(random_vectors(1)[0], 1, where),
        lambda: zoo.find(["lora"], 1, where),
    ):
        with pytest.raises(BadQuery, match=r"^[^\n]*expected [^\n]* found[^\n]*$"):
            use()


def test_counts(zoo: Zoo) -> None:
    """The number of models for each value, the most frequent value first."""
    facts = [
        {"format": "kohya", "tags": ["A", "b"]},
        {"format": "kohya", "tags": ["a"]},
        {"tags": ["a", "a "]},
        {"format": "peft"},
    ]
    added = [replace(model(f"m{i}"), facts=each, family="sdxl" if i else "flux") for i, each in enumerate(facts)]
    vectors = random_vectors(4)
    positions = {kind: Position(vectors[0]) for kind in KINDS}
    zoo.add(
        [*added, replace(model("x"), family="flux", facts={})],
        [positions, {KINDS[1]: positions[KINDS[1]]}, *vectors[2:], None],
    )
    assert list(zoo.counts("tag").items()) == [("a", 3), ("b", 1)]
    assert list(zoo.counts("format").items()) == [("kohya", 2), ("peft", 1)]
    assert list(zoo.counts("family").items()) == [("sdxl", 3), ("flux", 2)]
    assert list(zoo.counts("found_by").items()) == [("picture", 3), ("words", 2), ("metadata", 1), ("preview", 1)]
    zoo.note_files([KnownFile("/x/m3", 1, 1, "m3", facts={"tags": ["a", "B", "new"]})])
    assert list(zoo.counts("tag").items()) == [("a", 4), ("b", 2), ("new", 1)]
    zoo.note_files([], forget=["/x/m3"])
    zoo.remove(["m0", "m1"])
    assert list(zoo.counts("tag").items()) == [("a", 1)]

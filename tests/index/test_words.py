"""Full-text search in the texts of models and their files; no text of a query is an operator."""

import random
import time
from dataclasses import replace

import pytest

from loradex.index import BadQuery, Filter, KnownFile, Zoo
from tests.index.zoo_oracle import model, random_vectors

WORDS = "dog cat red blue castle dragon portrait anime watercolor knight robot forest".split()  # noqa: SIM905


def add_named(zoo: Zoo, **names: str) -> None:
    """Add models with names."""
    zoo.add([model(id, name) for id, name in names.items()], random_vectors(len(names)))


def find_ids(zoo: Zoo, *words: str, k: int = 99, where: Filter = Filter(), without: tuple[str, ...] = ()) -> list[str]:  # noqa: B008
    """The ids of the models that match."""
    return [each.id for each in zoo.find(words, k, where, without)]


def test_against_sets_of_words(zoo: Zoo) -> None:
    """Matches equal those of set operations on words, with and without excluded texts and a filter."""
    chance = random.Random(2)  # noqa: S311
    has: dict[str, set[str]] = {}
    added = []
    for number in range(200):
        name, tags, notes = (chance.sample(WORDS, chance.randint(0, 3)) for _ in range(3))
        each = replace(
            model(f"m{number:03}", " ".join(name)), facts={"tags": tags, "notes": " ".join(notes), "ranks": number}
        )
        added.append(each)
        has[each.id] = {*name, *tags, *notes}
    zoo.add(added, random_vectors(200))
    for _ in range(150):
        texts = [chance.sample(WORDS, chance.randint(1, 3)) for _ in range(chance.randint(1, 3))]
        without = [chance.sample(WORDS, chance.randint(1, 2)) for _ in range(chance.randint(0, 2))]
        lowest = chance.choice([None, 100])
        expected = {
            id
            for id, own in has.items()
            if any(own.issuperset(text) for text in texts)
            and not any(own.issuperset(text) for text in without)
            and (lowest is None or int(id[1:]) >= lowest)
        }
        hits = find_ids(
            zoo,
            *(" ".join(text).upper() for text in texts),
            k=999,
            where=Filter(lowest_rank=lowest),
            without=tuple(map(" ".join, without)),
        )
        assert len(hits) == len(expected) and set(hits) == expected
        assert (
            find_ids(
                zoo,
                *(" ".join(text) for text in texts),
                k=3,
                where=Filter(lowest_rank=lowest),
                without=tuple(map(" ".join, without)),
            )
            == hits[:3]
        )


def test_order(zoo: Zoo) -> None:
    """A word weighs most in the name, then in tags, then in notes; more in a short text; ties are in order of id."""
    facts = [{"notes": "dragon and more"}, {"tags": ["dragon"]}, {}, {}, {}]
    names = ["first thing", "second thing", "dragon thing", "dragon thing", "dragon thing " + "of many words " * 20]
    zoo.add(
        [replace(model(f"m{i}", name), facts=fact) for i, (name, fact) in enumerate(zip(names, facts, strict=True))],
        random_vectors(5),
    )
    zoo.add([model(f"x{i}", "filler") for i in range(20)], random_vectors(20))
    assert find_ids(zoo, "dragon") == ["m2", "m3", "m4", "m1", "m0"] or find_ids(zoo, "dragon") == [
        "m2",
        "m3",
        "m1",
        "m4",
        "m0",
    ]
    assert find_ids(zoo, "the dragon") == find_ids(zoo, "dragon")


@pytest.mark.parametrize(
    ("name", "queries"),
    [
        ("Straße", ["Straße", "STRAßE", "straße"]),
        ("İstanbul", ["İstanbul", "istanbul"]),
        ("ΣΊΣΥΦΟΣ", ["σίσυφος", "ΣΊΣΥΦΟΣ"]),
        ("cafés", ["cafés", "cafe\u0301s", "CAFES", "Cafe\u0301S"]),
        ("cafe\u0301s", ["cafés", "cafe\u0301s", "cafes"]),
        ("हिन्दी", ["हिन्दी"]),
        ("名前", ["名前"]),
        ("BetterHands_v2", ["better hands", "BetterHands", "betterhands_v2", "hands v2", "hands v 2", "Better_Hands"]),
        ("ink-wash (style)", ["ink wash", "ink-wash", "(style)", '"ink"', "ink AND wash", "style*"]),
        ("dog", ["dog", "dog _", "__ dog", "dog \u200b", "dog!!!", "\ud800 dog", "dog\0", "the dog"]),
    ],
)
def test_scripts_and_case(zoo: Zoo, name: str, queries: list[str]) -> None:
    """A name is found as it is written, in any case and Unicode normalization; operators of FTS5 are plain text."""
    add_named(zoo, a=name, b="another")
    for text in queries:
        assert find_ids(zoo, text) == ["a"], ascii(text)
        assert "a" not in find_ids(zoo, "another", without=(text,))
        assert find_ids(zoo, name, without=(text,)) == []


INJECTIONS = [
    '"',
    '""',
    "'",
    "*",
    "dog*",
    "^dog",
    "-dog",
    "+",
    "(",
    ")",
    "(((",
    "NOT",
    "AND",
    "OR",
    "NEAR(dog cat)",
    "dog NOT cat",
    "name:dog",
    "{name tags}:dog",
    "words MATCH 'x'",
    '" OR "',
    '") OR ("',
    "'; DROP TABLE words; --",
    "\0",
    "dog\0cat",
    "\ud800",
    "\\",
    "%",
    "?",
    "$1",
    "😀",
    "",
    " ",
    "\n",
    "x" * 10**6,
    "dog " * 250_000,
    '"' * 10**6,
    " ".join(f"w{i}" for i in range(10_000)),
    "(" * 10_000 + "dog" + ")" * 10_000,
]


@pytest.mark.parametrize("number", range(len(INJECTIONS)))
def test_injections(zoo: Zoo, number: int) -> None:
    """A hostile text matches words only, quickly, and leaves the zoo as it is."""
    text = INJECTIONS[number]
    add_named(zoo, a="a dog", b="a cat", c="dog and cat", d="NOT dog or near cat name")
    begun = time.monotonic()
    for hits in (
        find_ids(zoo, text),
        find_ids(zoo, text, without=(text,)),
        find_ids(zoo, "dog", without=(text,)),
        find_ids(zoo, *[text[:50]] * 1000),
    ):
        assert set(hits) <= {"a", "b", "c", "d"}
    assert time.monotonic() - begun < 5
    assert len(zoo) == 4 and zoo.verify() == []


@pytest.mark.parametrize("zoo", ["folder"], indirect=True)  # Milvus has bounds
def test_texts_of_any_length_are_stored(zoo: Zoo) -> None:
    """A megabyte of notes, ten thousand tags and invalid Unicode are stored, and found by their words."""
    facts = {
        "notes": "filler " * 150_000 + "needle",
        "tags": [f"tag{i}" for i in range(10_000)],
        "title": "\udcff\0 Title",
        "trigger_words": [None, 5, "ohwx"],
    }
    zoo.add([replace(model("a", "\ud800 \0 name"), facts=facts)], random_vectors(1))
    for text in ("needle", "tag9999", "title", "ohwx", "name", "tag 77"):
        assert find_ids(zoo, text) == ["a"], text
    assert zoo.get("a").facts == facts
    assert zoo.verify() == []


def test_words_of_changed_models(zoo: Zoo) -> None:
    """A model that was replaced or removed is not found by its old words."""
    add_named(zoo, a="red dragon", b="blue dragon")
    zoo.add([replace(model("a", "green castle"), facts={"tags": "moat"})], random_vectors(1))
    assert find_ids(zoo, "red") == [] and find_ids(zoo, "dragon") == ["b"] and find_ids(zoo, "moat castle") == ["a"]
    zoo.remove(["b"])
    assert find_ids(zoo, "dragon") == [] == find_ids(zoo, "blue")
    add_named(zoo, c="silver")
    assert find_ids(zoo, "dragon") == [] and find_ids(zoo, "silver") == ["c"]
    zoo.compact()
    zoo.rebuild()
    assert find_ids(zoo, "moat") == ["a"] and find_ids(zoo, "dragon") == []


def test_words_of_files(zoo: Zoo) -> None:
    """A model is found by the name, folder, trigger words and tags of each of its files, until one is forgotten."""
    add_named(zoo, a="a dog", b="a cat")
    first = KnownFile("/loras/animals/hound.safetensors", 1, 1, "a", name="Hound_v2", facts={"trigger_words": ["ohwx"]})
    second = KnownFile(
        "/loras/pets/Rex.safetensors",
        1,
        1,
        "a",
        name="Rex",
        facts={"tags": ["Puppy"], "trigger_words": ["sks rex"], "title": "Best friend", "notes": "made by hand"},
    )
    zoo.note_files([first, second, KnownFile("/loras/animals/b", 1, 1, "b")])
    for text in (
        "dog",
        "hound",
        "hound v2",
        "ohwx",
        "rex",
        "pets",
        "puppy",
        "sks rex",
        "best friend",
        "hand",
        "dog puppy",
    ):
        assert find_ids(zoo, text) == ["a"], text
    assert sorted(find_ids(zoo, "animals")) == ["a", "b"] == sorted(find_ids(zoo, "loras animals"))
    for tag in ("PUPPY", "ohwx", "sks  rex", "a"):
        assert [each.id for each in zoo.models(Filter(tags=(tag,))) if each.id == "a"] == ["a"]
    assert zoo.counts("tag") == {"a": 2, "b": 2, "ohwx": 1, "puppy": 1, "sks rex": 1}
    assert zoo.verify() == []
    zoo.add([replace(model("a", "a wolf"), facts={})], random_vectors(1))  # a model that is replaced keeps its files
    assert find_ids(zoo, "wolf rex") == ["a"] and find_ids(zoo, "dog") == []
    zoo.note_files([replace(first, name="Beagle", facts={})])  # a file that changed
    assert find_ids(zoo, "beagle") == ["a"] and find_ids(zoo, "hound") == [] == find_ids(zoo, "ohwx")
    zoo.note_files([], forget=[second.path])
    for text in ("rex", "pets", "puppy", "friend", "hand"):
        assert find_ids(zoo, text) == [], text
    assert zoo.counts("tag") == {"a": 1, "b": 1}
    zoo.note_files([replace(first, model_id="b")])  # a file that has another model's weights now
    assert find_ids(zoo, "hound") == ["b"] and find_ids(zoo, "beagle") == []
    assert zoo.verify() == []
    zoo.rebuild()
    assert find_ids(zoo, "ohwx") == ["b"] and find_ids(zoo, "wolf") == ["a"]
    zoo.remove(["b"])
    assert find_ids(zoo, "ohwx") == [] and zoo.verify() == []


def test_number_of_models(zoo: Zoo) -> None:
    """``k`` is checked as in a vector search."""
    add_named(zoo, a="dog", b="dog", c="dog")
    assert [len(find_ids(zoo, "dog", k=k)) for k in (0, 1, 3, 10**6, 2**70)] == [0, 1, 3, 3, 3]
    for k in (-1, 1.5, None):
        with pytest.raises(BadQuery):
            find_ids(zoo, "dog", k=k)  # type: ignore[arg-type]
    assert find_ids(zoo) == [] == find_ids(zoo, "the", "")

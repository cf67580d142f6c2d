"""Words find models by name, tags, trigger words, title and notes; nothing that is typed is an operator."""

import random
import time
from dataclasses import replace

import pytest
from zoo_oracle import model, vectors

from loradex.index import BadQuery, Filter, Zoo
from loradex.index.words import words_query

WORDS = "dog cat red blue castle dragon portrait anime watercolor knight robot forest".split()  # noqa: SIM905


def told(zoo: Zoo, **names: str) -> None:
    """Add models with names."""
    zoo.add([model(id, name) for id, name in names.items()], vectors(len(names)))


def found(zoo: Zoo, *words: str, k: int = 99, where: Filter = Filter(), without: tuple[str, ...] = ()) -> list[str]:  # noqa: B008
    """Ids of what is found."""
    return [each.id for each in zoo.find(words, k, where, without)]


def test_against_sets_of_words(zoo: Zoo) -> None:
    """Every word of one of the texts, not all words of one of the others, and the filter: as sets say."""
    chance = random.Random(2)  # noqa: S311
    has: dict[str, set[str]] = {}
    made = []
    for number in range(200):
        name, tags, notes = (chance.sample(WORDS, chance.randint(0, 3)) for _ in range(3))
        each = replace(
            model(f"m{number:03}", " ".join(name)), facts={"tags": tags, "notes": " ".join(notes), "ranks": number}
        )
        made.append(each)
        has[each.id] = {*name, *tags, *notes}
    zoo.add(made, vectors(200))
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
        hits = found(
            zoo,
            *(" ".join(text).upper() for text in texts),
            k=999,
            where=Filter(lowest_rank=lowest),
            without=tuple(map(" ".join, without)),
        )
        assert len(hits) == len(expected) and set(hits) == expected
        assert (
            found(
                zoo,
                *(" ".join(text) for text in texts),
                k=3,
                where=Filter(lowest_rank=lowest),
                without=tuple(map(" ".join, without)),
            )
            == hits[:3]
        )


def test_order(zoo: Zoo) -> None:
    """A word in the name weighs more than in tags, in tags more than in notes; a short text more than a long one; else by id."""
    facts = [{"notes": "dragon and more"}, {"tags": ["dragon"]}, {}, {}, {}]
    names = ["first thing", "second thing", "dragon thing", "dragon thing", "dragon thing " + "of many words " * 20]
    zoo.add(
        [replace(model(f"m{i}", name), facts=fact) for i, (name, fact) in enumerate(zip(names, facts, strict=True))],
        vectors(5),
    )
    zoo.add([model(f"x{i}", "filler") for i in range(20)], vectors(20))
    assert found(zoo, "dragon") == ["m2", "m3", "m4", "m1", "m0"] or found(zoo, "dragon") == [
        "m2",
        "m3",
        "m1",
        "m4",
        "m0",
    ]
    assert found(zoo, "the dragon") == found(zoo, "dragon")


@pytest.mark.parametrize(
    ("name", "asked"),
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
def test_letters_of_the_world(zoo: Zoo, name: str, asked: list[str]) -> None:
    """What is typed as the name is written finds it, in any case and with marks apart or not; and no operator is one."""
    told(zoo, a=name, b="another")
    for text in asked:
        assert found(zoo, text) == ["a"], ascii(text)
        assert "a" not in found(zoo, "another", without=(text,))
        assert found(zoo, name, without=(text,)) == []


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
def test_nothing_typed_is_an_operator(zoo: Zoo, number: int) -> None:
    """It finds what has the words, or nothing; soon, and the zoo is as it was."""
    text = INJECTIONS[number]
    told(zoo, a="a dog", b="a cat", c="dog and cat", d="NOT dog or near cat name")
    begun = time.monotonic()
    for hits in (
        found(zoo, text),
        found(zoo, text, without=(text,)),
        found(zoo, "dog", without=(text,)),
        found(zoo, *[text[:50]] * 1000),
    ):
        assert set(hits) <= {"a", "b", "c", "d"}
    assert time.monotonic() - begun < 5
    assert len(zoo) == 4 and zoo.verify() == []


@pytest.mark.parametrize("zoo", ["folder"], indirect=True)  # Milvus has bounds
def test_texts_of_any_length_are_stored(zoo: Zoo) -> None:
    """A megabyte of notes, ten thousand tags, bytes that are no text; all found by their words."""
    facts = {
        "notes": "filler " * 150_000 + "needle",
        "tags": [f"tag{i}" for i in range(10_000)],
        "title": "\udcff\0 Title",
        "trigger_words": [None, 5, "ohwx"],
    }
    zoo.add([replace(model("a", "\ud800 \0 name"), facts=facts)], vectors(1))
    for text in ("needle", "tag9999", "title", "ohwx", "name", "tag 77"):
        assert found(zoo, text) == ["a"], text
    assert zoo.get("a").facts == facts
    assert zoo.verify() == []


def test_words_go_with_their_models(zoo: Zoo) -> None:
    """Of a model that was changed or taken out no word is left, whatever its number becomes."""
    told(zoo, a="red dragon", b="blue dragon")
    zoo.add([replace(model("a", "green castle"), facts={"tags": "moat"})], vectors(1))
    assert found(zoo, "red") == [] and found(zoo, "dragon") == ["b"] and found(zoo, "moat castle") == ["a"]
    zoo.remove(["b"])
    assert found(zoo, "dragon") == [] == found(zoo, "blue")
    told(zoo, c="silver")
    assert found(zoo, "dragon") == [] and found(zoo, "silver") == ["c"]
    zoo.compact()
    zoo.rebuild()
    assert found(zoo, "moat") == ["a"] and found(zoo, "dragon") == []


def test_number_of_models(zoo: Zoo) -> None:
    """As in a search."""
    told(zoo, a="dog", b="dog", c="dog")
    assert [len(found(zoo, "dog", k=k)) for k in (0, 1, 3, 10**6, 2**70)] == [0, 1, 3, 3, 3]
    for k in (-1, 1.5, None):
        with pytest.raises(BadQuery):
            found(zoo, "dog", k=k)  # type: ignore[arg-type]
    assert found(zoo) == [] == found(zoo, "the", "")


def test_the_query() -> None:
    """As FTS5 reads it."""
    assert words_query(["Red dog", "cat"]) == '("Red" AND "dog") OR ("cat")'
    assert words_query(["dog"], ["cat", "red fox"]) == '(("dog")) NOT (("cat") OR ("red" AND "fox"))'
    assert words_query(["the of", "_", ""]) is None
    assert words_query(["dog"], ["the", "_"]) == '("dog")'
    assert (words_query(["w " * 5000]) or "").count("w") == 32

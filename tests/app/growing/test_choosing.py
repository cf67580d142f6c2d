"""Choosing the pictures that show a word best."""

from PIL import Image

from loradex.app.growing.choosing import choose_pictures
from loradex.app.paths import MINIATURE
from loradex.retrieval.encoder import Encoder


def test_the_pictures_that_clip_finds_most_like_the_word_are_kept() -> None:
    """The best first, by the cosine with the word alone; other words and their pictures play no part."""
    encoder = Encoder.load(MINIATURE / "encoder")
    colours = ["red", "lime", "blue", "white", "black", "yellow"]
    pictures = [Image.new("RGB", (64, 64), colour) for colour in colours]
    words = ["heart", "snowman"]
    chosen = choose_pictures(pictures * 2, words, 2, encoder)
    for word, kept in zip(words, chosen, strict=True):
        cosines = [float(encoder.encode_texts([word])[0] @ encoder.encode_pictures([each])[0]) for each in pictures]
        ranked = sorted(range(len(pictures)), key=lambda number: -cosines[number])
        assert [picture.getpixel((0, 0)) for picture in kept] == [
            pictures[number].getpixel((0, 0)) for number in ranked[:2]
        ]
    assert chosen[0] != chosen[1]


def test_all_are_kept_in_their_order_where_no_more_were_drawn() -> None:
    """A picture for each that is asked for leaves no choice."""
    pictures = [Image.new("RGB", (8, 8), (number, 0, 0)) for number in range(4)]
    assert choose_pictures(pictures, ["a", "b"], 2, Encoder.load(MINIATURE / "encoder")) == [pictures[:2], pictures[2:]]

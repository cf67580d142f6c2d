"""Write ``retrieval/space/everyday_words.txt``, names of everyday things, and ``everyday_pictures.png``.

    .venv/bin/python -m scripts.everyday_words [words] [pictures]

Both give a new space its centres and are part of its name: a change of either gives all spaces made from then on other
names. Spaces that exist keep theirs.

The words are nouns of WordNet 3.0 (Debian's wordnet-base) whose most frequent meaning is a thing that can be seen, and
that CLIP's tokenizer has as one token: its byte pairs were merged in the order of how often they occurred in texts from
the web, so this keeps common words. Of each of WordNet's lexicographer files the most common are taken. A list of ours
adds styles, materials and scenes of pictures. The pictures are drawings of the miniature's LoRAs, on one sheet.
"""

import gzip
import re
import sys
from collections import Counter, defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from PIL import Image

from loradex.app.paths import SHIPPED_ZOO
from loradex.retrieval.space.everyday import PICTURE_SIZE, PICTURES_A_ROW, PICTURES_FILE, WORDS_FILE
from scripts.miniature.words import WORDNET, first_senses, read_synsets

HEADER: Final = """\
# Everyday things, one a line: the background that Loradex compares with, made by scripts/everyday_words.py.
# Nouns from WordNet 3.0, Copyright 2006 by Princeton University, all rights reserved; see NOTICE for its license, under
# which anyone may use, copy, modify and distribute this list. Styles, materials and scenes were added by Loradex.
"""
MERGES: Final = 49152 - 256 - 2  # that CLIP's tokenizer takes of the file, after its first line
# How many words of each lexicographer file (animals, artifacts, body, food, places, ...) are taken at most.
COUNTS: Final = {
    5: 250, 6: 900, 8: 80, 13: 270, 15: 110, 17: 130, 18: 270, 19: 60, 20: 200, 25: 40, 27: 150,
}  # fmt: skip
NOUN, OTHERS = "1", "2345"  # kinds of senses in WordNet's keys: nouns; verbs, adjectives, adverbs and satellites
SHORT: Final = 4  # letters up to which a word must have been seen as a noun in WordNet's texts: many are abbreviations
STYLES: Final = """
    abstract painting, airbrush art, anime, art deco, art nouveau, baroque painting, black and white photo,
    blueprint, bokeh, book illustration, calligraphy, cartoon, chalk drawing, charcoal drawing, children's drawing,
    claymation, clip art, close-up, collage, colouring book, comic strip, concept art, cross stitch, cubism,
    cyberpunk, diorama, double exposure, embroidery, emoji, engraving, etching, fantasy art, film noir, film photo,
    fine art, flat design, folk art, fresco, glitch art, gothic art, graffiti, halftone, hologram, icon,
    impressionism, infrared photo, ink drawing, isometric drawing, landscape painting, line art, linocut, logo, long
    exposure, low poly, manga, marble sculpture, marker drawing, miniature model, minimalism, mosaic, movie poster,
    neon sign, night photo, oil painting, origami, panorama, paper cutout, pastel drawing, pencil sketch,
    photorealism, pixel art, plasticine, polaroid, pop art, portrait, psychedelic art, renaissance painting, retro
    poster, risograph print, screen print, selfie, silhouette, sketch, stained glass, steampunk, stencil, still
    life, street art, studio photo, surrealism, tapestry, tattoo, technical drawing, tilt shift photo, ukiyo-e,
    vaporwave, vector art, video game, vintage photo, watercolour, wire frame, woodcut, 3d render, golden hour,
    moonlight, sunset, sunrise, underwater, snowy mountain, rainy street, city skyline, country road, living room,
    swimming pool, birthday cake, ice cream, polar bear, teddy bear, sea turtle, fire engine, steam train, hot air
    balloon, sailing boat, space station, spaceship, wedding dress, leather jacket, high heels, evening gown, school
    uniform, kimono, samurai armor, suit of armor, magic wand, fairy tale castle, long hair, short hair, red hair,
    blue eyes, green eyes, smile, freckles, tears, running, dancing, swimming, sleeping, jumping, red, orange,
    yellow, green, blue, purple, pink, brown, black, white, grey, gold, silver
"""
# Words that insult or belong to hate, sex, drugs, violence and illness; faiths and origins of people; and words whose
# usual meaning is no thing that can be seen.
LEFT_OUT: Final = """
    accused acoustic addict addition affinity aftermath agent allis amateur ament ammo andromeda angelica annon
    antibody archive argentine argyle ass assassin assistant asylum attraction babe backdrop barker belle belvedere
    bender benjamin benny berg bethel bile billy blanc bling bobby bond booze boss bourne brad brant bravo breaker
    breast brent brill britt bum burgh buster calculus candidate cannabis carrier cassie caster casting cation champ
    chino cisco clarence clegg client coaster cocaine colleague collectible colon coloring colouring comer
    commemorative commissioner commodity consequence consultant consumer coon coordinator cop corner corrie counsel
    criminal critic cur customer daphne darling dean direction district dobson donna dope dose drug dun edge effect
    elements ell empire end equipment erica exchange executive exit expert facial facility facing fallout fanny
    favourite fella fellow feminist fetus filth finder fitch fixture flagship follower foodie fool footage fortune
    fraction freak freeman freight fuzz gemma generic genius ghetto gig goody guest hack hackney hausen haven
    heartland heath heights helping heroin holder homeless hood hooks horseback hub hulk idiot idol immigrant immune
    import incubator ingredient innovation insider interface intern investor ion junior junk killer knob kraft kylie
    lad layer leader leak lesbian leverage liar liberal ligan lightweight lingerie lining links lisle livery loading
    loser lotte lover magnum maker makeup malik mankind manus marcel margate maria marijuana mate material mentor
    merino merle middle migrant mike mixture mollie momma moonshine motif mulligan munition murphy nickelodeon
    nipple nobody nominee nude nut official opponent organ organs origin outlet output outskirts owner paradise
    partner parts patient patron pecker phantom pistol platform poison polls portfolio position predator premises
    prey propulsion prostate provider provisions punk qualifier quarters racist ration rebirth receiver recipient
    refugee region replica representative reservation resident response result ridley rogue rookie rooms root route
    rowan rump samba saratoga saver scape scorer seller serge server setting setup sewage sham shooter side sideline
    sierra sights silva sir sis site sizing slave slum smoothie solution sonny sophomore source spawn specialist
    specs sperm splay spoiler springer starter state stays stocks stopping strain stranger stria striker stripper
    stuff superstar supplier supporter survivor suspension sweetheart swine taker takin tammy tar teammate teaser
    tee tenant teras terrorist thief thill thole threads throwback timothy tip tit titan tract traction trader
    trailer transit trash trend tress trigger trivia troll trough turnup twin twins upside urine user vantage venue
    veronica vibes victim victor viewer villain virgin virus visitor voter voucher wahoo waist wearable weed
    whereabouts wight winner womb works yahoo youth zombie zone
"""


def token_ranks() -> dict[str, int]:
    """The place of each whole word among the merges of CLIP's tokenizer; common words come first."""
    spec = find_spec("open_clip")
    assert spec is not None and spec.origin is not None
    with gzip.open(Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz", "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : MERGES + 1]
    ranks: dict[str, int] = {}
    for place, merge in enumerate(merges):
        token = merge.replace(" ", "")
        if token.endswith("</w>"):
            ranks.setdefault(token.removesuffix("</w>"), place)
    return ranks


def sense_counts() -> dict[str, Counter[str]]:
    """How often each word was seen in WordNet's tagged texts, by the kind of its sense (format: cntlist(5WN))."""
    counts = defaultdict[str, Counter[str]](Counter)
    for line in (WORDNET / "cntlist.rev").read_text("latin-1").splitlines():
        key, _, count = line.split()
        word, _, sense = key.partition("%")
        counts[word][sense[0]] += int(count)
    return counts


def common_nouns() -> list[str]:
    """Common nouns that name things that can be seen, by lexicographer file, the most common of each first."""
    left_out = set(LEFT_OUT.split())
    ranks, counts, nouns = token_ranks(), sense_counts(), read_synsets("noun")
    found = defaultdict[int, list[str]](list)
    for word, offset in sorted(first_senses().items(), key=lambda item: ranks.get(item[0], 0)):
        file, seen = nouns[offset].lexicographer, counts[word]
        is_name = word not in nouns[offset].lemmas  # its first letter is a capital
        other_kinds = sum(seen[kind] for kind in OTHERS)
        if (
            file not in COUNTS
            or word not in ranks
            or is_name
            or word in left_out
            or not re.fullmatch("[a-z]{3,}", word)
        ):
            continue
        if other_kinds <= seen[NOUN] and (len(word) > SHORT or seen[NOUN]):
            found[file].append(word)
    return [word for file, count in sorted(COUNTS.items()) for word in found[file][:count]]


def write_words() -> None:
    """Write the list, one word a line, in alphabetical order."""
    styles = [" ".join(style.split()) for style in STYLES.split(",")]
    words = sorted({*common_nouns(), *styles})
    WORDS_FILE.write_text(HEADER + "\n".join(words) + "\n", "utf-8")
    print(f"{WORDS_FILE}: {len(words)} words")  # noqa: T201


def write_pictures() -> None:
    """Write the sheet: as many drawings as fit, evenly spread over the previews of the zoo that ships."""
    previews = sorted((SHIPPED_ZOO / "previews").glob("*.png"))
    count = PICTURES_A_ROW**2
    sheet = Image.new("RGB", (PICTURES_A_ROW * PICTURE_SIZE,) * 2)
    for place in range(count):
        with Image.open(previews[place * len(previews) // count]) as preview:
            drawing = preview.convert("RGB").resize((PICTURE_SIZE, PICTURE_SIZE), Image.Resampling.LANCZOS)
        row, column = divmod(place, PICTURES_A_ROW)
        sheet.paste(drawing, (column * PICTURE_SIZE, row * PICTURE_SIZE))
    sheet.save(PICTURES_FILE, optimize=True)
    print(f"{PICTURES_FILE}: {count} pictures")  # noqa: T201


if __name__ == "__main__":
    steps = {"words": write_words, "pictures": write_pictures}
    for step in sys.argv[1:] or steps:
        steps[step]()

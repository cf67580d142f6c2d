"""Importing this gives readers of words few candidates: 22,000 take a minute of each process that indexes or serves.

``tests/conftest.py`` imports it. ``LORADEX`` is the command line for child processes, with few candidates too.
"""

import sys
from pathlib import Path

import loradex.retrieval.words.reader
from loradex.retrieval.words.english import english_words

FEW_WORDS = list(dict.fromkeys(["dog", "cat", "icon", *english_words()[:500]]))
PROGRAM = (
    f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); import tests.few_words; "
    "from loradex.app.commands.main import main; main()"
)
LORADEX = (sys.executable, "-c", PROGRAM)

loradex.retrieval.words.reader.usual_words = lambda: FEW_WORDS

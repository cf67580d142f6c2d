"""The words that LoRAs were trained with, read from their weights with the text encoders of their base models.

``service`` keeps what is slow to make, and answers for a file; ``file_words`` is the answer.
"""

from loradex.app.words.file_words import FileWords
from loradex.app.words.service import WordsService

__all__ = ["FileWords", "WordsService"]

"""What the page takes as a file: one that was sent here. Gradio alone would copy any file of the machine, and fetch any address, that a caller names."""

from typing import Any, Final, NoReturn

import gradio as gr
from gradio import processing_utils

MOST_SESSIONS: Final = 500  # whose last inputs are kept


def closed(page: gr.Blocks) -> gr.Blocks:
    """A page that takes files from its uploads alone; Gradio looks after this only for pages that it launched itself."""
    page.has_launched = True
    page.state_session_capacity = MOST_SESSIONS
    processing_utils.async_ssrf_protected_download = not_fetched
    return page


async def not_fetched(address: str, cache_dir: str) -> NoReturn:
    """Refuse an address that stands where a file belongs."""
    raise gr.Error("file: expected one that was sent, found an address; send the file itself", print_exception=False)


def file_place(**options: Any) -> gr.File:
    """A place for files; functions get their paths, and check what they are."""
    place = gr.File(file_count="multiple", **options)
    place.preprocess = lambda sent: (
        [file.path for file in sent] if sent else []
    )  # Gradio's own leaves an empty file for each
    return place


def picture_place(**options: Any) -> gr.Image:
    """A place for a picture; functions get its path, and check what it is."""
    place = gr.Image(type="filepath", **options)
    place.preprocess = lambda sent: (
        sent.path if sent else None
    )  # Gradio's own writes what comes as a data: address to the disk
    return place

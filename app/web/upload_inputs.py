"""File and image inputs that accept uploads only.

Gradio alone would copy any file of the machine, and fetch any address, that a caller names in a request.
"""

from typing import Any, Final, NoReturn

import gradio as gr
from gradio import processing_utils

MAX_SESSIONS: Final = 500  # of which Gradio keeps the state


def accept_uploads_only(page: gr.Blocks) -> gr.Blocks:
    """Have a page accept only files that were uploaded to it, which Gradio ensures only for pages that it launched."""
    page.has_launched = True
    page.state_session_capacity = MAX_SESSIONS
    processing_utils.async_ssrf_protected_download = refuse_address
    return page


async def refuse_address(address: str, cache_dir: str) -> NoReturn:
    """Refuse an address in place of a file.

    Raises:
        gr.Error: always.
    """
    raise gr.Error("file: expected an uploaded file, found an address; upload the file itself", print_exception=False)


def file_input(**options: Any) -> gr.File:
    """An input for files; functions get their paths, and check the content."""
    component = gr.File(file_count="multiple", **options)
    # Gradio's own preprocess leaves an empty temporary file for each upload.
    component.preprocess = lambda files: [file.path for file in files] if files else []
    return component


def image_input(**options: Any) -> gr.Image:
    """An input for an image; functions get its path, and check the content."""
    component = gr.Image(type="filepath", **options)
    # Gradio's own preprocess writes images that come as a data: address to the disk.
    component.preprocess = lambda image: image.path if image else None
    return component

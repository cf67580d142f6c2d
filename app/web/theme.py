"""The look of the page in light and dark: colours, shapes, and fonts that come with Gradio."""

from pathlib import Path
from typing import Final

import gradio as gr

HERE: Final = Path(__file__).parent
CSS: Final = HERE / "page.css"
SCRIPT: Final = HERE / "page.js"


class LoradexTheme(gr.themes.Base):
    """Flat, teal on slate, with thin borders."""

    def __init__(self) -> None:
        super().__init__(
            primary_hue=gr.themes.colors.teal,
            secondary_hue=gr.themes.colors.teal,
            neutral_hue=gr.themes.colors.slate,
            radius_size=gr.themes.sizes.radius_md,
            font=(gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"),
            font_mono=(gr.themes.LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"),
        )
        self.name = "loradex"
        super().set(
            body_background_fill="*neutral_50",
            body_background_fill_dark="*neutral_950",
            block_border_width="1px",
            block_shadow="none",
            block_title_text_weight="700",
            block_title_text_size="*text_sm",
            block_label_text_size="*text_sm",
            button_primary_background_fill="*primary_700",
            button_primary_background_fill_hover="*primary_800",
            button_primary_background_fill_dark="*primary_600",
            button_primary_background_fill_hover_dark="*primary_500",
            button_primary_text_color="white",
            button_secondary_background_fill="*background_fill_primary",
            button_border_width="1px",
            button_secondary_border_color="*border_color_primary",
            button_secondary_border_color_dark="*border_color_primary",
            button_primary_border_color="*primary_700",
            input_background_fill="*background_fill_primary",
            link_text_color="*primary_700",
            link_text_color_dark="*primary_300",
        )

"""The colours and fonts of the page."""

from __future__ import annotations

from typing import Any

from gradio.themes import Soft


def theme() -> Any:
    """Teal on grey, with local fonts: nothing is downloaded."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "Consolas", "monospace"]
    return Soft(primary_hue="teal", neutral_hue="slate", font=fonts, font_mono=mono).set(
        button_primary_background_fill="#0f766e", button_primary_background_fill_hover="#115e59",
        button_primary_background_fill_dark="#0f766e", button_primary_background_fill_hover_dark="#115e59",
        button_primary_text_color="#ffffff", button_primary_text_color_dark="#ffffff",
        button_secondary_background_fill_hover="#e2e8f0", button_secondary_background_fill_hover_dark="#334155",
        block_title_background_fill_dark="transparent", block_title_background_fill="transparent",
        block_title_text_color="*body_text_color", block_title_padding="0",
        block_title_text_weight="600", block_label_background_fill="*background_fill_primary",
        block_label_text_color="*body_text_color", block_label_background_fill_dark="*background_fill_primary",
        block_label_text_color_dark="*body_text_color", block_title_text_color_dark="*body_text_color",
        body_text_color_subdued="#475569", body_text_color_subdued_dark="#b6c2d1",
        body_background_fill="#f1f5f9", slider_color="#0f766e", slider_color_dark="#14b8a6",
        input_border_width="1px", input_border_color="#94a3b8", input_border_color_dark="#64748b",
        checkbox_border_width="1px", checkbox_border_color="#64748b", checkbox_border_color_dark="#94a3b8",
        checkbox_label_background_fill_selected="#0f766e", checkbox_label_background_fill_selected_dark="#0f766e",
        checkbox_label_text_color_selected="#ffffff", checkbox_label_text_color_selected_dark="#ffffff",
        layout_gap="12px", block_padding="10px 12px",
    )  # fmt: skip

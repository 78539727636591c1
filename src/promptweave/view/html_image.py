"""An image as HTML, for notebooks."""

from __future__ import annotations

import base64
import html
import io

from PIL import Image


def as_html(image: Image.Image, said: str) -> str:
    """The image with its alternative text, and that text below it."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    data, text = base64.b64encode(buffer.getvalue()).decode(), html.escape(said, quote=True)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"/><figcaption>{text}</figcaption></figure>'

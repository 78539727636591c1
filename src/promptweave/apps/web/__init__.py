"""The web page: see the attention of each word, and edit. `launch` starts it, `build` returns its Gradio blocks."""

from promptweave.apps.web.serve import build as build
from promptweave.apps.web.serve import launch as launch

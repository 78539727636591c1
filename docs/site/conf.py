"""Sphinx's settings for the site; the pages are those that `make_site.py` lays out."""

from promptweave import __version__

project, author, release = "promptweave", "promptweave maintainers", __version__
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4  # the anchors that GitHub makes, so that links work in both places
highlight_language = "text"
html_theme = "furo"
html_title = f"promptweave {__version__}"
html_show_copyright = html_show_sphinx = html_copy_source = False

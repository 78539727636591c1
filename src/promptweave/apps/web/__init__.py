"""The web page: see what each word looks at, and edit by looking. `launch` starts it, `build` gives its blocks."""

from promptweave.apps.web.serve import build as build
from promptweave.apps.web.serve import launch as launch

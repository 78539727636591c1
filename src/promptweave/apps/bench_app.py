"""The command group `promptweave bench`, and the options that its commands share."""

from __future__ import annotations

from cyclopts import App

from promptweave.apps.common import Opening, Speaking
from promptweave.apps.flags import Flags

bench = App(name="bench", help="Measure edits and speed.", help_format="plaintext")
OPENING, SPEAKING = Flags(Opening), Flags(Speaking)

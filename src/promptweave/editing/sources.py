"""Files that edits can start from."""

from __future__ import annotations

from pathlib import Path

import torch

from promptweave.editing.inverted_file import InvertedImage, holds_inversion
from promptweave.editing.record import Recording


def load_source(path: Path | str, device: torch.device | str = "cpu") -> Recording | InvertedImage:
    """Load a recording, or an inverted image. Raises BrokenRecipe for a file that is neither."""
    return InvertedImage.load(path) if holds_inversion(path) else Recording.load(path, device)

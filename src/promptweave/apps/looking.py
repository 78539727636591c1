"""What commands share that look at an image that exists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptweave.apps.common import steps_of
from promptweave.apps.flags import Flags

PASSES = Flags("promptweave.maps.noised:NoisedPasses")


def passes_of(
    image: bool, inversion: str | None, passes: Mapping[str, Any], settings: Mapping[str, Any], network: Any
) -> int:
    """Steps of the progress bar: of the noised image, or of a run with its inversion."""
    if image and inversion is None:
        from promptweave.maps.noised import NoisedPasses

        return len(NoisedPasses(**passes).noising().times)
    steps = steps_of(settings, network)
    if not image or inversion is None:
        return steps
    from promptweave.editing.inversions import read_inversion

    return steps + read_inversion(inversion).passes(steps)

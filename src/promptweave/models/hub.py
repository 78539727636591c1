"""Whether a load may reach the hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

from huggingface_hub import constants, try_to_load_from_cache

_LOCK = RLock()


@contextmanager
def reach(*, offline: bool) -> Iterator[None]:
    """Inside and `offline`, nothing is fetched from the hub, whatever a file asks for; loads of threads take turns."""
    with _LOCK:
        before = constants.HF_HUB_OFFLINE
        constants.HF_HUB_OFFLINE = before or offline
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = before


def cached(model: str) -> bool:
    """Whether the description of a pipeline, by its hub id, is in the local cache; nothing is asked of the hub."""
    return isinstance(try_to_load_from_cache(model, "model_index.json"), str)

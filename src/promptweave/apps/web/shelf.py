"""A cache of source recordings, bounded by bytes and age; the least recently used are dropped first."""

from __future__ import annotations

import json
import time
import weakref
from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from promptweave.editing.recipe import Recipe
from promptweave.editing.record import Recording

Key = tuple[str, str, int]


def key_of(model: str, recipe: Recipe, row: int) -> Key:
    """The cache key of a recording, equal for all visitors who request the same image."""
    return model, json.dumps(recipe.as_dict(), sort_keys=True), row


@dataclass(eq=False)
class _Kept:
    recording: Recording
    used: float
    holders: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet[Any])
    held: bool = False  # whether it ever had a holder


class Shelf:
    """At most `budget` bytes of recordings, for all visitors together.

    A recording that visitors hold goes with the last of them; any that was not used for `idle` seconds goes at `tidy`.
    """

    def __init__(self, budget: int, idle: int | float = 300) -> None:
        self.budget, self.idle = budget, idle
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Key, holder: Any = None) -> Recording | None:
        """The recording, marked as most recently used."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            return self._used(found, holder).recording

    def put(self, key: Key, recording: Recording, holder: Any = None) -> None:
        """Store a recording if it fits, and drop the least recently used ones beyond the budget."""
        with self._lock:
            old = self._kept.pop(key, None)
            if recording.bytes > self.budget:
                return
            new = _Kept(recording, 0.0) if old is None else _Kept(recording, 0.0, old.holders, old.held)
            self._kept[key] = self._used(new, holder)
            while self._bytes() > self.budget:
                self._kept.popitem(last=False)

    def tidy(self) -> int:
        """Drop what its last holder left, and what was not used for a while; returns the number dropped."""
        with self._lock:
            before, now = len(self._kept), time.monotonic()
            for key, kept in list(self._kept.items()):
                if (kept.held and not kept.holders) or now - kept.used > self.idle:
                    del self._kept[key]
            return before - len(self._kept)

    @property
    def bytes(self) -> int:
        """Total size in bytes."""
        with self._lock:
            return self._bytes()

    def _used(self, kept: _Kept, holder: Any) -> _Kept:
        kept.used = time.monotonic()
        if holder is not None:
            kept.holders.add(holder)
            kept.held = True
        return kept

    def _bytes(self) -> int:
        return sum(kept.recording.bytes for kept in self._kept.values())

    def __len__(self) -> int:
        return len(self._kept)

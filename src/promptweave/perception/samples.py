"""Examples of the tasks, whatever data set they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

IGNORED = 255  # label of pixels that do not count


@dataclass(frozen=True, eq=False)
class Sample:
    """An image, uint8 [height, width, 3], and its answer [height, width]: class labels or a mask of 0 and 1 (int64,
    IGNORED where nothing is known), or depth in metres (float32, 0 where nothing is known). `phrase`: what is referred
    to. `kind`: the scene's class, for depth."""

    picture: np.ndarray
    target: np.ndarray
    phrase: str | None = None
    kind: str | None = None


@runtime_checkable
class Examples(Protocol):
    """A data set: a sequence of samples, and the names of its classes."""

    @property
    def classes(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

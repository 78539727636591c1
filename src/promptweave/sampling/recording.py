"""Record a run once, edit it many times: recordings hold its latents and, in windows, its queries and keys."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from promptweave.core.aligned import aligned
from promptweave.core.clock import Step
from promptweave.core.control import Control, Hooks, Run
from promptweave.core.files import CannotWrite
from promptweave.core.kept import Kept as Kept
from promptweave.core.pattern import Pattern, Softmax, Term
from promptweave.core.rows import NotRecorded, Row, Rows
from promptweave.core.shown import brief
from promptweave.core.site import Site

Place = Literal["device", "cpu", "disk"]
BLOCK = 1 << 20  # bytes written at a time
Key = tuple[int, int, str]  # step, call of the step, site


@dataclass(frozen=True)
class Store:
    """Where tensors are stored: on their device, in main memory, or in memory-mapped files."""

    place: Place = "cpu"

    def keep(self, x: Tensor) -> Tensor:
        """A copy, which does not keep the batch alive that `x` is a view of."""
        if self.place == "device":
            return x.detach().clone()
        x = x.detach().to("cpu", copy=True).contiguous()
        if self.place == "cpu":
            return x
        handle, path = tempfile.mkstemp(prefix="promptweave-")
        try:
            _allocate(handle, x.nbytes)
            mapped = torch.from_file(path, shared=True, size=x.numel(), dtype=x.dtype).view(x.shape)
        except OSError as error:
            raise CannotWrite(
                f"A recording on disk needs room in {tempfile.gettempdir()} ({error.strerror}). It asked for "
                f"{x.nbytes / 1e6:.1f} MB more. Make room, set TMPDIR to another disk, or narrow its windows."
            ) from error
        finally:
            os.close(handle)
            os.unlink(path)  # the space is freed with the tensor, even after a crash
        return mapped.copy_(x)


def _allocate(handle: int, size: int) -> None:
    """Give a file its blocks: writing to a mapped file without them ends the process when the disk is full."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, max(1, size))
        return
    for begin in range(0, size, BLOCK):
        os.write(handle, bytes(min(BLOCK, size - begin)))


@dataclass(eq=False)
class Track:
    """A recorded run of one prompt: `path` [steps + 1] of latents [images, channels, h, w], attention and images.

    It takes the place of row 0 in a run with the same schedule (`sampling.passes.Source`).
    """

    kept: Kept
    path: list[Tensor]
    rows: Mapping[Key, Row]
    pictures: np.ndarray
    device: torch.device

    def __repr__(self) -> str:
        return brief(self, f"{len(self.path) - 1} steps", f"{self.bytes / 1e6:.1f} MB")

    def latents(self, index: int) -> Tensor:
        return aligned(self.path[index].to(self.device))

    def row(self, step: Step, call: int, site: Site) -> Row:
        found = self.rows.get((step.index, call, site.name))
        if found is None:
            raise NotRecorded(
                f"A recording must hold all that an edit reads. This one lacks {site.name} at step {step.index + 1} of "
                f"{step.count}: it was made with cross={self.kept.cross}, self={self.kept.self_attention}, "
                f"joint={self.kept.joint}, maps={self.kept.maps}. Record with larger windows, or narrow those of the "
                "edit."
            )
        return found if found.q.device == self.device else _moved(found, self.device)

    @property
    def bytes(self) -> int:
        """Size of all tensors, in bytes."""
        tensors: dict[int, Tensor] = {x.data_ptr(): x for x in self.path}
        for row in self.rows.values():
            for x in (row.q, row.k, row.values, *_kernels(row.edited)):
                if x is not None:
                    tensors[x.data_ptr()] = x
        return sum(x.numel() * x.element_size() for x in tensors.values())


@dataclass(frozen=True)
class Capture(Control):
    """Record a row, so that it can be a source later. Last in the list of controls, it records the edits too."""

    kept: Kept = Kept()
    row: int = 0
    place: Place = "cpu"

    def bind(self, run: Run) -> Captured:
        return Captured(self, run, Store(self.place))


class Captured(Hooks):
    """One run of `Capture`."""

    def __init__(self, control: Capture, run: Run, store: Store) -> None:
        self.control, self.run, self.store = control, run, store
        self.path: list[Tensor] = []
        self.rows: dict[Key, Row] = {}
        self._calls: dict[str, int] = {}
        self._last_keys: dict[str, tuple[Tensor, Tensor]] = {}  # of the network, and as stored

    def before_step(self, step: Step, z: Tensor, probe: object) -> Tensor:
        self._calls.clear()
        if not self.path:  # steps that the run leaves out begin where it does
            self.path = [self.store.keep(z[self.control.row])] * (step.index + 1)
        return z

    def state(self, step: Step) -> Hashable:
        return tuple(self.watches(step, site) for site in self.run.sites)

    def watches(self, step: Step, site: Site) -> bool:
        return (step, site, self.run) in self.control.kept

    def observe(self, step: Step, site: Site, rows: Rows) -> None:
        if not self.watches(step, site):
            return
        call = self._calls[site.name] = self._calls.get(site.name, -1) + 1
        row = rows["cond"][self.control.row]
        known: dict[int, Tensor] = {}

        def keep(x: Tensor) -> Tensor:
            if id(x) not in known:
                known[id(x)] = self.store.keep(x)
            return known[id(x)]

        values = keep(row.v) if self.control.kept.values else None
        edited = None if row.edited is None else _mapped(row.edited, keep)
        self.rows[step.index, call, site.name] = Row(keep(row.q), self._keys(site, row.k), values, edited)

    def _keys(self, site: Site, k: Tensor) -> Tensor:
        """Store keys; those of cross-attention are stored once, for as long as the text stays the same."""
        found = self._last_keys.get(site.name)
        if site.kind == "cross" and found is not None:
            made, last = found
            same = made.data_ptr() == k.data_ptr() and made.shape == k.shape  # not asked of the device, if it can be
            if same or torch.equal(last.to(k.device), k):
                return last
        self._last_keys[site.name] = k, self.store.keep(k)
        return self._last_keys[site.name][1]

    def after_step(self, step: Step, z: Tensor) -> Tensor:
        self.path.append(self.store.keep(z[self.control.row]))
        return z

    def track(self, pictures: np.ndarray) -> Track:
        """The recording; `pictures` uint8 [images, height, width, 3] are the images of the row."""
        return Track(self.control.kept, self.path, self.rows, pictures, self.run.device)


def _mapped(pattern: Pattern, change: Callable[[Tensor], Tensor]) -> Pattern:
    """A pattern with `change` applied to all its queries and keys."""

    def term(old: Term) -> Term:
        if not isinstance(old.kernel, Softmax):
            raise ValueError(
                "Only edits whose patterns consist of softmax terms can be recorded. Received a pattern with a "
                f"{type(old.kernel).__name__} term. Record the run without the control that made it."
            )
        return Term(Softmax(change(old.kernel.q), change(old.kernel.k)), old.tokens, old.gate)

    return Pattern(tuple(map(term, pattern.terms)))


def _kernels(pattern: Pattern | None) -> list[Tensor]:
    terms = () if pattern is None else pattern.terms
    return [x for term in terms if isinstance(term.kernel, Softmax) for x in (term.kernel.q, term.kernel.k)]


def _moved(row: Row, device: torch.device) -> Row:
    def move(x: Tensor) -> Tensor:
        return aligned(x.to(device))

    values = None if row.values is None else move(row.values)
    return Row(move(row.q), move(row.k), values, None if row.edited is None else _mapped(row.edited, move))

"""What a recording keeps of a source's attention, so that edits can read it instead of computing it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol, runtime_checkable

from promptweave.core.clock import Span, Step, Window
from promptweave.core.fields import Option
from promptweave.core.site import Site, Sites


@runtime_checkable
class Measures(Protocol):
    """The properties of a run (`control.Run`) that determine how much is kept."""

    @property
    def sites(self) -> tuple[Site, ...]: ...
    @property
    def map_sites(self) -> Sites: ...
    @property
    def map_grid(self) -> tuple[int, int]: ...
    @property
    def steps(self) -> int: ...
    @property
    def images(self) -> int: ...
    @property
    def tokens(self) -> int: ...


@dataclass(frozen=True)
class Kept:
    """Cross-, self- and joint attention in these windows and, with `maps`, the layers of word maps in all steps.

    `self_grid`: pixels of the largest self-attention map to keep; None: those of the map grid. `values`: keep the
    values too, for methods that reuse them. Raises ValueError for anything that is not a window.
    """

    cross: Annotated[Span, Option("Window of cross-attention that edits may use.", low=0, high=1)] = 0.8
    self_attention: Annotated[
        Span, Option("Window of self-attention that edits may use.", low=0, high=1)
    ] = 0.4  # fmt: skip
    joint: Annotated[Span, Option("Window of joint attention that edits may use.", low=0, high=1)] = 0.2
    self_grid: Annotated[
        int | None,
        Option("Pixels of the largest self-attention map. [a quarter of the latent's sides]", low=1, group="Advanced"),
    ] = None
    maps: Annotated[bool, Option("Keep what word maps and local blends read.", group="Where")] = True
    values: Annotated[
        bool, Option("Keep the values too, for methods that reuse them.", group="Advanced")
    ] = False  # fmt: skip

    def __post_init__(self) -> None:
        for name in ("cross", "self_attention", "joint"):
            Window.of(getattr(self, name), f"{name} of a recording")

    def __contains__(self, where: tuple[Step, Site, Measures]) -> bool:
        step, site, run = where
        if self.maps and site in run.map_sites:
            return True
        if site.kind == "self" and site.queries > self.largest(run):
            return False
        windows = {"cross": self.cross, "self": self.self_attention, "joint": self.joint}
        return step in Window.of(windows[site.kind])

    def largest(self, run: Measures) -> int:
        """Pixels of the largest self-attention map that is kept."""
        return run.map_grid[0] * run.map_grid[1] if self.self_grid is None else self.self_grid

    def estimate(self, run: Measures, itemsize: int, calls: int = 1) -> int:
        """Bytes that a run of one prompt will keep; keys of cross-attention, equal in all steps, count once."""
        total = 0
        seen: set[str] = set()
        for index in range(run.steps):
            step = Step(index, run.steps, 0, 0)
            for site in run.sites:
                if (step, site, run) not in self:
                    continue
                text = 0 if site.text is None else site.text.stop - site.text.start
                queries = keys = site.queries + text
                if site.kind == "cross":
                    keys = 0 if site.name in seen else run.tokens
                    seen.add(site.name)
                tokens = calls * queries + keys * (1 if site.kind == "cross" else calls)
                tokens += calls * keys if self.values else 0
                total += tokens * site.heads * site.dim * run.images * itemsize
        return total


NOTHING = Kept(0.0, 0.0, 0.0, 0, maps=False)


def everything(run: Measures) -> Kept:
    """Everything: queries, keys and values of all attention layers in all steps."""
    largest = max((site.queries for site in run.sites if site.kind == "self"), default=0)
    return Kept(1.0, 1.0, 1.0, largest, values=True)


def together(parts: Sequence[Kept], run: Measures) -> Kept:
    """The smallest `Kept` that covers all the parts.

    >>> _hull([0.4, (0.2, 0.6), 0.0]), _hull([(0.2, 0.6)])
    (0.6, (0.2, 0.6))
    """
    return Kept(
        _hull([part.cross for part in parts]),
        _hull([part.self_attention for part in parts]),
        _hull([part.joint for part in parts]),
        max((part.largest(run) for part in parts), default=0),
        any(part.maps for part in parts),
        any(part.values for part in parts),
    )


def _hull(spans: Sequence[Span]) -> Span:
    windows = [window for window in map(Window.of, spans) if window.end > window.start]
    if not windows:
        return 0.0
    start, end = min(window.start for window in windows), max(window.end for window in windows)
    return end if start == 0 else (start, end)

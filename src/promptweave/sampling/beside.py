"""What stood beside a run's rows in its forward passes, on which the last bits of its results depend.

Matrix products round differently in batches of another size. A run that stood beside others is computed again, bit for
bit, beside rows of the same number, whatever they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from promptweave.sampling.passes import Request, untouched

NEVER = 2**31  # forward passes: more than a run has
Others = tuple[tuple[int, int], ...]  # of each other run in a pass: its rows, and of how many copies they consist


@dataclass(frozen=True)
class Beside:
    """`times` consecutive forward passes with the same others `before` and `after` a run's rows; `tapped`: whether
    anything acted at the layers, of any of them."""

    times: int
    before: Others = ()
    after: Others = ()
    tapped: bool = False


@dataclass(eq=False)
class Company:
    """The others beside one run: `seen` so far, or `given` for a run that is computed again."""

    given: tuple[Beside, ...] = ()
    seen: list[Beside] = field(default_factory=list[Beside])

    @property
    def kept(self) -> tuple[Beside, ...]:
        """What was seen; empty if the run was alone all the time."""
        return tuple(self.seen) if any(one.before or one.after for one in self.seen) else ()

    def note(self, requests: Sequence[Request], place: int) -> None:
        """Note a forward pass, in which the run's request is the one at `place`."""
        others = [(len(request.z), request.copies) for request in requests]
        tapped = any(request.parts or request.values is not None for request in requests)
        here = Beside(1, tuple(others[:place]), tuple(others[place + 1 :]), tapped)
        if self.seen and replace(self.seen[-1], times=1) == here:
            here = replace(here, times=self.seen.pop().times + 1)
        self.seen.append(here)

    def with_others(self, request: Request) -> tuple[list[Request], int]:
        """The requests of the next forward pass of a run that is computed again, and the place of its own."""
        done = sum(one.times for one in self.seen)
        for one in self.given:
            if done < one.times:
                before, after = (
                    [like(request, *other, one.tapped) for other in side] for side in (one.before, one.after)
                )
                return [*before, request, *after], len(before)
            done -= one.times
        return [request], 0


def like(request: Request, rows: int, copies: int, tapped: bool) -> Request:
    """A request for so many rows, which repeat the first of `request`."""

    def repeated(x: Tensor) -> Tensor:
        return x[:1].expand(rows, *x.shape[1:])

    return replace(
        request,
        z=repeated(request.z),
        context=repeated(request.context),
        values=None if request.values is None else repeated(request.values),
        pooled=None if request.pooled is None else repeated(request.pooled),
        guidance=repeated(request.guidance),
        parts=(untouched(rows),) if tapped else (),
        copies=copies,
    )

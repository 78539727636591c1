"""Prompt-to-Prompt Image Editing with Cross-Attention Control (Hertz et al. 2022, arXiv 2208.01626), section 3.

Row 0 is the source; every other row is a target that starts from the same noise. With P_s and P_t the attention of the
source and of the target, each edit of a cross-attention map is linear in both,

    P_t' = P_s A + P_t diag(D),

with A [source tokens, target tokens] and D [target tokens], so that only values are ever multiplied by A and D
(`core.pattern`). Word swap: A = M, D = 0. Added phrase: A = G, D = 1 - a. A window multiplies A by its alpha and gives
the remaining 1 - alpha to the target's own map. Self-attention, in its window, uses the whole map of the source.

Joint-attention networks (SD3, FLUX) have no separate cross-attention map, and the whole map includes the text's queries
and keys, which would not fit the target's values. There the source's queries and keys of the image replace the target's
in the window `joint`; text and values stay the target's (Shin et al. 2025, arXiv 2508.07519).

Differs from the paper, like the authors' code: if a word is swapped for one of more or fewer tokens, the source's
tokens keep their attention mass (spread evenly, or summed), while the paper duplicates or averages maps; and algorithm
1's separate pass for the target's maps M* is merged into the edited pass, so that an edit reads the target's maps from
layers that are themselves edited. `two_pass=True` is the literal algorithm: M* comes from an unedited pass at the same
latent, in all steps in which anything is edited.

Differs from the authors' code: the tokens after a swapped word shift with its length; an added phrase is aligned by
words, not by tokens; padding is aligned with padding; both windows are fractions of the same number of steps, and their
ends are not cut off as floats (theirs turns 0.58 of 50 into 28); a solver's step is one step however often it calls the
network (theirs counts calls, and PNDM makes one more than steps); weights act on the maps that the controls before
left, in all steps (theirs in the cross window). `reference_compat=True` restores the maps and windows of that code.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from promptweave.core.clock import Span, Step, Window
from promptweave.core.control import Control, Extra, Hooks, NoEffect, Run
from promptweave.core.fields import Option
from promptweave.core.kept import NOTHING, Kept, together
from promptweave.core.pattern import Pattern
from promptweave.core.roles import joint_layers
from promptweave.core.rows import Rows
from promptweave.core.site import Site
from promptweave.core.targets import SOURCE, chosen
from promptweave.methods.joint_injection import JointInjection
from promptweave.methods.published_windows import calls, closed, spans_of, truncated
from promptweave.words import refine_map, refine_matrix, replace_map, word_windows

UNEDITED = "unedited"  # name of the second pass


@dataclass(frozen=True)
class Mix:
    """P_s A + P_t diag(D), of one target at one step; None means zero."""

    from_source: Float[Tensor, "source target"] | None
    own: Float[Tensor, "target"] | None

    def __call__(self, source: Pattern, target: Pattern) -> Pattern:
        if self.from_source is None:
            return target
        moved = source @ self.from_source
        return moved if self.own is None else moved + target * self.own


def mix(
    matrix: Float64[Tensor, "source target"], own: Float64[Tensor, "target"], alpha: Float64[Tensor, "target"]
) -> Mix:
    """(A, D) under the window `alpha`, without what is zero."""
    a, d = matrix * alpha, own * alpha + (1 - alpha)
    if not a.any():
        return Mix(None, None)
    return Mix(a, d if d.any() else None)


@dataclass(frozen=True)
class _Inject(Control):
    """What `Replace` and `Refine` share: the windows, and the targets to edit.

    `cross` and `self_attention`: the steps in which the source's maps are used, as fractions from the noisy end: f for
    (0, f), a pair, or for `cross` a mapping from words of the targets to these, with "default" for other words.
    `self_grid`: pixels of the largest self-attention map that is replaced; None: those of a quarter of the latent's
    sides, 16 x 16 at 512 pixels. `joint`: the window of joint layers, the only one there; `blocks`: their names or
    roles (`core.roles`), None: all. `two_pass`: read the target's own maps from a separate unedited pass, as in the
    paper's algorithm 1, instead of the edited pass. Raises ValueError for parameters that do not fit the run, NoEffect
    for empty windows.
    """

    cross: Annotated[
        Span | Mapping[str, Span],
        Option(
            "Fraction or range of the steps in which the source's cross-attention is used; also word by word.",
            low=0,
            high=1,
            metavar="[WORD=]FRACTION",
        ),
    ] = 0.8
    self_attention: Annotated[
        Span,
        Option(
            "Fraction or range of the steps in which the source's self-attention is used.",
            low=0,
            high=1,
            flag="--self-attention",
            metavar="FRACTION",
        ),
    ] = 0.4
    self_grid: Annotated[
        int | None,
        Option(
            "Pixels of the largest self-attention map that is used. [a quarter of the latent's sides]",
            low=1,
            group="Advanced",
        ),
    ] = None
    targets: tuple[int, ...] | None = None
    reference_compat: Annotated[
        bool, Option("Compute maps and windows as the authors' code does.", group="Advanced")
    ] = False
    joint: Annotated[
        Span,
        Option(
            "Fraction or range of the steps in which joint attention uses the source's image tokens.",
            low=0,
            high=1,
            metavar="FRACTION",
        ),
    ] = 0.2
    blocks: Annotated[
        tuple[str, ...] | None,
        Option(
            "Name or role (masked, global, vital) of joint layers to act in. [all]",
            group="Advanced",
            flag="--block",
            metavar="NAME",
        ),
    ] = None
    two_pass: Annotated[
        bool, Option("Read the target's own maps from a separate, unedited pass (Algorithm 1).", group="Advanced")
    ] = False

    def maps(self, run: Run, row: int) -> tuple[Float64[Tensor, "source target"], Float64[Tensor, "target"]]:
        """A and D of a target before windows, in double precision; `bind` converts them to the run's."""
        raise NotImplementedError

    def bind(self, run: Run) -> Hooks:
        rows = chosen(self.targets, run)
        name = type(self).__name__
        Window.check(self.cross, f"cross of {name}")
        window = Window.of(self.self_attention, f"self_attention of {name}")
        joint = Window.of(self.joint, f"joint of {name}")
        if _joint(run):
            return self._bind_joint(run, rows, joint)
        compat = self.reference_compat
        targets = [run.words[row] for row in rows]
        times = calls(run) if compat else run.steps
        windows = word_windows(targets, self.cross, run.steps, reference_compat=compat, calls=times)
        mixes: list[dict[int, Mix]] = [{} for _ in range(times)]
        for column, row in enumerate(rows):
            matrix, own = self.maps(run, row)
            known: dict[bytes, Mix] = {}
            for time in range(times):
                alpha = windows[time, column]
                key = bytes(alpha.to(torch.float64).numpy())
                if key not in known:
                    made = mix(matrix, own, alpha)
                    known[key] = Mix(
                        *(None if x is None else x.to(run.device, run.dtype) for x in (made.from_source, made.own))
                    )
                mixes[time][row] = known[key]
        limit = run.map_grid[0] * run.map_grid[1] if self.self_grid is None else self.self_grid
        self_times = truncated(window, run.steps) if compat else window.steps(run.steps)
        hooks = _Injection(mixes, self_times, limit, rows, compat, self.two_pass)
        cross_open = any(m.from_source is not None for at in mixes for m in at.values())
        if not cross_open and not self_times:
            raise NoEffect(
                f"{type(self).__name__} needs a cross or a self window that covers at least one of the {run.steps} "
                f"steps. Received cross={self.cross}, self={self.self_attention}. Make one larger, e.g. cross=0.8."
            )
        return hooks

    def reads(self, run: Run) -> Kept:
        if _joint(run):
            return replace(NOTHING, joint=self.joint)
        windows = replace(
            NOTHING, self_attention=self.self_attention, self_grid=Kept(self_grid=self.self_grid).largest(run)
        )
        return together([windows, *(replace(NOTHING, cross=span) for span in spans_of(self.cross))], run)

    def idle(self, run: Run) -> bool:
        spans = [self.joint] if _joint(run) else [self.self_attention, *spans_of(self.cross)]
        return closed(spans, run, self.reference_compat and not _joint(run))

    def unread(self, run: Run) -> Mapping[str, str]:
        if _joint(run):
            missing = "in networks with cross-attention, and this one has joint attention (joint, blocks)"
            return dict.fromkeys(("cross", "self_attention", "self_grid", "reference_compat", "two_pass"), missing)
        missing = "in networks with joint attention, and this one has cross-attention (cross, self_attention)"
        return dict.fromkeys(("joint", "blocks"), missing)

    def _bind_joint(self, run: Run, rows: tuple[int, ...], window: Window) -> Hooks:
        if self.two_pass:
            raise ValueError(
                "two_pass reads the target's own cross-attention maps, and a joint layer has none. Leave it out for "
                "Stable Diffusion 3 and FLUX."
            )
        names = tuple(site.name for site in run.sites if site.kind == "joint")
        wanted = names if self.blocks is None else joint_layers(self.blocks, run, type(self).__name__)
        if not wanted:
            raise NoEffect(f"blocks must name at least one joint layer: {', '.join(names)}. Received none.")
        if not window.steps(run.steps):
            raise NoEffect(
                f"{type(self).__name__} needs a joint window that covers at least one of the {run.steps} steps. "
                f"Received joint={self.joint}. Make it {1 / run.steps:.2g} at least, or raise the number of steps."
            )
        return JointInjection(window, frozenset(wanted), rows)


def _joint(run: Run) -> bool:
    return any(site.kind == "joint" for site in run.sites)


@dataclass
class _Injection(Hooks):
    mixes: list[dict[int, Mix]]  # for each step or, with reference_compat, for each network call
    self_times: range
    self_limit: int
    rows: tuple[int, ...]
    by_call: bool = False
    two_pass: bool = False
    steps: dict[str, set[int]] = field(default_factory=lambda: {"cross": set(), "self": set()})
    sites: dict[str, set[str]] = field(default_factory=lambda: {"cross": set(), "self": set()})

    def state(self, step: Step) -> Hashable:
        time = step.call if self.by_call else step.index
        changes, within = self.mixes[time], time in self.self_times
        if within and self.sites["self"]:
            self.steps["self"].add(step.index)
        if self.sites["cross"] and any(change.from_source is not None for change in changes.values()):
            self.steps["cross"].add(step.index)
        return (within, *((row, id(change)) for row, change in changes.items()))

    def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
        time = step.call if self.by_call else step.index
        if site.kind == "self":
            if time not in self.self_times or site.queries > self.self_limit:
                return rows
            self._note("self", step, site)
            for row in self.rows:
                rows = rows.put("cond", row, pattern=rows["cond"][SOURCE].pattern)
            return rows
        unedited = rows.beside.get(UNEDITED, rows)
        for row, change in self.mixes[time].items():
            if change.from_source is not None:
                self._note("cross", step, site)
            if change.from_source is not None or unedited is not rows:
                old = unedited["cond"][row].pattern
                rows = rows.put("cond", row, pattern=change(rows["cond"][SOURCE].pattern, old))
        return rows

    def extras(self, step: Step) -> Mapping[str, Extra]:
        """The prediction without edits, in the steps in which an edit reads the targets' maps."""
        time = step.call if self.by_call else step.index
        changes = self.mixes[time].values()
        edited = time in self.self_times or any(change.from_source is not None for change in changes)
        reads = edited and any(change.from_source is None or change.own is not None for change in changes)
        return {UNEDITED: Extra(controlled=False)} if self.two_pass and reads else {}

    def _note(self, kind: str, step: Step, site: Site) -> None:
        self.steps[kind].add(step.index)
        self.sites[kind].add(site.name)

    def report(self) -> dict[str, Any]:
        return {
            "cross_steps": len(self.steps["cross"]),
            "cross_sites": len(self.sites["cross"]),
            "self_steps": len(self.steps["self"]),
            "self_sites": len(self.sites["self"]),
        }


@dataclass(frozen=True)
class Replace(_Inject):
    """Word swap: the new word attends where the old one did (section 3.2, "Word Swap")."""

    def maps(self, run: Run, row: int) -> tuple[Float64[Tensor, "source target"], Float64[Tensor, "target"]]:
        matrix = replace_map(run.words[SOURCE], run.words[row], reference_compat=self.reference_compat)
        return matrix, torch.zeros_like(matrix[0])


@dataclass(frozen=True)
class Refine(_Inject):
    """Added phrase: shared words keep the source's maps, new words have their own (section 3.2)."""

    def maps(self, run: Run, row: int) -> tuple[Float64[Tensor, "source target"], Float64[Tensor, "target"]]:
        mapper, kept = refine_map(run.words[SOURCE], run.words[row], reference_compat=self.reference_compat)
        return refine_matrix(mapper, kept), 1 - kept

"""Prompt-to-Prompt Image Editing with Cross-Attention Control (Hertz et al. 2022, arXiv 2208.01626), section 3.

Row 0 is the source; every other row is a target that starts from the same noise. With P_s and P_t the attention of the
source and of the target, each edit of a cross-attention map is linear in both,

    P_t' = P_s A + P_t diag(D),

A [source tokens, target tokens], D [target tokens], so nothing but values is ever multiplied by A and D
(`core.pattern`): word swap has A = M, D = 0; an added phrase has A = G, D = 1 - a; a window scales A by its alpha and
gives the rest, 1 - alpha, back to the target's own map. In its window self-attention takes the source's map whole.

Joint-attention networks (SD3, FLUX) have no cross map of their own, and the whole map holds the text's queries and
keys, which would not fit the target's values. There the source's queries and keys of the image are put in place of the
target's, in the first `joint` of the steps; text and values stay the target's (Shin et al. 2025, arXiv 2508.07519).

Differs from the paper, like the authors' code: where a word is swapped for one of more or fewer tokens, each token of
the source keeps its attention mass (spread evenly, or summed), while the paper speaks of maps that are duplicated or
averaged; and algorithm 1's pass of its own for the target's maps M* is merged into the edited pass, so that what an
edit reads of the target comes from layers that are themselves edited. `two_pass=True` is the literal algorithm: M* of
a pass that nobody edits, at the same latent, put into the edited pass in all steps in which anything is edited.

Differs from the authors' code: the tail of a prompt is shifted along with its words; an added phrase is aligned by
words, not by tokens; padding is aligned with padding; both windows are fractions of the same number of steps, and a
window's end is rounded as written (theirs cuts 0.58 of 50 to 28); a step of a solver that calls the network twice is
one step (theirs counts calls, and PNDM makes one more than steps); weights act on what the controls before them left,
in all steps (theirs in the cross window). With `reference_compat=True` the maps and windows are those of that code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from promptweave.core.clock import Span, Step, Window
from promptweave.core.control import Control, Extra, Hooks, NoEffect, Run
from promptweave.core.fields import Option
from promptweave.core.pattern import Pattern
from promptweave.core.rows import Rows
from promptweave.core.site import Site
from promptweave.core.targets import SOURCE, chosen
from promptweave.methods.published_windows import calls, truncated
from promptweave.words import refine_map, refine_matrix, replace_map, word_windows

UNEDITED = "unedited"  # the name of a second pass


@dataclass(frozen=True)
class Mix:
    """P_s A + P_t diag(D) of one target at one step; None stands for zero."""

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
    """Apply the window `alpha` to (A, D) and drop what is zero."""
    a, d = matrix * alpha, own * alpha + (1 - alpha)
    if not a.any():
        return Mix(None, None)
    return Mix(a, d if d.any() else None)


@dataclass(frozen=True)
class _Inject(Control):
    """What `Replace` and `Refine` share: the windows, and who is edited.

    `cross` and `self_attention` are the share of the steps, counted from the noisy end, in which the source's maps are
    used: a number f for (0, f), a pair, or for `cross` a mapping from words of the targets to either, with "default".
    `self_grid` is the number of pixels of the largest self-attention map that is taken over; None: those of the
    latent's quarter size, 16 x 16 at 512 pixels. `joint` is the window of joint layers, which heed no other; `blocks`
    names those to use, None: all. `two_pass`: the target's own maps that an edit reads are those of a pass of its own
    that nobody edits, as in the paper's algorithm 1; else, as in the authors' code, those of the edited pass itself.
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
            flag="--self",
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
    reference_compat: Annotated[bool, Option("Maps and windows of the authors' code.", group="Advanced")] = False
    joint: Annotated[
        Span,
        Option(
            "Fraction or range of the steps in which the source's image tokens are used, in joint attention.",
            low=0,
            high=1,
            metavar="FRACTION",
        ),
    ] = 0.2
    blocks: Annotated[
        tuple[str, ...] | None,
        Option(
            "Name of a joint-attention layer to act in. [all]",
            group="Advanced",
            flag="--block",
            metavar="NAME",
        ),
    ] = None
    two_pass: Annotated[
        bool, Option("Read the target's own maps in a pass that nobody edits (Algorithm 1).", group="Advanced")
    ] = False

    def maps(self, run: Run, row: int) -> tuple[Float64[Tensor, "source target"], Float64[Tensor, "target"]]:
        """A and D of a target, before windows; in double precision, which `bind` brings to the run's."""
        raise NotImplementedError

    def bind(self, run: Run) -> Hooks:
        rows = chosen(self.targets, run)
        name = type(self).__name__
        Window.check(self.cross, f"cross of {name}")
        window = Window.of(self.self_attention, f"self_attention of {name}")
        joint = Window.of(self.joint, f"joint of {name}")
        if any(site.kind == "joint" for site in run.sites):
            return self._bind_joint(run, rows, joint)
        compat = self.reference_compat
        targets = [run.words[row] for row in rows]
        times = calls(run) if compat else run.steps
        windows = word_windows(targets, self.cross, run.steps, reference_compat=compat, calls=times)
        mixes: list[dict[int, Mix]] = [{} for _ in range(times)]
        for column, row in enumerate(rows):
            matrix, own = self.maps(run, row)
            known: dict[tuple[float, ...], Mix] = {}
            for time in range(times):
                alpha = windows[time, column]
                key = tuple(map(float, alpha))
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
                f"{type(self).__name__} needs a cross or a self window that holds one of the {run.steps} steps. "
                f"Received cross={self.cross}, self={self.self_attention}. Give one a larger share, cross=0.8 say."
            )
        return hooks

    def _bind_joint(self, run: Run, rows: tuple[int, ...], window: Window) -> Hooks:
        if self.two_pass:
            raise ValueError(
                "two_pass reads the target's own cross-attention maps, and a joint layer has none. Leave it out with "
                "Stable Diffusion 3 and FLUX."
            )
        names = {site.name for site in run.sites if site.kind == "joint"}
        wanted = names if self.blocks is None else set(self.blocks)
        if not wanted or not wanted <= names:
            raise ValueError(
                f"blocks must name joint layers of the model: {', '.join(sorted(names))}. Received {self.blocks}."
            )
        if not window.steps(run.steps):
            raise NoEffect(
                f"{type(self).__name__} needs a joint window that holds one of the {run.steps} steps. "
                f"Received joint={self.joint}. Give it a share of {1 / run.steps:.2g} at least, or take more steps."
            )
        return _Joint(window, frozenset(wanted), rows)


@dataclass
class _Joint(Hooks):
    window: Window
    names: frozenset[str]
    rows: tuple[int, ...]
    steps: set[int] = field(default_factory=set[int])
    sites: set[str] = field(default_factory=set[str])

    def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
        if site.name not in self.names or step not in self.window:
            return rows
        self.steps.add(step.index)
        self.sites.add(site.name)
        source = rows["cond"][SOURCE]
        for row in self.rows:
            own = rows["cond"][row]
            q, k = site.with_image(own.q, site.of_image(source.q)), site.with_image(own.k, site.of_image(source.k))
            rows = rows.put("cond", row, q=q, k=k)
        return rows

    def report(self) -> dict[str, Any]:
        return {"joint_steps": len(self.steps), "joint_sites": len(self.sites)}


@dataclass
class _Injection(Hooks):
    mixes: list[dict[int, Mix]]  # of each step, or in compatibility of each network call
    self_times: range
    self_limit: int
    rows: tuple[int, ...]
    by_call: bool = False
    two_pass: bool = False
    steps: dict[str, set[int]] = field(default_factory=lambda: {"cross": set(), "self": set()})
    sites: dict[str, set[str]] = field(default_factory=lambda: {"cross": set(), "self": set()})

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
        """The targets without any edit, in the steps in which an edit reads their maps."""
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
    """Adding a phrase: shared words keep the source's maps, new words have their own ("Adding a New Phrase")."""

    def maps(self, run: Run, row: int) -> tuple[Float64[Tensor, "source target"], Float64[Tensor, "target"]]:
        mapper, kept = refine_map(run.words[SOURCE], run.words[row], reference_compat=self.reference_compat)
        return refine_matrix(mapper, kept), 1 - kept
